"""The volume: a filesystem that is open. It owns all state; the modules beside it are its functions.

Everything here is synchronous and deterministic. Invariants: an operation happens whole or not at all; room for whatever a
later commit needs is taken before an operation starts; commit returns only when everything that was done before it is on stable
storage.
"""

import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

from razortools.engine import flush, orphans, patches, statistics
from razortools.engine.inodes import InodeTable
from razortools.engine.lately import Lately
from razortools.engine.limits import Limits
from razortools.engine.lookedup import LookedUp
from razortools.engine.names import NameTable
from razortools.engine.operation import OperationContext
from razortools.engine.promises import Promises
from razortools.engine.records import Records
from razortools.engine.statistics import Statistics
from razortools.engine.store import admin
from razortools.engine.store.device import Device
from razortools.engine.store.flight import Flight
from razortools.engine.store.journal_reader import JournalScan
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.recovery import Recovered, open_store
from razortools.engine.store.store import Store
from razortools.engine.store.superblocks import newest
from razortools.errors import CorruptImage, OutOfSpace, ReadOnly
from razortools.format.admin import Action, AdminEntry, Outcome, entry
from razortools.format.compression import Algorithm, Policy
from razortools.format.journal import Operation
from razortools.format.keys import COUNTERS_KEY
from razortools.format.superblock import ERROR_COUNT_MAX, SLOT_COUNT, State
from razortools.format.volume import Counters
from razortools.units import InodeNo, format_size

_FLUSH_DATA, _COUNTERS = Operation.FLUSH_DATA, Operation.COUNTERS  # a member of an enumeration is found slowly, and often here
_flatten = Counters._FLATTEN
CROWDED_SHARE = 0.95  # of the dirty nodes that there may be: the rest lasts until the committer has its turn
MOUNT_COUNT_MAX = (1 << 32) - 1  # what the superblock holds: counting ends here, mounting does not


class Volume:
    """An open filesystem. One owner of it at a time: nothing here is safe to call from two threads at once."""

    def __init__(self, store: Store, recovered: Recovered, limits: Limits, clock: Callable[[], int], *, read_only: bool,
                 opening: Action | None) -> None:  # fmt: skip
        """Take over *store*. Use open_volume()."""
        self.store = store
        self.recovered = recovered
        self.limits = limits
        self.block_bytes = store.block_bytes
        self.now_ns = clock
        self._read_only = read_only
        self._opening = opening
        self._failures_before = store.superblock.error_count
        self._failures_met = 0  # since then
        self._is_settled_here = False  # whether it is read-only because set_read_only() left nothing to recover
        self.record_log2 = store.superblock.record_bytes.bit_length() - 1  # of new files
        self.default_policy = _stored_policy(store)  # for new files; a mount may choose another one, which is not stored
        self.counters = _load_counters(store)
        self.inodes = InodeTable(self)
        self.names = NameTable(self)
        self.looked_up = LookedUp()
        self.records = Records(self)
        self.lately = Lately()
        self._context = OperationContext(self)
        self.promises = Promises(self)
        self._has_room = self.promises.has_room  # a name less to look up in each operation

    @property
    def read_only(self) -> bool:
        """Whether changes are refused: opened so, or turned so by a failing device."""
        return self._read_only or self.store.read_only

    def operation(self, operation: Operation, inode: InodeNo, *, blocks: int = 0, deleting: bool = False) -> OperationContext:
        """Begin an atomic operation about *inode* that makes at most *blocks* more blocks of data dirty; yields the time in ns.

        Raises ReadOnly or OutOfSpace before anything changed. If the body raises, all its changes are taken back. Flushing data
        needs no room: it was promised when the data were written.
        """
        store = self.store
        if self._read_only or store.read_only:
            raise ReadOnly(store.failure or f"{store.device.name}: is open for reading only")
        if operation is _FLUSH_DATA or operation is _COUNTERS:
            store.room.hold_promise(self.records.reserved_blocks)
        elif not self._has_room(blocks, deleting=deleting):
            self._make_room(blocks, deleting=deleting)
        context = self._context
        context.begin(operation, inode)
        return context

    def has_room_now(self, blocks: int = 0) -> bool:
        """Whether an operation could start that makes *blocks* dirty, without making room first, which is a checkpoint."""
        return self._has_room(blocks, deleting=False)

    def _make_room(self, blocks: int, *, deleting: bool) -> None:
        """Turn what is promised into what is needed, and make what was freed usable. Raises OutOfSpace if that is not enough."""
        forgotten_count = self.inodes.forgotten_count
        with self.store.residence.in_place():
            self.checkpoint()
        if self.inodes.forgotten_count != forgotten_count:
            # Something had to be given up, and who asks for room may hold an inode from before that. There is no second time.
            name = self.store.device.name
            raise CorruptImage(f"{name}: something could not be stored and was given up, see the log; try again")
        has_room = self._has_room(blocks, deleting=deleting)
        if not has_room and self.store.maps.unpin():  # whoever looks at an earlier checkpoint looks again
            has_room = self._has_room(blocks, deleting=deleting)
        if not has_room:
            free = self.store.room.free_blocks_for_data() * self.block_bytes
            raise OutOfSpace(
                f"{self.store.device.name}: no space left ({format_size(free)} free); delete something or use a larger image"
            )

    def commit(self) -> None:
        """Make everything done so far durable: data, items, one flush. Raises DeviceFailed; the volume is read-only then."""
        self.begin_commit()
        self.settle()
        if self.wants_checkpoint:
            self._write_checkpoint()

    def begin_commit(self, *, storing: bool = False) -> Flight | None:
        """Begin what commit() does; None if there is nothing to write. Raises ReadOnly, DeviceFailed.

        Small changes are entered as patches, unless it is to be *storing* all records anew.

        The flight may run in another thread while operations go on; settle() ends it, and then everything that was done before
        this call is durable. Whoever begins flights asks `wants_checkpoint` after settling.
        """
        if self.read_only:
            if self.store.failure:
                raise ReadOnly(self.store.failure)
            return None
        self._gather(storing=storing)
        return self.store.begin_commit(self.now_ns(), **self._figures())

    def begin_checkpoint(self) -> Flight | None:
        """Begin a checkpoint of everything done so far; None if the volume is read-only. Otherwise as begin_commit()."""
        if self.read_only:
            return None
        # Operations may have run since the last commit was begun. Their changes go along, so their data and counters must.
        self._gather(storing=True)
        return self.store.begin_checkpoint(self.now_ns(), **self._figures())

    def settle(self) -> None:
        """Return when what was begun is stable. Raises DeviceFailed; the volume is read-only then."""
        self.store.settle()

    @property
    def wants_checkpoint(self) -> bool:
        """Whether a checkpoint is due: the journal is half full, or an operation would soon have to make one by itself."""
        if self.read_only:
            return False
        return self.store.journal.used_bytes > self.store.journal.ring_bytes // 2 or self.is_crowded

    @property
    def is_crowded(self) -> bool:
        """Whether so many nodes of the tree are dirty that it will not be long before there may be no more of them."""
        return self.store.tree.dirty_count > self.store.nodes.dirty_count_max * CROWDED_SHARE

    def checkpoint(self) -> None:
        """Commit, and write the tree to its place, so that a recovery has nothing to replay."""
        self._commit_and_checkpoint()

    def _commit_and_checkpoint(self, **changes: object) -> None:
        self.begin_commit(storing=True)
        self.settle()
        self._write_checkpoint(**changes)

    def _write_checkpoint(self, **changes: object) -> None:
        if self.read_only:
            return
        self._gather(storing=True)
        self.store.checkpoint(self.now_ns(), **(changes | self._figures()))

    def used_bytes(self) -> int:
        """Return how much of the image new data cannot take."""
        now = self.statistics()
        return (now.block_count - now.free_blocks) * now.block_bytes

    def note_failure(self) -> None:
        """Something cannot be read as it was written. The image tells so from the next checkpoint until a razorfsck mends it."""
        self._failures_met += 1

    @property
    def has_untold_failures(self) -> bool:
        """Whether a checkpoint would tell of failures that the image does not tell of yet."""
        return not self.read_only and self._error_count > self.store.superblock.error_count

    @property
    def _error_count(self) -> int:
        return min(self._failures_before + self._failures_met, ERROR_COUNT_MAX)

    def _figures(self) -> dict[str, int]:
        """Return what the superblock tells of the counters, and of failures."""
        figures = {"inode_count": self.counters.inode_count, "directory_count": self.counters.directory_count}
        if self._failures_met:
            figures |= {"state": State.ERRORS, "error_count": self._error_count}
        return figures

    def verify_journal(self) -> JournalScan:
        """Read the journal back, from the last checkpoint to the last commit. *damage* tells what does not verify."""
        self.settle()
        return self.store.journal.verify()

    def compact_journal(self) -> None:
        """Empty the journal by a checkpoint and give the host back the space that it took."""
        self.checkpoint()
        if not self.read_only:
            self.store.journal.begin_anew()
            for _ in range(SLOT_COUNT):  # no superblock may expect what will not be there any more
                self.checkpoint()
            self.store.journal.compact()

    def abort(self) -> None:
        """Drop everything since the last commit, data included."""
        self.store.abort()
        self._forget_all()
        patches.load(self)

    def close(self) -> None:
        """Finish: checkpoint, mark the image clean, release the device. After a failure nothing is written any more."""
        try:
            if not self.read_only:
                self._finish()
        finally:
            self._release()

    def _finish(self) -> None:
        """Leave nothing to recover, and say so in the image."""
        state = self.store.superblock.state
        self._commit_and_checkpoint(state=State.CLEAN if state == State.DIRTY else state)

    def set_read_only(self) -> None:
        """Finish as close() does, but stay open: changes are refused until resume_writing(). Nothing happens if they are already.

        Raises DeviceFailed; the volume is read-only then, too, but the image is not clean.
        """
        if self.read_only:
            return
        orphans.finish_orphans(self)
        self._finish()
        self._read_only = self.store.read_only = self._is_settled_here = True
        self.store.device.set_read_only(True)

    def resume_writing(self) -> None:
        """Take changes again: after set_read_only(), or although the volume was opened for reading. Marks the image as in use.

        Raises ReadOnly, ImageBusy or DeviceFailed for what stands against it; the volume stays read-only then.
        """
        if not self.read_only:
            return
        if self.store.failure:
            raise ReadOnly(self.store.failure)
        device = self.store.device
        is_settled = self._is_settled_here or self.store.superblock.state == State.CLEAN
        if isinstance(device, OverlayDevice) or not is_settled:
            raise ReadOnly(
                f"{device.name}: was not closed cleanly, and looking does not recover it; unmount it and mount it for writing"
            )
        device.set_read_only(False)
        try:
            if newest(device).generation != self.store.superblock.generation:  # while it was shared
                raise ReadOnly(f"{device.name}: was changed by somebody else; unmount it and mount it again")
        except BaseException:
            device.set_read_only(True)
            raise
        self._read_only = self.store.read_only = False
        self.mark_opened()

    def set_limits(self, limits: Limits) -> None:
        """Keep to other limits from now on. What is cached above them goes with the next operations."""
        self.limits = limits
        self.store.nodes.set_limit(limits.metadata_cache_bytes)
        self.store.nodes.shrink()

    def _release(self) -> None:
        """Give the device back, once nobody writes to it any more."""
        with suppress(Exception):  # after a failure, which has been told
            self.settle()
        self.store.device.close()

    def mark_opened(self) -> None:
        """Tell the image that somebody writes to it, and finish what the last one left."""
        superblock = self.store.superblock
        now_ns, mount_count = self.now_ns(), min(superblock.mount_count + 1, MOUNT_COUNT_MAX)
        if superblock.state == State.CLEAN and not self.store.journal.used_bytes and not self.store.tree.dirty_count:
            changes = self._opened(now_ns, Outcome.DONE)
            self.store.mark(now_ns, state=State.DIRTY, mounted_at_ns=now_ns, mount_count=mount_count, **changes)
        else:
            state = {"state": State.ERRORS if superblock.state == State.ERRORS else State.DIRTY}
            # Before anything else is written: data in free blocks could make a transaction whole that recovery has dropped. What
            # a crash has left in patches stays there until the next checkpoint.
            changes = self._opened(now_ns, Outcome.RECOVERED, self.recovered.transactions) | state | self._figures()
            self.store.checkpoint(now_ns, mounted_at_ns=now_ns, mount_count=mount_count, **changes)
        orphans.finish_orphans(self)

    @cached_property
    def last_check(self) -> AdminEntry | None:
        """The last check or repair that the admin history tells of; None if none is known. Nobody can make one meanwhile."""
        return admin.last_check(self.store.superblock)

    def _opened(self, now_ns: int, outcome: Outcome, transactions: int = 0) -> dict[str, Any]:
        """Return what the superblock's admin history is told of the opening."""
        if self._opening is None:
            return {}
        return admin.noted(self.store.superblock, entry(self._opening, now_ns, outcome, detail=transactions))

    def note(self, action: Action, *, detail: int = 0) -> None:
        """Enter in the admin history what has been done. It becomes durable with the next checkpoint, and all before it."""
        self.store.superblock = replace(self.store.superblock, **self.noted(action, detail=detail))

    def noted(self, action: Action, *, detail: int = 0) -> dict[str, Any]:
        """Return the fields of the superblock that change by an entry of *action* in the admin history."""
        return admin.noted(self.store.superblock, entry(action, self.now_ns(), detail=detail))

    def statistics(self) -> Statistics:
        """Return the figures of this moment."""
        return statistics.take(self)

    def _gather(self, *, storing: bool) -> None:
        """Enter all that memory holds in the tree, once nothing is under way: what is written next is a whole state."""
        self.store.settle()
        if not storing:
            self.enter_patches()
        flush.flush_all(self, patched=storing)
        patches.sweep(self)
        self.inodes.put_behind()
        self._put_counters()

    def enter_patches(self) -> None:
        """Enter the small changes of dirty records as patches: a commit that follows need not store these records anew.

        Without a journal it would not write them at all.
        """
        if self.records.changed and not self.read_only and self.store.journaling:
            with self.store.residence.in_place():
                flush.finish_in_flight(self)
                patches.enter(self)

    def _put_counters(self) -> None:
        encoded = self._encoded_counters()
        if encoded != self.store.get(COUNTERS_KEY):
            with self.operation(Operation.COUNTERS, InodeNo(0)):
                self.store.put(COUNTERS_KEY, encoded)

    def _encoded_counters(self) -> bytes:
        """Return the counters' item. What was too low in the image, and would be below 0 now, is 0: no commit fails for it."""
        try:
            return self.counters.encode()
        except struct.error:
            self.note_failure()
            return Counters(*(max(value, 0) for value in _flatten(self.counters))).encode()

    def _forget_all(self) -> None:
        self.counters = _load_counters(self.store)
        self.inodes.forget_all()
        self.names.forget_all()
        self.looked_up.clear()
        self.records.forget_all()

    def __enter__(self) -> "Volume":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._release()


def _stored_policy(store: Store) -> Policy:
    """Return the compression that mkfs chose for new files; what only a newer version knows counts as auto."""
    superblock = store.superblock
    try:
        return Policy(Algorithm(superblock.compression), superblock.compression_level)
    except ValueError:
        return Policy()


def _load_counters(store: Store) -> Counters:
    value = store.get(COUNTERS_KEY)
    if value is None:
        raise CorruptImage(f"{store.device.name}: its counters are missing; run razorfsck {store.device.name}")
    return Counters.decode(value)


def open_volume(
    device: Device,
    *,
    read_only: bool = False,
    recover: bool = True,
    limits: Limits = Limits(),  # noqa: B008  (frozen)
    clock: Callable[[], int] = time.time_ns,
    journaling: bool = True,
    opening: Action | None = Action.MOUNT,
) -> Volume:
    """Open the filesystem on *device*: recover it, finish its orphans, mark it as in use.

    *opening*: what the admin history says of it; None: nothing.

    *read_only* looks at the recovered state without writing a byte; with *recover* False at the last checkpoint as it is.
    *journaling* False is for measuring what the journal costs, never for anybody's data: commit() then promises nothing, a crash
    takes everything since the last checkpoint, and abort() is impossible.
    The volume closes *device*. Raises NotAnImage, CorruptImage, UnsupportedFormat, DeviceFailed.
    """
    store, recovered = open_store(
        device if not read_only or device.read_only else _frozen(device),
        replay=recover,
        metadata_cache_bytes=limits.metadata_cache_bytes,
        journaling=journaling,
    )
    volume = Volume(store, recovered, limits, clock, read_only=read_only, opening=opening)
    patches.load(volume)
    if not read_only:
        volume.mark_opened()
    return volume


def _frozen(device: Device) -> Device:
    """Return *device* for a reader: whoever asked for read-only gets it, whatever the device allows."""
    device.read_only = True
    return device
