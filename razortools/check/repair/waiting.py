"""What waits in the journal, seen from the space map: blocks that its transactions took and blocks that they let go.

A rebuild leaves the journal to be replayed on the new tree. For that, what the transactions took must be free in the map and
keep its contents, and what they let go must be in use, even if the items that owned it are lost.
"""

from dataclasses import dataclass, field

from razortools.check.image import Image
from razortools.check.repair.journal import pending, scanned
from razortools.engine.store.journal_reader import JournalReader, journal_seed
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.data import Run, differing
from razortools.format.items import owned_record
from razortools.format.keys import KIND_AT, Kind, object_of
from razortools.steps import finished
from razortools.units import BlockNo


@dataclass(slots=True)
class Waiting:
    """What the transactions that verify do. *freed*: blocks of the last checkpoint's tree only."""

    placed: list[Run] = field(default_factory=list)
    freed: list[Run] = field(default_factory=list)
    deleted: set[int] = field(default_factory=set)  # inodes that are gone once they are replayed


def waiting_blocks(image: Image) -> Waiting:
    """Return what the waiting transactions name. Changes nothing."""
    found = Waiting()
    superblock = image.superblock
    reader = JournalReader(image.device, image.geometry, journal_seed(superblock.uuid))
    try:
        scan = finished(reader.scanning_from(superblock))
    except (CorruptImage, DeviceFailed):
        return found
    placed: set[tuple[int, int]] = set()
    for transaction in scan.transactions:
        for entry in transaction.entries:
            old = _runs(image, entry.head.key, entry.undo) if entry.undo is not None else []
            new = _runs(image, entry.head.key, entry.redo) if entry.redo is not None else []
            let_go, taken = differing(old, new)
            found.freed += [(BlockNo(first), count) for first, count in let_go if (first, count) not in placed]
            placed.update(taken)
    for transaction in pending(image, scanned(image)):  # those that will be replayed
        for entry in transaction.entries:
            if entry.head.key[KIND_AT] == Kind.INODE:
                (found.deleted.discard if entry.redo is not None else found.deleted.add)(object_of(entry.head.key))
    found.placed = [(BlockNo(first), count) for first, count in placed]
    return found


def _runs(image: Image, key: bytes, value: bytes) -> list[Run]:
    """Return the blocks that an item owns. Unlike those of the tree, it may have been born after the last checkpoint."""
    try:
        record = owned_record(key, value)
        runs = record.runs(image.block_bytes) if record is not None else []
    except (CorruptImage, IndexError):
        return []
    return [(first, count) for first, count in runs if count and image.holds(first, count)]
