"""The page for Prometheus, by HTTP: in threads of its own, so nobody who scrapes it is waited for.

Only the figures are taken in the loop's thread, between two requests. The threads wait for connections beforehand: to begin one
takes several turns of the interpreter's lock, for each of which a busy mount lets it wait. Invariants: the address is taken
before anything is mounted, so what is wrong with it is told at once; no more than SCRAPES_MAX are answered at a time, each within
PATIENCE_S, and who comes beside them waits in line.
"""

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import trio
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest

from razortools.service.exposition import Exposition
from razortools.service.figures import MountFigures
from razortools.service.mountpoints import MountRefused
from razortools.service.options import Address

SCRAPES_MAX = 4
PATIENCE_S = 5.0
FAREWELL_S = 0.5  # for scrapes under way when the mount ends


class _Handler(WSGIRequestHandler):
    """Answers one connection, quietly."""

    timeout = PATIENCE_S

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a scrape every few seconds is no news."""


class _Server(WSGIServer):
    """Answers one after the other in each thread that calls answer_next()."""

    def __init__(self, address: Address) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        super().__init__((address.host, address.port), _Handler)

    def server_bind(self) -> None:
        """Bind, without asking anybody for the name of the address, which may take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        host, self.server_port, *_ = self.server_address = self.socket.getsockname()
        self.server_name = str(host)
        self.setup_environ()

    def answer_next(self) -> None:
        """Wait for a connection, and answer it. Raises OSError once the socket is shut."""
        request, client_address = self.get_request()
        with suppress(Exception):  # who has hung up, or was too slow
            self.finish_request(request, client_address)
        self.shutdown_request(request)


class Scrape:
    """The server of one mount's page."""

    def __init__(self, address: Address) -> None:
        """Take the address. Raises MountRefused if it cannot be had."""
        try:
            self._server = _Server(address)
        except (OSError, OverflowError) as refused:
            advice = "; choose another port" if isinstance(refused, OSError) and refused.errno == errno.EADDRINUSE else ""
            why = refused.strerror if isinstance(refused, OSError) and refused.strerror else str(refused)
            raise MountRefused(f"option metrics: {address}: cannot be listened at: {why}{advice}") from None
        self.address = Address(address.host, self._server.server_port)
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    def start(self, take: Callable[[], MountFigures]) -> None:
        """Answer from now on with what *take* tells, called in this thread. In a trio task."""
        token = trio.lowlevel.current_trio_token()
        registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        exposition = Exposition()

        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            try:
                figures = trio.from_thread.run_sync(take, trio_token=token)
            except (trio.RunFinishedError, trio.Cancelled):
                start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
                return [b"it is being unmounted\n"]
            start_response("200 OK", [("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)])
            return [exposition.page(figures).encode() + generate_latest(registry)]

        self._server.set_app(app)
        self._threads = [threading.Thread(target=self._serve, name="metrics", daemon=True) for _ in range(SCRAPES_MAX)]
        for thread in self._threads:
            thread.start()

    def _serve(self) -> None:
        """Answer until closed. Not serve_forever(): that looks twice a second whether it is to end, and unmounting would wait."""
        while not self._is_closed:
            with suppress(OSError):  # it is closed, or who called has hung up already
                self._server.answer_next()

    def close(self) -> None:
        """Stop answering, and give the address back."""
        self._is_closed = True
        if self._threads:
            self._server.socket.shutdown(socket.SHUT_RDWR)  # who waits for a connection is woken
            end_s = time.monotonic() + FAREWELL_S
            for thread in self._threads:  # who reads his page slowly is not waited for
                thread.join(max(end_s - time.monotonic(), 0))
        self._server.server_close()
