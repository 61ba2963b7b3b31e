"""The tree: one B+tree of 18-byte keys and small values, changed in memory, written by the checkpoint.

Here items are found, put and taken away; how the tree grows and shrinks by that is in shape.py, whose invariants hold before and
after each of these.

A walk from the root costs a microsecond or two: each key that a bisection looks at is an object of its own, seldom in the
processor's cache. So the tree remembers the leaf in which an item of each kind was found last, its *finger*: an operation that
looks for an item before it changes it goes down once, and what is made one after the other is made without going down at all.
An inode, its links and its data lie side by side, so the leaf that was found last, whatever for, is tried next. A finger is only
a guess: the leaf's own range tells whether it is right, and a leaf that is not the tree's any more has an empty range
(Node.retire).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Container, Iterator, Sequence

from razortools.engine.store.nodes import UNPACK_AFTER, Node, Nodes, ReadNode, Ref, node_key
from razortools.engine.store.residence import Missing, NotResident
from razortools.engine.store.shape import Path, Shape
from razortools.errors import CorruptImage
from razortools.format.keys import HIGHEST_KEY, KEY_BYTES, KIND_AT
from razortools.format.node import ITEM_OVERHEAD_BYTES, ChildPointer, value_bytes_max

_NOWHERE = Node(0, b"", b"")

# A sound tree always comes on; whoever seals another one must not get a mount that never answers.
_ASTRAY = "metadata is damaged: a node tells another range of keys than the one that points to it; unmount and run razorfsck"


class Tree(Shape):
    """Sorted map from keys to values. put and delete never wait for a node that get or items has just visited."""

    def __init__(self, nodes: Nodes, root: Ref, root_level: int, release: Callable[[Ref], None]) -> None:
        """Open the tree at *root*. *release* is told of nodes that the tree does not use any more."""
        super().__init__(nodes, root, root_level, release)
        self.value_bytes_max = value_bytes_max(nodes.geometry.node_bytes)
        self.is_changing: Callable[[], bool] = lambda: False  # whether an operation is under way
        self._fingers = [_NOWHERE] * 256  # by kind: the leaf where one was found last
        self._last = _NOWHERE  # the leaf that was found last

    def get(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None."""
        leaf = self._fingers[key[KIND_AT]]
        if not leaf.low <= key < leaf.high:
            leaf = self._leaf(key)
        leaf.hot = True
        if leaf.raw is not None:
            leaf.uses += 1
            if leaf.uses < UNPACK_AFTER:
                return leaf.get_packed(key)
            self.nodes.unpack(leaf)
            self._keep_limit(leaf)
        keys = leaf.keys
        index = bisect_left(keys, key)
        if index < len(keys) and keys[index] == key:
            return leaf.values[index]
        return None

    def put(self, key: bytes, value: bytes) -> bytes | None:
        """Set *key* to *value*; return the value before, or None."""
        assert len(value) <= self.value_bytes_max, f"a value of {len(value)} bytes"
        leaf = self._fingers[key[KIND_AT]]
        if not leaf.low <= key < leaf.high:
            leaf = self._leaf(key)
        if not leaf.dirty:
            self._make_dirty(leaf, key)
        keys = leaf.keys
        index = bisect_left(keys, key)
        if index < len(keys) and keys[index] == key:
            before = leaf.values[index]
            leaf.values[index] = value
            leaf.used += len(value) - len(before)
        else:
            before = None
            keys.insert(index, key)
            leaf.values.insert(index, value)
            leaf.used += len(value) + ITEM_OVERHEAD_BYTES
        if leaf.used > self.capacity:
            self._split_leaf(leaf, self._path(key), index)
        return before

    def make_dirty(self, key: bytes) -> None:
        """Make the leaf in which *key* is or would be dirty, so that it stays in memory until the checkpoint."""
        leaf = self._fingers[key[KIND_AT]]
        if not leaf.low <= key < leaf.high:
            leaf = self._leaf(key)
        if not leaf.dirty:
            self._make_dirty(leaf, key)

    def delete(self, key: bytes) -> bytes | None:
        """Remove *key*; return the value before, or None if it was absent."""
        leaf = self._fingers[key[KIND_AT]]
        if not leaf.low <= key < leaf.high:
            leaf = self._leaf(key)
        if not leaf.dirty:
            if self.get(key) is None:  # a leaf in which nothing changes stays clean
                return None
            self._make_dirty(leaf, key)
        keys = leaf.keys
        index = bisect_left(keys, key)
        if index == len(keys) or keys[index] != key:
            return None
        before = leaf.values[index]
        del keys[index]
        del leaf.values[index]
        leaf.used -= len(before) + ITEM_OVERHEAD_BYTES
        if leaf.used < self.capacity // 4 and self.root_level:
            self._merge(leaf, self._path(key))
        return before

    def cut(
        self, low: bytes, high: bytes, count_max: int, kinds: Container[int] | None = None
    ) -> list[tuple[bytes, bytes]] | None:
        """Remove the items from *low* to *high*, both included, and return them in order: for a few that lie side by side.

        None, nothing having changed, if they do not lie in one leaf, are more than *count_max*, or one is of none of *kinds*.
        """
        leaf = self._fingers[low[KIND_AT]]
        if not leaf.low <= low < leaf.high:
            leaf = self._leaf(low)
        if leaf.high <= high:
            return None
        if not leaf.dirty:
            self._make_dirty(leaf, low)
        keys, values = leaf.keys, leaf.values
        start = stop = bisect_left(keys, low)
        while stop < len(keys) and keys[stop] <= high:
            if stop - start == count_max or (kinds is not None and keys[stop][KIND_AT] not in kinds):
                return None
            stop += 1
        gone_values = values[start:stop]
        gone = list(zip(keys[start:stop], gone_values, strict=True))
        del keys[start:stop]
        del values[start:stop]
        leaf.used -= sum(map(len, gone_values)) + len(gone) * ITEM_OVERHEAD_BYTES
        if leaf.used < self.capacity // 4 and self.root_level:
            self._merge(leaf, self._path(low))
        return gone

    def window(self, low: bytes, high: bytes) -> Sequence[tuple[bytes, bytes]]:
        """Return the items from *low* to *high*, both included, at once: for a range that holds few, or none most of the time."""
        leaf = self._fingers[low[KIND_AT]]
        if not leaf.low <= low < leaf.high:
            leaf = self._leaf(low)
        if leaf.high <= high:
            return list(self.items(low, high))
        leaf.hot = True
        if leaf.raw is not None:
            leaf.uses += 1
            if leaf.uses < UNPACK_AFTER:
                return leaf.window_packed(low, high)
            self.nodes.unpack(leaf)
            self._keep_limit(leaf)
        keys = leaf.keys
        start = bisect_left(keys, low)
        if start == len(keys) or keys[start] > high:
            return ()
        stop = start + 1
        if stop == len(keys) or keys[stop] > high:
            return ((keys[start], leaf.values[start]),)
        while stop < len(keys) and keys[stop] <= high:
            stop += 1
        return list(zip(keys[start:stop], leaf.values[start:stop], strict=True))

    def items(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items from *low* to *high*, both included, in order.

        A leaf's items are taken when the walk reaches it: changes behind that point are not seen, changes before it are.
        """
        while True:
            leaf = self._leaf(low)
            if leaf.raw is not None:
                chunk = leaf.window_packed(low, high)
            else:
                start, stop = bisect_left(leaf.keys, low), bisect_right(leaf.keys, high)
                chunk = list(zip(leaf.keys[start:stop], leaf.values[start:stop], strict=True))
            end = leaf.high
            yield from chunk
            if end > high or end == HIGHEST_KEY:
                return
            if end <= low:
                raise CorruptImage(_ASTRAY)
            low = end

    def last(self, low: bytes, high: bytes) -> tuple[bytes, bytes] | None:
        """Return the item with the highest key from *low* to *high*, both included, or None."""
        bound = high
        while True:
            leaf = self._leaf(bound)
            if leaf.raw is not None:
                self.nodes.unpack(leaf)
            index = bisect_right(leaf.keys, bound) - 1
            if index >= 0:
                key = leaf.keys[index]
                return (key, leaf.values[index]) if key >= low else None
            if leaf.low <= low:
                return None
            if leaf.low > bound:
                raise CorruptImage(_ASTRAY)
            bound = (int.from_bytes(leaf.low, "big") - 1).to_bytes(KEY_BYTES, "big")

    def height(self) -> int:
        """Return the number of levels."""
        return self.root_level + 1

    def find(self, key: bytes, level: int) -> Ref | None:
        """Return where the node of *level* that covers *key* hangs, as far as the way there is in memory. Loads nothing."""
        if level >= self.root_level:
            return self.root if level == self.root_level else None
        node = self.root.node
        while node is not None:
            ref = node.children[max(bisect_right(node.keys, key) - 1, 0)]
            if node.level == level + 1:
                return ref
            node = ref.node
        return None

    def _load(self, ref: Ref, level: int, above: Node | None = None) -> Node:
        """Return a node that is not in memory. Raises NotResident if it takes the device and an attempt runs."""
        nodes = self.nodes
        residence = nodes.residence
        self._keep_limit(above)
        if residence.waits:
            with residence.timed():
                return nodes.load(ref, level)
        pointer = ref.pointer()
        residence.handed(node_key(pointer))  # raises what kept it from being read; what was read is in the tree by now
        node = nodes.load_cached(ref, level)
        if node is None:
            raise NotResident(MissingNode(self, pointer, level))
        return node

    def _keep_limit(self, spared: Node | None) -> None:
        """When nothing but reading goes on, keep the limit here: no operation ends that would do it."""
        nodes = self.nodes
        if nodes.cached_bytes > nodes.limit_bytes and not self.is_changing():
            nodes.shrink(spared)

    def _leaf(self, key: bytes) -> Node:
        """Return the leaf of *key*, and put the finger of its kind there."""
        node = self._last
        if not node.low <= key < node.high:
            node = self.root.node or self._load(self.root, self.root_level)
            while node.level:
                index = bisect_right(node.keys, key) - 1
                ref = node.children[index if index >= 0 else 0]
                node = ref.node or self._load(ref, node.level - 1, node)
            self._last = node
            self.nodes.walks += 1
        node.hot = True
        self._fingers[key[KIND_AT]] = node
        return node

    def _path(self, key: bytes) -> Path:
        """Return the way to the leaf of *key*, which is in memory."""
        node = self.root.node or self._load(self.root, self.root_level)
        path: Path = []
        while node.level:
            index = bisect_right(node.keys, key) - 1
            if index < 0:
                index = 0
            path.append((node, index))
            ref = node.children[index]
            node = ref.node or self._load(ref, node.level - 1, node)
        return path

    def _make_dirty(self, leaf: Node, key: bytes) -> None:
        """Unpack the clean *leaf* of *key* and make it and the nodes above it dirty."""
        if leaf.raw is not None:
            self.nodes.unpack(leaf)
        if leaf.frozen:
            self.thaw(leaf)
        leaf.dirty = True
        self.dirty_count += 1
        for node, _ in reversed(self._path(key)):
            if node.dirty:
                break
            node.dirty = True
            self.dirty_count += 1


class MissingNode(Missing):
    """A node that is not in memory."""

    is_metadata = True

    def __init__(self, tree: Tree, pointer: ChildPointer, level: int) -> None:
        self.key = node_key(pointer)
        self._tree = tree
        self._pointer = pointer
        self._level = level

    def fetch(self) -> ReadNode:
        """See Missing."""
        return self._tree.nodes.read(self._pointer, self._level)

    def admit(self, found: object) -> None:
        """Hang the node into the tree, if the tree still wants this version of it and nobody else has brought it."""
        assert isinstance(found, ReadNode)
        ref = self._tree.find(found.node.low, self._level)
        if ref is not None and ref.node is None and ref.pointer() == self._pointer:
            self._tree.nodes.take(ref, found)
