"""What the data path promises, one sentence a test."""

import errno
import random
import threading
from dataclasses import replace
from typing import Any

import pytest

from razortools.engine import files, placing, truncation
from razortools.engine.flush import finish_placed
from razortools.engine.limits import Limits
from razortools.engine.store.simulated import NO_FAULTS, Faults, SimulatedDevice
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage, DeviceFailed, OutOfSpace, PosixError, ReadOnly
from razortools.format.compression import Algorithm, Policy
from razortools.format.data import CHECKED_TWICE, CUT_OUT, FILE_BYTES_MAX, DataRecord, Run
from razortools.format.inode import ROOT_INODE, Orphan, OrphanReason
from razortools.format.journal import Operation
from razortools.format.keys import orphan_key, record_key
from razortools.units import GIB, KIB, MIB, InodeNo, RecordNo
from tests.engine.data_volumes import (
    assert_memory_adds_up,
    assert_space_adds_up,
    assert_tree_adds_up,
    data_records,
    formatted,
    is_inline,
    new_file,
    new_volume,
    open_again,
)

STORED = Policy(Algorithm.NONE)


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def text(length: int) -> bytes:
    return b"".join(b"line %d of a text\n" % number for number in range(length // 16 + 1))[:length]


def size_of(volume: Volume, ino: InodeNo) -> int:
    return volume.inodes.get(ino).size


def damage(volume: Volume, record: DataRecord, byte: int = 0) -> None:
    """Change one byte of a stored record on the device."""
    at = record.runs(volume.block_bytes)[0][0] * volume.block_bytes + byte
    volume.store.device.write(at, bytes([volume.store.device.read(at, 1)[0] ^ 0x40]))


# Reading and writing


def test_a_read_returns_what_was_written_before_and_after_flush_commit_and_reopening() -> None:
    volume = new_volume()
    ino = new_file(volume)
    data = text(300_000)
    assert files.write(volume, ino, 0, data) == len(data)
    for change in (lambda: None, lambda: files.flush_all(volume), volume.commit, volume.records.forget_all):
        change()
        assert files.read(volume, ino, 0, 1 << 30) == data
    volume.close()
    assert files.read(open_again(volume.store.device), ino, 0, 1 << 30) == data


def test_a_read_is_short_only_at_the_end_of_the_file() -> None:
    volume = new_volume()
    ino = new_file(volume, 12)
    files.write(volume, ino, 0, noise(10_000))
    assert len(files.read(volume, ino, 0, 10_000)) == 10_000
    assert len(files.read(volume, ino, 9_999, 100)) == 1
    assert files.read(volume, ino, 10_000, 100) == b""
    assert files.read(volume, ino, 1 << 60, 100) == b""
    assert files.read(volume, ino, 5, 0) == b""


@pytest.mark.parametrize("flushed", [False, True])
def test_holes_read_as_zeros_inside_and_between_records(flushed: bool) -> None:
    volume = new_volume()
    ino = new_file(volume, 12)
    files.write(volume, ino, 2_000, b"a")
    files.write(volume, ino, 50_000, b"b")
    if flushed:
        files.flush_all(volume)
        volume.records.forget_all()
    assert files.read(volume, ino, 0, 100_000) == bytes(2_000) + b"a" + bytes(47_999) + b"b"


def test_a_hole_takes_no_blocks_and_a_record_of_zeros_becomes_one() -> None:
    volume = new_volume()
    ino = new_file(volume, 12)
    files.write(volume, ino, 0, noise(8 * KIB))
    volume.commit()
    assert sorted(data_records(volume, ino)) == [0, 1]
    files.write(volume, ino, 0, bytes(4 * KIB))
    files.write(volume, ino, 1 * GIB, b"end")
    volume.commit()
    assert sorted(data_records(volume, ino)) == [1, GIB // (4 * KIB)]
    assert volume.inodes.get(ino).stored_blocks == 2
    assert_tree_adds_up(volume)


def test_many_small_writes_become_one_record() -> None:
    volume = new_volume()
    ino = new_file(volume)
    data = text(128 * KIB)
    for at in range(0, len(data), 4 * KIB):
        files.write(volume, ino, at, data[at : at + 4 * KIB])
    assert volume.records.dirty_count == 1
    volume.commit()
    assert list(data_records(volume, ino)) == [0]
    assert files.read(volume, ino, 0, len(data)) == data


def test_overwriting_part_of_a_record_reads_the_old_one_once(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume(limits=Limits(record_cache_bytes=0))
    ino = new_file(volume)
    data = bytearray(noise(128 * KIB))
    files.write(volume, ino, 0, data)
    volume.commit()
    reads = []
    read_record = volume.store.read_record
    monkeypatch.setattr(volume.store, "read_record", lambda record: reads.append(record) or read_record(record))
    for at in (5, 70_000, 130_000):
        files.write(volume, ino, at, b"new")
        data[at : at + 3] = b"new"
    assert files.read(volume, ino, 0, 128 * KIB) == data
    assert len(reads) == 1
    volume.commit()
    files.write(volume, ino, 0, noise(128 * KIB, 2))
    assert len(reads) == 1, "a record that is replaced as a whole is not read"


def test_a_write_that_is_refused_changes_nothing() -> None:
    volume = new_volume(2 * MIB)
    ino = new_file(volume)
    files.write(volume, ino, 0, b"before")
    volume.commit()
    before = volume.inodes.get(ino).copy()
    with pytest.raises(OutOfSpace):
        files.write(volume, ino, 0, noise(3 * MIB))
    assert volume.inodes.get(ino) == before
    assert volume.records.dirty_count == 0
    assert files.read(volume, ino, 0, 100) == b"before"


def test_a_full_image_refuses_writes_but_no_flush_fails_and_deleting_works() -> None:
    volume = new_volume(4 * MIB, Limits(dirty_bytes=256 * KIB))
    ino = new_file(volume)
    written = 0
    with pytest.raises(OutOfSpace):
        while True:
            written += files.write(volume, ino, written, noise(10_000, written))
    assert written > 2 * MIB
    volume.commit()
    assert size_of(volume, ino) == written
    for at in range(0, written, 10_000):
        assert files.read(volume, ino, at, 10_000) == noise(10_000, at)
    files.truncate(volume, ino, 5_000)
    volume.checkpoint()
    assert volume.counters.data_blocks <= 32
    assert_space_adds_up(volume)
    assert files.write(volume, ino, 5_000, noise(MIB)) == MIB


def test_a_long_write_without_room_tells_how_much_it_wrote() -> None:
    volume = new_volume(16 * MIB)
    ino = new_file(volume)
    data = noise(24 * MIB)
    written = files.write(volume, ino, 0, data)
    assert 0 < written < len(data)
    assert size_of(volume, ino) == written
    volume.commit()
    assert files.read(volume, ino, 0, len(data)) == data[:written]


def test_every_kind_of_buffer_can_be_written_and_is_copied() -> None:
    volume = new_volume()
    ino = new_file(volume, 12)
    for at, kind in enumerate((bytes, bytearray, memoryview)):
        files.write(volume, ino, at * 10_000, kind(noise(10_000, at)))
    source = bytearray(b"x" * 4096)
    files.write(volume, ino, 30_000, source)
    source[:] = b"y" * 4096
    assert files.read(volume, ino, 30_000, 4096) == b"x" * 4096
    assert all(files.read(volume, ino, at * 10_000, 10_000) == noise(10_000, at) for at in range(3))


def test_sizes_are_limited_and_offsets_checked() -> None:
    volume = new_volume()
    ino = new_file(volume)
    assert files.write(volume, ino, FILE_BYTES_MAX - 3, b"end") == 3
    files.truncate(volume, ino, FILE_BYTES_MAX)
    volume.commit()
    assert files.read(volume, ino, FILE_BYTES_MAX - 5, 100) == b"\0\0end"
    for refused, number in (
        (lambda: files.write(volume, ino, FILE_BYTES_MAX, b"x"), errno.EFBIG),
        (lambda: files.truncate(volume, ino, FILE_BYTES_MAX + 1), errno.EFBIG),
        (lambda: files.truncate(volume, ino, -1), errno.EINVAL),
        (lambda: files.write(volume, ino, -1, b"x"), errno.EINVAL),
        (lambda: files.read(volume, ino, -1, 1), errno.EINVAL),
        (lambda: files.read(volume, ROOT_INODE, 0, 1), errno.EISDIR),
        (lambda: files.write(volume, ROOT_INODE, 0, b"x"), errno.EISDIR),
        (lambda: files.truncate(volume, ROOT_INODE, 0), errno.EISDIR),
        (lambda: files.read(volume, InodeNo(99), 0, 1), errno.ENOENT),
    ):
        with pytest.raises(PosixError) as raised:
            refused()
        assert raised.value.mount_errno == number


def test_writing_and_truncating_set_mtime_and_ctime_and_reading_does_not() -> None:
    volume = new_volume()
    ino = new_file(volume)
    for change in (
        lambda: files.write(volume, ino, 0, b"x"),
        lambda: files.truncate(volume, ino, 10),
        lambda: files.truncate(volume, ino, 10),
        lambda: files.truncate(volume, ino, 0),
    ):
        before = volume.inodes.get(ino).mtime_ns
        change()
        inode = volume.inodes.get(ino)
        assert inode.mtime_ns == inode.ctime_ns > before
    before_all = volume.inodes.get(ino).copy()
    files.read(volume, ino, 0, 10)
    assert files.write(volume, ino, 0, b"") == 0
    volume.commit()
    assert volume.inodes.get(ino) == before_all


def test_a_volume_for_reading_reads_and_refuses_the_rest() -> None:
    volume = new_volume()
    ino = new_file(volume)
    files.write(volume, ino, 0, b"hello")
    volume.close()
    reader = open_volume(volume.store.device, read_only=True)
    assert files.read(reader, ino, 0, 10) == b"hello"
    for refused in (lambda: files.write(reader, ino, 0, b"x"), lambda: files.truncate(reader, ino, 0)):
        with pytest.raises(ReadOnly):
            refused()
    assert files.read(reader, ino, 0, 10) == b"hello"


# Memory


def test_dirty_data_stays_within_its_limit_without_committing_anything() -> None:
    limits = Limits(dirty_bytes=512 * KIB, record_cache_bytes=256 * KIB)
    volume = new_volume(limits=limits)
    ino = new_file(volume)
    volume.commit()
    transaction = volume.statistics().transaction
    for at in range(0, 8 * MIB, 64 * KIB):
        files.write(volume, ino, at, noise(64 * KIB, at))
        assert volume.records.dirty_bytes <= limits.dirty_bytes
        assert_memory_adds_up(volume)
    files.write(volume, ino, 0, noise(2 * MIB))
    assert volume.records.dirty_bytes <= limits.dirty_bytes
    assert volume.statistics().transaction == transaction
    assert volume.counters.data_blocks > 1000
    volume.abort()
    assert size_of(volume, ino) == 0


def test_the_cache_keeps_what_was_used_last() -> None:
    volume = new_volume(limits=Limits(record_cache_bytes=16 * KIB))
    ino = new_file(volume, 12)
    files.write(volume, ino, 0, noise(64 * KIB))
    volume.commit()
    for at in (0, 4, 8, 0, 12, 16, 0, 20):
        files.read(volume, ino, at * KIB, 1)
    reads = []
    read_record = volume.store.read_record
    volume.store.read_record = lambda record: reads.append(record) or read_record(record)  # type: ignore[method-assign]
    files.read(volume, ino, 0, 1)
    assert reads == []
    files.read(volume, ino, 4 * KIB, 1)
    assert len(reads) == 1


def test_discarding_a_file_forgets_all_of_its_data() -> None:
    volume = new_volume()
    first, second = new_file(volume, 12), new_file(volume, 12)
    for ino in (first, second):
        files.write(volume, ino, 0, noise(20_000))
    volume.commit()
    files.write(volume, first, 0, b"dirty")
    volume.records.discard(first)
    assert_memory_adds_up(volume)
    assert volume.records.dirty_count == 0
    assert len(volume.records.clean) == 5


# Small files


def test_a_small_file_stands_in_the_tree_and_moves_to_blocks_and_back() -> None:
    volume = new_volume()
    ino = new_file(volume)
    files.write(volume, ino, 0, b"small")
    volume.commit()
    assert is_inline(volume, ino) and volume.inodes.get(ino).stored_blocks == 0
    files.write(volume, ino, 5, noise(10_000))
    volume.commit()
    assert not is_inline(volume, ino) and volume.inodes.get(ino).stored_blocks == 3
    files.truncate(volume, ino, 7)
    volume.commit()
    assert is_inline(volume, ino) and volume.inodes.get(ino).stored_blocks == 0
    assert files.read(volume, ino, 0, 100) == b"small" + noise(10_000)[:2]
    assert_tree_adds_up(volume)


def test_what_compresses_to_a_small_size_is_inline_too() -> None:
    volume = new_volume()
    ino = new_file(volume)
    files.write(volume, ino, 0, b"la" * 50_000)
    volume.commit()
    assert is_inline(volume, ino)
    volume.records.forget_all()
    assert files.read(volume, ino, 0, 1 << 20) == b"la" * 50_000


@pytest.mark.parametrize("how", ["truncate", "write"])
def test_a_file_that_grows_beyond_one_record_is_not_inline_any_more(how: str) -> None:
    volume = new_volume()
    ino = new_file(volume, 12)
    files.write(volume, ino, 0, b"la" * 2048)
    volume.commit()
    assert is_inline(volume, ino)
    if how == "truncate":
        files.truncate(volume, ino, 4097)
    else:
        files.write(volume, ino, 100_000, b"far away")
    volume.commit()
    assert not is_inline(volume, ino)
    assert files.read(volume, ino, 0, 4097) == b"la" * 2048 + b"\0"
    assert_tree_adds_up(volume)


def test_an_inline_file_that_grew_while_its_flush_was_under_way_is_flushed_anew() -> None:
    volume = new_volume()
    ino = new_file(volume, 12)
    files.write(volume, ino, 0, b"small")
    plan = files.plan_flush(volume)
    placed = files.place(volume, plan, files.pack(plan))
    files.truncate(volume, ino, 10_000)
    files.write_out(volume, placed)
    files.apply_flush(volume, placed)
    volume.commit()
    assert not is_inline(volume, ino)
    assert files.read(volume, ino, 0, 10) == b"small" + bytes(5)
    assert_tree_adds_up(volume)


# Truncating


@pytest.mark.parametrize("cut", [0, 1, 4095, 4096, 4097, 10_000])
@pytest.mark.parametrize("flushed_before", [False, True])
@pytest.mark.parametrize("flushed_between", [False, True])
def test_old_bytes_never_come_back_after_truncating_down_and_up(cut: int, flushed_before: bool, flushed_between: bool) -> None:
    volume = new_volume()
    ino = new_file(volume, 12)
    data = noise(20_000)
    files.write(volume, ino, 0, data)
    if flushed_before:
        volume.commit()
    files.truncate(volume, ino, cut)
    if flushed_between:
        volume.commit()
        volume.records.forget_all()
    files.truncate(volume, ino, 30_000)
    assert files.read(volume, ino, 0, 40_000) == data[:cut] + bytes(30_000 - cut)
    volume.close()
    assert files.read(open_again(volume.store.device), ino, 0, 40_000) == data[:cut] + bytes(30_000 - cut)


def test_truncating_up_is_sparse() -> None:
    volume = new_volume()
    ino = new_file(volume)
    files.truncate(volume, ino, 3 * GIB)
    volume.commit()
    assert data_records(volume, ino) == {}
    assert files.read(volume, ino, 2 * GIB, 5) == bytes(5)


def test_shrinking_works_without_room_for_the_new_tail_and_old_bytes_stay_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    ino = new_file(volume, 12, STORED)
    data = noise(8192)
    files.write(volume, ino, 0, data)
    volume.commit()
    has_room = volume.store.room.has
    monkeypatch.setattr(
        volume.store.room, "has", lambda *needs, deleting: (deleting or needs[0] == 0) and has_room(*needs, deleting=deleting)
    )
    files.truncate(volume, ino, 5000)
    assert volume.records.dirty_count == 0
    assert files.read(volume, ino, 0, 9000) == data[:5000]
    with pytest.raises(OutOfSpace):
        files.truncate(volume, ino, 8192)
    monkeypatch.undo()
    volume.commit()
    files.write(volume, ino, 8000, b"far")
    volume.commit()
    assert files.read(volume, ino, 0, 9000) == data[:5000] + bytes(3000) + b"far"


def test_a_file_with_a_damaged_tail_can_be_made_smaller_but_not_larger_again() -> None:
    volume = new_volume()
    ino = new_file(volume, 12, STORED)
    files.write(volume, ino, 0, noise(8192))
    volume.commit()
    damage(volume, data_records(volume, ino)[1])
    volume.records.forget_all()
    files.truncate(volume, ino, 5000)
    assert files.read(volume, ino, 0, 4096) == noise(8192)[:4096]
    with pytest.raises(CorruptImage):
        files.truncate(volume, ino, 6000)
    with pytest.raises(CorruptImage):
        files.write(volume, ino, 10_000, b"x")
    files.truncate(volume, ino, 4096)
    files.truncate(volume, ino, 6000)
    assert files.read(volume, ino, 4096, 10_000) == bytes(6000 - 4096)


def fill_sparsely(volume: Volume, ino: InodeNo, record_count: int) -> None:
    """Give a file of 4 KiB records one stored block in each."""
    for record_no in range(record_count):
        files.write(volume, ino, record_no << 12, noise(600, record_no))
    files.truncate(volume, ino, record_count << 12)
    volume.commit()
    assert len(data_records(volume, ino)) == record_count


def test_truncating_a_file_of_many_records_takes_bounded_steps_and_hides_them_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    volume = new_volume(64 * MIB)
    ino = new_file(volume, 12)
    count = truncation.STEP_RECORDS * 3 + 5
    fill_sparsely(volume, ino, count)
    seen = []
    step = truncation.delete_step

    def watched(volume: Volume, ino: InodeNo, keep_bytes: int) -> bool:
        value = volume.store.get(orphan_key(ino))
        assert value is not None and Orphan.decode(value).reason == OrphanReason.TRUNCATING
        assert size_of(volume, ino) == 5000
        before = len(data_records(volume, ino))
        more = step(volume, ino, keep_bytes)
        assert before - len(data_records(volume, ino)) <= truncation.STEP_RECORDS
        volume.commit()
        seen.append(more)
        return more

    monkeypatch.setattr(truncation, "delete_step", watched)
    files.truncate(volume, ino, 5000)
    assert seen == [True, True, False]
    assert volume.store.get(orphan_key(ino)) is None
    volume.commit()
    assert sorted(data_records(volume, ino)) == [0, 1]
    assert_tree_adds_up(volume)
    volume.checkpoint()
    assert_space_adds_up(volume)


def interrupted_truncation() -> tuple[Volume, InodeNo]:
    """Return a volume whose last commit stands between the first and the second step of a truncation to 5000 bytes."""
    volume = new_volume(64 * MIB)
    ino = new_file(volume, 12)
    fill_sparsely(volume, ino, 300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truncation, "finish", lambda volume, ino: None)
        files.truncate(volume, ino, 5000)
    volume.commit()
    assert len(data_records(volume, ino)) > 2
    return volume, ino


def test_an_interrupted_truncation_is_finished_by_the_next_mount() -> None:
    volume, ino = interrupted_truncation()
    again = open_again(volume.store.device)
    assert again.store.get(orphan_key(ino)) is None
    assert sorted(data_records(again, ino)) == [0, 1]
    assert_tree_adds_up(again)


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("how", ["truncate", "write"])
def test_an_interrupted_truncation_is_finished_before_the_file_grows(how: str, forgotten: bool) -> None:
    volume, ino = interrupted_truncation()
    if forgotten:
        volume.abort()
    if how == "truncate":
        files.truncate(volume, ino, 2 * MIB)
    else:
        files.write(volume, ino, 2 * MIB - 1, b"\0")
    assert files.read(volume, ino, 5000, 4 * MIB) == bytes(2 * MIB - 5000)
    volume.commit()
    assert_tree_adds_up(volume)


def test_an_unlinked_file_keeps_its_place_among_the_orphans_when_it_is_truncated() -> None:
    volume = new_volume(64 * MIB)
    ino = new_file(volume, 12)
    fill_sparsely(volume, ino, 300)
    with volume.operation(Operation.UNLINK, ino):
        volume.store.put(orphan_key(ino), Orphan(OrphanReason.UNLINKED).encode())
    files.truncate(volume, ino, 1)
    value = volume.store.get(orphan_key(ino))
    assert value is not None and Orphan.decode(value).reason == OrphanReason.UNLINKED
    files.delete_contents(volume, ino, 0)
    assert data_records(volume, ino) == {} and not is_inline(volume, ino)


# Flushing


def test_a_record_is_complete_when_it_was_written_in_order_to_its_end_and_until_it_is_changed_or_flushed() -> None:
    volume = new_volume()
    ino = new_file(volume, 12)
    for at in range(0, 8192, 1024):
        files.write(volume, ino, at, noise(1024))
        assert_memory_adds_up(volume)
    assert list(volume.records.complete) == [(ino, 0), (ino, 1)]
    files.write(volume, ino, 100, b"later")
    assert list(volume.records.complete) == [(ino, 1)]
    files.write(volume, ino, 8192 + 2048, noise(2048))  # its end, but not its start
    files.write(volume, ino, 8192, noise(2048))
    assert list(volume.records.complete) == [(ino, 1)]
    plan = files.plan_flush(volume, complete=True)
    assert [planned.record_no for planned in plan.records] == [1]
    assert files.plan_flush(volume, complete=True, packing={(ino, RecordNo(1)): plan.records[0].raw}).records == ()
    finish_placed(volume, files.place(volume, plan, files.pack(plan)))
    assert volume.records.complete == {} and volume.records.dirty_count == 2
    assert_memory_adds_up(volume)


@pytest.mark.parametrize("size", [4096, 4000])
def test_a_record_that_was_cut_is_not_complete(size: int) -> None:
    volume = new_volume()
    ino = new_file(volume, 12)
    files.write(volume, ino, 0, noise(8192))
    files.truncate(volume, ino, size)
    assert list(volume.records.complete) == ([(ino, 0)] if size == 4096 else [])
    assert_memory_adds_up(volume)


def test_a_record_written_while_its_flush_is_under_way_stays_dirty_and_its_blocks_are_given_back() -> None:
    volume = new_volume()
    first, second = new_file(volume, policy=STORED), new_file(volume, policy=STORED)
    files.write(volume, first, 0, noise(9000))
    files.write(volume, second, 0, noise(9000))
    plan = files.plan_flush(volume)
    placed = files.place(volume, plan, files.pack(plan))
    assert volume.records.reserved_blocks == 0
    files.write(volume, first, 100, b"later")
    assert volume.records.reserved_blocks == 3
    files.write_out(volume, placed)
    files.apply_flush(volume, placed)
    assert volume.records.dirty_inodes() == [first]
    assert volume.records.reserved_blocks == 3
    assert volume.store.maps.unclaimed == {}
    volume.commit()
    assert files.read(volume, first, 98, 9) == noise(9000)[98:100] + b"later" + noise(9000)[105:107]


def test_what_was_cut_or_deleted_while_its_flush_was_under_way_is_not_applied() -> None:
    volume = new_volume()
    cut, gone = new_file(volume, 12, STORED), new_file(volume, 12, STORED)
    for ino in (cut, gone):
        files.write(volume, ino, 0, noise(9000))
    plan = files.plan_flush(volume)
    placed = files.place(volume, plan, files.pack(plan))
    files.truncate(volume, cut, 4096)
    with volume.operation(Operation.UNLINK, gone):
        volume.inodes.remove(gone)
    files.write_out(volume, placed)
    files.apply_flush(volume, placed)
    assert sorted(data_records(volume, cut)) == [0]
    assert data_records(volume, gone) == {}
    assert volume.store.maps.unclaimed == {}
    files.flush_all(volume)
    assert volume.records.dirty_count == 0
    assert_tree_adds_up(volume)


def test_a_flush_that_the_device_refuses_leaves_everything_readable_nothing_placed_and_the_volume_read_only() -> None:
    device = SimulatedDevice(32 * MIB)
    volume = open_again(formatted(device))
    ino = new_file(volume)
    files.write(volume, ino, 0, noise(300_000))
    before = volume.records.dirty_bytes, volume.records.reserved_blocks
    device.faults = Faults(fail_write_at=device.write_count)
    with pytest.raises(DeviceFailed):
        files.flush_all(volume)
    assert (volume.records.dirty_bytes, volume.records.reserved_blocks) == before
    assert volume.store.maps.unclaimed == {}
    assert_memory_adds_up(volume)
    assert files.read(volume, ino, 0, 1 << 20) == noise(300_000)
    assert volume.read_only and "write" in volume.statistics().failure
    device.faults = NO_FAULTS
    written = device.write_count
    for change in (volume.commit, volume.checkpoint, lambda: files.write(volume, ino, 0, b"x")):
        with pytest.raises(ReadOnly, match="write"):
            change()
    volume.close()
    assert device.write_count == written, "a device that failed is left alone"


def test_who_must_flush_at_once_finishes_what_is_under_way_and_its_writer_does_not_write_again() -> None:
    device = SimulatedDevice(32 * MIB)
    volume = open_again(formatted(device))
    ino = new_file(volume, 12, STORED)
    files.write(volume, ino, 0, noise(20_000))
    plan = files.plan_flush(volume)
    placed = files.place(volume, plan, files.pack(plan))
    assert files.plan_flush(volume).records == (), "what is placed is not planned again"
    files.write(volume, ino, 0, b"later")
    volume.commit()
    assert volume.records.dirty_count == 0 and volume.store.maps.unclaimed == {}
    written = device.write_count
    files.write_out(volume, placed)
    files.apply_flush(volume, placed)
    files.give_back(volume, placed)
    assert device.write_count == written
    volume.records.forget_all()
    assert files.read(volume, ino, 0, 1 << 20) == b"later" + noise(20_000)[5:]
    assert_tree_adds_up(volume)


def test_blocks_are_not_given_back_while_a_thread_writes_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    ino = new_file(volume, 12, STORED)
    files.write(volume, ino, 0, noise(4096))
    plan = files.plan_flush(volume)
    placed = files.place(volume, plan, files.pack(plan))
    files.write(volume, ino, 0, b"later")
    is_writing, may_write = threading.Event(), threading.Event()
    write_blocks = volume.store.write_blocks

    def slow(runs: list[Run], data: bytes) -> None:
        if threading.current_thread() is writer:
            is_writing.set()
            assert may_write.wait(60)
            assert volume.store.maps.unclaimed, "the blocks were given back"
        write_blocks(runs, data)

    monkeypatch.setattr(volume.store, "write_blocks", slow)
    writer = threading.Thread(target=files.write_out, args=(volume, placed))
    writer.start()
    assert is_writing.wait(60)
    committer = threading.Thread(target=volume.commit)
    committer.start()
    may_write.set()
    for thread in (writer, committer):
        thread.join(60)
    volume.records.forget_all()
    assert files.read(volume, ino, 0, 4096) == b"later" + noise(4096)[5:]
    assert volume.store.maps.unclaimed == {}


def test_a_flush_that_fails_half_way_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    inodes = [new_file(volume, 12, STORED) for _ in range(10)]
    for ino in inodes:
        files.write(volume, ino, 0, noise(5000, ino))
    dirty = volume.records.dirty_bytes
    put = volume.store.put

    def fails_late(key: bytes, value: bytes) -> None:
        if key == record_key(inodes[6], 1):
            raise DeviceFailed("a node of the tree cannot be read now")
        put(key, value)

    with monkeypatch.context() as patch:
        patch.setattr(volume.store, "put", fails_late)
        with pytest.raises(DeviceFailed):
            files.flush_all(volume)
    assert 0 < volume.records.dirty_bytes < dirty
    assert volume.store.maps.unclaimed == {}
    assert_memory_adds_up(volume)
    assert_tree_adds_up(volume)
    volume.commit()
    assert_tree_adds_up(volume)
    volume.records.forget_all()
    assert all(files.read(volume, ino, 0, 9999) == noise(5000, ino) for ino in inodes)


@pytest.mark.parametrize("made", [None, 0, 3], ids=["no room", "none can be entered", "the fourth cannot be entered"])
def test_a_flush_that_finds_no_room_gives_back_what_it_took(made: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    ino = new_file(volume, 12, STORED)
    files.write(volume, ino, 0, noise(20_000))
    before, free = volume.records.reserved_blocks, volume.store.maps.free_blocks
    honest, records = placing.make_record, list[object]()

    def full(*_: object) -> list[list[Run]]:
        raise OutOfSpace("the image is full")

    def make_record(*words: Any, **more: Any) -> tuple[DataRecord, bytes]:
        """The item of a record in many pieces does not fit into the tree."""
        record, padded = honest(*words, **more)
        records.append(record)
        return (replace(record, more=bytes(4096)) if len(records) > (made or 0) else record), padded

    with monkeypatch.context() as patch:
        if made is None:
            patch.setattr(volume.store, "place_each", full)
        else:
            patch.setattr(placing, "make_record", make_record)
        with pytest.raises(OutOfSpace):
            files.flush_all(volume)
    assert len(records) == (0 if made is None else made + 1)
    assert (volume.records.reserved_blocks, volume.store.maps.free_blocks) == (before, free)
    assert volume.store.maps.unclaimed == {}
    assert files.read(volume, ino, 0, 1 << 20) == noise(20_000)


def test_a_flush_of_some_files_leaves_the_others_dirty() -> None:
    volume = new_volume()
    first, second = new_file(volume), new_file(volume)
    for ino in (first, second):
        files.write(volume, ino, 0, b"x")
    files.flush_all(volume, [second])
    assert volume.records.dirty_inodes() == [first]


def test_records_are_stored_even_where_free_space_lies_in_single_blocks() -> None:
    volume = new_volume(8 * MIB)
    kept, deleted = new_file(volume, 12, STORED), new_file(volume, 12, STORED)
    with pytest.raises(OutOfSpace):
        for at in range(0, 8 * MIB, 4096):
            for filler in (kept, deleted):
                files.write(volume, filler, at, noise(4096, at))
                files.flush_all(volume)
    files.truncate(volume, deleted, 0)
    volume.checkpoint()
    ino = new_file(volume)
    files.write(volume, ino, 0, noise(MIB))
    volume.commit()
    assert max(len(record.runs(4096)) for record in data_records(volume, ino).values()) > 10
    volume.records.forget_all()
    assert files.read(volume, ino, 0, 2 * MIB) == noise(MIB)
    files.truncate(volume, ino, 0)
    volume.checkpoint()
    assert_space_adds_up(volume)


def test_an_operation_that_must_flush_before_it_starts_prepares_itself_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume(limits=Limits(record_cache_bytes=0))
    ino = new_file(volume, 12, STORED)
    files.write(volume, ino, 0, noise(10_000))
    model = bytearray(noise(10_000))
    operation = volume.operation

    def crowded(op: Operation, inode: InodeNo, *, blocks: int = 0, deleting: bool = False):  # type: ignore[no-untyped-def]
        if op is not Operation.FLUSH_DATA and volume.records.dirty_count:
            files.flush_all(volume)
        return operation(op, inode, blocks=blocks, deleting=deleting)

    monkeypatch.setattr(volume, "operation", crowded)
    files.write(volume, ino, 5000, b"new")
    model[5000:5003] = b"new"
    assert_memory_adds_up(volume)
    assert files.read(volume, ino, 0, 20_000) == model
    files.truncate(volume, ino, 9000)
    files.truncate(volume, ino, 11_000)
    model[9000:] = bytes(2000)
    assert files.read(volume, ino, 0, 20_000) == model
    files.write(volume, ino, 11_500, b"end")
    assert files.read(volume, ino, 0, 20_000) == bytes(model) + bytes(500) + b"end"
    assert_memory_adds_up(volume)


def test_fsync_makes_the_file_and_all_that_came_before_durable() -> None:
    device = SimulatedDevice(32 * MIB)
    volume = open_again(formatted(device))
    first, second = new_file(volume), new_file(volume)
    files.write(volume, first, 0, noise(200_000))
    files.write(volume, second, 0, b"two")
    files.fsync(volume, second)
    after = open_again(device.stable())
    assert files.read(after, first, 0, 1 << 20) == noise(200_000)
    assert files.read(after, second, 0, 10) == b"two"


# Damage


def test_a_damaged_record_is_named_and_the_rest_of_the_file_stays_readable() -> None:
    volume = new_volume()
    ino = new_file(volume, 12, STORED)
    files.write(volume, ino, 0, noise(20_000))
    volume.commit()
    damage(volume, data_records(volume, ino)[2], 77)
    volume.records.forget_all()
    with pytest.raises(CorruptImage, match=rf"inode {ino}, record 2 \(bytes 8192 to 12287\)"):
        files.read(volume, ino, 0, 20_000)
    with pytest.raises(CorruptImage):
        files.write(volume, ino, 9000, b"part of it")
    assert files.read(volume, ino, 0, 8192) == noise(20_000)[:8192]
    assert files.read(volume, ino, 12_288, 20_000) == noise(20_000)[12_288:]
    files.write(volume, ino, 8192, bytes(4095) + b"x")
    volume.commit()
    volume.records.forget_all()
    assert files.read(volume, ino, 8192, 4096) == bytes(4095) + b"x"


def test_a_record_that_claims_more_than_it_can_hold_is_not_believed() -> None:
    volume = new_volume()
    ino = new_file(volume, 12, STORED)
    files.write(volume, ino, 0, noise(8192))
    volume.commit()
    record = data_records(volume, ino)[0]
    for changes in ({"raw_bytes": 5000}, {"raw_bytes": 4000}, {"flags": CHECKED_TWICE | CUT_OUT}, {"algorithm": 77}):
        wrong = DataRecord(**{name: getattr(record, name) for name in DataRecord.__slots__} | changes)
        with volume.operation(Operation.REPAIR, ino):
            volume.store.put(record_key(ino, RecordNo(0)), wrong.encode())
        volume.records.forget_all()
        with pytest.raises(CorruptImage, match=f"inode {ino}, record 0"):
            files.read(volume, ino, 0, 10)
        assert files.read(volume, ino, 4096, 4096) == noise(8192)[4096:]


def test_files_of_each_record_size_hold_what_is_written_at_random() -> None:
    for record_log2 in range(12, 21):
        volume = new_volume(64 * MIB, Limits(dirty_bytes=3 * MIB, record_cache_bytes=MIB))
        ino = new_file(volume, record_log2)
        chance = random.Random(record_log2)
        model = bytearray()
        for _ in range(40):
            at = chance.randrange(0, 6 << record_log2)
            data = chance.choice((noise, text, bytes))(chance.randrange(1, 2 << record_log2))
            files.write(volume, ino, at, data)
            model.extend(bytes(max(0, at - len(model))))
            model[at : at + len(data)] = data
        assert files.read(volume, ino, 0, len(model)) == model
        volume.close()
        assert files.read(open_again(volume.store.device), ino, 0, len(model)) == model, f"records of {MIB >> 20 - record_log2}"
