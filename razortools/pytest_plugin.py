"""A plugin for pytest: does your program keep its files through a power cut? The fixture `crash_mount` tries them all.

Ask for it with ``-p razortools.pytest_plugin``, or in conftest.py with ``pytest_plugins = ["razortools.pytest_plugin"]``::

    def test_saving_survives_a_power_cut(crash_mount):
        file = crash_mount.path / "settings"
        save(file, b"old")  # your program, in this process or another, in any language
        crash_mount.mark("saved old")
        save(file, b"new")
        crash_mount.mark("saved new")

        def verify(tree, marks):  # called for everything that a power cut may leave
            if "saved new" in marks:
                assert tree["settings"] == b"new"
            elif "saved old" in marks:
                assert tree["settings"] in (b"old", b"new")

        crash_mount.check(verify)

It mounts a small RAZORFS image through FUSE and records what that writes. A test is skipped where FUSE cannot be used. What the
mount promises is in docs/RELIABILITY.md: operations are never reordered, so a program that passes here may still need a further
fsync elsewhere. One that fails here must not hope for more elsewhere.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from razortools.debug.crashtest.programs import Checked, Mark, Verify

IMAGE_BYTES = 8 << 20
STATES_PER_FLUSH = 64
ANSWER_S = 60  # far more than mounting takes
FUSE_DEVICE = "/dev/fuse"
_MOUNT = (sys.executable, "-m", "razortools.mount")
_UMOUNT = (sys.executable, "-m", "razortools.umount")


class CrashMount:
    """An image of the test's own, mounted at *path*, whose writes are recorded.

    *states_per_flush* bounds what is tried between two flushes of the device; set it before check().
    """

    def __init__(self, folder: Path) -> None:
        """Make an image in *folder* and mount it. Raises RuntimeError with what mount.razorfs says."""
        from razortools.engine.create import create, plan_create  # late: only tests that ask for the fixture pay for it
        from razortools.engine.store.device import create_image

        self.path = folder / "mnt"
        self.states_per_flush = STATES_PER_FLUSH
        self._image = folder / "image"
        self._recording = folder / "recording"
        self._marks: list[Mark] = []
        self.path.mkdir()
        with create_image(self._image, IMAGE_BYTES) as device:
            create(device, plan_create(IMAGE_BYTES))
        self._before = self._image.read_bytes()
        _run(_MOUNT, self._image, self.path, "-o", f"record={_escaped(self._recording)},log={_escaped(folder / 'log')}")

    def mark(self, text: str) -> None:
        """Say what the program has promised by now: every power cut from here on must keep it."""
        from razortools.debug.crashtest.programs import Mark

        self._marks.append(Mark(text, self._recording.stat().st_size))

    def check(self, verify: "Verify") -> "Checked":
        """Unmount, and call *verify* with (tree, marks) for all that a power cut at any moment may leave.

        *tree* maps paths to contents, and has `directories` and `symlinks`; *marks* are the promises made before. Raises
        AssertionError with a story if *verify* does. Returns how much was checked.
        """
        __tracebackhide__ = True
        from razortools.debug.crashtest.programs import check_program
        from razortools.engine.store.recording import read_recording

        self.unmount()
        events = read_recording(self._recording)
        return check_program(self._before, events, self._marks, verify, states_per_flush=self.states_per_flush)

    def unmount(self) -> None:
        """Unmount, if it is mounted. Raises RuntimeError if that fails, for example while a file is open."""
        if self.path.is_mount():
            _run(_UMOUNT, self.path)

    def take_away(self) -> None:
        """Unmount whatever happens: a program that was stopped may still use the mount, and its daemon is ours to end."""
        try:
            self.unmount()
        except (RuntimeError, OSError, subprocess.TimeoutExpired):
            self._end_daemon()

    def _end_daemon(self) -> None:
        from razortools.service import mountpoints
        from razortools.service.control import Waiter

        mounted = mountpoints.mount_at(str(self.path))
        if mounted is None:
            return
        try:
            waiter = Waiter(mounted.device)
            os.kill(waiter.greeting.pid, signal.SIGKILL)
            waiter.close()
        except OSError:
            pass  # it is gone already
        mountpoints.detach(str(self.path))


@pytest.fixture
def crash_mount(tmp_path: Path) -> Iterator[CrashMount]:
    """A mounted image that tells what a power cut may leave of what your program writes to it."""
    reason = _why_no_fuse()
    if reason:
        pytest.skip(reason)
    folder = tmp_path / "crash_mount"
    folder.mkdir()
    mount = CrashMount(folder)
    try:
        yield mount
    finally:
        mount.take_away()


def _why_no_fuse() -> str:
    """Return why FUSE cannot be used here, or nothing."""
    if not os.path.exists(FUSE_DEVICE):
        return f"crash_mount needs FUSE, and {FUSE_DEVICE} is missing"
    if not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):
        return f"crash_mount needs FUSE, and {FUSE_DEVICE} may not be used here"
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        return "crash_mount needs FUSE, and fusermount3 is missing"
    return ""


def _escaped(path: Path) -> str:
    return str(path).replace(",", "\\,")


def _run(command: tuple[str, ...], *words: str | Path) -> None:
    """Run one of our commands. Raises RuntimeError with what it says if it fails."""
    finished = subprocess.run([*command, *map(str, words)], capture_output=True, text=True, timeout=ANSWER_S)
    if finished.returncode:
        raise RuntimeError(finished.stderr.strip() or f"{command} failed with exit code {finished.returncode}")
