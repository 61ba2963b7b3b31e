"""The journal in a repair: what verifies is replayed, as a mount does, up to the first transaction that cannot be.

What verifies and makes no sense is only kept out of the tree: what it was meant to do, senseless.py finds out.

Unlike recovery, this works with a space map that is wrong: the frame computes it anew afterwards.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import crc32c

from razortools.check.image import Image
from razortools.check.journal_rules import Ring
from razortools.check.keynames import key_fault
from razortools.check.repair.surveying import owned
from razortools.engine.store.arrival import owning_changes
from razortools.engine.store.journal_reader import JournalReader, JournalScan, LoggedTransaction, journal_seed
from razortools.engine.store.recovery import apply, follow_on, skip_unfinished
from razortools.engine.store.store import Store
from razortools.errors import CorruptImage, DeviceFailed, OutOfSpace
from razortools.format.data import DataRecord, late_part
from razortools.format.journal import ENTRY_HEAD_BYTES, JOURNAL_MAGIC
from razortools.format.keys import Table, object_of
from razortools.format.node import value_bytes_max
from razortools.steps import finished


def scanned(image: Image) -> JournalScan:
    """Return what a walk through the journal finds; a journal that cannot be read is an empty one."""
    superblock = image.superblock
    reader = JournalReader(image.device, image.geometry, journal_seed(superblock.uuid))
    try:
        return finished(reader.scanning_from(superblock))
    except DeviceFailed as failed:
        tail, sequence = superblock.journal_tail, superblock.journal_sequence
        return JournalScan((), tail, sequence, sequence - 1, str(failed), "")


def pending(image: Image, scan: JournalScan) -> list[LoggedTransaction]:
    """Return the transactions to replay: up to the first that never arrived as a whole, or that no tree can hold."""
    value_bytes = value_bytes_max(image.superblock.node_bytes)
    believed: list[LoggedTransaction] = []
    for transaction in scan.transactions:
        if transaction.last_sequence > scan.flushed_sequence and not _data_arrived(image, transaction):
            break
        if any(len(entry.redo or b"") > value_bytes for entry in transaction.entries):
            break
        believed.append(transaction)
    return believed


def changed_inodes(image: Image) -> set[int]:
    """Return the inodes that the waiting transactions change."""
    return _inodes_of(scanned(image).transactions)


def dropped_inodes(image: Image) -> set[int]:
    """Return the inodes that the complete transactions are about which are not replayed."""
    scan = scanned(image)
    return _inodes_of(scan.transactions[len(pending(image, scan)) :])


def _inodes_of(transactions: Sequence[LoggedTransaction]) -> set[int]:
    keys = (entry.head.key for transaction in transactions for entry in transaction.entries)
    return {object_of(key) for key in keys if key[0] == Table.FILES}


def replay(store: Store, image: Image, scan: JournalScan, transactions: Sequence[LoggedTransaction]) -> None:
    """Apply *transactions* of *scan* to the tree of *store*, and leave the journal empty. Raises CorruptImage, OutOfSpace."""
    if not all(apply(store, _sensible(transaction)) for transaction in transactions):
        raise OutOfSpace(f"{store.device.name}: there is no free space left in the image to replay its journal")
    follow_on(store, transactions)
    if scan.damage and not scan.transactions and not any(_leftovers(image, store.journal.tail)):
        store.journal.begin_anew()  # or its emptiness would be missed again
    skip_unfinished(store, len(scan.transactions) - len(transactions))
    highest = max((sequence for _, sequence in _leftovers(image, store.journal.head)), default=0)
    skipped = store.journal.ring_bytes // ENTRY_HEAD_BYTES + 1
    lowest = scan.next_sequence + (skipped if scan.transactions or scan.damage or highest >= scan.next_sequence else 0)
    store.journal.next_sequence = max(lowest, highest + 1 if highest < lowest + (1 << 40) else 0)


def _sensible(transaction: LoggedTransaction) -> LoggedTransaction:
    """Return *transaction* without the entries that would put something where nothing can stand."""
    return replace(transaction, entries=tuple(entry for entry in transaction.entries if not key_fault(entry.head.key)))


def drop_leftovers(image: Image) -> None:
    """Take away what would be taken for entries that follow on to the empty journal of *image*."""
    superblock = image.superblock
    ring = Ring(image)
    start = image.geometry.journal_start * image.block_bytes
    for position, sequence in list(_leftovers(image, superblock.journal_tail)):
        unfinished = position == superblock.journal_tail and isinstance(ring.entry(position), str)
        if sequence >= superblock.journal_sequence or unfinished:
            image.device.write(start + position % ring.bytes, bytes(len(JOURNAL_MAGIC)))


def _leftovers(image: Image, stop: int) -> Iterator[tuple[int, int]]:
    """Yield (position, sequence as told) of whatever starts like an entry, at every block of the ring."""
    ring = Ring(image)
    for position in ring.entry_starts(stop):
        try:
            raw = ring.read(position, ENTRY_HEAD_BYTES)
        except DeviceFailed:
            continue
        yield position, int.from_bytes(raw[16:24], "little")


def _data_arrived(image: Image, transaction: LoggedTransaction) -> bool:
    """Return whether all data that *transaction* wrote verifies."""
    for _, _, changes in owning_changes(transaction):
        for key, (before, after) in changes.items():
            new = None if after is None else owned(key, after)
            if new is not None and not _verifies(image, None if before is None else owned(key, before), new):
                return False
    return True


def _verifies(image: Image, old: DataRecord | None, new: DataRecord) -> bool:
    """Return whether what was written to make *new* of *old* verifies: of late pages, only these."""
    try:
        runs, checksum = late_part(old, new, image.block_bytes) or (new.runs(image.block_bytes), 0)
        return crc32c.crc32c(image.read_runs(runs), checksum) == new.crc32c
    except (CorruptImage, DeviceFailed):
        return False
