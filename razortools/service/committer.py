"""The committer: makes changes durable, in groups, on a timer, when asked, and before too much is dirty.

Invariants: only this task commits and checkpoints on its own account, or commit_here() while it has nothing to do; a request is
answered by a commit that began after it was made, and never before that commit's flush has returned; the engine's state is
touched in the loop's thread only. What runs in threads is what the engine declares free of shared state: compressing, writing to
blocks that nothing names yet, and flights (commits and checkpoints that have been encoded). An operation that has to commit by
itself settles the flight under way first.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from razortools.engine.store.flight import Flight
from razortools.engine.volume import Volume
from razortools.errors import DeviceFailed, RazorError, ReadOnly
from razortools.service import placement
from razortools.service.logs import log
from razortools.service.options import MountOptions
from razortools.service.phases import Phase, phase
from razortools.service.residence import Fetcher
from razortools.service.writeback import Writeback
from razortools.units import KIB

INLINE_S = 0.0005  # a hop to a thread and back takes a fifth of this; nobody notices that requests wait so long
HELD_BACK_SHARE = 0.9  # of the dirty nodes that there may be, while what is to make room for more is on its way
PREPARING_S = 0.001  # a moment of a checkpoint: who makes a request meanwhile waits no longer
HERE_BYTES_MAX = 64 * KIB  # of new data: a hop to a thread takes as long as to compress that
HERE_RECORDS_MAX = 16
HERE_NODES_MAX = 16  # of a checkpoint, which takes longer than the commits around it tell


@dataclass(slots=True, eq=False)
class Batch:
    """Everybody whom one commit will answer."""

    done: trio.Event = field(default_factory=trio.Event)
    failure: Exception | None = None
    is_asked_for: bool = False  # by somebody who waits for it to be durable
    makes_room: bool = False  # so that less is dirty afterwards


@dataclass(slots=True, eq=False)
class Errand:
    """Something to do while nothing is on its way to the device."""

    do: Callable[[], None]
    done: trio.Event = field(default_factory=trio.Event)
    failure: Exception | None = None


class Committer:
    """Owner of the volume's commits."""

    def __init__(self, volume: Volume, options: MountOptions) -> None:
        """Commit *volume* at the intervals in *options*."""
        self._volume = volume
        fetcher = Fetcher(volume.store.residence, lambda: volume.store.device.read_s)
        self.writeback = Writeback(volume, fetcher, options.dirty_bytes)
        self.writeback.on_failure = self._failed
        self._batch = Batch()
        self._errands: list[Errand] = []
        self._wanted = trio.Event()
        self.configure(options)
        self._wanted = trio.Event()  # nobody has asked for anything yet
        self.failed = trio.Event()  # a commit has failed
        self._complained_of = ""
        self._is_idle = False  # the task waits for something to do
        self._landed = trio.Event()  # what is on its way has got there, or failed
        self.commit_count = 0
        self.committed_at_s = self.checkpointed_at_s = time.monotonic()
        self._flight_s = INLINE_S  # how long the last commit or checkpoint took on its way to the device
        self.after_commit: Callable[[], None] = lambda: None

    def configure(self, options: MountOptions) -> None:
        """Keep to the intervals and limits in *options* from now on."""
        self._commit_interval_s = options.commit_interval_s
        self._checkpoint_interval_s = options.checkpoint_interval_s
        self.writeback.configure(options.dirty_bytes)
        # Small files fill the journal before they fill the memory. A request that then has to commit by itself stops all others.
        # Half of the journal may hold what was committed before a checkpoint is due.
        ring_bytes = self._volume.store.journal.ring_bytes
        self._full_promise_bytes = ring_bytes * 3 // 8
        self._many_promise_bytes = ring_bytes // 8
        # What the running transaction has changed lies in memory until it is committed, whatever the interval is.
        self._many_journal_bytes = min(ring_bytes // 4, options.dirty_bytes // 4)
        self._wanted.set()  # the present wait may be for the old interval, and more may be dirty than may be from now on

    async def between_commits(self, do: Callable[[], None]) -> None:
        """Return when *do* has run, right after a commit and a checkpoint. Raises what it raises."""
        errand = Errand(do)
        self._errands.append(errand)
        self._wanted.set()
        await errand.done.wait()
        if errand.failure is not None:
            raise errand.failure

    # For the handlers

    async def durable(self) -> None:
        """Return when everything that was done before this call is durable. Raises what kept it from being so."""
        with phase(Phase.COMMIT):
            await self._committed()

    async def _committed(self) -> None:
        batch = self._batch
        batch.is_asked_for = True
        self._wanted.set()
        await batch.done.wait()
        if batch.failure is not None:
            raise batch.failure

    def commit_here(self) -> bool:
        """Make everything durable before returning, if that takes less than to have it done. False: it was not, await `durable`.

        Raises what kept it from being durable.
        """
        records = self._volume.records
        if not self._is_idle or self._flight_s >= INLINE_S or records.in_flight:
            return False
        try:
            self._volume.enter_patches()
            if len(records.changed) > HERE_RECORDS_MAX or records.changed_bytes >= HERE_BYTES_MAX or len(records.loose):
                return False
            flight = self._volume.begin_commit()
            if flight is not None:
                self._run_here(flight)
            self._volume.settle()
        except Exception as failed:
            raise self._failed(failed) from failed
        self._note_commit()
        self.after_commit()
        if self._volume.wants_checkpoint:
            self._wanted.set()
        return True

    def note_write(self) -> bool:
        """See to it that what is dirty becomes less if it is much. Return whether a writer must come to `room` first."""
        volume = self._volume
        promised = volume.promises.flush_journal_bytes
        if promised >= self._many_promise_bytes or self._has_changed_much:
            self._wanted.set()
        return self.writeback.note_write() or promised >= self._full_promise_bytes

    def note_changes(self) -> None:
        """See to it that changes are committed before they take much memory.

        And that a checkpoint comes before an operation has to make one by itself, which stops all others.
        """
        if self._is_idle and (self._volume.is_crowded or self._has_changed_much) and not self._volume.read_only:
            self._wanted.set()

    @property
    def _has_changed_much(self) -> bool:
        """Whether the running transaction is so large that it should be committed before its time."""
        return self._volume.store.transaction.parts_bytes >= self._many_journal_bytes

    @property
    def holds_back(self) -> bool:
        """Whether what changes the tree should come to `less_dirty` first: else it would soon have to wait with all others."""
        store = self._volume.store
        return store.flights.current is not None and store.tree.dirty_count > store.nodes.dirty_count_max * HELD_BACK_SHARE

    async def less_dirty(self) -> None:
        """Return when no more nodes are dirty than may be while a checkpoint is on its way, or it has got there."""
        while self.holds_back:
            with phase(Phase.ROOM):
                await self._landed.wait()

    async def room(self) -> None:
        """Return when less is dirty than may be. Raises what a commit raises."""
        while self.note_write():
            with phase(Phase.ROOM):
                if self._volume.promises.flush_journal_bytes >= self._full_promise_bytes:
                    self._batch.makes_room = True
                    await self._committed()
                else:
                    await self.writeback.room()

    # The task

    async def run(self) -> None:
        """Commit and checkpoint until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.writeback.run)
            await self._run()

    async def _run(self) -> None:
        checkpointed_at = time.monotonic()
        while True:
            self._is_idle = True
            with trio.move_on_after(self._commit_interval_s):
                await self._wanted.wait()
            self._is_idle = False
            await self._commit()
            if self._errands or time.monotonic() - checkpointed_at >= self._checkpoint_interval_s:
                checkpointed_at = time.monotonic()
                await self._checkpoint()
            self._do_errands()

    def _do_errands(self) -> None:
        """Do what waits to be done."""
        errands, self._errands = self._errands, []
        for errand in errands:
            try:
                errand.do()
            except Exception as failure:
                errand.failure = failure
            errand.done.set()

    async def _commit(self) -> None:
        """Commit, and answer those who had asked for it before it began."""
        self._wanted = trio.Event()
        failure: Exception | None = None
        # What is synced again and again need not be stored anew each time. What nobody waits for is, once it rests.
        storing = self._batch.makes_room or not self._batch.is_asked_for
        try:
            await self.writeback.drain(storing=storing)
        except Exception as failed:
            failure = failed
        batch, self._batch = self._batch, Batch()
        try:
            if failure is None:
                await self._write_out(self._volume.begin_commit(storing=storing))
                self._note_commit()
        except Exception as failed:
            failure = failed
        if failure is not None:
            failure = self._failed(failure)
        batch.failure = failure
        batch.done.set()
        self.after_commit()
        await trio.lowlevel.checkpoint()  # those who waited get their answers out before the next commit begins
        if self._volume.wants_checkpoint:
            await self._checkpoint()

    async def _checkpoint(self) -> None:
        """Write a checkpoint if there is anything to write."""
        try:
            if self._volume.store.tree.dirty_count or self._volume.has_untold_failures:
                await self.writeback.drain(storing=True)
                await self._write_out(self._volume.begin_commit(storing=True))
                # What was written while the commit flew: the checkpoint would compress it in the loop.
                await self.writeback.drain(storing=True)
                is_large = self._volume.store.tree.dirty_count > HERE_NODES_MAX
                await self._write_out(self._volume.begin_checkpoint(), is_large=is_large)
            self.checkpointed_at_s = time.monotonic()
        except Exception as failure:
            self._complain(failure)

    async def _write_out(self, flight: Flight | None, *, is_large: bool = False) -> None:
        """Return when *flight* is stable. Raises what kept it from being so.

        Requests have their turns while it is being prepared, unless somebody waits for the next commit already. A device that
        takes its time is waited for in a thread, and requests go on meanwhile; one that answers faster than a thread is begun
        is waited for here.
        """
        self._landed = trio.Event()
        try:
            await self._fly(flight, is_large)
        finally:
            self._landed.set()

    async def _fly(self, flight: Flight | None, is_large: bool) -> None:
        """Do that."""
        if flight is not None:
            while flight.prepare(math.inf if self._batch.is_asked_for else PREPARING_S):
                await trio.lowlevel.checkpoint()
            if self._flight_s < INLINE_S and not is_large:
                self._run_here(flight)
            else:
                await placement.run_sync(flight.run)
                if not is_large:
                    self._flight_s = flight.took_s
        self._volume.settle()
        if flight is not None:
            flight.settle()  # an operation that had to commit by itself may have settled it meanwhile, and met its failure

    def _run_here(self, flight: Flight) -> None:
        """Write and flush in the loop."""
        flight.prepare()
        flight.run()
        self._flight_s = flight.took_s

    def _note_commit(self) -> None:
        """Everything done before is durable."""
        self.commit_count += 1
        self.committed_at_s = time.monotonic()

    def _failed(self, failure: Exception) -> Exception:
        """Log why changes cannot be made durable; return what those are told who asked for it."""
        if isinstance(failure, ReadOnly):  # the device failed earlier: to fsync that is an error, not a read-only filesystem
            failure = DeviceFailed(str(failure))
        self._complain(failure)
        return failure

    def _complain(self, failure: Exception) -> None:
        """Log why changes cannot be made durable, once for each reason: the timer meets it again and again."""
        self.failed.set()
        if str(failure) != self._complained_of:
            self._complained_of = str(failure)
            log.error("commit failed: %s", failure, exc_info=not isinstance(failure, RazorError))
