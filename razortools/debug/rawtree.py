"""The tree as it lies on the device: read node by node from a superblock's root, and what does not verify told, not raised.

Invariants: bytes that are handed on verify against what their parent says; nothing is cached and nothing is written, so this
works on an image that cannot be opened, and on the tree of an older checkpoint.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from razortools.engine.store.device import Device
from razortools.engine.store.nodes import judge_node
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.keys import HIGHEST_KEY, LOWEST_KEY
from razortools.format.node import LEVEL_MAX, ChildPointer, NodeHeader, decode_items
from razortools.format.superblock import Superblock

BLOCK_MASK = 0xFFFF_FFFF_FFFF  # an address is a device number (16 bits) and a block number (48 bits)


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as it lies on the device. *header* None: no copy verifies. *faults*: of each copy, "" if it is good."""

    pointer: ChildPointer
    level: int
    low: bytes  # what its parent says of its range
    high: bytes
    header: NodeHeader | None
    keys: list[bytes]
    values: list[bytes]
    faults: tuple[str, ...]

    @property
    def copies(self) -> list[int]:
        """Return the blocks where its copies begin."""
        return [place & BLOCK_MASK for place in (self.pointer.address, self.pointer.mirror) if place]

    def fault(self) -> str:
        """Return why it cannot be read, or an empty string."""
        return "" if self.header is not None else "; ".join(filter(None, self.faults))


class RawTree:
    """The tree that one superblock names."""

    def __init__(self, device: Device, superblock: Superblock) -> None:
        """Look at the tree of *superblock* on *device*."""
        self.device = device
        self.superblock = superblock
        self.tag = int.from_bytes(superblock.uuid[:8], "little")

    def root(self) -> NodeView:
        """Return the root."""
        return self.read(self.superblock.root, self.superblock.root_level, LOWEST_KEY, HIGHEST_KEY)

    def read(self, pointer: ChildPointer, level: int, low: bytes, high: bytes) -> NodeView:
        """Return the node of *pointer*, with every copy judged."""
        found: tuple[NodeHeader, list[bytes], list[bytes]] | None = None
        faults: list[str] = []
        for place in (pointer.address, pointer.mirror):
            if not place:
                continue
            try:
                raw = self.device.read((place & BLOCK_MASK) * self.superblock.block_bytes, self.superblock.node_bytes)
                header = judge_node(raw, pointer, level, self.tag)
                found = found or (header, *decode_items(raw, header))
                faults.append("")
            except (CorruptImage, DeviceFailed) as broken:
                faults.append(" ".join(str(broken).split()))
        if found is None:
            return NodeView(pointer, level, low, high, None, [], [], tuple(faults))
        return NodeView(pointer, level, low, high, *found, tuple(faults))

    def children(self, node: NodeView) -> Iterator[NodeView]:
        """Yield the nodes below an inner node, in order."""
        for number, value in enumerate(node.values if node.level else ()):
            last = number + 1 == len(node.keys)
            try:
                pointer = ChildPointer.decode(value)
            except CorruptImage:
                continue
            yield self.read(pointer, node.level - 1, node.keys[number], node.high if last else node.keys[number + 1])

    def walk(self, low: bytes = LOWEST_KEY, high: bytes = HIGHEST_KEY) -> Iterator[NodeView]:
        """Yield the nodes that may hold keys from *low* to *high*, parents first, leaves in the order of their keys."""
        if self.superblock.root_level > LEVEL_MAX:
            raise CorruptImage(f"the tree cannot have {self.superblock.root_level} levels")
        waiting = [iter([self.root()])]
        while waiting:
            node = next(waiting[-1], None)
            if node is None:
                waiting.pop()
            elif node.low <= high and node.high > low:
                yield node
                if node.level and node.header is not None:
                    waiting.append(self._between(node, low, high))

    def _between(self, node: NodeView, low: bytes, high: bytes) -> Iterator[NodeView]:
        """Yield the children that may hold keys from *low* to *high*, reading no others."""
        for number in range(max(bisect_right(node.keys, low) - 1, 0), len(node.keys)):
            if node.keys[number] > high:
                return
            try:
                pointer = ChildPointer.decode(node.values[number])
            except CorruptImage:
                continue
            last = number + 1 == len(node.keys)
            yield self.read(pointer, node.level - 1, node.keys[number], node.high if last else node.keys[number + 1])

    def items(self, low: bytes = LOWEST_KEY, high: bytes = HIGHEST_KEY) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items from *low* to *high*, both included, that can be read."""
        for node in self.walk(low, high):
            if node.level == 0:
                yield from ((key, value) for key, value in zip(node.keys, node.values, strict=True) if low <= key <= high)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of *key*, None if there is none. Raises CorruptImage if its node cannot be read."""
        node = self.root()
        while node.header is not None and node.level:
            index = max(bisect_right(node.keys, key) - 1, 0)
            last = index + 1 == len(node.keys)
            high = node.high if last else node.keys[index + 1]
            node = self.read(ChildPointer.decode(node.values[index]), node.level - 1, node.keys[index], high)
        if node.header is None:
            raise CorruptImage(f"the node that should hold the key cannot be read: {node.fault()}")
        return dict(zip(node.keys, node.values, strict=True)).get(key)

    def leaf_of(self, key: bytes) -> NodeView:
        """Return the leaf in which *key* belongs, or the node above it that cannot be read."""
        *_, node = self.walk(key, key)
        return node
