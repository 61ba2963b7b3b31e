"""Promises: what a volume owes to all that is dirty in memory, in blocks, nodes of the tree and bytes of the journal.

An operation starts only if there is room for what it makes dirty beside all that (store/room.py counts what there is). Invariant:
each figure is what storing takes at the worst, so that no commit ever finds too little.
"""

from typing import TYPE_CHECKING

from razortools.format.data import DataRecord
from razortools.format.journal import ENTRY_HEAD_BYTES
from razortools.format.node import ITEM_OVERHEAD_BYTES, inline_bytes_max
from razortools.units import divide_up

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

RECORD_ITEM_BYTES = 2 * (ITEM_OVERHEAD_BYTES + DataRecord.FIXED_BYTES)  # with its share of half-filled leaves
FLUSH_ITEM_BYTES = 2 * (ENTRY_HEAD_BYTES + 224)  # journal bytes of a flushed record: its item and its inode


class Promises:
    """What one volume has promised."""

    def __init__(self, volume: "Volume") -> None:
        self._volume = volume
        self._store = volume.store
        self._inline_max = inline_bytes_max(volume.store.geometry.node_bytes)

    def has_room(self, blocks: int, *, deleting: bool) -> bool:
        """Whether an operation may start that makes *blocks* more blocks of data dirty; see Room.has() about *deleting*."""
        volume, store = self._volume, self._store
        records = volume.records
        dirty = records.dirty_count
        nodes = journal_bytes = 0
        if blocks:
            dirty += 1
            # The items of the records that are about to become dirty lie side by side; each takes a block at least.
            nodes = 2 * divide_up(blocks * RECORD_ITEM_BYTES, store.tree.capacity)
        if dirty:
            inline_bytes, dirty_bytes = (dirty - len(records.loose)) * self._inline_max, records.dirty_bytes
            journal_bytes = dirty * FLUSH_ITEM_BYTES + 2 * (dirty_bytes if dirty_bytes < inline_bytes else inline_bytes)
            nodes += self._record_nodes(dirty)
        inodes = volume.inodes
        if inodes.limbo.files or inodes.nameless:
            more_nodes, more_bytes = inodes.promised()
            nodes += more_nodes
            journal_bytes += more_bytes
        return store.room.has(blocks + records.reserved_blocks, nodes, journal_bytes, deleting=deleting)

    def _record_nodes(self, dirty: int) -> int:
        """Nodes for so many dirty records: an item may need a leaf of its own, and in a high tree a node above it."""
        return dirty if self._store.tree.root_level < 2 else 2 * dirty

    def takes_nodes(self, nodes: int, given_up_blocks: int) -> bool:
        """Take what *nodes* more nodes need, in place of blocks that dirty data had been promised; whether there was room.

        All other promises are kept.
        """
        records = self._volume.records
        nodes += self._record_nodes(records.dirty_count) + self._volume.inodes.promised()[0]
        return self._store.room.takes(nodes, records.reserved_blocks - given_up_blocks)

    @property
    def dirty_records_max(self) -> int:
        """How many small dirty files the journal has room for at the worst. With more an operation has to commit first."""
        return self._store.journal.ring_bytes // (FLUSH_ITEM_BYTES + 2 * self._inline_max)

    @property
    def flush_journal_bytes(self) -> int:
        """What the journal takes at the worst when all that is dirty is flushed: small files' contents stand in the tree."""
        records = self._volume.records
        return records.dirty_count * FLUSH_ITEM_BYTES + 2 * (records.dirty_count - len(records.loose)) * self._inline_max
