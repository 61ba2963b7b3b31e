"""The shape of the tree: how its nodes split when they are full, join when they are nearly empty, and hang below one another.

Invariants: a node's keys lie in [low, high) and rise; a child's low is its key in the parent; the nodes above a dirty node are
dirty; an item is at most a quarter of a node, so one split always makes room. Sources: Bayer and McCreight 1972; Comer, "The
Ubiquitous B-Tree", 1979.

Nothing is loaded here: what is not in memory keeps its shape, which is only less compact. A node that a checkpoint has frozen is
told to it (`thaw`) before it changes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from razortools.engine.store.nodes import Node, Nodes, Ref
from razortools.format.keys import KEY_BYTES
from razortools.format.node import CHILD_BYTES, ITEM_OVERHEAD_BYTES, node_capacity

Path = list[tuple[Node, int]]  # inner nodes from the root down, with the index of the child taken


def never_frozen(node: Node) -> None:
    """Stand where somebody is to be told of frozen nodes while there are none."""
    raise AssertionError("a frozen node, and no checkpoint that it is frozen for")


class Shape:
    """The nodes of a tree, from its root on."""

    def __init__(self, nodes: Nodes, root: Ref, root_level: int, release: Callable[[Ref], None]) -> None:
        """Begin with the tree at *root*. *release* is told of nodes that are not used any more."""
        self.nodes = nodes
        self.root = root
        self.root_level = root_level
        self.dirty_count = 1 if root.node is not None and root.node.dirty else 0
        self.node_count = 1
        self.capacity = node_capacity(nodes.geometry.node_bytes)
        self.is_rising = False  # what is put comes in rising order for a while, among items that are there
        self.thaw: Callable[[Node], None] = never_frozen  # told of a frozen node before it changes
        self._release = release

    @contextmanager
    def rising(self) -> Iterator[None]:
        """Return a context in which most of what is put comes in rising order, among items that are there."""
        self.is_rising = True
        try:
            yield
        finally:
            self.is_rising = False

    def _split_leaf(self, leaf: Node, path: Path, index: int) -> None:
        """Move the upper part of *leaf*, whose item at *index* is too much, into a new one.

        Rising keys leave full leaves behind: at the end of a leaf, and where it is known that they rise. What comes next goes
        behind *index* then, so what is before it stays together.
        """
        if index == len(leaf.keys) - 1:
            cut = index
        else:
            half, total, cut = leaf.used // 2, 0, 0
            while total < half or (self.is_rising and cut <= index and total <= self.capacity):
                total += len(leaf.values[cut]) + ITEM_OVERHEAD_BYTES
                cut += 1
            cut = min(cut - (total > self.capacity), len(leaf.keys) - 1)
        right = Node(0, leaf.keys[cut], leaf.high)
        right.keys, leaf.keys = leaf.keys[cut:], leaf.keys[:cut]
        right.values, leaf.values = leaf.values[cut:], leaf.values[:cut]
        right.used = sum(map(len, right.values)) + ITEM_OVERHEAD_BYTES * len(right.keys)
        leaf.used -= right.used
        self._hang_in(leaf, right, path)

    def _split_inner(self, node: Node, path: Path) -> None:
        cut = len(node.keys) - 1 if node.high == b"\xff" * KEY_BYTES else len(node.keys) // 2
        right = Node(node.level, node.keys[cut], node.high)
        right.keys, node.keys = node.keys[cut:], node.keys[:cut]
        right.children, node.children = node.children[cut:], node.children[:cut]
        right.used = CHILD_BYTES * len(right.keys)
        node.used -= right.used
        self._hang_in(node, right, path)

    def _hang_in(self, left: Node, right: Node, path: Path) -> None:
        """Make *right*, split off from *left*, a child of the parent."""
        left.high = right.low
        right.dirty = True
        self.dirty_count += 1
        self.node_count += 1
        ref = Ref(0, 0, 0, 0)
        self.nodes.adopt(ref, right)
        if not path:
            self._grow(left, ref)
            return
        parent, index = path[-1]
        if parent.frozen:
            self.thaw(parent)
        parent.keys.insert(index + 1, right.low)
        parent.children.insert(index + 1, ref)
        parent.used += CHILD_BYTES
        if parent.used > self.capacity:
            self._split_inner(parent, path[:-1])

    def _grow(self, left: Node, right: Ref) -> None:
        """Put a new root above the old one and its new neighbour."""
        assert right.node is not None
        root = Node(left.level + 1, left.low, right.node.high)
        root.keys = [left.low, right.node.low]
        root.children = [self.root, right]
        root.used = 2 * CHILD_BYTES
        root.dirty = True
        self.dirty_count += 1
        self.node_count += 1
        self.root = Ref(0, 0, 0, 0)
        self.root_level = root.level
        self.nodes.adopt(self.root, root)

    def _merge(self, node: Node, path: Path) -> None:
        """Join *node* with a neighbour that is in memory and has room; else leave it, which is only less compact."""
        parent, index = path[-1]
        for left_index in (index - 1, index):
            if left_index < 0 or left_index + 1 >= len(parent.children):
                continue
            left, right = parent.children[left_index].node, parent.children[left_index + 1].node
            if left is not None and right is not None and left.used + right.used <= self.capacity * 3 // 4:
                self._join(left, right)
                self._take_out(parent, left_index + 1, path[:-1])
                return

    def _join(self, left: Node, right: Node) -> None:
        for node in (left, right):
            if node.raw is not None:
                self.nodes.unpack(node)
            if node.frozen:
                self.thaw(node)
        left.keys += right.keys
        left.values += right.values
        left.children += right.children
        left.used += right.used
        left.high = right.high
        if not left.dirty:
            left.dirty = True  # its parent is dirty already: a change led here
            self.dirty_count += 1

    def _take_out(self, parent: Node, index: int, path: Path) -> None:
        """Remove a child whose items have moved to its left neighbour."""
        ref = parent.children[index]
        assert ref.node is not None
        if ref.node.dirty:
            self.dirty_count -= 1
        if parent.frozen:
            self.thaw(parent)
        del parent.keys[index]
        del parent.children[index]
        parent.used -= CHILD_BYTES
        self._forget(ref)
        if path:
            if parent.used < self.capacity // 4:
                self._merge(parent, path)
        elif len(parent.children) == 1:
            self._lower()

    def _lower(self) -> None:
        """Take away roots with a single child, as long as that child is in memory."""
        while self.root_level and self.root.node is not None and len(self.root.node.children) == 1:
            child = self.root.node.children[0]
            if child.node is None:
                return
            if self.root.node.dirty:
                self.dirty_count -= 1
            if self.root.node.frozen:
                self.thaw(self.root.node)
            old = self.root
            self.root = child
            self.root_level -= 1
            self._forget(old)
            if child.node.dirty is False:
                if child.node.frozen:
                    self.thaw(child.node)
                child.node.dirty = True  # the superblock must name it
                self.dirty_count += 1

    def _forget(self, ref: Ref) -> None:
        self.node_count -= 1
        self.nodes.drop(ref)
        self._release(ref)
