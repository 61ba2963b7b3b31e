"""The daemon's half of remounting, without a mount: clients that fall silent, bugs that it meets, a table that changes meanwhile."""

import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trio
import trio.testing

from razortools.engine.volume import Volume
from razortools.service import logs
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
