"""Writing a tree anew: leaves that may stay where they are keep their place, everything else is packed into new nodes.

Invariants: what is written goes into blocks that the space map calls free; the ranges of the nodes of each level follow one
another and cover every key; a node is written before anything points to it.
"""

from collections.abc import Iterable

from razortools.engine.store.device import Device
from razortools.engine.store.nodepool import NodePool
from razortools.errors import OutOfSpace
from razortools.format.geometry import Geometry
from razortools.format.keys import HIGHEST_KEY, LOWEST_KEY
from razortools.format.node import CHILD_BYTES, ITEM_OVERHEAD_BYTES, ChildPointer, NodeHeader, encode_node, node_capacity

Item = tuple[bytes, bytes]

_NOWHERE = ChildPointer(0, 0, 0, 0)


class NodeCounter:
    """Takes leaves in the order of keys, then puts the levels above them; it only counts the nodes that this takes."""

    def __init__(self, geometry: Geometry) -> None:
        """Begin a tree of nodes of the size that *geometry* tells."""
        self._geometry = geometry
        self._capacity = node_capacity(geometry.node_bytes)
        self._children: list[tuple[bytes, ChildPointer]] = []  # lowest key and place of each node of the level at work
        self.kept = 0
        self.written = 0

    @property
    def node_count(self) -> int:
        """Nodes of the tree so far."""
        return self.kept + self.written

    def keep(self, low: bytes, pointer: ChildPointer) -> None:
        """Take a leaf as it is. Its range must begin where the last one ended."""
        self._children.append((low, pointer))
        self.kept += 1

    def span(self, low: bytes, high: bytes, items: Iterable[Item]) -> None:
        """Write new leaves that cover exactly the keys from *low* to before *high*. Raises OutOfSpace."""
        keys: list[bytes] = []
        values: list[bytes] = []
        used = 0
        for key, value in items:
            size = len(value) + ITEM_OVERHEAD_BYTES
            if used + size > self._capacity:
                self._write(0, low, key, keys, values)
                low, keys, values, used = key, [], [], 0
            keys.append(key)
            values.append(value)
            used += size
        self._write(0, low, high, keys, values)

    def span_grouped(self, low: bytes, high: bytes, groups: Iterable[list[Item]]) -> None:
        """Write one leaf for each group; together they cover the keys from *low* to before *high*. Raises OutOfSpace."""
        waiting: list[Item] | None = None
        for group in groups:
            if waiting is not None:
                self.span(low, group[0][0], waiting)
                low = group[0][0]
            waiting = group
        self.span(low, high, waiting or [])

    def finish(self) -> tuple[ChildPointer, int]:
        """Write the levels above the leaves; return (the root, its level). Raises OutOfSpace."""
        level = 0
        fan_out = self._capacity // CHILD_BYTES
        while len(self._children) > 1 or (not level and self._children[0][0] != LOWEST_KEY):
            below, self._children = self._children, []
            level += 1
            node_count = -(-len(below) // fan_out)
            for number in range(node_count):  # about equally full, so that none is left with a single child
                children = below[number * len(below) // node_count : (number + 1) * len(below) // node_count]
                behind = (number + 1) * len(below) // node_count
                high = below[behind][0] if behind < len(below) else HIGHEST_KEY
                keys = [low for low, _ in children]
                self._write(level, keys[0], high, keys, [pointer.encode() for _, pointer in children])
        return self._children[0][1], level

    def _write(self, level: int, low: bytes, high: bytes, keys: list[bytes], values: list[bytes]) -> None:
        self._children.append((low, self._stored(level, low, high, keys, values)))
        self.written += 1

    def _stored(self, level: int, low: bytes, high: bytes, keys: list[bytes], values: list[bytes]) -> ChildPointer:
        return _NOWHERE


class TreeWriter(NodeCounter):
    """Writes the nodes."""

    def __init__(self, device: Device, geometry: Geometry, pool: NodePool, tag: int, generation: int) -> None:
        """Write nodes of *generation* into runs from *pool*."""
        super().__init__(geometry)
        self._device = device
        self._pool = pool
        self._tag = tag
        self._generation = generation

    def _stored(self, level: int, low: bytes, high: bytes, keys: list[bytes], values: list[bytes]) -> ChildPointer:
        """Write a node; return where it is. Raises OutOfSpace."""
        if not self._pool.reserve(1):
            raise OutOfSpace(f"{self._device.name}: there is no room for the nodes of a new tree")
        ((address, mirror),) = self._pool.take(1)
        used = sum(map(len, values))
        header = NodeHeader(self._tag, address, mirror, self._generation, len(keys), level, 0, used, low, high)
        raw, checksum = encode_node(header, keys, values, self._geometry.node_bytes)
        for place in (address, mirror):
            if place:
                self._device.write(place * self._geometry.block_bytes, raw)
        return ChildPointer(address, mirror, self._generation, checksum)
