"""Frozen nodes: the tree as it was when a checkpoint began, encoded little by little while operations change it.

To encode a thousand dirty nodes takes twenty milliseconds, and nobody should wait for that. So a checkpoint begins with freezing:
each dirty node gets its new place and is clean from then on, as if it were written already. What is to be changed first has to
become dirty again, and that is where the tree has it *thawed*: a leaf is encoded there and then, an inner node leaves a copy of
its keys and of who its children are. Invariants: what is encoded is what stood in a node when it was frozen; a node is encoded
after those below it, for it tells their checksums; a frozen node stays in memory (nodes.py: the device does not hold it yet).
"""

from collections.abc import Callable, Generator
from itertools import islice

from razortools.engine.store.nodes import Node, Ref
from razortools.engine.store.shape import never_frozen
from razortools.engine.store.tree import Tree

NODES_AT_ONCE = 8  # encoded before others may have their turn: a fifth of a millisecond

Encode = Callable[[Ref, Node], None]


class Frozen:
    """The nodes of one tree that are still to be encoded."""

    def __init__(self, tree: Tree, encode: Encode, failed: Callable[[str], None]) -> None:
        """Freeze all dirty nodes. *encode* is told of each of them once, those below a node before it.

        *failed* is told why if one cannot be thawed: what was to change it has stopped half-way then.
        """
        self._tree = tree
        self._encode = encode
        self._failed = failed
        self._left: dict[Node, tuple[Ref, Node]] = {}  # each node with its ref, and with what it was
        for ref in _dirty(tree.root):
            if ref.node is not None:
                self._left[ref.node] = ref, ref.node
        self.refs = [ref for ref, _ in self._left.values()]
        for node in self._left:
            node.dirty = False
            node.frozen = True
        assert len(self._left) == tree.dirty_count, f"{tree.dirty_count - len(self._left)} dirty nodes were not reached"
        tree.dirty_count = 0
        tree.thaw = self._thaw

    def encoding(self) -> Generator[int, None, None]:
        """Encode all of them; yield from time to time how many are left. The tree may change whenever this waits."""
        while self._left:
            yield len(self._left)
            for node in list(islice(self._left, NODES_AT_ONCE)):
                ref, kept = self._left.pop(node)
                node.frozen = False
                self._encode(ref, kept)
        self._tree.thaw = never_frozen  # what was encoded is nobody's any more once it is written

    def _thaw(self, node: Node) -> None:
        """*node* is about to change. If that fails it is frozen still, so that the checkpoint gets what it names."""
        try:
            if node.level:
                copy = Node(node.level, node.low, node.high)
                copy.keys, copy.children, copy.used = node.keys.copy(), node.children.copy(), node.used
                self._left[node] = self._left[node][0], copy  # where it stood: behind those below it
            else:
                self._encode(self._left[node][0], node)
                del self._left[node]
        except BaseException as failure:
            self._failed(str(failure) or type(failure).__name__)
            raise
        node.frozen = False


def _dirty(ref: Ref) -> Generator[Ref, None, None]:
    """Yield the dirty nodes from *ref* down, those below a node before it."""
    node = ref.node
    if node is None or not node.dirty:
        return
    for child in node.children:
        if child.node is not None and child.node.dirty:
            if child.node.level:
                yield from _dirty(child)
            else:
                yield child
    yield ref
