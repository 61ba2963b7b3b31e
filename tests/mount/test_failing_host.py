"""A host that runs full under a mounted image: writers are told, readers are served, and nothing acknowledged is lost."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from razortools.units import MIB
from tests.images import make_image
from tests.mount.mounts import UMOUNT, Mounted, run

pytestmark = pytest.mark.mount

HEALTH = [sys.executable, "-m", "razortools.health"]
FSCK = [sys.executable, "-m", "razortools.fsck"]
CRITICAL = 2
IMAGE_BYTES = 64 * MIB
HOST_BYTES = 16 * MIB


class SmallHost:
    """A small filesystem of the host, in memory."""

    def __init__(self, path: Path) -> None:
        """Mount it at *path*."""
        self.path = path
        path.mkdir()
        done = run(["mount"], "-t", "tmpfs", "-o", f"size={HOST_BYTES}", "small host", path)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr}")

    def grow(self, size_bytes: int) -> None:
        """Make room."""
        subprocess.run(["mount", "-o", f"remount,size={size_bytes}", self.path], check=True)

    def take_away(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", self.path], check=True)


@pytest.fixture
def host(fuse: None, tmp_path: Path) -> Iterator[SmallHost]:
    made = SmallHost(tmp_path / "host")
    try:
        yield made
    finally:
        made.take_away()


@pytest.fixture
def mounted(host: SmallHost, tmp_path: Path) -> Iterator[Mounted]:
    """A mounted image that is larger than its host has room for. Mount point and log lie elsewhere."""
    made = Mounted(tmp_path)
    made.image.unlink()
    made.image = make_image(host.path / "image", IMAGE_BYTES)
    try:
        yield made.mount("commit=3600")  # only what the test asks for is made durable
    finally:
        made.take_away()


def write_durably(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def fill_host(mounted: Mounted) -> dict[str, bytes]:
    """Write files until the host refuses; return those whose fsync returned."""
    source = random.Random(1)
    acknowledged: dict[str, bytes] = {}
    with pytest.raises(OSError, check=lambda failure: failure.errno == errno.EIO):
        for number in range(IMAGE_BYTES // MIB):
            data = source.randbytes(1 * MIB)
            write_durably(mounted.path / f"{number}", data)
            acknowledged[f"{number}"] = data
    assert len(acknowledged) >= 8
    return acknowledged


def read_anew(path: Path) -> bytes:
    """Return the contents of a file, from the daemon and not from the kernel's memory."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read()


def test_a_full_host_is_told_to_writers_and_everything_acknowledged_is_kept(mounted: Mounted, host: SmallHost) -> None:
    acknowledged = fill_host(mounted)
    for _ in range(2):  # no later fsync pretends that all is well
        with open(mounted.path / "0", "rb") as file, pytest.raises(OSError, check=lambda told: told.errno == errno.EIO):
            os.fsync(file.fileno())
    with pytest.raises(OSError, check=lambda told: told.errno == errno.EROFS):
        os.mkdir(mounted.path / "new")
    refused = pytest.raises(OSError, check=lambda told: told.errno == errno.EROFS)  # to open it, once the mount table says so
    with refused, open(mounted.path / "0", "r+b", buffering=0) as file:
        file.write(b"changed")
    for name, data in acknowledged.items():
        assert read_anew(mounted.path / name) == data
    assert any("No space left on device" in line and "read-only" in line for line in mounted.complaints)
    host.grow(2 * IMAGE_BYTES)
    told = run(UMOUNT, mounted.path)
    assert told.returncode != 0
    assert "not closed cleanly" in told.stderr and "No space left on device" in told.stderr
    mounted.mount()
    for name, data in acknowledged.items():
        assert (mounted.path / name).read_bytes() == data
    write_durably(mounted.path / "room again", b"x" * MIB)
    mounted.umount()
    checked = run(FSCK, "-n", mounted.image)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_health_says_at_once_that_a_mount_has_turned_read_only_and_why(mounted: Mounted) -> None:
    assert run(HEALTH, mounted.path).returncode == 0
    fill_host(mounted)
    for target in ([mounted.path], [mounted.image], []):
        told = run(HEALTH, *target)
        assert told.returncode == CRITICAL
        lines = [line for line in told.stdout.splitlines() if line.startswith("CRITICAL Mount: ")]
        critical = [line for line in lines if str(mounted.image) in line]
        assert not target or lines == critical  # without a target it tells of the mounts of tests that run beside this one, too
        assert len(critical) == 1
        assert "has turned read-only by itself" in critical[0] and "No space left on device" in critical[0]
        told = run(HEALTH, "--json", *target)
        assert told.returncode == CRITICAL
        document = json.loads(told.stdout)
        ours = next(one for one in document["images"] if one["image"] == str(mounted.image))
        assert (document["verdict"], ours["verdict"]) == ("critical", "critical")
        assert "No space left on device" in ours["reasons"][0]["text"]
        told = run(HEALTH, "--nagios", *target)
        assert told.returncode == CRITICAL
        assert told.stdout.startswith("RAZORFS CRITICAL - ") and told.stdout.count("\n") == 1
        assert f"{mounted.image}: Mount: has turned read-only by itself" in told.stdout
        told = run(HEALTH, "--prometheus", *target)
        assert f'razorfs_health{{image="{mounted.image}"}} 2' in told.stdout


def test_health_does_not_wait_for_a_daemon_that_hangs(mounted: Mounted) -> None:
    pid = mounted.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        told = run(HEALTH, mounted.image)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert told.returncode == 3
    assert "UNKNOWN  Mount: the process that serves" in told.stdout
