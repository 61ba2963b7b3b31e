"""Recovery: from the newest superblock and the journal to the state of the last complete transaction.

It changes memory only; the first checkpoint afterwards makes it lasting. So it may be cut off anywhere and starts over, with
the same result.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from razortools.engine.store import superblocks
from razortools.engine.store.device import Device
from razortools.engine.store.journal import JournalReader, JournalScan, LoggedTransaction, journal_seed
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.store import METADATA_CACHE_BYTES, Store
from razortools.errors import CorruptImage
from razortools.format.data import DataRecord, Run
from razortools.format.geometry import geometry_of
from razortools.format.items import owned_record
from razortools.format.journal import ENTRY_HEAD_BYTES


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
    started = time.perf_counter()
    superblock = superblocks.newest(device)
    reader = JournalReader(device, geometry_of(superblock), journal_seed(superblock.uuid))
    scan = reader.scan(superblock.journal_tail, superblock.journal_sequence)
    if scan.damage and replay:
        raise CorruptImage(f"{device.name}: {scan.damage}; run razorfsck {device.name}")
    if not replay or (device.read_only and not scan.transactions):
        store = Store(device, superblock, metadata_cache_bytes=metadata_cache_bytes)
        store.maps.load(superblock)
        return store, Recovered(0, 0, 0, scan.stopped, time.perf_counter() - started)
    overlay = OverlayDevice(device) if device.read_only else device
    store = Store(overlay, superblock, metadata_cache_bytes=metadata_cache_bytes, journaling=journaling)
    store.maps.load(superblock)
    recovered = _replay(store, scan)
    if overlay is not device:
        store.checkpoint(superblock.written_at_ns)
        store.read_only = overlay.read_only = True
    return store, replace(recovered, took_s=time.perf_counter() - started)


def _replay(store: Store, scan: JournalScan) -> Recovered:
    """Apply the transactions of *scan* whose data arrived."""
    believed: list[LoggedTransaction] = []
    for transaction in scan.transactions:
        if transaction.last_sequence > scan.flushed_sequence and not _data_arrived(store, transaction):
            break
        believed.append(transaction)
    # All blocks that any of them names are taken first, so that no node is given a place that a later one needs.
    freed = [_take_blocks(store, transaction) for transaction in believed]
    for transaction, runs in zip(believed, freed, strict=True):
        if not apply(store, transaction):
            raise CorruptImage(f"{store.device.name}: recovery finds no room for the tree; run razorfsck")
        store.maps.free_later(runs)
    follow_on(store, believed)
    # What a torn transaction left in the ring must never follow on what is written from now on: skip its numbers.
    store.journal.next_sequence = scan.next_sequence + store.journal.ring_bytes // ENTRY_HEAD_BYTES + 1
    entries = sum(len(transaction.entries) for transaction in believed)
    return Recovered(len(believed), entries, len(scan.transactions) - len(believed), scan.stopped)


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


def _data_arrived(store: Store, transaction: LoggedTransaction) -> bool:
    """Return whether all data that *transaction* names verifies. One flush served both, so it may not have arrived.

    Raises DeviceFailed: what cannot be read now may have arrived all the same, and may have been acknowledged.
    """
    last = {entry.head.key: entry.redo for entry in transaction.entries}  # what it replaced itself, nobody needs
    for key, value in last.items():
        record = owned_record(key, value) if value is not None else None
        if record is not None and not _verifies(store, record):
            return False
    return True


def _verifies(store: Store, record: DataRecord) -> bool:
    """Return whether a record verifies, looked at twice: a bit that flipped on its way here must not pass for lost data."""
    for _ in range(2):
        try:
            store.read_record(record)
        except CorruptImage:
            continue
        return True
    return False


def _take_blocks(store: Store, transaction: LoggedTransaction) -> list[Run]:
    """Mark the blocks that *transaction* took as used; return the runs that it let go."""
    freed: list[Run] = []
    for entry in transaction.entries:
        key = entry.head.key
        old = owned_record(key, entry.undo) if entry.undo is not None else None
        new = owned_record(key, entry.redo) if entry.redo is not None else None
        if old is not None and new is not None and old.lies_like(new):
            continue
        if new is not None:
            for start, count in new.runs(store.block_bytes):
                store.maps.mark_used(start, count)
        if old is not None:
            freed += old.runs(store.block_bytes)
    return freed
