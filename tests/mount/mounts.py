"""Mounting images for tests: the commands as subprocesses, and an image with its mount point as one object."""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from razortools.engine.create import create, plan_create
from razortools.engine.store.device import create_image, open_image
from razortools.errors import ImageBusy
from razortools.service import mountpoints
from razortools.service.control import Greeting, Waiter
from razortools.units import MIB

MOUNT = [sys.executable, "-m", "razortools.mount"]
FSCK = [sys.executable, "-m", "razortools.fsck"]
UMOUNT = [sys.executable, "-m", "razortools.umount"]
BUSY_LOOK_S = 0.2
MS_REMOUNT = 32
ANSWER_S = 60  # far more than anything here takes; only what hangs gets there


def can_mount() -> bool:
    """Whether this machine lets us mount through FUSE."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


def run(
    command: list[str], *arguments: str | Path, patience_s: float = ANSWER_S, **keywords: object
) -> subprocess.CompletedProcess[str]:
    """Run one of our commands to its end and return what it said."""
    words = command + [str(argument) for argument in arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=patience_s, **keywords)  # type: ignore[call-overload, no-any-return]


class Mounted:
    """An image and its mount point."""

    def __init__(self, folder: Path, image_bytes: int = 64 * MIB, image_name: str = "image") -> None:
        """Make an image in *folder*; nothing is mounted yet."""
        self.image = folder / image_name
        self.path = folder / "mnt"
        self.patience_s = 0.0  # with those who use the mount when it is to go: other programs on the machine may look at any
        self.log = folder / "log"
        self.path.mkdir()
        with create_image(self.image, image_bytes) as device:
            create(device, plan_create(image_bytes, uuid=bytes(range(16)), hash_seed=bytes(16)))

    def mount(self, *options: str) -> "Mounted":
        """Mount it; returns when it answers."""
        done = run(MOUNT, self.image, self.path, "-o", ",".join((f"log={self.log}", *options)))
        assert done.returncode == 0, done.stderr
        return self

    def try_umount(self) -> "subprocess.CompletedProcess[str]":
        """Unmount it, however that ends; who looks at all mounts of the machine, another test, is waited for."""
        end = time.monotonic() + self.patience_s
        done = run(UMOUNT, self.path)
        while done.returncode and "is in use by" in done.stderr and time.monotonic() < end:
            time.sleep(BUSY_LOOK_S)
            done = run(UMOUNT, self.path)
        return done

    def umount(self) -> None:
        """Unmount it; returns when the image is closed.

        Another test may have a copy of all mounts for a moment, in a namespace of its own: umount.razorfs says so and goes.
        """
        done = self.try_umount()
        assert done.returncode == 0, done.stderr + self.log.read_text()
        end = time.monotonic() + ANSWER_S
        while "is mounted elsewhere" in done.stderr:
            try:
                open_image(self.image, writable=True).close()
                return
            except ImageBusy:
                assert time.monotonic() < end, done.stderr
                time.sleep(BUSY_LOOK_S)

    def remount(self, *options: str) -> "Mounted":
        """Unmount and mount again: nothing comes from a cache after this."""
        self.umount()
        return self.mount(*options)

    def make_kernel_forget(self) -> None:
        """Have the kernel drop every name and file of this mount that nobody uses now, as a remount by mount(2) does first."""
        if ctypes.CDLL(None, use_errno=True).mount(None, os.fsencode(self.path), None, MS_REMOUNT, None):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(self.path))

    @property
    def greeting(self) -> Greeting:
        """What the daemon tells of itself now."""
        found = mountpoints.mount_at(str(self.path))
        assert found is not None
        waiter = Waiter(found.device)
        waiter.close()
        return waiter.greeting

    @property
    def pid(self) -> int:
        """The daemon's process."""
        return self.greeting.pid

    def send(self, number: signal.Signals) -> None:
        """Send the daemon a signal and wait until it has ended."""
        pid = self.pid
        descriptor = os.pidfd_open(pid)
        try:
            os.kill(pid, number)
            ended, _, _ = select.select([descriptor], [], [], ANSWER_S)
            assert ended, f"the daemon did not end by {number.name}"
        finally:
            os.close(descriptor)

    def take_away(self) -> None:
        """Leave nothing behind: for the end of a test, failed or not. Ends only the daemon of this very mount."""
        if mountpoints.mount_at(str(self.path)) is None:
            return
        if mountpoints.is_dead(str(self.path)):
            mountpoints.detach(str(self.path))
        elif run(UMOUNT, self.path).returncode and mountpoints.mount_at(str(self.path)) is not None:
            self.send(signal.SIGKILL)
            mountpoints.detach(str(self.path))

    @property
    def complaints(self) -> list[str]:
        """Errors and tracebacks in the log."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if " INFO " not in line]


RENAME_EXCHANGE = 2


def renameat2(source: Path, target: Path, flags: int) -> None:
    """Rename with flags, which Python lacks. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(source))
