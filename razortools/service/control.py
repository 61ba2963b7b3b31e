"""The control socket: lets umount.razorfs wait until the image is closed, and razorfs-health learn whether it is well.

The daemon listens on an abstract socket named for the mount's device number, which every process can find in mountinfo without
asking the mount. A client gets one JSON line at once (who serves what, and how it is now) and one when the image is closed; if
the connection ends without the second line, the daemon died.
"""

import errno
import json
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass

import trio

from razortools.service.logs import log

CLIENTS_MAX = 64
ADDRESS_GRACE_S = 5.0  # for a daemon that has closed its image and is about to be gone; device numbers are used again at once
ADDRESS_LOOK_S = 0.02
LINE_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who serves the mount, and how it is at this moment."""

    pid: int
    image: str
    mount_point: str
    read_only: bool = False
    failure: str = ""  # why it has turned read-only by itself
    held_inodes: int = 0  # that the kernel knows
    requests: int = 0  # that it has sent since it was mounted


@dataclass(frozen=True, slots=True)
class Farewell:
    """How the image was closed; no reason: well."""

    reason: str = ""


def address(device: tuple[int, int]) -> str:
    """Return the socket's address for the mount with this (major, minor) device number."""
    return f"\0razorfs/{device[0]}:{device[1]}"


class Control:
    """The daemon's end."""

    def __init__(self, device: tuple[int, int], greeting: Callable[[], Greeting]) -> None:
        """Listen; each client is told what *greeting* returns then. Raises OSError if the address is taken."""
        self._greeting = greeting
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._clients: list[socket.socket] = []
        try:
            self._listener.bind(address(device))
            self._listener.listen()
        except OSError:
            self._listener.close()
            raise

    async def serve(self) -> None:
        """Greet clients until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._listener)
            self._accept()

    def _accept(self) -> None:
        """Greet everybody who is waiting."""
        while True:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            self._clients = [other for other in self._clients if not _has_left(other)]
            if len(self._clients) >= CLIENTS_MAX or not _send(client, _line(self._greeting())):
                client.close()
            else:
                self._clients.append(client)

    def finish(self, farewell: Farewell) -> None:
        """Tell all clients how the image was closed, and stop listening. Called after trio has ended."""
        self._accept()
        for client in self._clients:
            _send(client, _line(farewell))
            client.close()
        self._listener.close()


async def listen(device: tuple[int, int], greeting: Callable[[], Greeting]) -> Control:
    """Return a Control; waits for the daemon of an earlier mount with the same number. Raises OSError if it does not go."""
    with trio.move_on_after(ADDRESS_GRACE_S):
        while True:
            try:
                return Control(device, greeting)
            except OSError as taken:
                if taken.errno != errno.EADDRINUSE:
                    raise
            await trio.sleep(ADDRESS_LOOK_S)
    return Control(device, greeting)


class Waiter:
    """A client's end: connected to the daemon that serves a mount."""

    def __init__(self, device: tuple[int, int], patience_s: float | None = None) -> None:
        """Connect. Raises OSError if no daemon of ours serves the mount, or none answers within *patience_s* (None: waits)."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(patience_s)
        try:
            self._socket.connect(address(device))
            self._reader = self._socket.makefile("rb")
            self.greeting = Greeting(**json.loads(self._reader.readline(LINE_BYTES_MAX)))
            self._socket.settimeout(None)
        except (OSError, ValueError, TypeError) as failed:
            self._socket.close()
            raise OSError(f"no daemon of razorfs answers: {failed}") from None

    def wait(self) -> Farewell | None:
        """Return when the image is closed; None if the daemon died instead."""
        line = self._reader.readline(LINE_BYTES_MAX)
        return Farewell(**json.loads(line)) if line else None

    def close(self) -> None:
        """Hang up."""
        self._reader.close()
        self._socket.close()


def _line(value: Greeting | Farewell) -> bytes:
    return json.dumps(asdict(value)).encode() + b"\n"


def _send(client: socket.socket, line: bytes) -> bool:
    """Send one line, which always fits the socket's buffer; whether the client is still there."""
    try:
        client.sendall(line)
    except OSError as failed:
        log.debug("a client of the control socket went away: %s", failed)
        return False
    return True


def _has_left(client: socket.socket) -> bool:
    """Whether a client has hung up."""
    try:
        gone = client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        gone = True
    if gone:
        client.close()
    return gone
