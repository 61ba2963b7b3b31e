"""How a mount ends, and what is known of it if it does not: without a mount."""

import ctypes
import errno
import faulthandler
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from razortools.engine import collector
from razortools.engine.store.mounts import Mount
from razortools.engine.store.superblocks import newest
from razortools.errors import DeviceFailed, ImageBusy, sentence
from razortools.format.superblock import State
from razortools.service import closing, logs, mountpoints, server
from razortools.service.audit import Trail
from razortools.service.committer import Committer
from razortools.service.control import Control, Farewell
from razortools.service.handlers import Handlers
from razortools.service.mountpoints import MountRefused
from razortools.service.opening import Place
from razortools.service.options import MountOptions
from razortools.service.server import Mounted
from razortools.service.settled import Settled
from tests.engine.test_damaged_leaf import with_little_memory
from tests.mount.mounts import ANSWER_S


class Nothing:
    """Takes whatever is done to it."""

    read_only = False

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


@pytest.fixture
def ending() -> Iterator[Mounted]:
    """A mount without a kernel, of which a test replaces what it looks at. The process is afterwards as it was."""
    handlers = {number: signal.getsignal(number) for number in closing.SIGNALS}
    interval_s = sys.getswitchinterval()
    made = Mounted.__new__(Mounted)
    made._control = made._scrape = made._trail = None

    made._ending = closing.Ending()
    made._connection = made._channel = made._session = made._remounter = made._wakefulness = Nothing()  # type: ignore[assignment]
    made._options = MountOptions()
    made._volume = Nothing()  # type: ignore[assignment]
    yield made
    sys.setswitchinterval(interval_s)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Path]:
    """The log's file, in use."""
    before = logs.log.handlers[:], logs.log.propagate, logs.log.level
    pyfuse3 = logging.getLogger("pyfuse3")
    others = pyfuse3.handlers[:], pyfuse3.propagate, pyfuse3.level
    logs.start(MountOptions(log=str(tmp_path / "log")), foreground=False)
    yield tmp_path / "log"
    for logger, (handlers, propagate, level) in ((logs.log, before), (pyfuse3, others)):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_threads_switch_as_usual_while_the_image_is_closed(ending: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Switching often is for those who wait for answers, and there are none any more."""
    found = []

    async def serve() -> None:
        sys.setswitchinterval(0.0005)

    monkeypatch.setattr(ending, "_serve", serve)
    monkeypatch.setattr(ending, "_close", lambda: found.append(sys.getswitchinterval()))
    ending.run()
    assert found == [pytest.approx(0.005)]


def test_a_daemon_that_hangs_while_closing_says_where(ending: Mounted, logged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve() -> None:
        pass

    def close_that_hangs() -> None:
        end = time.monotonic() + ANSWER_S
        while "close_that_hangs" not in logged.read_text():
            assert time.monotonic() < end, "it does not say so"

    monkeypatch.setattr(closing, "PATIENCE_S", 0.001)
    monkeypatch.setattr(ending, "_serve", serve)
    monkeypatch.setattr(ending, "_close", close_that_hangs)
    ending.run()


def test_nothing_is_said_of_a_daemon_that_has_closed_in_time(logged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log may have been opened again meanwhile: what is armed must write nowhere else, and be gone in the end."""
    said: list[str] = []

    def arm(patience_s: float, *, repeat: bool, file: int, exit: bool = False) -> None:
        assert not (repeat or exit)
        said.append(os.readlink(f"/proc/self/fd/{file}"))

    monkeypatch.setattr(faulthandler, "dump_traceback_later", arm)
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: said.append("cancelled"))
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(ZeroDivisionError), closing.telling_where_it_hangs():
        assert said == [str(logged)]
        1 / 0  # noqa: B018
    assert said == [str(logged), "cancelled"]
    assert os.listdir("/proc/self/fd") == descriptors


# A mount that ends while it begins


class Beginning:
    """Announces a mount without a kernel, and keeps what comes of it."""

    def __init__(self, mounted: Mounted, mount_point: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mounted = mounted
        self.read_ahead: list[tuple[int, int]] = []
        self.listening: list[tuple[int, int]] = []
        self.ready_count = 0
        mounted._place = Place("image", str(mount_point))
        mounted._hello = trio.Event()
        mounted._ready = self._note_ready
        monkeypatch.setattr(server, "_set_read_ahead", lambda device, _: self.read_ahead.append(device))
        monkeypatch.setattr(server, "listen", self._listen)
        monkeypatch.setattr(collector, "calm", lambda: None)

    def _note_ready(self) -> None:
        self.ready_count += 1

    async def _listen(self, device: tuple[int, int], *_: object) -> Control:
        self.listening.append(device)
        raise OSError(0, "nobody can connect")

    def run(self, *, cancel: bool = False) -> None:
        """Announce; *cancel*: end as soon as nothing goes on without the kernel."""

        async def announce() -> None:
            self.mounted._hello.set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.mounted._announce, nursery)
                if cancel:
                    await is_asked()
                    nursery.cancel_scope.cancel()

        async def is_asked() -> None:
            await trio.to_thread.run_sync(asked.wait, ANSWER_S)

        asked = self.asked = threading.Event()
        trio.run(announce)


@pytest.fixture
def beginning(ending: Mounted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Beginning:
    ending._remounter = Following()  # type: ignore[assignment]
    return Beginning(ending, tmp_path / "mnt", monkeypatch)


class Following:
    """A remounter that has nothing to follow."""

    converse = None

    async def follow_table(self, device: tuple[int, int]) -> None: ...

    async def show_failure(self, device: tuple[int, int], mount_point: str) -> None: ...


def test_a_mount_point_that_cannot_be_asked_any_more_is_no_error(beginning: Beginning) -> None:
    """It was unmounted right after the greeting, or its users lost it: the daemon ended by a traceback."""
    beginning.run()
    assert (beginning.read_ahead, beginning.listening, beginning.ready_count) == ([], [], 1)


def test_the_disk_below_a_mount_that_is_gone_keeps_its_read_ahead(beginning: Beginning, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    beginning.run()
    assert (beginning.read_ahead, beginning.listening, beginning.ready_count) == ([], [], 1)


def test_another_filesystem_that_has_taken_the_place_keeps_its_read_ahead(
    beginning: Beginning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mnt").mkdir()
    number = (tmp_path / "mnt").stat().st_dev
    device = (os.major(number), os.minor(number))
    for of, filesystem in ((device, "ext4"), ((0, 1 << 20), "fuse.razorfs")):
        found = Mount(1, 0, of, b"/mnt", filesystem, b"image")
        monkeypatch.setattr(mountpoints, "mount_at", lambda _, found=found: found)
        beginning.run()
    assert (beginning.read_ahead, beginning.listening) == ([], [])
    ours = Mount(1, 0, device, b"/mnt", "fuse.razorfs", b"image")
    monkeypatch.setattr(mountpoints, "mount_at", lambda _: ours)
    beginning.run()
    assert (beginning.read_ahead, beginning.listening) == ([device], [device])


def test_a_mount_that_ends_before_it_has_answered_does_not_wait_for_its_own_answer(
    beginning: Beginning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread asks the mount point. If nobody serves any more it gets no answer before the connection is closed: after trio."""
    (tmp_path / "mnt").mkdir()
    is_closed, stat = threading.Event(), os.stat
    waited: list[bool] = []

    def ask(path: object, **keywords: object) -> os.stat_result:
        if path == str(tmp_path / "mnt"):
            beginning.asked.set()
            waited.append(is_closed.wait(3))
        return stat(path, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", ask)
    beginning.run(cancel=True)
    assert waited == []
    is_closed.set()


# What is told of how it ended: one and the same in the log, in the farewell and in the audit log


class Told:
    """A mount that ends, and what everybody is told of that."""

    def __init__(self, mounted: Mounted, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mounted, self.monkeypatch = mounted, monkeypatch
        self.farewells: list[Farewell] = []
        self.audit, self.mount_point = folder / "audit", folder / "mnt"
        self.mount_point.mkdir()
        mounted._place, mounted._device = Place("image", str(self.mount_point)), None
        mounted._control, mounted._trail = self, Trail(str(self.audit))  # type: ignore[assignment]

    def stop_listening(self) -> None: ...

    def finish(self, farewell: Farewell) -> None:
        self.farewells.append(farewell)

    def end_by_signal(self) -> None:
        """Serve until SIGTERM has been obeyed, and close."""

        async def serve() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.mounted._watch_signals, nursery.cancel_scope)
                await trio.testing.wait_all_tasks_blocked()
                os.kill(os.getpid(), signal.SIGTERM)

        self.monkeypatch.setattr(self.mounted, "_serve", serve)
        self.mounted.run()

    @property
    def reason(self) -> str:
        """Why not everything is durable, as farewell and audit log tell both; empty: it is."""
        events = [json.loads(line) for line in self.audit.read_text().splitlines()]
        assert [event["event"] for event in events] == ["unmount"]
        assert [Farewell(events[0].get("reason", ""))] == self.farewells
        assert events[0]["clean"] is not bool(self.farewells[0].reason)
        return self.farewells[0].reason


@pytest.fixture
def told(ending: Mounted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr(ending, "_close", lambda: None)
    return Told(ending, tmp_path, monkeypatch)


def test_what_is_lost_as_the_grace_of_a_signal_ends_is_told_to_all(
    told: Told, logged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the log had it: umount.razorfs and the audit log said that all was well."""
    is_over = threading.Event()
    monkeypatch.setattr(server, "UNMOUNT_GRACE_S", 0)
    monkeypatch.setattr(mountpoints, "unmount", lambda _: is_over.wait(ANSWER_S))
    try:
        told.end_by_signal()
    finally:
        is_over.set()
    assert "not unmounted within 0 s; what the kernel had still to write of mapped files is lost" in told.reason
    assert told.reason in logged.read_text()


def test_an_unmount_by_a_signal_that_goes_well_is_told_so(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mountpoints, "unmount", lambda _: None)
    told.end_by_signal()
    assert told.reason == ""


@pytest.mark.parametrize("failed", [ImageBusy("it is in use"), MountRefused("the host refuses")], ids=["busy", "refused"])
def test_what_the_kernel_could_not_write_back_is_told_to_all(
    told: Told, logged: Path, monkeypatch: pytest.MonkeyPatch, failed: Exception
) -> None:
    """What syncfs(2) said was thrown away; and if the host refused the unmount it was not even called."""
    asked: list[int] = []

    class Libc:
        def syncfs(self, descriptor: int) -> int:
            asked.append(descriptor)
            ctypes.set_errno(outcome)
            return -1 if outcome else 0

    def refuse(_: str) -> None:
        raise failed

    monkeypatch.setattr(mountpoints, "unmount", refuse)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Libc())
    outcome = errno.EIO
    told.end_by_signal()
    assert len(asked) == 1
    assert told.reason == (
        f"{told.mount_point}: what the kernel had still to write of mapped files may be lost: Input/output error"
    )
    assert told.reason in logged.read_text()


def test_users_who_lose_a_mount_lose_no_data(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise ImageBusy("it is in use")

    monkeypatch.setattr(mountpoints, "unmount", refuse)
    told.end_by_signal()
    assert told.reason == ""


@pytest.mark.parametrize("failure", [DeviceFailed("the disk is gone"), ZeroDivisionError("a bug")], ids=["disk", "bug"])
def test_an_image_that_could_not_be_closed_is_told_so_whatever_the_failure(
    told: Told, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """A failure of no class of ours, a bug or what the host raises, left both saying that it was closed cleanly."""

    def close() -> None:
        raise failure

    monkeypatch.setattr(told.mounted, "_close", close)
    monkeypatch.setattr(mountpoints, "unmount", lambda _: None)
    with pytest.raises(type(failure)):
        told.end_by_signal()
    assert told.reason == f"the image was not closed cleanly: {sentence(failure)}"


def test_what_a_damaged_image_could_not_store_is_told_as_it_is_closed(
    ending: Mounted, logged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given up by the last commit of all, after which nobody asked: neither the log nor the image told."""
    told = Told(ending, tmp_path, monkeypatch)
    device, _, volume = with_little_memory()
    ending._volume, options = volume, MountOptions()
    ending._handlers = Handlers(volume, Committer(volume, options), Settled(volume, lambda *_: None), options)  # type: ignore[assignment]
    monkeypatch.setattr(mountpoints, "unmount", lambda _: None)
    told.end_by_signal()
    assert told.reason == "image: what was written to 1 file could not be stored, because the image is damaged; see the log"
    assert "write of /file: " in logged.read_text() and told.reason in logged.read_text()
    assert newest(device).state == State.ERRORS
