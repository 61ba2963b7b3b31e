"""Endpoints: at which socket the daemon of a mount is found, and who is taken for it.

It is an abstract socket named for the mount's device number, which every process can find in mountinfo without asking the mount.
Anybody may have taken that name before, so a daemon that finds a stranger there takes a longer one that nobody can foresee; the
kernel lists them all. Invariants: a client talks to nobody but root, itself, or who has mounted it (the kernel tells who
listens); whatever strangers listen at, and whether they answer or not, who is to be believed is found.
"""

import errno
import os
import re
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from razortools.engine.store.mounts import mounts

Device = tuple[int, int]  # a mount's device number: major, minor

SOCKETS = Path("/proc/net/unix")
LISTENS = "00010000"  # the flags there: __SO_ACCEPTCON
ANYWHERE_BYTES = 8  # of a name that nobody can foresee
QUEUE = 1024  # who waits for the address looks again and again who has it
BUSY_S = 2.0  # how long is tried to get through to who is too busy to take a call
AGAIN_S = 0.02
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Stranger(OSError):
    """Who listens speaks for nobody but himself."""


def address(device: Device) -> str:
    """Return the socket's usual address for the mount with this device number."""
    return f"\0razorfs/{device[0]}:{device[1]}"


def peer(connection: socket.socket) -> tuple[int, int]:
    """Return (pid, user) at the other end: who has connected, or who listens."""
    pid, user, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, user


def listener(device: Device) -> socket.socket:
    """Return a socket that listens for clients of the mount *device*.

    Raises OSError: EADDRINUSE if the daemon of an earlier mount with that number has not gone yet.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        try:
            made.bind(address(device))
        except OSError as taken:
            if taken.errno != errno.EADDRINUSE or not _is_a_strangers(device):
                raise
            made.bind(f"{address(device)}/{secrets.token_hex(ANYWHERE_BYTES)}")
        made.listen(QUEUE)
    except OSError:
        made.close()
        raise
    return made


def connect(device: Device) -> tuple[socket.socket, int, int]:
    """Return a connection to the daemon of the mount *device*, its pid and its user.

    Raises OSError if there is none: Stranger if only others listen, TimeoutError if somebody takes no calls for BUSY_S.
    """
    until = time.monotonic() + BUSY_S
    while True:
        why = OSError(errno.ECONNREFUSED, "nobody listens")
        is_busy = False
        for name in _addresses(device):
            try:
                return _connected(name, device)
            except BlockingIOError:
                is_busy = True
            except Stranger as other:
                why = other
            except OSError:  # it has gone
                continue
        if not is_busy:
            raise why
        if time.monotonic() >= until:
            raise TimeoutError("it takes no calls")
        time.sleep(AGAIN_S)


def _connected(name: str, device: Device) -> tuple[socket.socket, int, int]:
    """Return a connection to who listens at *name*, with pid and user. Raises Stranger; BlockingIOError if it is too busy."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        connection.connect(name)
        pid, user = peer(connection)
        if not _is_believed(user, device):
            raise Stranger(f"user {user} listens there, who has not mounted it")
    except OSError:
        connection.close()
        raise
    connection.setblocking(True)
    return connection, pid, user


def _is_believed(user: int, device: Device) -> bool:
    """Whether a user speaks for the mount *device*: root, who asks, or who has mounted it."""
    is_own = user in (0, os.geteuid())
    return is_own or any(f"user_id={user}" in mount.shared_options for mount in mounts() if mount.device == device)


def _is_a_strangers(device: Device) -> bool:
    """Whether the usual address is not an earlier daemon's: those who have it let nobody in, or are not to be believed."""
    try:
        connection, *_ = _connected(address(device), device)
    except OSError as failed:
        return isinstance(failed, Stranger | BlockingIOError | ConnectionRefusedError)
    connection.close()
    return False


def _addresses(device: Device) -> Iterator[str]:
    """Yield where the daemon of the mount *device* may listen: at the usual address, or at a longer one."""
    yield address(device)
    longer = rf"^\S+: \S+ \S+ {LISTENS} .*@({re.escape(address(device)[1:])}/[0-9a-f]{{{2 * ANYWHERE_BYTES}}})$"
    with suppress(OSError):
        for name in re.findall(longer, SOCKETS.read_text(encoding="utf-8", errors="replace"), re.MULTILINE):
            yield f"\0{name}"
