"""The page for Prometheus, by HTTP: in the loop, between two requests of the kernel.

A thread would have to wait for the interpreter's lock after each system call, half a millisecond each time while requests are
served, and a connection takes a dozen of them. The page itself is quick, for it is kept (service/exposition.py); and sockets are
used as they are, for trio's let others have a turn after each call. What HTTP is, h11 knows. Invariants: the address is taken
before anything is mounted, so what is wrong with it is told at once; no more than SCRAPES_MAX connections on which something was
said are open at a time, each for PATIENCE_S, and who comes beside them waits in line; whatever is sent, the mount lives on.
"""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import h11
import trio
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest

from razortools.service.exposition import Exposition
from razortools.service.figures import MountFigures
from razortools.service.handlers import name_of
from razortools.service.logs import log
from razortools.service.mountpoints import MountRefused
from razortools.service.options import Address
from razortools.service.wire import Opcode

SCRAPES_MAX = 16
PATIENCE_S = 5.0
RECEIVED_BYTES = 4096
REQUEST_BYTES_MAX = 16_384
ACCEPT_AGAIN_S = 0.1  # when the host has no descriptor to spare
PATHS = (b"/metrics", b"/")
PLAIN = "text/plain; charset=utf-8"
Take = Callable[[], MountFigures]


class Scrape:
    """The server of one mount's page."""

    def __init__(self, address: Address) -> None:
        """Take the address. Raises MountRefused if it cannot be had."""
        try:
            self._socket = _listening(address)
        except (OSError, OverflowError) as refused:
            advice = "; choose another port" if isinstance(refused, OSError) and refused.errno == errno.EADDRINUSE else ""
            why = refused.strerror if isinstance(refused, OSError) and refused.strerror else str(refused)
            raise MountRefused(f"option metrics: {address}: cannot be listened at: {why}{advice}") from None
        self.address = Address(address.host, self._socket.getsockname()[1])
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._exposition = Exposition()

    async def serve(self, take: Take) -> None:
        """Answer with what *take* tells, until cancelled."""
        with _lived_through():
            self._exposition.prepare(take(), map(name_of, Opcode))  # before anybody waits for it
        slots = trio.Semaphore(SCRAPES_MAX)
        async with trio.open_nursery() as nursery:
            while True:
                await slots.acquire()
                try:
                    connection = await _accepted(self._socket)
                except OSError as refused:  # who called has hung up already, or the host is short of descriptors
                    log.debug("a scrape cannot be accepted: %s", refused)
                    slots.release()
                    await trio.sleep(ACCEPT_AGAIN_S)
                    continue
                nursery.start_soon(self._converse, connection, take, slots)

    async def _converse(self, connection: socket.socket, take: Take, slots: trio.Semaphore) -> None:
        """Answer one request, and hang up."""
        try:
            with _lived_through(), trio.move_on_after(PATIENCE_S):
                await self._answer(connection, take)
        finally:
            connection.close()
            slots.release()

    async def _answer(self, connection: socket.socket, take: Take) -> None:
        """Answer the request that comes on *connection*. Raises OSError, RemoteProtocolError."""
        spoken = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_BYTES_MAX)
        try:
            request = await _request(spoken, connection)
        except h11.RemoteProtocolError as wrong:
            if spoken.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await _send(connection, _reply(spoken, wrong.error_status_hint, PLAIN, b"this is no request for a page\n"))
            raise
        if request is None:
            return
        if request.method not in (b"GET", b"HEAD"):
            reply = _reply(spoken, 405, PLAIN, b"there is nothing but GET\n")
        elif request.target.partition(b"?")[0] not in PATHS:
            reply = _reply(spoken, 404, PLAIN, b"the metrics are at /metrics\n")
        else:
            reply = _reply(spoken, 200, CONTENT_TYPE_PLAIN_0_0_4, self._page(take), is_head=request.method == b"HEAD")
        await _send(connection, reply)

    def _page(self, take: Take) -> bytes:
        return self._exposition.page(take()).encode() + generate_latest(self._registry)

    def close(self) -> None:
        """Give the address back. After trio has ended, or instead of serving."""
        self._socket.close()


@contextmanager
def _lived_through() -> Iterator[None]:
    """Return a context whose failures are logged: a page is not worth a mount."""
    try:
        yield
    except (OSError, h11.RemoteProtocolError) as failed:  # who asks has hung up, or speaks another language
        log.debug("a scrape ends: %s", failed)
    except Exception as failed:
        log.warning("the page of metrics cannot be made: %s: %s", type(failed).__name__, failed)


def _listening(address: Address) -> socket.socket:
    """Return a socket that listens at *address*. Raises OSError, OverflowError."""
    family, kind, protocol, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(PATIENCE_S))  # until it has said something
        made.bind(where)
        made.listen()
    except BaseException:
        made.close()
        raise
    return made


async def _accepted(listener: socket.socket) -> socket.socket:
    """Return the next connection. Raises OSError if it cannot be had."""
    while True:
        await trio.lowlevel.wait_readable(listener)
        with suppress(BlockingIOError):
            connection, _ = listener.accept()
            connection.setblocking(False)
            return connection


async def _request(spoken: h11.Connection, connection: socket.socket) -> h11.Request | None:
    """Return what is asked for; None if it has gone. Raises OSError, RemoteProtocolError."""
    while True:
        event = spoken.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        try:
            spoken.receive_data(connection.recv(RECEIVED_BYTES))
        except BlockingIOError:
            await trio.lowlevel.wait_readable(connection)


async def _send(connection: socket.socket, reply: bytes) -> None:
    """Send all of it. Raises OSError."""
    left = memoryview(reply)
    while left:
        try:
            left = left[connection.send(left) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(connection)


def _reply(spoken: h11.Connection, status: int, kind: str, body: bytes, *, is_head: bool = False) -> bytes:
    """Return a whole response."""
    headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Connection", "close")]
    parts = [spoken.send(h11.Response(status_code=status, headers=headers))]
    if not is_head:
        parts.append(spoken.send(h11.Data(data=body)))
    parts.append(spoken.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part is not None)
