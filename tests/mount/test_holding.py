"""Who holds a checkpoint for a look, and for how long: the daemon's half without a mount, then a mount under load."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from razortools import debugfs, fsck
from razortools.check.witness import Slots
from razortools.cli import app as cli
from razortools.engine.store.device import open_image
from razortools.engine.volume import Volume
from razortools.format.data import DataRecord
from razortools.format.keys import Kind
from razortools.service import held
from razortools.service.committer import Committer
from razortools.service.control import Client, Greeting
from razortools.service.held import SPEAK_S, Held
from razortools.service.holding import SILENCE_S, Holder
from razortools.service.options import MountOptions
from tests.check.editing import find_inode, first_item
from tests.engine.volumes import new_volume
from tests.mount.mounts import Mounted
from tests.mount.test_remounter import AtOnce

HOLD, ASK = {"hold": True}, {"hold": False}


class Talk:
    """A holder and a client that talks to it."""

    def __init__(self, committer: type[Committer] = AtOnce) -> None:
        self.volume: Volume = new_volume()
        self.committer = committer(self.volume, MountOptions())
        self.holder = Holder(self.volume, self.committer)
        ours, self.theirs = socket.socketpair()
        self.client = Client(ours)
        self.theirs.setblocking(False)

    def say(self, said: object) -> None:
        self.theirs.send(json.dumps(said).encode() + b"\n")

    async def hear(self) -> dict[str, object]:
        await trio.lowlevel.wait_readable(self.theirs)
        heard = json.loads(self.theirs.recv(1 << 16))
        assert isinstance(heard, dict)
        return heard

    async def converse(self) -> None:
        request = await self.client.receive()
        assert request is not None
        await self.holder.converse(request, self.client)

    @property
    def is_pinned(self) -> bool:
        return self.volume.store.maps.pins.is_set


@pytest.fixture
def talk() -> Iterator[Talk]:
    made = Talk()
    yield made
    made.theirs.close()
    made.client.connection.close()
    made.volume.close()


def conversing(talk: Talk, work: Callable[[], object]) -> None:
    """Run *work* beside the daemon's end, with a clock that jumps; the daemon's end must end by itself."""

    async def both() -> None:
        with trio.fail_after(3600):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk.converse)
                await work()  # type: ignore[misc]

    trio.run(both, clock=trio.testing.MockClock(autojump_threshold=0.01))


def test_a_checkpoint_is_held_until_the_client_is_gone(talk: Talk) -> None:
    async def work() -> None:
        talk.say(HOLD)
        told = await talk.hear()
        assert told == {"refusal": "", "held": True, "begun": talk.volume.store.superblock.generation} and talk.is_pinned
        talk.volume.checkpoint()
        talk.say(ASK)
        assert await talk.hear() == told | {"begun": talk.volume.store.superblock.generation}
        talk.theirs.shutdown(socket.SHUT_RDWR)  # killed

    conversing(talk, work)
    assert not talk.is_pinned


def test_a_client_that_falls_silent_holds_nothing_and_is_told_so(talk: Talk) -> None:
    async def work() -> None:
        talk.say(HOLD)
        assert (await talk.hear())["held"]
        await trio.sleep(SILENCE_S + 1)
        assert not talk.is_pinned
        talk.say(ASK)
        assert not (await talk.hear())["held"]
        talk.say(HOLD)
        assert (await talk.hear())["held"]
        await trio.sleep(SILENCE_S / 2)
        talk.say(ASK)
        assert (await talk.hear())["held"]
        await trio.sleep(SILENCE_S / 2 + 1)
        assert talk.is_pinned
        talk.theirs.shutdown(socket.SHUT_RDWR)

    conversing(talk, work)
    assert not talk.is_pinned


def test_a_pin_that_the_volume_took_back_is_told(talk: Talk) -> None:
    async def work() -> None:
        talk.say(HOLD)
        assert (await talk.hear())["held"]
        talk.volume.store.maps.unpin()
        talk.say(ASK)
        assert not (await talk.hear())["held"]
        talk.theirs.shutdown(socket.SHUT_RDWR)

    conversing(talk, work)


def test_a_bug_in_holding_leaves_the_mount_alive(talk: Talk) -> None:
    assert isinstance(talk.committer, AtOnce)
    talk.committer.bug = ZeroDivisionError("bug")

    async def work() -> None:
        talk.say(HOLD)
        assert "met a bug" in str((await talk.hear())["refusal"])

    conversing(talk, work)
    assert not talk.is_pinned


class Told:
    """A daemon that answers what it is told to."""

    def __init__(self, *answers: dict[str, object]) -> None:
        self.answers = list(answers)
        self.said: list[dict[str, object]] = []

    def converse(self, said: dict[str, object], patience_s: float) -> dict[str, object]:
        self.said.append(said)
        return self.answers.pop(0)

    def close(self) -> None:
        pass


def holding(begun: int = 7, *, is_held: bool = True) -> dict[str, object]:
    return {"refusal": "", "held": is_held, "begun": begun}


def test_the_witness_believes_what_the_daemon_says() -> None:
    told = Told(holding(), holding(), holding(8), holding(8), holding(9, is_held=False))
    witness = Held(told)  # type: ignore[arg-type]
    assert witness.settle()
    assert not witness.has_written() and witness.has_written()
    assert not witness.has_moved() and witness.has_moved()
    assert told.said == [HOLD, ASK, ASK, ASK, ASK]


@pytest.mark.parametrize("answer", [{}, {"refusal": "not a request to remount"}])
def test_a_daemon_that_says_nothing_or_no_holds_nothing(answer: dict[str, object]) -> None:
    """The second is what a daemon of an earlier version says."""
    witness = Held(Told(answer, answer, answer))  # type: ignore[arg-type]
    assert not witness.settle() and witness.refusal
    assert witness.has_written() == witness.has_moved() == True  # noqa: E712  (both)


def test_the_witness_speaks_now_and_then_but_not_all_the_time() -> None:
    now = 0.0
    told = Told(*(holding() for _ in range(3)))
    witness = Held(told, lambda: now)  # type: ignore[arg-type]
    for _ in range(30):  # half a second each
        witness.keep()
        now += 0.5
    assert len(told.said) == 2 and SPEAK_S < SILENCE_S / 2


Look = Callable[..., tuple[dict[str, object], int, str]]


@pytest.fixture
def document(capfd: pytest.CaptureFixture[str]) -> Look:
    """Return a function that runs razorfsck in this process: what it prints, its exit code, what it says beside that."""

    def call(mounted: Mounted, *words: str) -> tuple[dict[str, object], int, str]:
        capfd.readouterr()
        code = cli.invoke(fsck.app, "razorfsck", cli.FSCK_CODES, ["--json", *words, str(mounted.image)])
        out, said = capfd.readouterr()
        return json.loads(out), code, said

    return call


class Load:
    """A writer that changes the mount without rest until it is told to stop, and tells when it has begun to repeat itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stop = threading.Event()
        self.rounds = 0
        self.going = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            for number in range(40):
                path = self._folder / f"busy {number}"
                path.unlink(missing_ok=True)
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                os.write(descriptor, os.urandom(30_000 + 1000 * number))
                os.fsync(descriptor)
                os.close(descriptor)
            self.rounds += 1
            if self.rounds > 1:
                self.going.set()

    def __enter__(self) -> "Load":
        self._thread.start()
        assert self.going.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.slow
def test_a_mounted_image_under_load_is_looked_at_and_never_called_bad(unmounted: Mounted, document: Look) -> None:
    """The checkpoint comes each tenth of a second, so that each look is overtaken."""
    mounted = unmounted.mount("checkpoint=0.1")
    (mounted.path / "still").write_bytes(b"".join(b"%d, " % number for number in range(60_000)))
    with Load(mounted.path):
        for _ in range(8):
            told, code, said = document(mounted)
            assert code == 0 and told["clean"] is True, told["findings"]
            in_use = told["in_use"]
            assert isinstance(in_use, dict) and in_use["held"] is True and in_use["pid"] == mounted.pid
            assert f"is mounted at {mounted.path} by pid {mounted.pid}" in said and said.count("\n") == 1
    assert document(mounted)[1] == 0  # holding a checkpoint makes one: the data are where they will stay
    _hurt(mounted, "still")
    with Load(mounted.path):
        told, code, _ = document(mounted)
        found = told["findings"]
        assert isinstance(found, list)
        assert code == 4 and {finding["path"] for finding in found if finding["severity"] != "note"} == {"/still"}
    for words in (("-p",), ("-y",), ("-i",), ("--rebuild",), ("--undo",), ("--salvage", str(mounted.path.parent / "out"))):
        told, code, _ = document(mounted, *words)
        assert code == 8 and f"in use by pid {mounted.pid}" in str(told["error"])
    assert document(mounted, "-b", "1")[1] == 8
    mounted.umount()


def _hurt(mounted: Mounted, name: str) -> None:
    """Damage a file on the disk, behind the mount's back."""
    with open_image(mounted.image, writable=False, lock=False) as device:
        _, value = first_item(device, find_inode(device, f"/{name}"), Kind.DATA_RECORD)
    with open(mounted.image, "r+b") as image:
        image.seek(DataRecord.decode(value).runs(4096)[0][0] * 4096 + 100)
        image.write(b"damage")


@pytest.mark.slow
def test_who_may_not_ask_the_mount_looks_without_its_help(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch, document: Look
) -> None:
    monkeypatch.setattr(held.Held, "settle", lambda self: False)
    with open_image(mounted.image, writable=False, lock=False) as device:
        found = held.mount_of(str(mounted.image))
        assert isinstance(found, Greeting) and found.pid == mounted.pid
        witness = held.witness_for(device, found)
        assert isinstance(witness, Slots) and witness.settle() and not witness.has_moved()
        (mounted.path / "new").write_bytes(b"new")
        assert not witness.has_moved()
        told, code, said = document(mounted)
        assert code == 0 and isinstance(told["in_use"], dict) and told["in_use"]["held"] is False
        assert "which the mount does not hold" in said
        monkeypatch.undo()
        assert document(mounted)[1] == 0  # makes a checkpoint
        assert witness.has_moved()


def test_an_image_that_no_mount_uses_is_refused_with_the_pid(unmounted: Mounted, document: Look) -> None:
    """Who else writes to it may go by other rules, such as a repair that is under way."""
    with open_image(unmounted.image, writable=True):
        told, code, _ = document(unmounted)
    assert code == 8 and f"in use by pid {os.getpid()}" in str(told["error"])


@pytest.mark.slow
def test_the_debugger_looks_at_what_the_mount_keeps_for_it(unmounted: Mounted, capfd: pytest.CaptureFixture[str]) -> None:
    """What had moved and been written over since was called damaged, with the advice to repair it."""
    mounted = unmounted.mount("commit=0.01,checkpoint=0.05,discard")
    for number in range(400):
        (mounted.path / f"file {number}").write_text("x" * 100)
    with Load(mounted.path):
        for _ in range(10):
            code = cli.invoke(debugfs.app, debugfs.NAME, cli.DEBUG_CODES, ["-R", "find /", str(mounted.image)])
            out, err = capfd.readouterr()
            assert (code, err.count("\n")) == (0, 1), err
            assert "this shows its last checkpoint\n" in err and "/file 399\n" in out


def test_a_look_is_kept_alive_however_long_it_takes_and_let_go_at_its_end(
    unmounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = threading.Event()
    monkeypatch.setattr(held, "SPEAK_S", 0.01)
    monkeypatch.setattr(Held, "keep", lambda self: spoken.set())
    mounted = unmounted.mount()
    with held.holding(str(mounted.image)) as is_held:
        assert is_held and spoken.wait(60)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hold")]


def test_an_image_that_nobody_has_mounted_is_held_by_nobody(unmounted: Mounted) -> None:
    with held.holding(str(unmounted.image)) as is_held:
        assert not is_held
