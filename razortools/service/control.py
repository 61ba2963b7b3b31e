"""The control socket: lets umount.razorfs wait until the image is closed, mount.razorfs remount, razorfs-health see how it is.

The daemon listens where endpoints.py says. A client gets one JSON line at once (who serves what, and how it is now) and one when
the image is closed; if the connection ends without the second line, the daemon died. In between it may ask for something: JSON
lines in turn, the first one a request, which only root and the daemon's own user may make.
"""

import errno
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import trio

from razortools.engine.store.belief import believed_users
from razortools.engine.store.device import holds_lock
from razortools.engine.store.mounts import mounts
from razortools.service import endpoints
from razortools.service.logs import log

STRANGERS_MAX = 64  # that are connected at once; root, and the user whose daemon this is, always get in
ACCEPT_AGAIN_S = 0.02
ACCEPTED_MAX = 256  # in a row, before requests get their turn; more than can wait
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
    """How the mount ended; no reason: everything is durable, and the image closed cleanly."""

    reason: str = ""  # goes on after "unmounted, but"


Told = TypeVar("Told", Greeting, Farewell)


class Client:
    """The daemon's end of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        """Talk to whoever is at the other end of *connection*."""
        connection.setblocking(False)
        self.connection = connection
        self._unread = b""
        self._is_gone = False
        self.may_ask = endpoints.peer(connection)[1] in (0, os.geteuid())  # root, or whose daemon this is; everybody can connect

    async def receive(self) -> dict[str, object] | None:
        """Return the next thing it says; None if it has gone, or speaks another language."""
        await trio.lowlevel.checkpoint()  # it may have said much at once, and others have requests
        while b"\n" not in self._unread and not self._is_gone:
            await trio.lowlevel.wait_readable(self.connection)
            try:
                more = self.connection.recv(LINE_BYTES_MAX)
            except BlockingIOError:
                continue
            except OSError:
                return None
            self._unread += more
            if not more or len(self._unread) > LINE_BYTES_MAX:
                return None
        if self._is_gone:
            return None
        line, _, self._unread = self._unread.partition(b"\n")
        return _document(line) if self.may_ask else {}  # a stranger gets the same answer whatever he says

    def answer(self, refusal: str) -> None:
        """Say that what was asked for is done, or with *refusal* why not."""
        self.tell(json.dumps({"refusal": refusal}).encode() + b"\n")

    def hand(self, document: Mapping[str, object]) -> None:
        """Say what was asked for."""
        self.tell(json.dumps(document).encode() + b"\n")

    def tell(self, line: bytes) -> bool:
        """Say one line, which fits a listener's buffer; whether it is there still. Hangs up if not, or if it never reads."""
        if not self._is_gone:
            try:
                self._is_gone = self.connection.send(line) < len(line)
            except OSError as failed:  # BlockingIOError among others
                log.debug("a client of the control socket is hung up: %s", failed)
                self._is_gone = True
            if self._is_gone:
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
        return not self._is_gone


Answering = Callable[[dict[str, object], Client], Awaitable[None]]


async def _refuse(request: dict[str, object], client: Client) -> None:
    client.answer("this mount takes no requests")


class Control:
    """The daemon's end."""

    def __init__(self, device: tuple[int, int], greeting: Callable[[], Greeting], answering: Answering = _refuse) -> None:
        """Listen; each client is told what *greeting* returns then, and *answering* deals with what it asks.

        Raises OSError if an earlier daemon has the address.
        """
        self._greeting = greeting
        self._answering = answering
        self._listener = endpoints.listener(device)
        self._clients: list[Client] = []

    async def serve(self) -> None:
        """Greet clients, and answer what they ask, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(self._listener)
                accepted = self._accept()
                for client in accepted:
                    nursery.start_soon(self._talk, client)
                if not accepted:  # who is refused, and tries again and again, is not to keep us busy
                    await trio.sleep(ACCEPT_AGAIN_S)

    async def _talk(self, client: Client) -> None:
        """Answer a client's requests until it goes. Whatever it says, and whatever that leads to, the mount goes on."""
        try:
            await self._converse(client)
        except Exception:
            log.exception("a client of the control socket is hung up; a bug in razortools")
        if client in self._clients:  # who is here still when the mount ends gets a farewell
            self._clients.remove(client)
        client.connection.close()

    async def _converse(self, client: Client) -> None:
        """Return when the client has gone."""
        while (request := await client.receive()) is not None:
            if client.may_ask:
                await self._answering(request, client)
            else:
                client.answer("only root, or who has mounted it, may ask for this")

    def _accept(self) -> list[Client]:
        """Greet everybody who is waiting; return those who are there to stay."""
        accepted: list[Client] = []
        stranger_count = sum(not client.may_ask for client in self._clients)
        for _ in range(ACCEPTED_MAX):
            try:
                client = Client(self._listener.accept()[0])
            except BlockingIOError:
                break
            except OSError as refused:  # the host has no descriptor to spare; they wait
                log.debug("a client of the control socket cannot be accepted: %s", refused)
                break
            is_one_too_many = not client.may_ask and stranger_count >= STRANGERS_MAX
            if is_one_too_many or not client.tell(_line(self._greeting())):
                client.connection.close()
            else:
                self._clients.append(client)
                accepted.append(client)
                stranger_count += not client.may_ask
        return accepted

    def stop_listening(self) -> None:
        """Greet who is waiting, and nobody any more. The mount is gone: another one may get its number, and needs the address."""
        if self._listener.fileno() >= 0:
            self._accept()
            self._listener.close()

    def finish(self, farewell: Farewell) -> None:
        """Tell all clients how the image was closed. Called after trio has ended."""
        self.stop_listening()
        for client in self._clients:
            client.tell(_line(farewell))
            client.connection.close()


async def listen(device: tuple[int, int], greeting: Callable[[], Greeting], answering: Answering = _refuse) -> Control:
    """Return a Control; waits for the daemon of an earlier mount with the same number. Raises OSError if it does not go."""
    with trio.move_on_after(ADDRESS_GRACE_S):
        while True:
            try:
                return Control(device, greeting, answering)
            except OSError as taken:
                if taken.errno != errno.EADDRINUSE:
                    raise
            await trio.sleep(ADDRESS_LOOK_S)
    return Control(device, greeting, answering)


class Waiter:
    """A client's end: connected to the daemon that serves a mount."""

    def __init__(self, device: tuple[int, int], patience_s: float | None = None) -> None:
        """Connect. Raises OSError if no daemon of ours serves the mount: TimeoutError if one does, silently (None: waits)."""
        self._unread = b""
        self._patience_s = patience_s
        try:
            self._socket, self.pid, self._user = endpoints.connect(device)
        except OSError as failed:
            raise _no_answer(failed) from None
        self._socket.settimeout(patience_s)
        try:
            self.greeting = _told(Greeting, self._line())
            self._socket.settimeout(None)
        except (OSError, ValueError) as failed:
            self._socket.close()
            raise _no_answer(failed) from None

    def serves(self, image: str) -> bool:
        """Return whether it serves *image*, an absolute path; others may say so of their own mounts, and are not believed."""
        return self.greeting.image == image and (self._user in believed_users(image) or holds_lock(image, self.pid))

    def ask(self, request: dict[str, object]) -> str | None:
        """Ask for something; return why not, empty if it is done, None if the daemon has ended instead."""
        answer = self.converse(request, None)
        return str(answer["refusal"]) if "refusal" in answer else None

    def converse(self, said: dict[str, object], patience_s: float | None) -> dict[str, Any]:
        """Say something and return the answer; empty if the daemon has ended, or gives none within *patience_s* (None: waits)."""
        self._socket.settimeout(patience_s)
        try:
            self._socket.sendall(json.dumps(said).encode() + b"\n")
            return _document(self._line()) or {}
        except OSError:
            return {}
        finally:
            self._socket.settimeout(None)

    def fetch(self, what: str) -> dict[str, Any] | None:
        """Ask for a document; None if the daemon does not give it, is silent for too long, or has ended instead."""
        answer = self.converse({what: True}, self._patience_s).get(what)
        return answer if isinstance(answer, dict) else None

    def wait(self, patience_s: float | None = None) -> Farewell | None:
        """Return when the image is closed; None if the daemon died instead. Raises TimeoutError after *patience_s*; ask again."""
        self._socket.settimeout(patience_s)
        line = self._line()
        try:
            return _told(Farewell, line) if line else None
        except ValueError:
            return None

    def _line(self) -> bytes:
        """Return what the daemon says next; empty if it has hung up. Raises OSError, TimeoutError among others."""
        while b"\n" not in self._unread and len(self._unread) < LINE_BYTES_MAX:
            more = self._socket.recv(LINE_BYTES_MAX)
            if not more:
                return b""
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def waiter_for(image: str, patience_s: float) -> Waiter | None:
    """Return a connection to the daemon that has *image*, an absolute path, mounted in this namespace.

    None if there is none, or it does not answer within *patience_s*.
    """
    for mount in mounts():
        if mount.is_fuse:
            with suppress(OSError):
                waiter = Waiter(mount.device, patience_s)
                if waiter.serves(image):
                    return waiter
                waiter.close()
    return None


def _no_answer(failed: OSError | ValueError) -> OSError:
    """Return what is raised if no daemon of ours answers: TimeoutError if one is only silent."""
    kind = TimeoutError if isinstance(failed, TimeoutError) else OSError
    return kind(f"no daemon of razorfs answers: {failed}")


def _document(line: bytes) -> dict[str, Any] | None:
    """Return what *line* says; None if it is no JSON object, or more deeply nested than can be read."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _told(kind: type[Told], line: bytes) -> Told:
    """Return what *line* tells. Raises ValueError if it is something else: anybody may listen at an address."""
    said, types = _document(line) or {}, {field.name: field.type for field in fields(kind)}
    if any(name not in types or type(value) is not types[name] for name, value in said.items()):
        raise ValueError("it speaks another language")
    try:
        return kind(**said)
    except TypeError:
        raise ValueError("it does not say who it is") from None


def _line(value: Greeting | Farewell) -> bytes:
    return json.dumps(asdict(value)).encode() + b"\n"
