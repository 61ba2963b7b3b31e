"""The page for Prometheus, by HTTP: in threads of its own, so nobody who scrapes it is waited for.

Only the figures are taken in the loop's thread, between two requests. Invariants: the address is taken before anything is
mounted, so what is wrong with it is told at once; no more than SCRAPES_MAX are answered at a time, each within PATIENCE_S.
"""

import errno
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import trio
from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app

from razortools.service.figures import MountFigures
from razortools.service.metrics import MountCollector
from razortools.service.mountpoints import MountRefused
from razortools.service.options import Address

SCRAPES_MAX = 4
PATIENCE_S = 5.0


class _Handler(WSGIRequestHandler):
    """Answers one connection, quietly."""

    timeout = PATIENCE_S

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a scrape every few seconds is no news."""


class _Server(ThreadingMixIn, WSGIServer):
    """Answers some at a time, and hangs up on those who are too many."""

    daemon_threads = True

    def __init__(self, address: Address) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._slots = threading.BoundedSemaphore(SCRAPES_MAX)
        super().__init__((address.host, address.port), _Handler)

    def server_bind(self) -> None:
        """Bind, without asking anybody for the name of the address, which may take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        host, self.server_port, *_ = self.server_address = self.socket.getsockname()
        self.server_name = str(host)
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if one is free."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, in the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over who has hung up, or was too slow."""


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
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def start(self, take: Callable[[], MountFigures]) -> None:
        """Answer from now on with what *take* tells, called in this thread. In a trio task."""
        token = trio.lowlevel.current_trio_token()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(MountCollector(lambda: [trio.from_thread.run_sync(take, trio_token=token)]))
        ProcessCollector(registry=registry)
        answer = make_wsgi_app(registry)

        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            try:
                body: Iterable[bytes] = answer(environ, start_response)
            except (trio.RunFinishedError, trio.Cancelled):
                start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
                body = [b"it is being unmounted\n"]
            return body

        self._server.set_app(app)
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        """Answer until closed. Not serve_forever(): that looks twice a second whether it is to end, and unmounting would wait."""
        while not self._is_closed:
            self._server.handle_request()

    def close(self) -> None:
        """Stop answering, and give the address back."""
        self._is_closed = True
        if self._thread is not None:
            self._server.socket.shutdown(socket.SHUT_RDWR)  # who waits for a connection is woken
            self._thread.join()
        self._server.server_close()
