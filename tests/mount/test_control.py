"""The control socket, without a mount."""

import errno
import json
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from razortools.engine.store.device import open_image
from razortools.engine.store.mounts import Mount
from razortools.service import control, endpoints
from razortools.service.control import ADDRESS_GRACE_S, STRANGERS_MAX, Control, Farewell, Greeting, Waiter, listen
from razortools.service.endpoints import address

DEVICE = (0, 1 << 20 | os.getpid())  # no mount has such a number
NOBODY = 65_534
PATIENCE_S = 20.0  # only what hangs takes so long


def greeting() -> Greeting:
    return Greeting(1, "image", "place")


def test_a_mount_waits_for_the_address_of_the_one_before_it() -> None:
    """Device numbers are used again at once: a mount right after an umount(8) stayed without a control socket."""
    earlier = Control(DEVICE, greeting)

    async def later() -> Control:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_the_earlier)
            return await listen(DEVICE, greeting)
        raise AssertionError

    async def end_the_earlier() -> None:
        await trio.sleep(ADDRESS_GRACE_S / 2)
        earlier.finish(Farewell())

    made = trio.run(later, clock=trio.testing.MockClock(autojump_threshold=0))
    made.finish(Farewell())


def test_the_address_is_free_as_soon_as_the_mount_is_gone() -> None:
    """A daemon may take long to close its image, or hang in it. Clients that came in time are told how it ends all the same."""
    earlier = Control(DEVICE, greeting)
    waiter = Waiter.__new__(Waiter)
    client = threading.Thread(target=waiter.__init__, args=(DEVICE,))  # type: ignore[misc]
    client.start()
    while not select.select([earlier._listener], [], [], 60)[0]:
        pass
    earlier.stop_listening()
    client.join()
    later = Control(DEVICE, greeting)
    earlier.finish(Farewell("slowly"))
    assert waiter.wait() == Farewell("slowly")
    waiter.close()
    later.finish(Farewell())


def test_it_does_not_wait_for_ever() -> None:
    other = Control(DEVICE, greeting)
    try:
        with pytest.raises(OSError, check=lambda taken: taken.errno == errno.EADDRINUSE):
            trio.run(listen, DEVICE, greeting, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        other.finish(Farewell())


def test_each_client_is_told_how_things_are_when_it_asks() -> None:
    failure = ""
    made = Control(DEVICE, lambda: Greeting(1, "image", "place", read_only=bool(failure), failure=failure))
    told = []

    async def ask() -> None:
        nonlocal failure
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.serve)
            for reason in ("", "the disk is gone"):
                failure = reason
                waiter = await trio.to_thread.run_sync(Waiter, DEVICE)
                told.append((waiter.greeting.read_only, waiter.greeting.failure))
                waiter.close()
            nursery.cancel_scope.cancel()

    trio.run(ask)
    made.finish(Farewell())
    assert told == [(False, ""), (True, "the disk is gone")]


@contextmanager
def serving(made: Control) -> Iterator[threading.Thread]:
    """Have *made* served in a thread, which a bug may keep busy for ever; yields it."""
    begun: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []
    is_begun = threading.Event()

    async def serve() -> None:
        with trio.CancelScope() as scope:
            begun.append((trio.lowlevel.current_trio_token(), scope))
            is_begun.set()
            await made.serve()

    thread = threading.Thread(target=trio.run, args=(serve,), daemon=True)
    thread.start()
    assert is_begun.wait(PATIENCE_S)
    try:
        yield thread
    finally:
        token, scope = begun[0]
        token.run_sync_soon(scope.cancel)
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "the loop hangs"


def test_a_client_that_never_reads_holds_up_nobody() -> None:
    """Each line gets an answer. When nobody took them any more the daemon waited in its loop, and the mount stood still."""
    made = Control(DEVICE, greeting)
    with serving(made), socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(address(DEVICE))
        deaf.settimeout(PATIENCE_S)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # it is hung up; not: it waits in vain to be heard
            while True:
                deaf.sendall(b"{}\n" * 1000)
        waiter = Waiter(DEVICE, PATIENCE_S)
    made.finish(Farewell("well"))
    assert waiter.wait(PATIENCE_S) == Farewell("well")
    waiter.close()


def test_a_client_with_a_full_queue_does_not_keep_the_image_from_being_closed() -> None:
    made = Control(DEVICE, lambda: Greeting(1, "image", "place", failure="x" * 10_000))
    with socket.socket(socket.AF_UNIX) as deaf:
        with serving(made):
            deaf.connect(address(DEVICE))
            deaf.recv(1)  # greeted
        client = made._clients[0].connection
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # what it holds already is more: the queue is full now
        closing = threading.Thread(target=made.finish, args=(Farewell(),), daemon=True)
        closing.start()
        closing.join(PATIENCE_S)
        assert not closing.is_alive()


def test_idle_strangers_do_not_lock_out_root(fuse: None) -> None:
    """Any user can connect and stay. 64 of them, and umount.razorfs and razorfs-health took the daemon for dead."""
    made = Control(DEVICE, greeting)
    with ExitStack() as opened:
        strangers = [opened.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(STRANGERS_MAX + 2)]
        os.seteuid(NOBODY)
        try:
            for stranger in strangers:
                stranger.settimeout(PATIENCE_S)
                stranger.connect(address(DEVICE))
        finally:
            os.seteuid(0)
        with serving(made):
            assert [bool(stranger.recv(1)) for stranger in strangers] == [True] * STRANGERS_MAX + [False] * 2
            for _ in range(2):
                opened.callback(Waiter(DEVICE, PATIENCE_S).close)
        made.finish(Farewell())


def test_a_host_without_a_descriptor_to_spare_does_not_end_the_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    """accept(2) fails then, and its failure went to the nursery of all that serves."""
    made = Control(DEVICE, greeting)
    refusals = [errno.ENFILE, errno.EMFILE]

    class Listener(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            if refusals:
                raise OSError(refusals.pop(), "no descriptor")
            return super().accept()

    monkeypatch.setattr(made, "_listener", Listener(fileno=made._listener.detach()))
    with serving(made):
        Waiter(DEVICE, PATIENCE_S).close()
    assert refusals == []
    made.finish(Farewell())


@pytest.mark.parametrize("user", [0, NOBODY])
@pytest.mark.parametrize(
    "line", [b"[" * 60_000, b'{"a":' * 10_000, b"\xff\xfe", b"1" * 60_000, b'{"what": NaN}', b""], ids=range(6)
)
def test_no_line_that_anybody_says_ends_the_mount(fuse: None, user: int, line: bytes) -> None:
    """Some thousand brackets were more than the parser could bear: its failure went to the nursery of all that serves."""
    made = Control(DEVICE, greeting)
    with serving(made) as thread, socket.socket(socket.AF_UNIX) as odd:
        os.seteuid(user)
        try:
            odd.connect(address(DEVICE))
        finally:
            os.seteuid(0)
        odd.settimeout(PATIENCE_S)
        assert odd.recv(4096)
        odd.sendall(line + b"\n")
        odd.recv(4096)  # an answer, or hung up
        Waiter(DEVICE, PATIENCE_S).close()
        assert thread.is_alive()
    made.finish(Farewell())


def test_what_answering_raises_is_the_end_of_that_conversation_alone() -> None:
    async def fail(request: dict[str, object], client: object) -> None:
        raise ZeroDivisionError("a bug")

    made = Control(DEVICE, greeting, fail)
    with serving(made) as thread:
        waiter = Waiter(DEVICE, PATIENCE_S)
        assert waiter.converse({"figures": True}, PATIENCE_S) == {}
        waiter.close()
        Waiter(DEVICE, PATIENCE_S).close()
        assert thread.is_alive()
    made.finish(Farewell())


@pytest.mark.parametrize("line", [b"[" * 60_000, b'{"pid": "many"}', b'{"pid": 1}', b"[]", b"{}", b"null"], ids=range(6))
def test_who_only_looks_like_a_daemon_is_taken_for_none(line: bytes) -> None:
    """Anybody may listen at the address of a mount that is not ours; the tools of root believe nothing that he says."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address(DEVICE))
        listener.listen()
        other = threading.Thread(target=lambda: listener.accept()[0].sendall(line + b"\n"), daemon=True)
        other.start()
        with pytest.raises(OSError, match="no daemon of razorfs answers"):
            Waiter(DEVICE, PATIENCE_S)
        other.join(PATIENCE_S)


@contextmanager
def a_strangers_listener(image: str = "image") -> Iterator[None]:
    """Another user listens at the address, greets whoever comes as a daemon does, and says at once that all is closed."""
    if os.geteuid():
        pytest.skip("only root can be somebody else")

    greeted = json.dumps({"pid": 1, "image": image, "mount_point": "place"}).encode()

    def lie() -> None:
        with suppress(OSError):
            while True:
                connection = listener.accept()[0]
                with suppress(BrokenPipeError), connection:
                    connection.sendall(greeted + b'\n{"reason": ""}\n')

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address(DEVICE))
        os.seteuid(NOBODY)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        liar = threading.Thread(target=lie, daemon=True)
        liar.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            liar.join(PATIENCE_S)  # or the address stays taken


def test_a_stranger_who_has_taken_the_address_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """He could say that an image was closed before it was; nobody but root, the caller or who has mounted it speaks for it."""
    table = [Mount(1, 0, DEVICE, b"/mnt", "fuse.razorfs", b"image", shared_options=frozenset(["rw", "user_id=0"]))]
    monkeypatch.setattr(endpoints, "mounts", lambda: table)
    with a_strangers_listener():
        with pytest.raises(OSError, match=f"user {NOBODY} listens there"):
            Waiter(DEVICE, PATIENCE_S)
        table[:] = [replace(table[0], shared_options=frozenset(["rw", f"user_id={NOBODY}"]))]
        waiter = Waiter(DEVICE, PATIENCE_S)
        assert waiter.wait(PATIENCE_S) == Farewell()
        waiter.close()


def test_of_an_image_only_its_owner_or_who_holds_it_is_believed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who has a mount of his own could say that it was of any image, and tell razorfs-health and razorfsck how that is."""
    image = tmp_path / "image"
    image.touch()
    table = [Mount(1, 0, DEVICE, b"/mnt", "fuse", b"x", shared_options=frozenset([f"user_id={NOBODY}"]))]
    monkeypatch.setattr(control, "mounts", lambda: table)
    monkeypatch.setattr(endpoints, "mounts", lambda: table)
    with a_strangers_listener(str(image)):
        waiter = Waiter(DEVICE, PATIENCE_S)
        assert not waiter.serves("/another") and not waiter.serves(str(image))
        assert control.waiter_for(str(image), PATIENCE_S) is None
        with open_image(image, writable=True):  # by this process, which listens
            assert waiter.serves(str(image))
        assert not waiter.serves(str(image))
        os.chown(image, NOBODY, NOBODY)
        assert waiter.serves(str(image)) and not waiter.serves("/another")
        waiter.close()


def test_a_stranger_at_the_address_keeps_nobody_from_the_daemon() -> None:
    """A mount whose address any user had taken stayed without a control socket, and umount.razorfs refused."""
    with a_strangers_listener():
        made = Control(DEVICE, greeting)
        with serving(made):
            waiter = Waiter(DEVICE, PATIENCE_S)
            assert waiter.greeting == greeting()
            waiter.close()
        made.finish(Farewell())
        with pytest.raises(OSError, match=f"user {NOBODY} listens there"):
            Waiter(DEVICE, PATIENCE_S)


@pytest.mark.parametrize("listens", [False, True])
def test_nor_does_one_who_takes_no_calls(listens: bool) -> None:
    """To connect to a socket whose queue is full waits for good; what has no queue refuses."""
    with ExitStack() as stack:
        other = stack.enter_context(socket.socket(socket.AF_UNIX))
        other.bind(address(DEVICE))
        if listens:
            other.listen(0)
            queued = stack.enter_context(socket.socket(socket.AF_UNIX))
            queued.connect(address(DEVICE))
        made = Control(DEVICE, greeting)
        with serving(made):
            Waiter(DEVICE, PATIENCE_S).close()
        made.finish(Farewell())


def test_of_many_sockets_with_such_names_the_believed_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        stack.enter_context(a_strangers_listener())
        for number in range(40):
            other = stack.enter_context(socket.socket(socket.AF_UNIX))
            other.bind(f"{address(DEVICE)}/{number:016x}")
            os.seteuid(NOBODY)
            try:
                other.listen()
            finally:
                os.seteuid(0)
        monkeypatch.setattr(endpoints.secrets, "token_hex", lambda size: "7" * 2 * size)
        made = Control(DEVICE, greeting)
        with serving(made):
            waiter = Waiter(DEVICE, PATIENCE_S)
            assert waiter.greeting == greeting()
            waiter.close()
        made.finish(Farewell())


def test_a_daemon_that_takes_no_calls_is_told_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "BUSY_S", 0.0)
    with pytest.raises(OSError, match="nobody listens", check=lambda none: not isinstance(none, TimeoutError)):
        Waiter(DEVICE, PATIENCE_S)
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as queued:
        busy.bind(address(DEVICE))
        busy.listen(0)
        queued.connect(address(DEVICE))
        with pytest.raises(TimeoutError):
            Waiter(DEVICE, PATIENCE_S)
