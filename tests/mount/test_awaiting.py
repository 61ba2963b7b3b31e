"""umount.razorfs and a daemon that takes long to close its image, or does not get to it."""

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr

import pytest

from razortools import umount
from razortools.cli import app as cli
from razortools.service import awaiting, mount_users, mountpoints
from razortools.service.awaiting import TELL_AFTER_S, Watch
from razortools.service.control import Farewell, Waiter
from razortools.service.mount_users import MountUser
from tests.mount.mounts import ANSWER_S, Mounted

LOOKS_MAX = 200  # in vain
HOLD = "import os, sys; f = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR); os.write(f, b'x'); print('open', flush=True); input()"


@pytest.fixture
def process() -> Iterator[int]:
    """A process that does nothing until it is ended."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as made:
        yield made.pid
        os.kill(made.pid, signal.SIGKILL)


def stop(pid: int) -> None:
    """Stop a child, and return when it is."""
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)


def let_go_on(pid: int) -> None:
    os.kill(pid, signal.SIGCONT)
    os.waitpid(pid, os.WCONTINUED)


class Looking:
    """A watch whose clock a test moves."""

    def __init__(self, pid: int) -> None:
        self.now_s = 100.0
        self.said: list[str] = []
        self.watch = Watch(pid, "/image", self.said.append, lambda: self.now_s)

    def after(self, seconds: float) -> list[str]:
        """Look when so much time has passed; return what is said then."""
        self.now_s += seconds
        self.said.clear()
        self.watch.look()
        return list(self.said)


def test_nothing_is_said_of_a_daemon_that_is_quick(process: int) -> None:
    assert Looking(process).after(TELL_AFTER_S - 0.1) == []


def test_a_stopped_daemon_is_told_once_and_again_when_it_goes_on(process: int) -> None:
    looking = Looking(process)
    stop(process)
    stopped = f"waiting, but its daemon (pid {process}) is stopped and cannot close /image; let it go on: kill -CONT {process}"
    assert [looking.after(seconds) for seconds in (1, TELL_AFTER_S, TELL_AFTER_S)] == [[], [stopped], []]
    let_go_on(process)
    assert looking.after(0.5) == [f"waiting for its daemon (pid {process}) to close /image"]
    assert looking.after(100) == []
    stop(process)
    assert looking.after(0.5) == [stopped]


def test_a_daemon_of_another_pid_namespace_is_waited_for_without_its_number() -> None:
    assert Looking(0).after(TELL_AFTER_S) == ["waiting for its daemon to close /image"]


@pytest.mark.parametrize("stat", [b"7 (a) T (b)) t 1 2", b"7 (x\n) t 1", b"7 (\xff) t 1"], ids=range(3))
def test_no_name_of_a_process_hides_its_state(tmp_path: object, monkeypatch: pytest.MonkeyPatch, stat: bytes) -> None:
    (tmp_path / "7").mkdir()  # type: ignore[operator]
    (tmp_path / "7" / "stat").write_bytes(stat)  # type: ignore[operator]
    monkeypatch.setattr(awaiting, "PROC", tmp_path)
    assert "held by a debugger" in Looking(7).after(TELL_AFTER_S)[0]


# The command


class Stopped:
    """A mount whose daemon stops as soon as it is unmounted: it has greeted umount.razorfs, and not closed its image."""

    def __init__(self, mounted: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mounted, self.pid = mounted, mounted.pid
        self.said = io.StringIO()
        self.look_count = 0
        self.at_look: Callable[[], None] = lambda: None
        self._unmount, self._wait = mountpoints.unmount, Waiter.wait
        monkeypatch.setattr(awaiting, "TELL_AFTER_S", 0.0)
        monkeypatch.setattr(umount, "ELSEWHERE_LOOK_S", 0.01)
        monkeypatch.setattr(mountpoints, "unmount", self._stop_and_unmount)

        def wait(waiter: Waiter, patience_s: float) -> Farewell | None:
            self.look_count += 1
            if self.look_count > LOOKS_MAX:
                os.kill(self.pid, signal.SIGCONT)
            self.at_look()
            return self._wait(waiter, patience_s)

        monkeypatch.setattr(Waiter, "wait", wait)

    def _stop_and_unmount(self, path: str) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        self._unmount(path)

    def umount(self) -> int:
        """Run umount.razorfs; return its exit code."""
        try:
            with redirect_stderr(self.said):
                return cli.invoke(umount.app, "umount.razorfs", cli.MOUNT_CODES, [str(self.mounted.path)])
        finally:
            os.kill(self.pid, signal.SIGCONT)


@pytest.fixture
def stopped(mounted: Mounted, monkeypatch: pytest.MonkeyPatch) -> Stopped:
    return Stopped(mounted, monkeypatch)


@pytest.mark.mount
def test_umount_says_that_the_daemon_is_stopped_and_ends_well_when_it_goes_on(stopped: Stopped) -> None:
    """It waited without a word, and nobody knew for what."""

    def go_on() -> None:
        if f"kill -CONT {stopped.pid}" in stopped.said.getvalue():
            os.kill(stopped.pid, signal.SIGCONT)

    stopped.at_look = go_on
    assert stopped.umount() == 0
    told = f"umount.razorfs: {stopped.mounted.path}: unmounted; waiting, but its daemon (pid {stopped.pid}) is stopped"
    assert stopped.said.getvalue().count(told) == 1
    assert stopped.look_count <= LOOKS_MAX


@pytest.mark.mount
@pytest.mark.usefixtures("signals_as_at_a_terminal")
def test_umount_can_be_interrupted_while_it_waits_and_says_how_things_are(stopped: Stopped) -> None:
    stopped.at_look = lambda: signal.raise_signal(signal.SIGINT)
    assert stopped.umount() == cli.MOUNT_CODES.interrupted
    image, pid = stopped.mounted.image, stopped.pid
    told = f"unmounted; not waiting any more; {image} is not closed yet, its daemon (pid {pid}) still has it"
    assert told in stopped.said.getvalue()


@pytest.mark.mount
def test_who_holds_a_mount_is_told_although_its_daemon_is_stopped(mounted: Mounted) -> None:
    """Each open file was asked of which filesystem it was: of a file just written that is a question to the daemon."""
    command = [sys.executable, "-c", HOLD, str(mounted.path / "file")]
    pid, found = mounted.pid, mountpoints.mount_at(str(mounted.path))
    assert found is not None
    told: list[MountUser] = []
    asking = threading.Thread(target=lambda: told.extend(mount_users.users_of(found)), daemon=True)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program_that_holds:
        assert program_that_holds.stdout is not None
        assert program_that_holds.stdout.readline() == b"open\n"
        os.kill(pid, signal.SIGSTOP)
        try:
            asking.start()
            asking.join(ANSWER_S / 4)
            assert not asking.is_alive(), "it hangs with the daemon"
        finally:
            os.kill(pid, signal.SIGCONT)
            program_that_holds.kill()
    assert [(holder.pid, holder.path) for holder in told] == [(program_that_holds.pid, str(mounted.path / "file"))]


@pytest.mark.mount
def test_who_uses_a_copy_of_the_mount_in_another_namespace_is_a_holder(mounted: Mounted) -> None:
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", HOLD, str(mounted.path / "file")]
    found = mountpoints.mount_at(str(mounted.path))
    assert found is not None
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"open\n"
            assert [holder.pid for holder in mount_users.users_of(found)] == [other.pid]
        finally:
            other.kill()
