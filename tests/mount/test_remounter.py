"""The daemon's half of remounting, without a mount: silent clients, bugs that it meets, a table that changes meanwhile."""

import errno
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trio
import trio.testing

from razortools.engine.volume import Volume
from razortools.service import logs, mount_table
from razortools.service.committer import Committer
from razortools.service.control import Client
from razortools.service.options import MountOptions
from razortools.service.remount import Remounter
from tests.engine.volumes import new_volume

DEVICE = (0, 1 << 20)
LONG_S = 3600.0  # of a clock that jumps: what waits until then waits for ever


class AtOnce(Committer):
    """A committer that has nothing on its way; an errand may meet a bug."""

    bug: Exception | None = None

    async def between_commits(self, do: Callable[[], None]) -> None:
        if self.bug is not None:
            raise self.bug
        do()


class Daemon:
    """A remounter with what it needs."""

    def __init__(self) -> None:
        self.volume: Volume = new_volume()
        self.adopted: list[MountOptions] = []
        self.committer = AtOnce(self.volume, MountOptions())
        self.remounter = Remounter(self.volume, self.committer, MountOptions(), self.adopted.append)

    async def asked(self, *said: object) -> list[object]:
        """Return the answers to a client that says *said* at once and then nothing more, but listens."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in said))
            client = Client(ours)
            request = await client.receive()
            assert request is not None
            await self.remounter.converse(request, client)
            theirs.setblocking(False)
            return [json.loads(line)["refusal"] for line in theirs.recv(1 << 16).splitlines()]


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setattr(logs, "set_level", lambda _: None)
    made = Daemon()
    yield made
    made.volume.close()


def run(work: Callable[[], AsyncIterator[None]] | Callable[[], object]) -> None:
    """Run *work* with a clock that jumps to whatever is waited for."""

    async def within_reason() -> None:
        with trio.fail_after(LONG_S):
            await work()  # type: ignore[misc]

    trio.run(within_reason, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_client_that_falls_silent_holds_up_no_other(daemon: Daemon) -> None:
    """It asked, and never said whether the kernel agreed. Nobody could remount any more, and the mount table was not followed."""

    async def work() -> None:
        given_up = await daemon.asked({"options": ["commit=7"]})
        assert given_up[0] == "" and "60" in str(given_up[1])
        assert daemon.adopted == []
        assert await daemon.asked({"options": ["commit=9"]}, {"done": True}) == ["", ""]
        assert [options.commit_interval_s for options in daemon.adopted] == [9]

    run(work)


def test_a_volume_that_was_made_writable_for_a_silent_client_is_read_only_again(daemon: Daemon) -> None:
    async def work() -> None:
        daemon.volume.set_read_only()
        await daemon.asked({"options": ["rw"]})
        assert daemon.volume.read_only

    run(work)


@pytest.mark.parametrize("bug", [AssertionError(), OSError(5, "the host"), ValueError("no number")])
def test_a_bug_in_a_remount_is_told_and_the_mount_lives_on(
    daemon: Daemon, bug: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        daemon.committer.bug = bug
        answers = await daemon.asked({"options": ["ro"]}, {"done": True})
        assert answers[0] == "" and type(bug).__name__ in str(answers[1])
        daemon.committer.bug = None
        assert await daemon.asked({"options": ["ro"]}, {"done": True}) == ["", ""]

    run(work)
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True]


class Table:
    """A mount table that changes when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_read_only = False
        self._send, self._receive = trio.open_memory_channel[None](10)
        monkeypatch.setattr(mount_table, "is_read_only", lambda device: self.is_read_only)
        monkeypatch.setattr(mount_table, "changes", lambda: self._receive)

    async def change(self, *, is_read_only: bool) -> None:
        """Change, and return when everybody has done about it what can be done now."""
        self.is_read_only = is_read_only
        self._send.send_nowait(None)
        await trio.testing.wait_all_tasks_blocked()


def test_a_bug_while_the_table_is_followed_is_logged_and_the_next_change_is_followed(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table = Table(monkeypatch)

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.remounter.follow_table, DEVICE)
            await trio.testing.wait_all_tasks_blocked()
            daemon.committer.bug = AssertionError("a bug")
            await table.change(is_read_only=True)
            daemon.committer.bug = None
            await table.change(is_read_only=False)
            await table.change(is_read_only=True)
            assert daemon.volume.read_only
            nursery.cancel_scope.cancel()

    run(work)
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True]


@pytest.mark.parametrize("bug", [OSError(errno.EMFILE, "no descriptor"), IndexError("list index out of range")])
def test_a_table_that_cannot_be_read_does_not_end_the_mount(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bug: Exception
) -> None:
    """What reading it raised went to the nursery of all that serves: the daemon ended."""
    table = Table(monkeypatch)
    can_be_read = True

    def is_read_only(device: tuple[int, int]) -> bool:
        if not can_be_read:
            raise bug
        return table.is_read_only

    monkeypatch.setattr(mount_table, "is_read_only", is_read_only)

    async def work() -> None:
        nonlocal can_be_read
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.remounter.follow_table, DEVICE)
            await trio.testing.wait_all_tasks_blocked()
            can_be_read = False
            await table.change(is_read_only=True)
            assert not daemon.volume.read_only
            can_be_read = True
            await table.change(is_read_only=True)
            assert daemon.volume.read_only
            nursery.cancel_scope.cancel()

    run(work)
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [f"the mount table cannot be read: {bug}"]


def test_a_table_that_cannot_be_opened_does_not_end_the_mount(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mount_table, "MOUNTINFO", "/proc/none")
    run(lambda: daemon.remounter.follow_table(DEVICE))
    assert "the mount table is not followed any more" in caplog.text


def test_the_table_is_read_when_its_turn_has_come(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A remount that was under way had changed it again. A writable mount then refused writes until the table changed next."""
    table = Table(monkeypatch)
    made_read_only: list[bool] = []
    set_read_only = daemon.volume.set_read_only
    monkeypatch.setattr(daemon.volume, "set_read_only", lambda: (made_read_only.append(True), set_read_only()))

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.remounter.follow_table, DEVICE)
            await trio.testing.wait_all_tasks_blocked()
            async with daemon.remounter._lock:
                await table.change(is_read_only=True)
                table.is_read_only = False
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    run(work)
    assert (made_read_only, daemon.volume.read_only) == ([], False)
