"""A volume that turns read-only while it is open, and takes up writing again: what is on the device at each step."""

import os
from pathlib import Path

import pytest

from razortools.engine import directories, files, namespace, orphans
from razortools.engine.limits import Limits
from razortools.engine.store.device import Device, FileDevice, open_image
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.superblocks import newest
from razortools.engine.volume import Volume, open_volume
from razortools.errors import DeviceFailed, ImageBusy, ReadOnly
from razortools.format.inode import ROOT_INODE
from razortools.format.superblock import State, Superblock
from razortools.units import MIB, InodeNo
from tests.images import make_image, open_for_writing
from tests.workload import formatted


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "image")


def make(volume: Volume, name: str) -> InodeNo:
    ino = namespace.create(volume, ROOT_INODE, name.encode(), 0o100644, 0, 0, 0)
    files.write(volume, ino, 0, name.encode() * 1000)
    return ino


def names(image: Path) -> list[bytes]:
    """Return what a fresh look at the image shows, without any recovery."""
    with open_volume(open_image(image, writable=False, lock=False), read_only=True, recover=False) as volume:
        return sorted(name for _, name, _ in directories.entries(volume, ROOT_INODE, 0))


def state(image: Path) -> tuple[State, int]:
    with open_image(image, writable=False, lock=False) as device:
        superblock = newest(device)
    return State(superblock.state), superblock.mount_count


def test_a_volume_that_turns_read_only_leaves_what_close_leaves(image: Path) -> None:
    with open_for_writing(image) as volume:
        make(volume, "file")
        volume.set_read_only()
        assert state(image) == (State.CLEAN, 1)
        assert names(image) == [b"file"]
        before = image.read_bytes()
        with pytest.raises(ReadOnly):
            make(volume, "other")
        volume.set_read_only()
        volume.commit()
        volume.checkpoint()
    assert image.read_bytes() == before


def test_writing_is_marked_before_anything_is_written(image: Path) -> None:
    with open_for_writing(image) as volume:
        for number in range(3):
            make(volume, f"{number}")
            volume.set_read_only()
            assert state(image) == (State.CLEAN, number + 1)
            volume.resume_writing()
            assert state(image) == (State.DIRTY, number + 2)
    assert state(image) == (State.CLEAN, 4)
    assert names(image) == [b"0", b"1", b"2"]


def test_a_volume_opened_for_reading_takes_up_writing(image: Path) -> None:
    with open_for_writing(image) as volume:
        make(volume, "first")
    with open_volume(open_image(image, writable=False), read_only=True) as volume:
        volume.resume_writing()
        make(volume, "second")
        volume.commit()
    assert names(image) == [b"first", b"second"]


def test_readers_share_the_image_only_while_nobody_writes(image: Path) -> None:
    with open_for_writing(image) as volume:
        with pytest.raises(ImageBusy):
            open_image(image, writable=False)
        volume.set_read_only()
        with open_image(image, writable=False):
            with pytest.raises(ImageBusy, match=f"pid {os.getpid()}"):
                volume.resume_writing()
            assert volume.read_only
        with pytest.raises(ImageBusy):  # what it had of the lock, it has still
            open_image(image, writable=True)
        volume.resume_writing()
        make(volume, "file")
    assert names(image) == [b"file"]


def test_what_somebody_else_has_changed_is_not_written_over(image: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with open_for_writing(image) as volume:
        volume.set_read_only()
        copy.write_bytes(image.read_bytes())
        with open_for_writing(copy) as other:
            make(other, "theirs")
        with open(image, "r+b") as file:
            file.write(copy.read_bytes())
        with pytest.raises(ReadOnly, match="changed by somebody else"):
            volume.resume_writing()
        assert volume.read_only
    assert names(image) == [b"theirs"]


def test_an_image_that_would_need_recovery_is_not_taken_up(image: Path, tmp_path: Path) -> None:
    crashed = tmp_path / "crashed"
    with open_for_writing(image) as volume:
        make(volume, "file")
        volume.commit()
        crashed.write_bytes(image.read_bytes())
    before = crashed.read_bytes()
    for recover in (True, False):
        with open_volume(open_image(crashed, writable=False), read_only=True, recover=recover) as volume:
            with pytest.raises(ReadOnly, match="was not closed cleanly"):
                volume.resume_writing()
            assert volume.read_only
    assert crashed.read_bytes() == before


def test_files_without_a_name_go_unless_somebody_holds_them(image: Path) -> None:
    with open_for_writing(image) as volume:
        held, other = make(volume, "held"), make(volume, "other")
        for ino in (held, other):
            orphans.hold(volume, ino)
        for name in (b"held", b"other"):
            namespace.unlink(volume, ROOT_INODE, name)
        orphans.release(volume, other, finish_now=False)
        volume.set_read_only()
        assert volume.statistics().inode_count == 2
        assert files.read(volume, held, 0, 4) == b"held"
        orphans.release(volume, held)
        volume.resume_writing()
        assert volume.statistics().inode_count == 1


class FailingDevice(FileDevice):
    """A device whose flush fails when told so."""

    fails = False

    def flush(self) -> None:
        if self.fails:
            raise DeviceFailed("flush failed")
        super().flush()


def open_failing(image: Path) -> tuple[Volume, FailingDevice]:
    device = FailingDevice(os.open(image, os.O_RDWR), str(image), read_only=False)
    return open_volume(device), device


def test_a_device_that_fails_while_it_turns_read_only_leaves_an_image_that_says_so(image: Path) -> None:
    volume, device = open_failing(image)
    make(volume, "file")
    device.fails = True
    with pytest.raises(DeviceFailed):
        volume.set_read_only()
    assert volume.read_only and volume.store.failure
    device.fails = False
    with pytest.raises(ReadOnly, match="The filesystem is read-only now"):
        volume.resume_writing()
    volume.close()
    assert state(image)[0] == State.DIRTY


def test_a_device_that_fails_when_writing_is_taken_up_leaves_it_read_only(image: Path) -> None:
    volume, device = open_failing(image)
    make(volume, "file")
    volume.set_read_only()
    device.fails = True
    with pytest.raises(DeviceFailed):
        volume.resume_writing()
    assert volume.read_only and volume.store.failure
    device.fails = False
    volume.close()
    assert names(image) == [b"file"]


def test_other_limits_hold_from_the_next_operations_on(image: Path) -> None:
    with open_for_writing(image) as volume:
        for number in range(40):
            ino = make(volume, f"{number}")
            files.write(volume, ino, 0, os.urandom(128 * 1024))
        volume.commit()
        volume.set_limits(Limits(record_cache_bytes=1 * MIB, metadata_cache_bytes=1 * MIB, dirty_bytes=1 * MIB))
        for number in range(20):
            ino = make(volume, f"again {number}")
            files.write(volume, ino, 0, os.urandom(128 * 1024))
            assert volume.records.dirty_bytes <= 1 * MIB
        files.read(volume, ino, 0, 4096)
        assert volume.records.clean.total_bytes <= 1 * MIB
        assert volume.statistics().metadata_cache_bytes <= 2 * MIB


def test_a_device_that_cannot_be_read_at_resuming_stays_closed_to_writes(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(device: Device) -> Superblock:
        raise DeviceFailed("the superblocks cannot be read")

    with open_for_writing(image) as volume:
        volume.set_read_only()
        with monkeypatch.context() as broken:
            broken.setattr("razortools.engine.volume.newest", unreadable)
            with pytest.raises(DeviceFailed):
                volume.resume_writing()
        assert volume.read_only and volume.store.device.read_only
        open_image(image, writable=False).close()  # nor is it locked against others who look


def test_what_an_image_with_errors_has_in_its_journal_is_not_written_over() -> None:
    device = formatted(MemoryDevice(8 * MIB))
    volume = open_volume(device)
    volume._write_checkpoint(state=State.ERRORS)
    namespace.create(volume, ROOT_INODE, b"durable", 0o644, 0, 0)
    volume.commit()
    looking = open_volume(device.copy(), read_only=True, recover=False)
    with pytest.raises(ReadOnly, match="was not closed cleanly"):
        looking.resume_writing()
