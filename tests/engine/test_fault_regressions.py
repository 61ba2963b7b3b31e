"""What the fault sweeps have found, and what they led to."""


import pytest

from razortools.check.runner import check_quietly
from razortools.engine import files, namespace, orphans, truncation
from razortools.engine.store import superblocks
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.simulated import NO_FAULTS, Faults, SimulatedDevice
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage, DeviceFailed, OutOfSpace, PosixError, RazorError, ReadOnly
from razortools.format.data import DataRecord
from razortools.format.journal import Operation
from razortools.format.keys import Kind, kind_range, orphan_key
from razortools.units import MIB, BlockNo, InodeNo
from tests.engine.faulty import (
    R,
    SteppingClock,
    at,
    fresh_disk,
    noise,
    open_tight,
)
from tests.workload import everything, formatted


def crashed_after_a_commit() -> SimulatedDevice:
    """Return a disk with one transaction to replay, which names data and was acknowledged."""
    disk = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(disk, SteppingClock())
    files.write(volume, at(volume, b"/old1"), 0, noise(20_000, 9))
    volume.commit()
    return SimulatedDevice.holding(disk.stable())


def reads_of_data(disk: SimulatedDevice) -> list[int]:
    """Return the numbers of the reads that recovery makes of the transaction's data."""
    probe = SimulatedDevice.holding(disk)
    volume = open_tight(probe, SteppingClock())
    ino = at(volume, b"/old1")
    places = {record.address for _, record in data_records(volume, ino)}
    numbers = []
    probe = SimulatedDevice.holding(disk)
    real_read = probe.read

    def read(offset: int, length: int) -> bytes:
        if offset // volume.block_bytes in places:
            numbers.append(probe.read_count)
        return real_read(offset, length)

    probe.read = read  # type: ignore[method-assign]
    open_tight(probe, SteppingClock())
    assert len(numbers) >= 3
    return numbers


def data_records(volume: Volume, ino: InodeNo) -> list[tuple[bytes, DataRecord]]:
    return [(key, DataRecord.decode(value)) for key, value in volume.store.items(*kind_range(ino, Kind.DATA_RECORD))]


def test_data_that_cannot_be_read_in_recovery_do_not_pass_for_lost_ones() -> None:
    """The transaction was dropped as one that had never been acknowledged, for good: the next checkpoint made it so."""
    disk = crashed_after_a_commit()
    for number in reads_of_data(disk):
        failing = SimulatedDevice.holding(disk, Faults(fail_read_at=number))
        with pytest.raises(DeviceFailed):
            open_tight(failing, SteppingClock())
        volume = open_tight(failing.copy(), SteppingClock())
        assert files.read(volume, at(volume, b"/old1"), 0, 20_000) == noise(20_000, 9)


def test_data_that_are_misread_once_in_recovery_do_not_pass_for_lost_ones() -> None:
    disk = crashed_after_a_commit()
    for number in reads_of_data(disk):
        volume = open_tight(SimulatedDevice.holding(disk, Faults(flip_read_at=number)), SteppingClock())
        assert files.read(volume, at(volume, b"/old1"), 0, 20_000) == noise(20_000, 9)


def slot_of(disk: SimulatedDevice) -> int:
    """Return which slot holds the newest superblock."""
    return superblocks.newest(disk).slot


class BadPlaces(SimulatedDevice):
    """A disk that cannot read some places at all."""

    bad: tuple[int, ...] = ()

    def read(self, offset: int, length: int) -> bytes:
        if any(offset <= place < offset + length for place in self.bad):
            raise DeviceFailed(f"{self.name}: read of {length} bytes at {offset} failed, as the test asked")
        return super().read(offset, length)


@pytest.mark.parametrize("with_backups", [True, False])
def test_an_unreadable_superblock_slot_is_no_reason_to_go_back_to_an_older_state(*, with_backups: bool) -> None:
    """The other slot was taken for the truth. What it names, in tree and journal, has been released and may be overwritten."""
    written = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(written, SteppingClock())
    namespace.mkdir(volume, R, b"new", 0o755, 0, 0)
    volume.checkpoint()
    left = written.copy() if with_backups else written.stable()  # the backups have no flush of their own
    disk = BadPlaces.holding(left)
    assert isinstance(disk, BadPlaces)
    disk.bad = (slot_of(disk) * volume.block_bytes,)
    if with_backups:
        assert b"/new" in everything(open_tight(disk, SteppingClock()))
    else:
        with pytest.raises(DeviceFailed, match="slot cannot be read"):
            open_tight(disk, SteppingClock())
        disk.bad = ()
        assert b"/new" in everything(open_tight(disk, SteppingClock()))


def test_a_superblock_slot_that_is_misread_once_is_no_reason_to_go_back_to_an_older_state() -> None:
    written = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(written, SteppingClock())
    namespace.mkdir(volume, R, b"new", 0o755, 0, 0)
    volume.checkpoint()
    for number in range(len(superblocks.find_copies(written))):
        disk = SimulatedDevice.holding(written.stable(), Faults(flip_read_at=number, flip_bit=800))
        assert superblocks.newest(disk).generation == volume.statistics().generation


def test_a_disk_that_reads_nothing_is_not_called_something_that_is_no_image() -> None:
    disk = SimulatedDevice.holding(fresh_disk(), Faults(fail_read_at=0, for_ever=True))
    with pytest.raises(DeviceFailed, match="cannot be read"):
        open_tight(disk, SteppingClock())


def test_a_checkpoint_that_cannot_be_prepared_is_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of the space map failed to load; nodes that were never written counted as written, and the next one named them."""
    disk = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(disk, SteppingClock())
    namespace.mkdir(volume, R, b"new", 0o755, 0, 0)
    volume.commit()
    before = everything(volume)

    def unreadable(*_: object) -> None:
        raise CorruptImage("space map: wrong checksum")

    monkeypatch.setattr(volume.store.maps, "encode_checkpoint", unreadable)
    with pytest.raises(CorruptImage):
        volume.checkpoint()
    monkeypatch.undo()
    with pytest.raises(ReadOnly, match="space map: wrong checksum"):
        volume.checkpoint()
    volume.close()
    assert everything(open_tight(disk, SteppingClock())) == before


def test_an_orphan_that_a_full_image_cannot_finish_does_not_keep_it_from_being_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(disk, SteppingClock())
    ino = at(volume, b"/old1")
    namespace.hold(volume, ino)
    namespace.unlink(volume, R, b"old1")
    volume.commit()

    def full(*_: object) -> bool:
        raise OutOfSpace("no space left")

    monkeypatch.setattr(orphans, "finish_step", full)
    opened = open_tight(disk, SteppingClock())
    assert opened.inodes.get(ino).link_count == 0
    opened.close()
    monkeypatch.undo()
    opened = open_tight(disk, SteppingClock())
    with pytest.raises(PosixError):
        opened.inodes.get(ino)


@pytest.mark.parametrize("reason", ["unlinked", "truncated"])
def test_miscounted_blocks_keep_nothing_from_being_deleted(reason: str) -> None:
    """Counting down below zero gave a struct.error, with the first commit after opening or with the first step of deleting."""
    disk = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(disk, SteppingClock())
    ino = at(volume, b"/old1")
    files.write(volume, ino, 0, noise(20_000, 9))
    volume.commit()
    with volume.operation(Operation.REPAIR, ino):
        inode = volume.inodes.get(ino)
        inode.stored_blocks = 1
        volume.inodes.put(ino, inode)
        volume.counters.data_blocks = volume.counters.raw_bytes = 1
    if reason == "unlinked":
        namespace.hold(volume, ino)
        namespace.unlink(volume, R, b"old1")
        volume.commit()
        volume = open_tight(disk, SteppingClock())
        assert b"/old1" not in everything(volume)
    else:
        files.truncate(volume, ino, 0)
    volume.close()
    assert b"/old2" in everything(open_tight(disk, SteppingClock()))


def test_a_file_whose_tail_cannot_be_read_can_be_cut() -> None:
    disk = SimulatedDevice.holding(fresh_disk())
    volume = open_tight(disk, SteppingClock())
    ino = at(volume, b"/old1")
    files.write(volume, ino, 0, noise(20_000, 9))
    volume.commit()
    everything(volume)  # all nodes are in memory, no data is
    disk.faults = Faults(fail_read_at=disk.read_count, for_ever=True)
    files.truncate(volume, ino, 10_000)
    disk.faults = NO_FAULTS
    assert files.read(volume, ino, 0, 20_000) == noise(20_000, 9)[:10_000]


def test_an_allocation_that_fails_half_way_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that had been found when a page of the space map could not be read stayed in use, with nobody to free them."""
    volume = open_tight(SimulatedDevice.holding(fresh_disk()), SteppingClock())
    maps = volume.store.maps
    before = maps.free_blocks
    find_run = maps.allocate_run
    found: list[int] = []

    def fragmented(block_count: int, near: int) -> BlockNo | None:
        if block_count > 2:
            return None
        if found:
            raise DeviceFailed("a page of the space map cannot be read")
        found.append(block_count)
        return find_run(block_count, near)

    monkeypatch.setattr(maps, "allocate_run", fragmented)
    with pytest.raises(DeviceFailed):
        maps.allocate(5)
    monkeypatch.undo()
    assert maps.free_blocks == before


def with_a_long_file() -> MemoryDevice:
    """Return a filesystem with one copy of each node, and a file that takes several steps to shorten."""
    disk = MemoryDevice(4 * MIB)
    formatted(disk, record_bytes=4096, metadata_copies=1)
    with open_volume(disk, clock=SteppingClock()) as volume:
        files.write(volume, namespace.create(volume, R, b"long", 0o644, 1, 2), 0, noise(300 * 4096, 1))
    return disk


def test_a_file_that_takes_several_steps_to_shorten_is_as_it_was_or_shorter_and_an_error_says_which() -> None:
    """The first step makes it shorter. What kept a later one from being done was told as if nothing had been."""
    disk = with_a_long_file()
    outcomes = set[bool]()
    for number in range(200):
        device = SimulatedDevice.holding(disk)
        volume = open_tight(device, SteppingClock())
        ino = at(volume, b"/long")
        device.faults = Faults(fail_read_at=device.read_count + number)
        try:
            files.truncate(volume, ino, 5000)
            is_done = True
        except (CorruptImage, DeviceFailed):
            is_done = False
        has_failed = device.read_count > device.faults.fail_read_at
        device.faults = NO_FAULTS
        assert volume.inodes.get(ino).size == (5000 if is_done else 300 * 4096)
        if has_failed:
            outcomes.add(is_done)
        files.truncate(volume, ino, 5000)
        files.truncate(volume, ino, 9000)
        assert files.read(volume, ino, 0, 9000) == noise(300 * 4096, 1)[:5000] + bytes(4000)
        assert len(data_records(volume, ino)) == 2
        volume.close()
        if not has_failed:
            break
    assert outcomes == {True, False}


def cut_short(monkeypatch: pytest.MonkeyPatch, volume: Volume, ino: InodeNo) -> None:
    """Truncate a long file to 100 bytes; what is left of it cannot be deleted for now."""

    def unreadable(volume: Volume, ino: InodeNo) -> None:
        raise CorruptImage("for now")

    with monkeypatch.context() as failing:
        failing.setattr(truncation, "finish", unreadable)
        files.truncate(volume, ino, 100)
    assert len(data_records(volume, ino)) > 100


@pytest.mark.parametrize("size", [50, 9000])
def test_who_ends_a_truncation_leaves_a_file_without_a_name_an_orphan(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """It stood there for both reasons, and was taken out when the one was gone: nobody deleted it any more."""
    disk = with_a_long_file()
    volume = open_volume(disk, clock=SteppingClock())
    ino = at(volume, b"/long")
    orphans.hold(volume, ino)
    cut_short(monkeypatch, volume, ino)
    namespace.unlink(volume, R, b"long")
    volume.commit()
    files.truncate(volume, ino, size)
    assert len(data_records(volume, ino)) <= 1
    assert list(orphans.standing(volume)) == [ino]
    orphans.release(volume, ino)
    assert (volume.counters.inode_count, volume.counters.data_blocks, list(orphans.standing(volume))) == (1, 0, [])
    volume.close()
    assert check_quietly(disk).clean


@pytest.mark.parametrize("event", ["an operation was taken back", "all of them were"])
def test_cut_bytes_do_not_come_back_in_a_file_without_a_name(monkeypatch: pytest.MonkeyPatch, event: str) -> None:
    """The table tells only that it has no name. That it may have records beyond its size was forgotten."""
    volume = open_volume(with_a_long_file(), clock=SteppingClock())
    ino = at(volume, b"/long")
    orphans.hold(volume, ino)
    namespace.unlink(volume, R, b"long")
    volume.commit()
    cut_short(monkeypatch, volume, ino)
    volume.commit()
    if event == "all of them were":
        volume.abort()
    else:
        volume.records.forget_key(orphan_key(InodeNo(ino + 1)))
    files.truncate(volume, ino, 300 * 4096)
    assert files.read(volume, ino, 0, 300 * 4096) == noise(300 * 4096, 1)[:100] + bytes(300 * 4096 - 100)


@pytest.mark.parametrize("failure", [CorruptImage, DeviceFailed, OutOfSpace])
def test_an_unlink_that_was_done_is_not_refused_for_what_cannot_be_deleted_now(
    monkeypatch: pytest.MonkeyPatch, failure: type[RazorError]
) -> None:
    """A page of the space map that the device did not read made it one."""
    volume = open_volume(with_a_long_file(), clock=SteppingClock())
    ino = at(volume, b"/long")

    def failing(volume: Volume, ino: InodeNo) -> None:
        raise failure("for now")

    with monkeypatch.context() as patched:
        patched.setattr(orphans, "finish", failing)
        namespace.unlink(volume, R, b"long")
    with pytest.raises(PosixError, match=r"ENOENT|No such file"):
        namespace.lookup(volume, R, b"long")
    assert list(orphans.standing(volume)) == [ino]
    orphans.finish_orphans(volume)
    assert volume.counters.data_blocks == 0
