"""The simulated disk fails as its fault model says, and in no other way: what is tested with it rests on that."""

import errno

import pytest

from razortools.engine.store.simulated import NO_FAULTS, SECTOR_BYTES, Faults, SimulatedDevice
from razortools.errors import DeviceFailed
from razortools.units import KIB

DISK_BYTES = 64 * KIB
OLD, NEW = b"o" * 4096, b"n" * 4096


def disk_with(faults: Faults = NO_FAULTS) -> SimulatedDevice:
    """Return a disk whose first 16 KiB hold OLD, all of it stable, with no call counted."""
    made = SimulatedDevice(DISK_BYTES)
    made.write(0, OLD * 4)
    made.flush()
    return SimulatedDevice.holding(made, faults)


def test_calls_are_counted_by_kind_and_failing_ones_too() -> None:
    disk = disk_with(Faults(fail_write_at=1))
    disk.write(0, NEW)
    with pytest.raises(DeviceFailed):
        disk.write(0, NEW)
    disk.read(0, 10)
    disk.read(0, 10)
    disk.flush()
    assert (disk.read_count, disk.write_count, disk.flush_count, disk.call_count) == (2, 2, 1, 5)


@pytest.mark.parametrize("for_ever", [False, True])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_write_fails_with_its_reason_when_its_number_has_come_once_or_for_ever(error: int, *, for_ever: bool) -> None:
    disk = disk_with(Faults(fail_write_at=1, error=error, for_ever=for_ever))
    disk.write(0, NEW)
    with pytest.raises(DeviceFailed, match="No space left" if error == errno.ENOSPC else "Input/output error"):
        disk.write(4096, NEW)
    assert disk.read(0, 8192) == NEW + OLD
    if for_ever:
        with pytest.raises(DeviceFailed):
            disk.write(4096, NEW)
    else:
        disk.write(4096, NEW)
    assert disk.read(4096, 4096) == (OLD if for_ever else NEW)


def test_of_a_short_write_the_beginning_arrives_and_a_crash_may_lose_it() -> None:
    disk = disk_with(Faults(fail_write_at=0, short_bytes=1000))
    with pytest.raises(DeviceFailed, match="after 1000 bytes"):
        disk.write(0, NEW)
    assert disk.read(0, 4096) == NEW[:1000] + OLD[1000:]
    assert disk.stable().read(0, 4096) == OLD


def test_a_short_read_gives_nothing_but_the_error() -> None:
    disk = disk_with(Faults(fail_read_at=0, short_bytes=1000))
    with pytest.raises(DeviceFailed, match="after 1000 bytes"):
        disk.read(0, 4096)
    assert disk.read(0, 4096) == OLD


def test_a_read_fails_for_ever() -> None:
    disk = disk_with(Faults(fail_read_at=1, for_ever=True))
    assert disk.read(0, 4096) == OLD
    for _ in range(3):
        with pytest.raises(DeviceFailed):
            disk.read(0, 4096)


def test_a_flush_that_fails_drops_what_was_dirty_and_the_next_one_does_not_tell() -> None:
    disk = disk_with(Faults(fail_flush_at=0))
    disk.write(0, NEW)
    disk.write(2048, OLD)
    assert disk.read(0, 4096) == NEW[:2048] + OLD[2048:]
    with pytest.raises(DeviceFailed):
        disk.flush()
    assert disk.read(0, 4096) == OLD
    disk.flush()
    assert disk.copy().read(0, 4096) == disk.stable().read(0, 4096) == OLD


def test_a_flush_that_fails_may_keep_a_part_by_sectors_and_the_seed_tells_which() -> None:
    found = set()
    for seed in range(20):
        left = []
        for _ in range(2):
            disk = disk_with(Faults(fail_flush_at=0, flush_keeps=0.5, seed=seed))
            disk.write(0, NEW)
            with pytest.raises(DeviceFailed):
                disk.flush()
            left.append(disk.read(0, 4096))
        assert left[0] == left[1], "one seed is one run"
        sectors = [left[0][at : at + SECTOR_BYTES] for at in range(0, 4096, SECTOR_BYTES)]
        assert set(sectors) <= {OLD[:SECTOR_BYTES], NEW[:SECTOR_BYTES]}
        found.add(left[0])
    assert len(found) > 10


def test_a_misdirected_write_lands_elsewhere_and_says_nothing() -> None:
    disk = disk_with(Faults(misdirect_write_at=0, misdirect_bytes=8192))
    disk.write(0, NEW)
    assert disk.read(0, 3 * 4096) == OLD + OLD + NEW
    assert disk.stable().read(0, 3 * 4096) == OLD * 3, "it is as unstable as any write"
    disk.write(0, NEW)
    assert disk.read(0, 4096) == NEW


def test_beyond_the_end_a_misdirected_call_starts_again_at_the_beginning() -> None:
    last_place = DISK_BYTES - 4096
    disk = disk_with(Faults(misdirect_write_at=0, misdirect_bytes=4096 + 1))
    disk.write(last_place, NEW)
    assert disk.read(0, 3 * 4096) == OLD + NEW + OLD
    assert disk.read(last_place, 4096) == bytes(4096)


def test_a_misdirected_read_returns_what_lies_elsewhere() -> None:
    disk = disk_with(Faults(misdirect_read_at=0, misdirect_bytes=16 * KIB))
    assert disk.read(0, 4096) == bytes(4096)
    assert disk.read(0, 4096) == OLD


def test_a_bit_flips_in_one_write_for_good_and_in_one_read_on_the_way_only() -> None:
    disk = disk_with(Faults(flip_write_at=0, flip_bit=8 * 100 + 3))
    disk.write(0, NEW)
    flipped = bytearray(NEW)
    flipped[100] ^= 1 << 3
    assert disk.read(0, 4096) == bytes(flipped)
    disk = disk_with(Faults(flip_read_at=0, flip_bit=8 * 4096))  # modulo the length: the first bit
    assert disk.read(0, 4096) == bytes([OLD[0] ^ 1]) + OLD[1:]
    assert disk.read(0, 4096) == OLD


def test_a_truncated_disk_loses_its_end_for_good_and_fails_behind_it() -> None:
    disk = disk_with(Faults(truncate_at=2, truncate_to_bytes=5000))  # a disk has whole sectors: 4608 bytes
    disk.write(0, NEW * 2)
    assert disk.read(4096, 4096) == NEW
    assert disk.read(4096, 512) == NEW[:512]
    assert disk.size_bytes == 4608
    for call in (lambda: disk.read(4096, 513), lambda: disk.write(4607, b"ab")):
        with pytest.raises(DeviceFailed, match="behind its end"):
            call()
    assert disk.stable().read(0, 4608) == (OLD * 2)[:4608]
    assert disk.copy().size_bytes == disk.crash(1).size_bytes == 4608


def test_a_copy_and_a_disk_holding_it_are_independent() -> None:
    disk = disk_with()
    disk.write(0, NEW)
    copied = disk.copy()
    held = SimulatedDevice.holding(copied)
    disk.write(0, OLD)
    held.write(4096, NEW)
    assert copied.read(0, 8192) == NEW + OLD
    assert held.stable().read(0, 8192) == NEW + OLD
    assert (disk.read(0, 4096), held.read(0, 8192)) == (OLD, NEW + NEW)


def test_faults_may_be_set_while_the_disk_is_used() -> None:
    disk = disk_with()
    disk.write(0, NEW)
    disk.faults = Faults(fail_write_at=disk.write_count)
    with pytest.raises(DeviceFailed):
        disk.write(0, OLD)
    disk.faults = NO_FAULTS
    disk.write(0, OLD)
