"""Recovery: from the newest superblock and the journal to the state of the last complete transaction.

It changes memory only; the first checkpoint afterwards makes it lasting. So it may be cut off anywhere and starts over, with
the same result.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from razortools.engine.store import superblocks
from razortools.engine.store.arrival import data_arrived
from razortools.engine.store.device import Device
from razortools.engine.store.journal_reader import (
    SCAN_ROUNDS,
    JournalReader,
    JournalScan,
    LoggedEntry,
    LoggedTransaction,
    journal_seed,
)
from razortools.engine.store.packed_runs import PackedRuns
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.store import METADATA_CACHE_BYTES, Store
from razortools.errors import CorruptImage
from razortools.format.data import Run
from razortools.format.geometry import geometry_of
from razortools.format.items import changed_blocks
from razortools.format.journal import ENTRY_HEAD_BYTES
from razortools.steps import finished, mapped
from razortools.units import MIB

PART_ENTRIES = 2_000  # of a transaction, replayed between two steps
PART_BYTES = 4 * MIB  # of values in such a part
# Of the whole, once the journal was read, the data of its last transactions was verified, and the tree says what it says.
SCANNED, ARRIVED, APPLIED = 0.4, 0.5, 0.8


@dataclass(frozen=True, slots=True)
class Recovered:
    """What recovery did."""

    transactions: int  # replayed
    entries: int
    discarded: int  # complete in the journal, but their data never arrived: they were never acknowledged
    stopped: str  # why the walk through the journal ended
    took_s: float = 0.0


def open_store(
    device: Device, *, replay: bool = True, metadata_cache_bytes: int = METADATA_CACHE_BYTES, journaling: bool = True
) -> tuple[Store, Recovered]:
    """Open the image on *device*. A device that is read-only is replayed into an overlay in memory and never written.

    *replay* False looks at the last checkpoint only (device must be read-only). *journaling*: see Store. Raises NotAnImage,
    CorruptImage, UnsupportedFormat, DeviceFailed.
    """
    return finished(opening(device, replay=replay, metadata_cache_bytes=metadata_cache_bytes, journaling=journaling))


def opening(
    device: Device, *, replay: bool = True, metadata_cache_bytes: int = METADATA_CACHE_BYTES, journaling: bool = True
) -> Generator[float, None, tuple[Store, Recovered]]:
    """Do what open_store() does; yield how far it is, from 0 to 1."""
    started = time.perf_counter()
    superblock = superblocks.newest(device)
    reader = JournalReader(device, geometry_of(superblock), journal_seed(superblock.uuid))
    walk = reader.scanning_from(superblock)
    scan = yield from mapped(walk, lambda reached: SCANNED * reached / (SCAN_ROUNDS * reader.ring_bytes))
    if scan.damage and replay:
        raise CorruptImage(f"{device.name}: {scan.damage}; run razorfsck {device.name}")
    if not replay or (device.read_only and not scan.transactions):
        store = Store(device, superblock, metadata_cache_bytes=metadata_cache_bytes)
        store.maps.load(superblock)
        return store, Recovered(0, 0, 0, scan.stopped, time.perf_counter() - started)
    overlay = OverlayDevice(device) if device.read_only else device
    store = Store(overlay, superblock, metadata_cache_bytes=metadata_cache_bytes, journaling=journaling)
    store.maps.load(superblock)
    recovered = yield from _replay(store, scan)
    if overlay is not device:
        dirty_count = store.tree.dirty_count or 1
        yield from mapped(store.checkpointing(superblock.written_at_ns), lambda left: 1 - (1 - APPLIED) * left / dirty_count)
        store.read_only = overlay.read_only = True
    return store, replace(recovered, took_s=time.perf_counter() - started)


def _replay(store: Store, scan: JournalScan) -> Generator[float, None, Recovered]:
    """Apply the transactions of *scan* whose data arrived; yield how far it is.

    The ring is walked once more for each pass: all entries of it together may be more than memory holds.
    """
    believed: list[LoggedTransaction] = []
    for transaction in scan.transactions:
        if transaction.last_sequence > scan.flushed_sequence:
            arrived = yield from mapped(data_arrived(store, transaction), lambda share: SCANNED + (ARRIVED - SCANNED) * share)
            if not arrived:
                break
        believed.append(transaction)
    entries = sum(len(transaction.entries) for transaction in believed)
    done = 0
    # All blocks that any of them names are taken first, so that no node is given a place that a later one needs.
    for transaction in believed:
        for part in _parts(transaction):
            _take_blocks(store, part)
            done += len(part.entries)
            yield ARRIVED + (APPLIED - ARRIVED) / 2 * done / entries
    for transaction in believed:
        freed = PackedRuns()
        for part in _parts(transaction):
            if not apply(store, part):
                raise CorruptImage(f"{store.device.name}: recovery finds no room for the tree; run razorfsck")
            freed.add(_let_go(store, part))
            done += len(part.entries)
            yield ARRIVED + (APPLIED - ARRIVED) / 2 * done / entries
        for piece in freed.pieces():
            store.maps.free_later(piece)
    follow_on(store, believed)
    skip_unfinished(store, len(scan.transactions) - len(believed))
    # What a torn transaction left in the ring must never follow on what is written from now on: skip its numbers.
    store.journal.next_sequence = scan.next_sequence + store.journal.ring_bytes // ENTRY_HEAD_BYTES + 1
    return Recovered(len(believed), entries, len(scan.transactions) - len(believed), scan.stopped)


def _parts(transaction: LoggedTransaction) -> Iterator[LoggedTransaction]:
    """Yield *transaction* in parts of not too many entries, which are in memory."""
    part: list[LoggedEntry] = []
    part_bytes = 0
    for entry in transaction.entries:
        part.append(entry)
        part_bytes += entry.head.undo_bytes + entry.head.redo_bytes
        if len(part) >= PART_ENTRIES or part_bytes >= PART_BYTES:
            yield replace(transaction, entries=tuple(part))
            part, part_bytes = [], 0
    if part:
        yield replace(transaction, entries=tuple(part))


def apply(store: Store, transaction: LoggedTransaction) -> bool:
    """Make the tree say what *transaction* changed; False, half-way, if there is no room for its nodes."""
    for entry in transaction.entries:
        if entry.redo is None:
            store.tree.delete(entry.head.key)
        else:
            store.tree.put(entry.head.key, entry.redo)
        if not store.room.holds_tree():
            return False
    return True


def follow_on(store: Store, applied: Sequence[LoggedTransaction]) -> None:
    """Let the next transaction be the one behind those that were applied, in its number and in the ring."""
    if applied:
        store.transaction = type(store.transaction)(applied[-1].number + 1)
    store.journal.head = store.journal.tail + sum(transaction.commit.total_bytes for transaction in applied)


def skip_unfinished(store: Store, discarded: int) -> None:
    """Give no later transaction the number of one that stands where the next will be written: *discarded* ones, or a torn one.

    So an entry there tells by its number whether it waits for the checkpoint that names the place, or was given up before it.
    """
    store.transaction = type(store.transaction)(store.transaction.number + max(discarded, 1))


def _take_blocks(store: Store, transaction: LoggedTransaction) -> None:
    """Mark the blocks that *transaction* took as used."""
    for entry in transaction.entries:
        _, taken = changed_blocks(entry.head.key, entry.undo, entry.redo, store.block_bytes)
        for start, count in taken:
            store.maps.mark_used(start, count)


def _let_go(store: Store, transaction: LoggedTransaction) -> Iterator[Run]:
    """Yield the runs that *transaction* let go."""
    for entry in transaction.entries:
        let_go, _ = changed_blocks(entry.head.key, entry.undo, entry.redo, store.block_bytes)
        yield from filter(store.maps.may_hold, let_go)
