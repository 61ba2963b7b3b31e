"""Write-back: dirty records become stored ones while requests are served, and who writes faster than that waits here.

Records that were written from their first byte to their last are compressed as soon as some megabytes of them have gathered:
the device and the other processors have something to do while a big file is still being written, and its fsync finds little
left. Everything else waits, because more may be written to it, until half of what may be dirty is, or until a commit.

    plan (loop)  -->  pack (thread)  -->  place (loop)  -->  write (thread)  -->  enter in the tree (loop)       a round

When nothing else is left for a round, it takes records that have loose pages (engine/loose.py). These are written behind them
(engine/late.py), which begins with placing; records that take no more of them are read (thread), and become dirty (loop).

Invariants: as many rounds as there are processors (up to WORKERS_MAX) are under way, no two of them with the same record as it
is now; either a commit has them made or the task here, never both; a commit waits for nobody who writes, and whoever waits here
is told of each round's end and of each failure, so nobody waits for good. Nothing here is durable before a commit.
"""

import os
from collections.abc import Callable

import trio

from razortools.engine import files, loose
from razortools.engine.records import Place
from razortools.engine.volume import Volume
from razortools.service import placement
from razortools.service.residence import Fetcher
from razortools.units import KIB, MIB

START_BYTES = 8 * MIB  # of complete records: files smaller than this that are soon deleted are never compressed
ROUND_BYTES = 2 * MIB  # raw data of one round: about 5 ms of compression
ROUND_RECORDS = 64  # entering them in the tree takes the loop some 40 us each, and requests wait
ROUND_MERGED = 16  # records with loose pages that a round reads to store them anew
LATE_ROUND_BYTES = 16 * MIB  # of records whose loose pages are written behind them
WORKERS_MAX = 4
ASIDE_BYTES_MIN = 256 * KIB  # less is flushed at once: two hops to a thread cost as much as compressing 64 KiB
MARGIN_BYTES = 2 * MIB  # the largest request and the record around it: below it the engine would have to flush by itself
SPARED_BYTES = 2 * MIB  # a commit that finds less than this dirty hardly slows down who writes

NO_PLAN = files.FlushPlan(())


class Writeback:
    """Owner of the rounds that make less dirty, and of the limit at which a writer has to wait for them."""

    def __init__(self, volume: Volume, fetcher: Fetcher, dirty_bytes_max: int) -> None:
        """Write back *volume*; let up to *dirty_bytes_max* be dirty."""
        self._volume = volume
        self._fetcher = fetcher
        self._workers = min(WORKERS_MAX, len(os.sched_getaffinity(0)))
        self._driving = trio.Lock()  # held by whoever makes rounds
        self._wanted = trio.Event()
        self._told = trio.Event()
        self._failure: Exception | None = None
        self.on_failure: Callable[[Exception], Exception] = lambda failed: failed  # what those are told who wait
        self._storing: set[Place] = set()  # records whose loose pages a round has in hand
        self._packing: dict[Place, bytes] = {}  # records that a round has planned and not placed yet
        self._under_way_bytes = 0  # of all rounds
        self.configure(dirty_bytes_max)

    def configure(self, dirty_bytes_max: int) -> None:
        """Let up to *dirty_bytes_max* be dirty from now on."""
        self._full_bytes = max(dirty_bytes_max - MARGIN_BYTES, dirty_bytes_max // 2)
        self._many_bytes = dirty_bytes_max // 2
        self._limit_bytes = self._full_bytes  # less while a commit is being prepared

    # For who writes

    def note_write(self) -> bool:
        """See to it that what is dirty becomes less if it is much. Return whether a writer must come to `room` first."""
        records = self._volume.records
        dirty_bytes = records.dirty_bytes
        if records.complete_bytes >= START_BYTES or dirty_bytes >= self._many_bytes:
            self._wanted.set()
        return dirty_bytes >= self._limit_bytes

    async def room(self) -> None:
        """Return when less is dirty than may be. Raises what keeps it from becoming less."""
        while self.note_write():
            await self._told.wait()
            if self._failure is not None:
                raise self._failure

    # The task

    async def run(self) -> None:
        """Write back what is complete, and whatever is too much, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            async with self._driving:
                await self._make_rounds(self._plan_unasked, self._wants_more_unasked)

    def _plan_unasked(self) -> files.FlushPlan:
        """Return the next round of the task: none if a commit wants to go on, or if too little is left."""
        records = self._volume.records
        if self._driving.statistics().tasks_waiting:
            return NO_PLAN
        if records.complete_bytes - self._under_way_bytes >= ROUND_BYTES:
            return self._plan(complete=True)
        return self._plan() if self._wants_more_unasked() else NO_PLAN

    def _wants_more_unasked(self) -> bool:
        """Whether too much is dirty, and no commit waits."""
        much = self._volume.records.dirty_bytes - self._under_way_bytes >= self._many_bytes
        return much and not self._driving.statistics().tasks_waiting

    # For the commit

    async def drain(self, *, storing: bool) -> None:
        """Write back nearly all that is dirty: the commit that follows has little left to do. Raises what kept it from that.

        Not *storing*: leave out what can become a patch. Others go on writing, but the limit sinks by half of what has been
        written back: they are slowed down to less than the speed of the rounds, and there is an end of it.
        """
        if not self._driving.locked() and self._is_little_left(storing=storing):
            return
        async with self._driving:
            if self._is_little_left(storing=storing):
                return
            limit = max(self._volume.records.flush_bytes, SPARED_BYTES)
            planned_bytes = 0

            def plan() -> files.FlushPlan:
                nonlocal planned_bytes
                if self._left_bytes(storing=storing) < ASIDE_BYTES_MIN:
                    self._limit_bytes = 0  # what is under way is soon done
                    return NO_PLAN
                found = self._plan(patched=storing)
                planned_bytes += found.raw_bytes
                self._limit_bytes = min(self._full_bytes, limit - planned_bytes // 2)
                return found

            try:
                await self._make_rounds(plan, lambda: True)
            finally:
                self._limit_bytes = self._full_bytes
                self._tell()
            if self._failure is not None:
                raise self._failure

    def _is_little_left(self, *, storing: bool) -> bool:
        """Make patches of what can become some unless all is to be stored; return whether the rest is soon done in the loop."""
        if not storing:
            self._volume.enter_patches()
        return self._left_bytes(storing=storing) < ASIDE_BYTES_MIN and not len(self._volume.records.loose)

    def _left_bytes(self, *, storing: bool) -> int:
        """Return how much no round has taken yet."""
        records = self._volume.records
        return (records.flush_bytes if storing else records.changed_bytes) - self._under_way_bytes

    # Rounds

    def _plan(self, *, complete: bool = False, patched: bool = True) -> files.FlushPlan:
        return files.plan_flush(
            self._volume,
            bytes_max=ROUND_BYTES,
            records_max=ROUND_RECORDS,
            complete=complete,
            patched=patched,
            packing=self._packing,
        )

    async def _make_rounds(self, plan: Callable[[], files.FlushPlan], merges: Callable[[], bool]) -> None:
        """Make what *plan* gives, several rounds at a time, until it gives nothing or one fails, which is kept as `_failure`.

        While *merges* says so, loose pages are stored when there is nothing else.
        """
        self._failure = None
        async with trio.open_nursery() as nursery:
            for _ in range(self._workers):
                nursery.start_soon(self._work, plan, merges)
        self._tell()  # a plan may have found less dirty than it seemed, without a round

    async def _work(self, plan: Callable[[], files.FlushPlan], merges: Callable[[], bool]) -> None:
        """Make one round after the other."""
        while self._failure is None:
            try:
                planned = plan()
                while not planned.records and merges() and await self._store_loose():
                    planned = plan()
                if not planned.records:
                    return
                await self._round(planned)
            except Exception as failed:
                if self._failure is None:
                    self._failure = self.on_failure(failed)
            self._tell()

    async def _store_loose(self) -> bool:
        """Write loose pages behind their records, a round of them, or make the records dirty with them.

        Returns whether there were any that no other round has in hand.
        """
        places = self._volume.records.loose.oldest(LATE_ROUND_BYTES, but=self._storing)[:ROUND_RECORDS]
        if not places:
            return False
        self._storing.update(places)
        try:
            items = await self._fetcher.run(loose.items_of, self._volume, places)
            placed, others = files.place_late(self._volume, items)
            if placed is not None:
                await self._write(placed)
                return True
            bases = await placement.run_sync(loose.read_bases, self._volume, others[:ROUND_MERGED])
            with self._fetcher.residence.in_place():
                return loose.merge(self._volume, bases) > 0
        finally:
            self._storing.difference_update(places)

    async def _round(self, plan: files.FlushPlan) -> None:
        """Compress, write and enter the records of *plan*."""
        volume, raw_bytes = self._volume, plan.raw_bytes
        self._under_way_bytes += raw_bytes
        self._packing |= {(planned.ino, planned.record_no): planned.raw for planned in plan.records}
        try:
            try:
                packed = await placement.run_sync(files.pack, plan)
                placed = files.place(volume, plan, packed)
            finally:
                for planned in plan.records:
                    if self._packing.get((planned.ino, planned.record_no)) is planned.raw:
                        del self._packing[planned.ino, planned.record_no]
            await self._write(placed)
        finally:
            self._under_way_bytes -= raw_bytes

    async def _write(self, placed: files.Placed) -> None:
        """Write what is placed, and enter it."""
        volume = self._volume
        try:
            await placement.run_sync(files.write_out, volume, placed)
            await self._fetcher.run(files.visit, volume, placed)
        except BaseException:
            files.give_back(volume, placed)
            raise
        files.apply_flush(volume, placed)

    def _tell(self) -> None:
        """Wake who waits for room."""
        told, self._told = self._told, trio.Event()
        told.set()
