"""Write-back: what is complete is stored before anybody asks, and who writes too fast waits for a round, not for a commit."""

import random
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from razortools.check import runner
from razortools.engine import adaptive, files, namespace, patches
from razortools.engine.create import create, plan_create
from razortools.engine.limits import Limits
from razortools.engine.volume import Volume, open_volume
from razortools.errors import DeviceFailed
from razortools.format.compression import Algorithm, Policy
from razortools.format.inode import ROOT_INODE
from razortools.service.committer import Committer
from razortools.service.options import parse_options
from razortools.service.writeback import ASIDE_BYTES_MIN, ROUND_BYTES, ROUND_RECORDS, START_BYTES, Writeback
from razortools.units import KIB, MIB, InodeNo, RecordNo
from tests.engine.data_volumes import assert_memory_adds_up, data_records, new_file
from tests.mount.test_committer import PATIENCE_S, SlowDisk

RECORD_BYTES = 128 * KIB
DIRTY_BYTES = 16 * MIB
STORED = Policy(Algorithm.NONE)


class Disk(SlowDisk):
    """A larger one, whose writes of data wait as well if they are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.resize(64 * MIB)
        self.may_write = threading.Event()
        self.may_write.set()
        self.refuses = False

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        assert self.may_write.wait(PATIENCE_S)
        if self.refuses:
            raise DeviceFailed("slow disk: write failed")
        super().write(offset, data)


@asynccontextmanager
async def writing_back(disk: Disk) -> AsyncIterator[tuple[Volume, Writeback]]:
    create(disk, plan_create(disk.size_bytes))
    volume = open_volume(disk)
    writeback = Committer(volume, parse_options([f"dirty={DIRTY_BYTES}"])).writeback  # which commits nothing: it does not run
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writeback.run)
        try:
            yield volume, writeback
        finally:
            disk.may_write.set()
            nursery.cancel_scope.cancel()


def noise(number: int, size: int = RECORD_BYTES) -> bytes:
    return random.Random(number).randbytes(size)


def fill(volume: Volume, writeback: Writeback, ino: InodeNo, numbers: range) -> None:
    """Write whole records, and tell as a request does."""
    for number in numbers:
        files.write(volume, ino, number * RECORD_BYTES, noise(number))
        writeback.note_write()


def test_complete_records_are_stored_while_their_file_is_written_and_the_others_are_not() -> None:
    async def scenario() -> None:
        disk = Disk()
        async with writing_back(disk) as (volume, writeback):
            flushes = disk.flush_count
            whole, part = new_file(volume, policy=STORED), new_file(volume, policy=STORED)
            files.write(volume, part, 0, noise(1, 1000))
            fill(volume, writeback, whole, range(START_BYTES // RECORD_BYTES - 1))
            assert not writeback._wanted.is_set(), "a file that may be gone soon is left alone"
            fill(volume, writeback, whole, range(START_BYTES // RECORD_BYTES - 1, START_BYTES // RECORD_BYTES))
            with trio.fail_after(PATIENCE_S):
                while volume.records.complete_bytes >= ROUND_BYTES:
                    await writeback._told.wait()
            assert volume.records.find_dirty(part, RecordNo(0)) is not None
            assert disk.flush_count == flushes, "nobody has committed"
            assert_memory_adds_up(volume)

    trio.run(scenario)


def test_who_waits_for_room_goes_on_after_a_round_though_no_commit_can_end() -> None:
    async def scenario() -> None:
        disk = Disk()
        async with writing_back(disk) as (volume, writeback):
            ino = new_file(volume, policy=STORED)
            disk.may_write.clear()
            disk.may_flush.clear()
            number = 0
            while not writeback.note_write():
                fill(volume, writeback, ino, range(number, number + 1))
                number += 1
            assert volume.records.dirty_bytes <= DIRTY_BYTES
            async with trio.open_nursery() as nursery:
                waiting = trio.Event()

                async def write() -> None:
                    waiting.set()
                    await writeback.room()

                nursery.start_soon(write)
                await waiting.wait()
                assert writeback.note_write()
                disk.may_write.set()
            assert volume.records.dirty_bytes < DIRTY_BYTES

    trio.run(scenario)


def test_half_of_what_may_be_dirty_is_left_alone_if_more_may_be_written_to_it() -> None:
    async def scenario() -> None:
        disk = Disk()
        async with writing_back(disk) as (volume, writeback):
            ino = new_file(volume, policy=STORED)
            for number in range(DIRTY_BYTES // RECORD_BYTES * 3 // 4):  # each without its last byte
                files.write(volume, ino, number * RECORD_BYTES, noise(number)[:-1])
                if writeback.note_write():
                    await writeback.room()
            with trio.fail_after(PATIENCE_S):
                while volume.records.dirty_bytes >= DIRTY_BYTES // 2:
                    await writeback._told.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert volume.records.dirty_bytes > DIRTY_BYTES // 2 - 4 * ROUND_BYTES

    trio.run(scenario)


def test_no_record_is_compressed_by_two_rounds_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[bytes] = []
    true_pack = adaptive.pack_all

    def pack_all(records: Sequence[adaptive.Unpacked]) -> object:
        packed.extend(record.raw for record in records)
        return true_pack(records)

    monkeypatch.setattr(adaptive, "pack_all", pack_all)

    async def scenario() -> None:
        disk = Disk()
        async with writing_back(disk) as (volume, writeback):
            writeback._workers = 4
            ino = new_file(volume, policy=STORED)
            fill(volume, writeback, ino, range(DIRTY_BYTES // RECORD_BYTES - 16))
            await writeback.drain(storing=True)
            assert volume.records.dirty_bytes < ASIDE_BYTES_MIN and not writeback._packing

    trio.run(scenario)
    assert len(packed) == len(set(map(id, packed))) == DIRTY_BYTES // RECORD_BYTES - 16


def test_a_commit_gets_to_its_end_and_finds_little_left_however_fast_others_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is compressed in the loop, and nobody is served meanwhile; it was up to 30 MiB."""
    loop, packed_in_loop = threading.get_ident(), [0]
    true_pack = adaptive.pack_all

    def pack_all(records: Sequence[adaptive.Unpacked]) -> object:
        packed_in_loop[-1] += sum(len(record.raw) for record in records) * (threading.get_ident() == loop)
        return true_pack(records)

    monkeypatch.setattr(adaptive, "pack_all", pack_all)

    async def scenario() -> None:
        disk = Disk()
        create(disk, plan_create(disk.size_bytes))
        volume = open_volume(disk)
        committer = Committer(volume, parse_options([f"dirty={DIRTY_BYTES}"]))
        ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
        written, noises = 0, [noise(number) for number in range(7)]

        async def write() -> None:
            nonlocal written
            while True:
                if committer.note_write():
                    await committer.room()
                files.write(volume, ino, written % 200 * RECORD_BYTES, noises[written % 7])
                written += 1
                if written % 16 == 0:
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run)
            nursery.start_soon(write)
            with trio.fail_after(PATIENCE_S):
                for _ in range(4):
                    await committer.durable()
                    packed_in_loop.append(0)
            nursery.cancel_scope.cancel()
        assert written and max(packed_in_loop) <= ASIDE_BYTES_MIN
        volume.close()
        assert not runner.check_quietly(disk.copy()).findings

    trio.run(scenario)


def test_who_waits_for_room_is_told_that_the_device_has_failed() -> None:
    async def scenario() -> None:
        disk = Disk()
        async with writing_back(disk) as (volume, writeback):
            ino = new_file(volume, policy=STORED)
            disk.may_write.clear()
            number = 0
            while not writeback.note_write():
                fill(volume, writeback, ino, range(number, number + 1))
                number += 1
            disk.refuses = True
            disk.may_write.set()
            with trio.fail_after(PATIENCE_S), pytest.raises(DeviceFailed, match="write failed"):
                await writeback.room()
            assert volume.read_only
            assert_memory_adds_up(volume)

    trio.run(scenario)


NO_LATE_PAGES = 1 << 30  # the share of a record that may be late pages is none, so it is stored anew


def lay_loose_pages(volume: Volume, disk: Disk, count: int, late_share: int = NO_LATE_PAGES) -> tuple[InodeNo, list[int]]:
    """Store a file and write a page into *count* of its records; return it, and where from now on the reading thread is noted."""
    ino = new_file(volume, policy=STORED)
    for number in range(count + 1):
        files.write(volume, ino, number * RECORD_BYTES, noise(number))
    volume.checkpoint()
    volume.records.forget_all()
    volume.limits = Limits(dirty_bytes=DIRTY_BYTES, record_cache_bytes=0, loose_from=0, late_share=late_share)
    for number in range(count):
        files.write(volume, ino, number * RECORD_BYTES, noise(number, 4 * KIB))
    assert len(volume.records.loose) == count
    readers: list[int] = []
    read = disk.read

    def noted(offset: int, length: int) -> bytes:
        readers.append(threading.get_ident())
        return read(offset, length)

    disk.read = noted  # type: ignore[method-assign]
    return ino, readers


def read_in_loop(prepare: Callable[[Volume, Disk, InodeNo], object], *, count: int = 64) -> int:
    """Return how often a commit that somebody waits for read in the loop, with *count* records that have a loose page each."""
    found: list[int] = []

    async def scenario() -> None:
        disk = Disk()
        disk.resize(256 * MIB)  # whose journal has room for as many patched records as may be
        async with writing_back(disk) as (volume, writeback):
            ino, readers = lay_loose_pages(volume, disk, count)
            prepare(volume, disk, ino)
            readers.clear()
            await writeback.drain(storing=False)
            volume.commit()
            assert not len(volume.records.loose) and len(readers) >= count
            found.append(readers.count(threading.get_ident()))

    trio.run(scenario)
    return found[0]


def test_a_commit_reads_what_pages_lie_over_in_threads_though_as_many_records_have_patches_as_may() -> None:
    """Those are dirty, but nothing for its rounds: they ended, and the loop read and compressed everything there was."""

    def patch(volume: Volume, disk: Disk, ino: InodeNo) -> None:
        small = [new_file(volume, policy=STORED) for _ in range(patches.RECORDS_MAX)]
        for number in small:
            files.write(volume, number, 0, noise(number, 64 * KIB))
        files.flush_all(volume, small)
        for number in small:
            files.write(volume, number, 100, b"a few bytes")
        volume.enter_patches()
        assert len(volume.records.patched) == ROUND_RECORDS and not volume.records.changed

    assert read_in_loop(patch) == 0


def test_a_commit_reads_what_pages_lie_over_in_threads_though_much_of_it_cannot_be_read() -> None:
    def damage(volume: Volume, disk: Disk, ino: InodeNo) -> None:
        for record in data_records(volume, ino).values():
            disk.write(record.runs(volume.block_bytes)[0][0] * volume.block_bytes, b"damaged")

    assert read_in_loop(damage) == 0


def test_a_commit_reads_what_pages_lie_over_in_threads_however_little_it_is() -> None:
    assert read_in_loop(lambda volume, disk, ino: None, count=1) == 0


def test_records_with_loose_pages_are_read_by_no_round_in_the_loop_and_stored_once() -> None:
    """Pages at random places, more than may be dirty as records: no request and no commit waits for what they lie over."""

    async def scenario() -> None:
        disk = Disk()
        disk.resize(256 * MIB)
        async with writing_back(disk) as (volume, writeback):
            count = 2 * DIRTY_BYTES // RECORD_BYTES
            ino, readers = lay_loose_pages(volume, disk, count)
            for number in range(2 * count):
                assert not writeback.note_write()
                files.write(volume, ino, number % count * RECORD_BYTES + number // count * 8 * KIB, noise(number, 4 * KIB))
            assert len(volume.records.loose) == count and not readers
            assert_memory_adds_up(volume)
            await writeback.drain(storing=True)
            assert len(readers) == count and threading.get_ident() not in readers
            volume.commit()
            assert not volume.records.dirty_count
            for number in range(count):
                old = noise(number)
                wanted = noise(number, 4 * KIB) + old[4 * KIB : 8 * KIB] + noise(number + count, 4 * KIB) + old[12 * KIB :]
                assert files.read(volume, ino, number * RECORD_BYTES, RECORD_BYTES) == wanted

    trio.run(scenario)


@pytest.mark.parametrize("storing", [False, True])
def test_pages_are_written_behind_their_records_by_threads_and_nothing_is_read(storing: bool) -> None:
    async def scenario() -> None:
        disk, count = Disk(), 150
        async with writing_back(disk) as (volume, writeback):
            ino, readers = lay_loose_pages(volume, disk, count, late_share=4)
            writers: list[int] = []
            write = disk.write

            def noted(offset: int, data: bytes | bytearray | memoryview) -> None:
                writers.append(threading.get_ident())
                write(offset, data)

            disk.write = noted  # type: ignore[method-assign]
            await writeback.drain(storing=storing)
            assert not len(volume.records.loose) and not readers
            assert writers and threading.get_ident() not in writers
            volume.commit()
            assert_memory_adds_up(volume)
            for number in range(count):
                wanted = noise(number, 4 * KIB) + noise(number)[4 * KIB :]
                assert files.read(volume, ino, number * RECORD_BYTES, RECORD_BYTES) == wanted

    trio.run(scenario)


def test_pages_whose_writing_fails_stay_loose_and_who_syncs_is_told() -> None:
    async def scenario() -> None:
        disk = Disk()
        async with writing_back(disk) as (volume, writeback):
            lay_loose_pages(volume, disk, 80, late_share=4)
            free, reserved = volume.store.maps.free_blocks, volume.records.reserved_blocks
            disk.refuses = True
            with pytest.raises(DeviceFailed, match="write failed"):
                await writeback.drain(storing=True)
            assert len(volume.records.loose) == 80
            assert (volume.store.maps.free_blocks, volume.records.reserved_blocks) == (free, reserved)
            assert_memory_adds_up(volume)

    trio.run(scenario)
