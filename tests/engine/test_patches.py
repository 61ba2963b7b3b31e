"""Patches: what is synced in small pieces is durable though its record is not stored anew, and no file shows anything else."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.check import runner
from razortools.engine import files, namespace, orphans, truncation
from razortools.engine.create import create, plan_create
from razortools.engine.limits import Limits
from razortools.engine.records import Records
from razortools.engine.store.device import Device
from razortools.engine.store.pages import MemoryDevice, OverlayDevice
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage, DeviceFailed, PosixError
from razortools.format.data import RECORD_BYTES_MIN
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Table, object_of, offset_of, table_range
from razortools.format.superblock import Incompat
from razortools.units import KIB, MIB, InodeNo, RecordNo
from tests.engine.data_volumes import USUAL, assert_memory_adds_up, assert_tree_adds_up, data_records, new_volume, open_again

TEXT = random.Random(1).randbytes(40 * KIB)


def log_of(volume: Volume, size: int = len(TEXT)) -> InodeNo:
    """Return a file that is stored."""
    ino = namespace.create(volume, ROOT_INODE, b"log", 0o644, 0, 0)
    files.write(volume, ino, 0, TEXT[:size])
    volume.commit()
    return ino


def patched_log() -> tuple[Volume, InodeNo]:
    """Return a volume with a file in which some bytes were changed and synced."""
    volume = new_volume()
    ino = log_of(volume)
    files.write(volume, ino, 100, b"changed")
    volume.commit()
    return volume, ino


def places(volume: Volume) -> list[tuple[int, int]]:
    """Return (inode, offset) of the patches in the tree."""
    return [(object_of(key), offset_of(key)) for key, _ in volume.store.items(*table_range(Table.PATCHES))]


def crashed(volume: Volume, limits: Limits = USUAL) -> Volume:
    """Return what is there after a power cut right now; the volume itself goes on."""
    device = MemoryDevice(volume.store.device.size_bytes)
    device.write(0, volume.store.device.read(0, device.size_bytes))
    return open_again(device, limits)


def complaints(device: Device) -> list[str]:
    """Return what a check finds, notes aside."""
    return [finding.message for finding in runner.check_quietly(device).findings if finding.severity]


def test_an_append_that_is_synced_does_not_store_its_record_anew() -> None:
    volume = new_volume()
    ino = log_of(volume)
    stored = data_records(volume, ino)
    files.write(volume, ino, len(TEXT), b"a line")
    volume.commit()
    assert data_records(volume, ino) == stored
    assert places(volume) == [(ino, len(TEXT))]
    assert not complaints(OverlayDevice(volume.store.device))
    assert files.read(crashed(volume), ino, 0, MIB) == TEXT + b"a line"


def test_the_next_checkpoint_stores_the_record_and_leaves_no_patch() -> None:
    volume, _ = patched_log()
    assert places(volume)
    volume.checkpoint()
    assert not places(volume) and not volume.records.dirty_count
    assert_tree_adds_up(volume)


@pytest.mark.parametrize("size", [0, 10, 5000, 40 * KIB, 60 * KIB])
def test_a_file_that_was_cut_or_grew_has_no_patch_of_what_it_was(size: int) -> None:
    volume = new_volume()
    ino = log_of(volume)
    files.write(volume, ino, 20_000, b"changed")
    volume.commit()
    files.truncate(volume, ino, size)
    files.truncate(volume, ino, 50 * KIB)
    volume.commit()
    expected = (TEXT[:20_000] + b"changed" + TEXT[20_007:])[:size].ljust(50 * KIB, b"\0")
    assert files.read(crashed(volume), ino, 0, MIB) == expected


@pytest.mark.parametrize("is_held", [False, True])
def test_a_file_that_is_deleted_takes_its_patches_along(is_held: bool) -> None:
    volume, ino = patched_log()
    if is_held:
        orphans.hold(volume, ino)
    namespace.unlink(volume, ROOT_INODE, b"log")
    volume.commit()
    assert bool(places(volume)) == is_held
    after = crashed(volume)
    after.commit()
    assert not places(after) and not complaints(after.store.device)
    if is_held:
        assert files.read(volume, ino, 100, 7) == b"changed"


def test_what_is_overwritten_as_a_whole_needs_no_patches() -> None:
    volume, ino = patched_log()
    files.write(volume, ino, 0, bytes(reversed(TEXT)))
    volume.commit()
    assert not places(volume)
    assert files.read(crashed(volume), ino, 0, MIB) == bytes(reversed(TEXT))


def test_a_large_change_is_stored_at_once() -> None:
    volume = new_volume()
    ino = log_of(volume)
    files.write(volume, ino, 0, bytes(17 * KIB))
    volume.commit()
    assert not places(volume) and not volume.records.dirty_count


def test_a_full_record_is_stored_since_nothing_more_will_be_appended() -> None:
    volume = new_volume()
    ino = log_of(volume)
    for _ in range(22):
        files.write(volume, ino, volume.inodes.get(ino).size, bytes(range(256)) * 16)
        volume.commit()
    assert len(data_records(volume, ino)[0].encode()) and volume.inodes.get(ino).size == 128 * KIB
    assert not places(volume)


def test_only_so_many_records_wait_in_patches() -> None:
    volume = new_volume(64 * MIB)
    inodes = [namespace.create(volume, ROOT_INODE, b"%d" % number, 0o644, 0, 0) for number in range(100)]
    for ino in inodes:
        files.write(volume, ino, 0, TEXT)
    volume.commit()
    for ino in inodes:
        files.write(volume, ino, 0, b"x")
        volume.commit()
    assert len(volume.records.patched) == min(64, volume.promises.dirty_records_max // 8)
    assert_memory_adds_up(volume)
    assert all(files.read(crashed(volume), ino, 0, 2) == b"x" + TEXT[1:2] for ino in inodes[::33])


def test_a_volume_without_the_feature_has_no_patches() -> None:
    volume = new_volume()
    volume.store.superblock = replace(volume.store.superblock, incompat=volume.store.superblock.incompat & ~Incompat.PATCHES)
    ino = log_of(volume)
    files.write(volume, ino, 100, b"changed")
    volume.commit()
    assert not places(volume)


def test_looking_shows_what_was_synced_and_writes_nothing() -> None:
    volume, ino = patched_log()
    device = volume.store.device
    before = device.read(0, device.size_bytes)
    with open_volume(OverlayDevice(device), read_only=True) as looked:
        assert files.read(looked, ino, 99, 9) == TEXT[99:100] + b"changed" + TEXT[107:108]
    assert device.read(0, device.size_bytes) == before


def test_a_transaction_that_is_dropped_goes_back_to_the_patches_of_the_last() -> None:
    volume = new_volume()
    ino = log_of(volume)
    files.write(volume, ino, 100, b"first")
    volume.commit()
    files.write(volume, ino, 100, b"second")
    volume.enter_patches()
    volume.abort()
    assert files.read(volume, ino, 100, 6) == b"first" + TEXT[105:106]
    volume.close()
    assert files.read(open_again(volume.store.device), ino, 100, 6) == b"first" + TEXT[105:106]


def damage_the_record(volume: Volume, ino: InodeNo) -> None:
    """Flip a byte of the file's first record."""
    offset = data_records(volume, ino)[0].address * volume.block_bytes
    device = volume.store.device
    device.write(offset, bytes([device.read(offset, 1)[0] ^ 1]))


def test_patches_over_a_record_that_cannot_be_read_stay_until_it_is_overwritten() -> None:
    volume, ino = patched_log()
    damage_the_record(volume, ino)
    after = crashed(volume)
    with pytest.raises(CorruptImage, match="checksum"):
        files.read(after, ino, 100, 7)
    after.checkpoint()
    assert places(after), "they are all that is left of these bytes"
    files.write(after, ino, 0, TEXT)
    after.checkpoint()
    assert not places(after)
    assert files.read(crashed(after), ino, 0, MIB) == TEXT


def test_a_record_that_cannot_be_read_takes_its_patches_along_when_its_file_goes() -> None:
    volume, ino = patched_log()
    damage_the_record(volume, ino)
    after = crashed(volume)
    namespace.unlink(after, ROOT_INODE, b"log")
    after.checkpoint()
    assert not places(after)


CHANGE = st.tuples(st.integers(0, 3 * RECORD_BYTES_MIN), st.integers(1, 3000), st.booleans(), st.booleans())


@settings(max_examples=60, deadline=None)
@given(changes=st.lists(CHANGE, min_size=1, max_size=30), share=st.sampled_from([1, 4]))
def test_after_a_crash_a_file_holds_what_was_committed(changes: list[tuple[int, int, bool, bool]], share: int) -> None:
    limits = Limits(patch_share=share)
    volume = new_volume(4 * MIB, limits)
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    volume.commit()
    with volume.operation(files._WRITE, ino):  # records of 4 KiB, so that a file has several
        inode = volume.inodes.get(ino)
        inode.record_log2 = RECORD_BYTES_MIN.bit_length() - 1
        volume.inodes.put(ino, inode)
    expected, committed = bytearray(), b""
    for number, (offset, length, cuts, commits) in enumerate(changes):
        if cuts and number % 3 == 2:
            files.truncate(volume, ino, offset)
            expected = expected[:offset].ljust(offset, b"\0")
        else:
            data = random.Random(number).randbytes(length)
            files.write(volume, ino, offset, data)
            expected = expected.ljust(offset, b"\0")
            expected[offset : offset + length] = data
        assert files.read(volume, ino, 0, MIB) == expected
        if commits:
            volume.commit()
            committed = bytes(expected)
            assert_tree_adds_up(volume)
        after = crashed(volume, limits)
        assert files.read(after, ino, 0, MIB) == committed
        with pytest.raises(PosixError):
            namespace.lookup(after, ROOT_INODE, b"another")
        after.close()
        assert not complaints(after.store.device)
        assert not places(open_again(after.store.device))


def test_a_tail_that_could_not_be_cut_does_not_come_back_over_a_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    ino = log_of(volume)
    with monkeypatch.context() as full:
        full.setattr(truncation, "_tail_to_cut", lambda *_: None)  # as where there is no room to store it anew
        files.truncate(volume, ino, 30_000)
    volume.commit()
    files.write(volume, ino, 100, b"changed")
    files.truncate(volume, ino, 40_000)
    volume.commit()
    expected = (TEXT[:100] + b"changed" + TEXT[107:30_000]).ljust(40_000, b"\0")
    assert files.read(volume, ino, 0, MIB) == expected
    assert files.read(crashed(volume), ino, 0, MIB) == expected


def test_a_patch_beyond_the_size_is_stored_away_before_the_file_can_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    ino = log_of(volume)
    files.write(volume, ino, 35_000, b"changed")
    volume.commit()
    with monkeypatch.context() as full:
        full.setattr(truncation, "_tail_to_cut", lambda *_: None)  # as where there is no room to store it anew
        files.truncate(volume, ino, 30_000)
    volume.commit()
    volume.abort()  # which lays the patches over their records anew
    files.truncate(volume, ino, 40_000)
    volume.commit()
    assert files.read(crashed(volume), ino, 0, MIB) == TEXT[:30_000].ljust(40_000, b"\0")


@pytest.mark.parametrize("journal_bytes", [512 * KIB, 8 * MIB])
def test_patches_take_no_room_that_is_promised_to_others(journal_bytes: int) -> None:
    """A nearly full image, and more small changes in large records than fit beside them: it must go on, delete and close."""
    chance = random.Random(1)
    device = MemoryDevice(32 * MIB)
    create(device, plan_create(device.size_bytes, journal_bytes=journal_bytes))
    volume = open_again(device)
    ino = namespace.create(volume, ROOT_INODE, b"pages", 0o644, 0, 0)
    for number in range(64):
        files.write(volume, ino, number * 128 * KIB, chance.randbytes(128 * KIB))
    volume.checkpoint()
    filler = namespace.create(volume, ROOT_INODE, b"filler", 0o644, 0, 0)
    number = 0
    while volume.store.room.free_blocks_for_data() > 64 * 32 + 700:
        files.write(volume, filler, number * 128 * KIB, chance.randbytes(128 * KIB))
        number += 1
        if number % 8 == 0:
            volume.checkpoint()
    volume.checkpoint()
    for turn in range(4):
        for number in chance.sample(range(64), 64):
            files.write(volume, ino, number * 128 * KIB + turn * 20 * KIB + 500, chance.randbytes(15 * KIB))
        volume.commit()
        assert volume.records.reserved_blocks <= volume.store.maps.free_blocks
    after = crashed(volume)
    after.close()
    volume.checkpoint()
    namespace.unlink(volume, ROOT_INODE, b"filler")
    volume.close()


class OnceUnreadable(MemoryDevice):
    """A device that fails to read one place, so many times."""

    fails_at = -1
    times = 0

    def read(self, offset: int, length: int) -> bytes:
        if offset == self.fails_at and self.times:
            self.times -= 1
            raise DeviceFailed("once")
        return super().read(offset, length)


def unreadable_for_a_while(volume: Volume, ino: InodeNo, times: int) -> Volume:
    """Return what is there after a power cut, on a device that cannot read the file's first record at first."""
    device = OnceUnreadable(volume.store.device.size_bytes)
    device.write(0, volume.store.device.read(0, device.size_bytes))
    device.fails_at = data_records(volume, ino)[0].address * volume.block_bytes
    device.times = times
    return open_again(device)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_record_that_could_not_be_read_at_first_is_read_with_its_patches(times: int) -> None:
    volume, ino = patched_log()
    after = unreadable_for_a_while(volume, ino, times)
    for _ in range(times - 2):  # opening has tried twice
        with pytest.raises(DeviceFailed):
            files.read(after, ino, 100, 7)
    assert files.read(after, ino, 98, 11) == TEXT[98:100] + b"changed" + TEXT[107:109]
    files.write(after, ino, 5000, b"x")
    after.commit()
    assert files.read(crashed(after), ino, 98, 11) == TEXT[98:100] + b"changed" + TEXT[107:109]


def test_a_patch_behind_a_record_that_could_not_be_read_does_not_outlive_a_truncation() -> None:
    volume = new_volume()
    ino = log_of(volume)
    files.write(volume, ino, len(TEXT) + 3000, b"SECRET")
    volume.commit()
    after = unreadable_for_a_while(volume, ino, 2)
    files.truncate(after, ino, len(TEXT) + 1000)
    files.truncate(after, ino, len(TEXT) + 8000)
    after.commit()
    assert files.read(crashed(after), ino, 0, MIB) == TEXT.ljust(len(TEXT) + 8000, b"\0")


def test_one_lost_leaf_does_not_keep_the_others_files_from_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    ino = log_of(volume)
    other = namespace.create(volume, ROOT_INODE, b"other", 0o644, 0, 0)
    files.write(volume, other, 0, b"fine")
    files.write(volume, ino, 100, b"changed")
    volume.commit()
    find_item = Records.find_item

    def lost(records: Records, number: InodeNo, record_no: RecordNo) -> object:
        if number == ino:
            raise CorruptImage("metadata is damaged")
        return find_item(records, number, record_no)

    monkeypatch.setattr(Records, "find_item", lost)
    after = crashed(volume)
    assert files.read(after, other, 0, 4) == b"fine"
    with pytest.raises(CorruptImage):
        files.read(after, ino, 100, 7)
    after.checkpoint()  # nor anything from being committed
    assert places(after)
    monkeypatch.setattr(Records, "find_item", find_item)
    assert files.read(after, ino, 100, 7) == b"changed"
