"""The committer: who asked for durability gets it, and a slow device keeps nobody else waiting."""

import random
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from razortools.check import runner
from razortools.engine import adaptive, files, namespace, xattrs
from razortools.engine.create import create, plan_create
from razortools.engine.limits import Limits
from razortools.engine.store import frozen
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume, open_volume
from razortools.errors import DeviceFailed
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import HIGHEST_KEY, LOWEST_KEY
from razortools.service import committer as committer_module
from razortools.service.committer import HERE_BYTES_MAX, INLINE_S, Committer
from razortools.service.options import parse_options
from razortools.service.writeback import ASIDE_BYTES_MIN
from razortools.units import GIB, MIB, InodeNo, RecordNo
from tests.cold import forget_all
from tests.engine.data_volumes import new_file

PATIENCE_S = 60


class SlowDisk(MemoryDevice):
    """A disk whose flushes return when they are let, and fail if they are told to."""

    def __init__(self, size_bytes: int = 4 * MIB) -> None:
        super().__init__(size_bytes)
        self.flushing = threading.Event()
        self.may_flush = threading.Event()
        self.may_flush.set()
        self.fails = False
        self.flush_count = 0

    def flush(self) -> None:
        self.flush_count += 1
        self.flushing.set()
        assert self.may_flush.wait(PATIENCE_S)
        if self.fails:
            raise DeviceFailed("slow disk: flush failed")


@asynccontextmanager
async def committing(disk: SlowDisk, *options: str) -> AsyncIterator[tuple[Volume, Committer]]:
    create(disk, plan_create(disk.size_bytes))
    volume = open_volume(disk)
    committer = Committer(volume, parse_options(list(options)))
    disk.flushing.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(committer.run)
        try:
            yield volume, committer
        finally:
            disk.may_flush.set()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def committing_fast(disk: SlowDisk) -> AsyncIterator[tuple[Volume, Committer]]:
    """As committing(), when one commit has shown how fast the disk is; there is a file "first"."""
    async with committing(disk) as (volume, committer):
        make(volume, b"first")
        await committer.durable()
        await trio.testing.wait_all_tasks_blocked()
        yield volume, committer


async def until(event: threading.Event) -> None:
    assert await trio.to_thread.run_sync(event.wait, PATIENCE_S)


def make(volume: Volume, name: bytes) -> None:
    namespace.create(volume, ROOT_INODE, name, 0o644, 0, 0)


def test_requests_go_on_while_the_device_flushes() -> None:
    async def scenario() -> None:
        disk = SlowDisk()
        async with committing(disk) as (volume, committer), trio.open_nursery() as nursery:
            make(volume, b"before")
            disk.may_flush.clear()
            nursery.start_soon(committer.durable)
            await until(disk.flushing)
            make(volume, b"meanwhile")  # this thread is free: the flush waits in another one
            assert namespace.lookup(volume, ROOT_INODE, b"meanwhile")
            disk.may_flush.set()

    trio.run(scenario)


def test_a_checkpoint_comes_before_an_operation_has_to_make_one_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with committing_fast(SlowDisk(64 * MIB)) as (volume, committer):
            monkeypatch.setattr(volume, "_make_room", lambda *_, **__: pytest.fail("an operation stops all others"))
            generation, number = volume.store.superblock.generation, 0
            committer.note_changes()
            await trio.testing.wait_all_tasks_blocked()
            assert volume.store.superblock.generation == generation, "nothing is to be done yet"
            volume.store.nodes.dirty_count_max = 30
            for _ in range(2):
                before = volume.store.superblock.generation
                while not volume.is_crowded:
                    make(volume, b"a name that is not too short, number %06d" % number)
                    number += 1
                assert volume.store.tree.dirty_count <= volume.store.nodes.dirty_count_max
                committer.note_changes()
                with trio.fail_after(PATIENCE_S):
                    while volume.store.superblock.generation == before:  # it may be written in a thread
                        await trio.lowlevel.checkpoint()
                assert volume.store.superblock.generation == before + 1
                assert not volume.is_crowded

    trio.run(scenario)


@pytest.mark.parametrize(("image_bytes", "most_bytes"), [(64 * MIB, MIB // 4), (GIB, 2 * MIB)])
def test_changes_are_committed_before_they_take_much_memory(image_bytes: int, most_bytes: int) -> None:
    """What only changes the tree waited for its interval, or until it filled the ring, and all of it lay in memory."""

    async def scenario() -> None:
        async with committing(SlowDisk(image_bytes), "commit=86400", "checkpoint=86400", "dirty=8M") as (volume, committer):
            inodes = [new_file(volume) for _ in range(600)]
            volume.checkpoint()
            transaction_bytes, turn = lambda: volume.store.transaction.parts_bytes, 0
            for _ in range(3):
                before = committer.commit_count
                while transaction_bytes() < most_bytes:
                    committer.note_changes()
                    await trio.testing.wait_all_tasks_blocked()
                    assert committer.commit_count == before, "nothing is to be done yet"
                    turn += 1
                    for ino in inodes:
                        xattrs.set(volume, ino, b"user.turn", b"%d" % turn)
                committer.note_changes()
                await trio.testing.wait_all_tasks_blocked()
                assert transaction_bytes() < most_bytes, "nobody commits"
                with trio.fail_after(PATIENCE_S):
                    while committer.commit_count == before:  # it may be written in a thread
                        await trio.lowlevel.checkpoint()
                await trio.testing.wait_all_tasks_blocked()

    trio.run(scenario)


class Turns:
    """How often others had their turn while a checkpoint was being prepared."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self.count = 0

    async def run(self) -> None:
        while True:
            flight = self._volume.store.flights.current
            self.count += flight is not None and flight._steps is not None
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("is_waited_for", [False, True])
def test_requests_have_their_turns_while_a_checkpoint_is_prepared(is_waited_for: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "PREPARING_S", 0.0)
    monkeypatch.setattr(frozen, "NODES_AT_ONCE", 1)

    async def scenario() -> None:
        async with committing(SlowDisk()) as (volume, committer), trio.open_nursery() as nursery:
            for number in range(100):
                make(volume, b"a name that is not too short, number %06d" % number)
            turns = Turns(volume)
            nursery.start_soon(turns.run)
            count = volume.store.tree.dirty_count
            assert count > 4
            committer._batch.is_asked_for = is_waited_for
            await committer._checkpoint()
            assert (turns.count == 0) == is_waited_for
            assert is_waited_for or turns.count >= count - 2  # who of the two comes first is anybody's guess
            nursery.cancel_scope.cancel()

    trio.run(scenario)


def test_what_changes_the_tree_is_held_back_while_a_checkpoint_of_a_slow_disk_is_on_its_way() -> None:
    async def scenario() -> None:
        disk = SlowDisk()
        async with committing(disk) as (volume, committer), trio.open_nursery() as nursery:
            volume.store.nodes.dirty_count_max = 10
            assert not committer.holds_back
            disk.flushing.clear()
            disk.may_flush.clear()
            make(volume, b"first of many")
            nursery.start_soon(committer._checkpoint)
            await until(disk.flushing)
            await committer.less_dirty()  # returns at once
            number, answered = 0, trio.Event()
            while not committer.holds_back:
                make(volume, b"a name that is not too short, number %06d" % number)
                number += 1

            async def changing() -> None:
                await committer.less_dirty()
                answered.set()

            nursery.start_soon(changing)
            await trio.testing.wait_all_tasks_blocked()
            assert not answered.is_set()
            disk.may_flush.set()
            with trio.fail_after(PATIENCE_S):
                await answered.wait()

    trio.run(scenario)


def test_a_large_checkpoint_is_written_in_a_thread_however_fast_commits_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits of half a millisecond had a checkpoint of a tenth of a second written between two requests."""
    monkeypatch.setattr(committer_module, "HERE_NODES_MAX", 2)

    async def scenario() -> None:
        disk = SlowDisk(64 * MIB)
        async with committing_fast(disk) as (volume, committer), trio.open_nursery() as nursery:
            for number in range(150):
                make(volume, b"a name that is not too short, number %06d" % number)
            await committer.durable()
            committer._flight_s = INLINE_S / 10
            assert volume.store.tree.dirty_count > 2
            disk.flushing.clear()
            disk.may_flush.clear()
            nursery.start_soon(committer._checkpoint)
            await until(disk.flushing)
            make(volume, b"meanwhile")
            disk.may_flush.set()

    trio.run(scenario)


def test_a_commit_that_has_to_be_a_checkpoint_is_made_at_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with committing_fast(SlowDisk()) as (volume, committer):
            make(volume, b"file")
            generation = volume.store.superblock.generation
            monkeypatch.setattr(volume.store.journal, "fits", lambda length: False)
            assert committer.commit_here()
            assert volume.store.superblock.generation == generation + 1

    trio.run(scenario)


def test_who_asks_during_a_flush_is_answered_by_the_next_one() -> None:
    async def scenario() -> None:
        disk = SlowDisk()
        answered: list[str] = []
        async with committing(disk) as (volume, committer), trio.open_nursery() as nursery:

            async def ask(name: str) -> None:
                await committer.durable()
                answered.append(f"{name} after {disk.flush_count - before} flushes")

            make(volume, b"first")
            before = disk.flush_count
            disk.may_flush.clear()
            nursery.start_soon(ask, "first")
            await until(disk.flushing)
            make(volume, b"second")
            nursery.start_soon(ask, "second")
            await trio.testing.wait_all_tasks_blocked()
            assert answered == []
            disk.may_flush.set()
        assert answered == ["first after 1 flushes", "second after 2 flushes"]

    trio.run(scenario)


def test_all_who_ask_while_one_flush_runs_share_the_next() -> None:
    async def scenario() -> None:
        disk = SlowDisk()
        answered: list[int] = []
        async with committing(disk) as (volume, committer), trio.open_nursery() as nursery:

            async def client(number: int) -> None:
                make(volume, b"%d" % number)
                await committer.durable()
                answered.append(number)

            make(volume, b"first")
            before = disk.flush_count
            disk.may_flush.clear()
            nursery.start_soon(committer.durable)
            await until(disk.flushing)
            for number in range(50):
                nursery.start_soon(client, number)
            await trio.testing.wait_all_tasks_blocked()
            disk.may_flush.set()
        assert len(answered) == 50
        assert disk.flush_count == before + 2, "one that was under way, and one for all who came meanwhile"

    trio.run(scenario)


def test_who_waits_for_a_flight_in_the_loop_is_counted() -> None:
    async def scenario() -> None:
        disk = SlowDisk()
        async with committing(disk) as (volume, committer), trio.open_nursery() as nursery:
            assert volume.statistics().waits_for_flights == 0
            make(volume, b"first")  # after a quick commit the next one would run in the loop
            disk.may_flush.clear()
            nursery.start_soon(committer.durable)
            await until(disk.flushing)
            threading.Timer(0.05, disk.may_flush.set).start()
            volume.settle()
            figures = volume.statistics()
            assert figures.waits_for_flights == 1 and figures.waits_for_flights_s > 0

    trio.run(scenario)


def test_a_writer_of_small_files_waits_before_the_journal_is_full_of_promises() -> None:
    async def scenario() -> None:
        disk = SlowDisk()
        async with committing(disk) as (volume, committer), trio.open_nursery() as nursery:
            writers = [namespace.create(volume, ROOT_INODE, b"%d" % number, 0o644, 0, 0) for number in range(100)]
            volume.checkpoint()
            disk.flushing.clear()
            disk.may_flush.clear()
            done: list[InodeNo] = []

            async def write_all() -> None:
                for ino in writers:
                    if committer.note_write():
                        await committer.room()
                    files.write(volume, ino, 0, b"small" * 800)
                    done.append(ino)

            nursery.start_soon(write_all)
            await until(disk.flushing)
            await trio.testing.wait_all_tasks_blocked()
            assert 0 < len(done) < volume.promises.dirty_records_max < len(writers), "nobody commits in the loop"
            disk.may_flush.set()
        assert len(done) == len(writers)

    trio.run(scenario)


def test_what_is_written_while_a_commit_flies_is_not_compressed_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, packed_in_loop = threading.get_ident(), []
    true_pack = adaptive.pack_all

    def pack_all(records: Sequence[adaptive.Unpacked]) -> object:
        if threading.get_ident() == loop:
            packed_in_loop.append(sum(len(record.raw) for record in records))
        return true_pack(records)

    monkeypatch.setattr(adaptive, "pack_all", pack_all)

    async def scenario() -> None:
        disk = SlowDisk()
        async with committing(disk) as (volume, committer), trio.open_nursery() as nursery:
            make(volume, b"first")
            disk.may_flush.clear()
            nursery.start_soon(committer._checkpoint)
            await until(disk.flushing)  # of the commit before the checkpoint
            ino = namespace.lookup(volume, ROOT_INODE, b"first")
            files.write(volume, ino, 0, random.Random(1).randbytes(1 * MIB))
            disk.may_flush.set()

    trio.run(scenario)
    assert sum(packed_in_loop) < ASIDE_BYTES_MIN


def test_what_a_flush_changes_is_read_before_it_by_a_thread() -> None:
    loop = threading.get_ident()

    class ColdSlowDisk(SlowDisk):
        reads_in_loop = 0

        def read_cached(self, offset: int, length: int) -> bytes | None:
            return None

        def read(self, offset: int, length: int) -> bytes:
            self.reads_in_loop += threading.get_ident() == loop
            return super().read(offset, length)

    async def scenario() -> None:
        disk = ColdSlowDisk()
        async with committing(disk) as (volume, committer):
            inodes = []
            for number in range(100):
                make(volume, b"%d" % number)
                inodes.append(namespace.lookup(volume, ROOT_INODE, b"%d" % number))
            volume.checkpoint()
            for ino in inodes:
                files.write(volume, ino, 0, b"x" * 8000)
            forget_all(volume)
            volume.store.last(LOWEST_KEY, HIGHEST_KEY)
            before = disk.reads_in_loop
            await committer.writeback.drain(storing=True)
            assert volume.records.dirty_bytes < ASIDE_BYTES_MIN and disk.reads_in_loop == before

    trio.run(scenario)


def test_an_operation_that_commits_by_itself_waits_for_the_flight_before() -> None:
    async def scenario() -> None:
        disk = SlowDisk()
        async with committing(disk) as (volume, committer), trio.open_nursery() as nursery:
            make(volume, b"first")
            disk.may_flush.clear()
            nursery.start_soon(committer.durable)
            await until(disk.flushing)
            make(volume, b"second")
            threading.Timer(0.05, disk.may_flush.set).start()
            volume.commit()  # in this thread, while the other one flushes
            again = open_volume(disk.copy(), read_only=True)
            assert namespace.lookup(again, ROOT_INODE, b"first") and namespace.lookup(again, ROOT_INODE, b"second")

    trio.run(scenario)


def test_a_flush_that_fails_in_the_thread_is_told_to_who_waits_and_turns_the_volume_read_only() -> None:
    async def scenario() -> None:
        disk = SlowDisk()
        async with committing(disk) as (volume, committer):
            make(volume, b"first")
            disk.fails = True
            with pytest.raises(DeviceFailed, match="flush failed"):
                await committer.durable()
            assert volume.read_only and "flush failed" in volume.statistics().failure
            with pytest.raises(DeviceFailed, match="flush failed"):
                await committer.durable()

    trio.run(scenario)


def test_a_flush_that_fails_is_told_to_who_waits_even_if_another_operation_meets_the_failure_first() -> None:
    """It was told to the operation alone; whoever had asked for durability heard that all was well."""

    async def scenario() -> None:
        disk = SlowDisk()
        told: list[str] = []
        async with committing(disk) as (volume, committer), trio.open_nursery() as nursery:

            async def ask() -> None:
                try:
                    await committer.durable()
                    told.append("durable")
                except DeviceFailed as failed:
                    told.append(str(failed))

            make(volume, b"first")
            disk.may_flush.clear()
            disk.fails = True
            nursery.start_soon(ask)
            await until(disk.flushing)
            make(volume, b"second")
            disk.may_flush.set()
            with pytest.raises(DeviceFailed, match="flush failed"):
                volume.commit()  # as an operation does that finds no room; the committer has not had its turn yet
        assert told == ["slow disk: flush failed"]

    trio.run(scenario)


def test_what_is_done_while_a_commit_flies_is_whole_in_the_checkpoint_that_follows_it() -> None:
    """The checkpoint took the sizes of files along, but neither their data nor the counters."""

    async def scenario() -> None:
        disk = SlowDisk()
        async with committing(disk) as (volume, committer), trio.open_nursery() as nursery:
            make(volume, b"first")
            disk.may_flush.clear()
            nursery.start_soon(committer._checkpoint)
            await until(disk.flushing)  # of the commit before the checkpoint
            make(volume, b"second")
            files.write(volume, namespace.lookup(volume, ROOT_INODE, b"second"), 0, b"s" * 9000)
            disk.may_flush.set()
        with open_volume(disk.copy(), read_only=True) as again:
            found = namespace.lookup(again, ROOT_INODE, b"second")
            assert files.read(again, found, 0, 9000) == b"s" * 9000
        assert not runner.check_quietly(disk.copy()).findings

    trio.run(scenario)


def test_on_a_fast_device_a_commit_is_made_on_the_spot() -> None:
    async def scenario() -> None:
        disk = SlowDisk()
        async with committing(disk) as (volume, committer):
            await trio.testing.wait_all_tasks_blocked()
            make(volume, b"first")
            assert not committer.commit_here(), "nobody knows yet how fast the device is"
            await committer.durable()
            await trio.testing.wait_all_tasks_blocked()
            make(volume, b"second")
            before = disk.flush_count
            assert committer.commit_here()
            assert disk.flush_count == before + 1
            assert volume.store.transaction.is_empty

    trio.run(scenario)


def test_while_something_is_on_its_way_no_commit_is_made_on_the_spot() -> None:
    async def scenario() -> None:
        disk = SlowDisk()
        async with committing(disk) as (volume, committer), trio.open_nursery() as nursery:
            make(volume, b"first")
            disk.may_flush.clear()
            nursery.start_soon(committer.durable)
            await until(disk.flushing)
            make(volume, b"second")
            assert not committer.commit_here()
            disk.may_flush.set()

    trio.run(scenario)


def test_much_new_data_is_not_compressed_on_the_spot() -> None:
    async def scenario() -> None:
        disk = SlowDisk()
        async with committing_fast(disk) as (volume, committer):
            files.write(volume, namespace.lookup(volume, ROOT_INODE, b"first"), 0, random.Random(1).randbytes(HERE_BYTES_MAX))
            assert not committer.commit_here()
            await committer.durable()

    trio.run(scenario)


def test_what_would_have_to_be_read_first_is_not_stored_on_the_spot() -> None:
    async def scenario() -> None:
        disk = SlowDisk()
        async with committing_fast(disk) as (volume, committer):
            ino = new_file(volume, record_log2=13)
            files.write(volume, ino, 0, random.Random(1).randbytes(2 << 13))
            await committer.durable()
            await trio.testing.wait_all_tasks_blocked()
            volume.records.clean.drop(ino, RecordNo(0))
            volume.limits = Limits(loose_from=0)
            files.write(volume, ino, 0, random.Random(2).randbytes(4096))
            assert len(volume.records.loose) == 1
            assert not committer.commit_here()
            await committer.durable()
            assert not len(volume.records.loose)

    trio.run(scenario)


def test_a_failure_on_the_spot_is_raised_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        disk = SlowDisk()
        async with committing_fast(disk) as (volume, committer):
            disk.fails = True
            for name in (b"second", b"third"):  # whoever asks later is not told that all is well
                if not volume.read_only:
                    make(volume, name)
                with pytest.raises(DeviceFailed):
                    committer.commit_here()
            assert committer.failed.is_set()

    trio.run(scenario)
    assert "commit failed" in caplog.text


def test_what_nobody_waits_for_is_stored_by_the_timer_not_put_into_patches() -> None:
    async def scenario(clock: trio.testing.MockClock) -> None:
        disk = SlowDisk()
        async with committing(disk) as (volume, committer):
            make(volume, b"file")
            ino = namespace.lookup(volume, ROOT_INODE, b"file")
            files.write(volume, ino, 0, random.Random(1).randbytes(40_000))
            await committer.durable()
            files.write(volume, ino, 40_000, b"a line")
            await committer.durable()
            assert volume.records.patched and volume.records.dirty_count == 1
            files.write(volume, ino, 40_006, b"another")
            with trio.move_on_after(PATIENCE_S) as patience:
                while volume.records.dirty_count:
                    await trio.sleep(1)
            assert not patience.cancelled_caught and not volume.records.patched

    clock = trio.testing.MockClock(autojump_threshold=0.05)
    trio.run(scenario, clock, clock=clock)


def test_who_waits_for_room_gets_it_though_small_changes_could_become_patches() -> None:
    async def scenario() -> None:
        disk = SlowDisk()
        create(disk, plan_create(disk.size_bytes, journal_bytes=256 * 1024))
        volume = open_volume(disk)
        committer = Committer(volume, parse_options([]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(committer.run)
            chance = random.Random(1)
            for number in range(24):
                make(volume, b"%d" % number)
                ino = namespace.lookup(volume, ROOT_INODE, b"%d" % number)
                files.write(volume, ino, 0, chance.randbytes(40_000))
                await committer.durable()
                files.write(volume, ino, 100, b"a small change")
                await committer.durable()
                before = committer.commit_count
                await committer.room()
                assert committer.commit_count - before <= 2
            nursery.cancel_scope.cancel()

    trio.run(scenario)
