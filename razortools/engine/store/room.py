"""Room: whether an operation may start, and what is promised to those that have.

A commit and a checkpoint must never find too little: nodes for what the tree becomes, blocks for data, bytes in the journal. So
room is taken, or known to be there, before an operation changes anything. Invariants: nothing here changes an item; what is
promised to data that will be placed later is left alone as long as that is possible; what only deletes finds a reserve that
nobody else may use.
"""

from typing import TYPE_CHECKING

from razortools.errors import OutOfSpace

if TYPE_CHECKING:
    from razortools.engine.store.store import Store

KEYS_PER_OPERATION_MAX = 13  # rename over a file: entries, back links, names, four inodes, an orphan, counters
_AT_MOST = 2 * KEYS_PER_OPERATION_MAX  # nodes for two operations, for each level and one more
PROMISED_PLACES = 4  # places in the tree that one step of a flush changes


def operation_nodes_max(clean_count: int, height: int) -> int:
    """Return the most nodes that one operation can make dirty in a tree of so many clean nodes, splits included."""
    most = KEYS_PER_OPERATION_MAX * height + 4
    return most if clean_count + 6 + height >= most else max(clean_count, 0) + 6 + height


class Room:
    """What one store has room for."""

    def __init__(self, store: "Store", step_journal_bytes: int) -> None:
        """*step_journal_bytes*: the most that one changed item takes in the journal."""
        self._store = store
        self.operation_journal_bytes = min(KEYS_PER_OPERATION_MAX * step_journal_bytes, store.journal.ring_bytes // 4)

    def operation_nodes_max(self) -> int:
        """Return the most nodes that one operation can make dirty, splits included."""
        tree = self._store.tree
        return operation_nodes_max(tree.node_count - tree.dirty_count, tree.root_level + 1)

    def has(self, blocks: int, nodes: int, journal_bytes: int, *, deleting: bool) -> bool:
        """Return whether an operation may start: *blocks* of data, *nodes* and *journal_bytes* are promised to others already.

        Deleting may use the reserve that everybody else leaves alone. Takes what the nodes need into the pool.
        """
        store = self._store
        tree, pool = store.tree, store.pool
        nodes += tree.dirty_count
        if nodes + _AT_MOST * (tree.root_level + 2) > pool.node_count:  # else there are more than enough, however many are clean
            one = self.operation_nodes_max()
            if not pool.reserve(nodes + (one if deleting else 2 * one), blocks):
                return False
        if store.maps.free_blocks < blocks and not deleting:
            return False
        if store.journaling and journal_bytes > store.transaction.slack_bytes and not self.journal_has(journal_bytes):
            return False
        return tree.dirty_count <= store.nodes.dirty_count_max

    def journal_has(self, journal_bytes: int) -> bool:
        """Measure the running transaction, and return whether its journal has room for *journal_bytes* and an operation more.

        Nobody takes room in the ring but a commit, which ends the transaction: the slack that was measured can only grow.
        """
        transaction, journal = self._store.transaction, self._store.journal
        slack = journal.ring_bytes - journal.used_bytes - transaction.measure() - self.operation_journal_bytes
        transaction.slack_bytes = slack
        return journal_bytes <= slack or transaction.is_empty

    def hold_promise(self, promised_blocks: int = 0) -> None:
        """Before an operation whose room was promised earlier: move what its nodes need into the pool.

        *promised_blocks* are promised to data that will be placed later; they are left alone as long as that is possible.
        """
        tree, pool = self._store.tree, self._store.pool
        dirty = tree.dirty_count
        # The first bound is generous; what a flush or the counters really change is not: four places and the nodes above.
        few = dirty + PROMISED_PLACES * tree.height()
        wanted = ((dirty + self.operation_nodes_max(), promised_blocks), (few, promised_blocks), (few, 0))
        kept = any(pool.reserve(count, spared) for count, spared in wanted)
        if not kept and not (self._store.maps.unpin() and any(pool.reserve(count, spared) for count, spared in wanted)):
            name = self._store.device.name
            raise OutOfSpace(f"{name}: room that had been promised is not there; free some space and try again")

    def takes(self, nodes: int, promised_blocks: int) -> bool:
        """Move what *nodes* more dirty nodes need into the pool, with *promised_blocks* left alone; whether there was room."""
        store = self._store
        wanted = store.tree.dirty_count + nodes + PROMISED_PLACES * store.tree.height()
        return store.pool.reserve(wanted, promised_blocks) or (store.maps.unpin() and store.pool.reserve(wanted, promised_blocks))

    def holds_tree(self) -> bool:
        """Take the nodes that the tree needs as it is, for changes outside of operations. False: there are none left."""
        tree = self._store.tree
        return self._store.pool.reserve(tree.dirty_count + tree.height() + 1)

    def free_blocks_for_data(self) -> int:
        """Return how many blocks ordinary operations may still take, the reserve for deleting left alone."""
        return max(self.free_blocks() - self._blocks(2 * self.operation_nodes_max()), 0)

    def free_blocks(self) -> int:
        """Return how many blocks are free, that reserve among them, once all dirty nodes have been written."""
        store = self._store
        maps = store.maps
        free = maps.free_blocks + maps.pending_blocks + maps.pins.block_count + store.pool.block_count
        return max(free - self._blocks(store.tree.dirty_count), 0)

    def _blocks(self, nodes: int) -> int:
        """Return how many blocks so many nodes take."""
        return nodes * self._store.geometry.node_blocks * self._store.superblock.metadata_copies
