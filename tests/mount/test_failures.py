"""What a mount could not read is known after it: in the log once, in the image until it is repaired."""

import errno
import random
import sys
from pathlib import Path

import pytest

from razortools.engine import files, namespace
from razortools.engine.health import Thresholds, Verdict, examine
from razortools.engine.store.device import open_image
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import open_volume
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.inode import ROOT_INODE
from razortools.format.superblock import State
from razortools.service import failures as failures_module
from razortools.service.failures import Failures
from razortools.units import MIB, InodeNo
from tests.mount.mounts import Mounted, run
from tests.workload import Clock, formatted, opened

FSCK = [sys.executable, "-m", "razortools.fsck"]
HEALTH = [sys.executable, "-m", "razortools.health"]


@pytest.fixture
def device() -> MemoryDevice:
    made = formatted(MemoryDevice(4 * MIB))
    assert isinstance(made, MemoryDevice)
    return made


def verdict_on(device: MemoryDevice) -> dict[str, Verdict]:
    return {reason.subject: reason.verdict for reason in examine(device, 0, Thresholds()).reasons}


def test_the_image_tells_of_failures_from_the_next_checkpoint_on(device: MemoryDevice) -> None:
    volume = opened(device)
    assert not volume.has_untold_failures
    for _ in range(3):
        volume.note_failure()
    assert volume.has_untold_failures
    volume.checkpoint()
    assert not volume.has_untold_failures
    assert (volume.store.superblock.state, volume.store.superblock.error_count) == (State.ERRORS, 3)
    volume.note_failure()
    volume.close()
    again = opened(device)
    assert (again.store.superblock.state, again.store.superblock.error_count) == (State.ERRORS, 4)
    again.close()
    assert verdict_on(device)["State"] is Verdict.CRITICAL
    assert verdict_on(device)["Integrity"] is Verdict.WARNING


def test_an_image_that_met_failures_goes_on_after_it_was_read_only(device: MemoryDevice) -> None:
    volume = opened(device)
    volume.note_failure()
    volume.set_read_only()
    volume.note_failure()
    assert not volume.has_untold_failures  # nothing can be told now
    volume.resume_writing()
    namespace.mkdir(volume, ROOT_INODE, b"more", 0o755, 0, 0)
    volume.close()
    again = opened(device)
    assert namespace.lookup(again, ROOT_INODE, b"more")
    assert again.store.superblock.error_count == 2


def test_a_volume_that_met_nothing_closes_clean(device: MemoryDevice) -> None:
    opened(device).close()
    assert verdict_on(device)["State"] is Verdict.OK


def test_a_failure_is_logged_when_it_is_met_ten_times_as_often(
    device: MemoryDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = opened(device)
    told: list[str] = []
    monkeypatch.setattr(failures_module.log, "error", lambda text, *values, **_: told.append(text % values))
    failures = Failures(volume)
    for _ in range(1234):
        failures.meet(CorruptImage("record 3 is damaged"), "read", InodeNo(9))
    assert ["(met" in line and line.split("(met ")[1].split(" ")[0] for line in told] == [False, "10", "100", "1000"]
    failures.meet(DeviceFailed("Input/output error"), "read", InodeNo(9))
    failures.meet(CorruptImage("record 3 is damaged"), "read", InodeNo(10))
    assert len(told) == 6
    assert (failures.corrupt_count, failures.failed_count) == (1235, 1)
    volume.checkpoint()
    assert volume.store.superblock.error_count == 3  # different ones


def test_what_is_remembered_of_failures_is_bounded(device: MemoryDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures_module, "KEPT_MAX", 10)
    monkeypatch.setattr(failures_module.log, "error", lambda *_, **__: None)
    failures = Failures(opened(device))
    for number in range(1000):
        failures.meet(CorruptImage(f"record {number} is damaged"), "read", InodeNo(9))
        assert len(failures._met) <= 10


@pytest.mark.mount
def test_what_a_mount_could_not_read_is_known_after_it(fuse: None, tmp_path: Path) -> None:
    """It was known to the mount alone: unmounted, the image called itself clean, and razorfsck -p did not look at it."""
    mounted = Mounted(tmp_path)
    data = random.Random(5).randbytes(150_000)
    try:
        mounted.mount()
        (mounted.path / "hurt").write_bytes(data)
        mounted.umount()
        image = bytearray(mounted.image.read_bytes())
        image[image.index(data[140_000:140_100])] ^= 1
        mounted.image.write_bytes(image)
        mounted.mount()
        for _ in range(5):
            with pytest.raises(OSError, check=lambda failure: failure.errno == errno.EIO):
                (mounted.path / "hurt").read_bytes()
        mounted.umount()
        assert ["(met 10 times)" in line for line in mounted.complaints] in ([False], [False, True])
        told = run(HEALTH, mounted.image)
        assert told.returncode == 2 and "CRITICAL State: mounts have met 1 error since" in told.stdout
        assert f'razorfs_errors_seen{{image="{mounted.image}"}} 1' in run(HEALTH, "--prometheus", mounted.image).stdout
        checked = run(FSCK, "-p", mounted.image)
        assert checked.returncode & 4 and "not checked" not in checked.stdout
    finally:
        mounted.take_away()
    with open_image(mounted.image, writable=False) as device, open_volume(device, clock=Clock(), read_only=True) as volume:
        assert files.read(volume, namespace.lookup(volume, ROOT_INODE, b"hurt"), 0, 4096) == data[:4096]
