"""Nodes: read, verified against their parent's pointer, healed from their mirror, kept in bounded memory.

A leaf stays packed as it came from the device until it is changed or used often; lookups search the packed keys. Invariants: a
node in memory was verified when it was read; the nodes above a node in memory are in memory; the nodes above a dirty node are
dirty; a node that the device does not hold yet, dirty or on its way, is never dropped; no node is dropped while an operation
changes the tree, and none that a walk down from the root has just passed.
"""

from bisect import bisect_left
from collections.abc import Hashable
from dataclasses import dataclass

from razortools.engine.store.device import Device
from razortools.engine.store.residence import Residence
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.geometry import Geometry
from razortools.format.keys import HIGHEST_KEY, KEY_BYTES, LOWEST_KEY
from razortools.format.node import (
    CHILD_BYTES,
    ITEMS_MAX,
    NODE_HEADER_BYTES,
    VALUE_END_BYTES,
    ChildPointer,
    NodeHeader,
    decode_header,
    decode_items,
    node_checksum,
)

UNPACK_AFTER = 32  # lookups in a packed leaf: each costs a microsecond more, unpacking some 25 of them and three times the memory
UNPACKED_ITEM_BYTES = 150  # what Python's objects add to each item of an unpacked leaf, and each child of an inner node
_LEAF_ITEM_BYTES = 80  # of a usual item in a leaf
_NODE_OBJECT_BYTES = 300
_KEYS = [  # where each key of a packed leaf lies, up to the most items that a node can hold: bisected without a step in Python
    slice(at, at + KEY_BYTES) for at in range(NODE_HEADER_BYTES, NODE_HEADER_BYTES + ITEMS_MAX * KEY_BYTES, KEY_BYTES)
]
_DIRTY_NODES_MIN = 32  # however small the cache is: a checkpoint for every few operations would be the end of all speed


class Ref:
    """Where a node lies on the device, and the node itself while it is in memory. Address 0: not written yet."""

    __slots__ = ("address", "crc32c", "generation", "mirror", "node")

    def __init__(self, address: int, mirror: int, generation: int, checksum: int, node: "Node | None" = None) -> None:
        self.address = address
        self.mirror = mirror
        self.generation = generation
        self.crc32c = checksum
        self.node = node

    def pointer(self) -> ChildPointer:
        """Return what a parent stores of it."""
        return ChildPointer(self.address, self.mirror, self.generation, self.crc32c)


class Node:
    """A node in memory. A leaf has keys and values, or *raw* while packed; an inner node has keys and *children*."""

    __slots__ = ("children", "count", "dirty", "frozen", "high", "hot", "keys", "level", "low", "raw", "used", "uses", "values")

    def __init__(self, level: int, low: bytes, high: bytes) -> None:
        self.level = level
        self.low = low
        self.high = high
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.children: list[Ref] = []
        self.raw: bytes | None = None
        self.count = 0  # items of a packed leaf
        self.used = 0  # bytes of items with their overhead, as the split rule counts them
        self.dirty = False
        self.frozen = False  # a checkpoint is still to encode it as it is
        self.hot = True
        self.uses = 0

    def search_packed(self, key: bytes) -> int:
        """Return the index of the first key of the packed leaf that is not below *key*."""
        raw = self.raw
        assert raw is not None
        return bisect_left(_KEYS, key, 0, self.count, key=raw.__getitem__)

    def packed_item(self, index: int) -> tuple[bytes, bytes]:
        """Return (key, value) of one item of the packed leaf."""
        raw = self.raw
        assert raw is not None
        at = NODE_HEADER_BYTES + index * KEY_BYTES
        ends = NODE_HEADER_BYTES + self.count * KEY_BYTES
        place = ends + index * VALUE_END_BYTES
        first = ends + self.count * VALUE_END_BYTES
        end = raw[place] | raw[place + 1] << 8
        start = raw[place - 2] | raw[place - 1] << 8 if index else 0
        return raw[at : at + KEY_BYTES], raw[first + start : first + end]

    def window_packed(self, low: bytes, high: bytes) -> list[tuple[bytes, bytes]]:
        """Return the items of the packed leaf from *low* to *high*, both included."""
        chunk: list[tuple[bytes, bytes]] = []
        for index in range(self.search_packed(low), self.count):
            item = self.packed_item(index)
            if item[0] > high:
                break
            chunk.append(item)
        return chunk

    def get_packed(self, key: bytes) -> bytes | None:
        """Return the value of *key* in the packed leaf, or None."""
        index = self.search_packed(key)
        if index == self.count:
            return None
        found, value = self.packed_item(index)
        return value if found == key else None

    def retire(self) -> None:
        """The tree has no use for this node any more: its range is empty, so nobody who remembers it finds a key in it."""
        self.high = self.low

    @property
    def is_retired(self) -> bool:
        """Whether the tree has dropped it. What remembers it may still hold it; it must not come into the tree again."""
        return self.high == self.low


@dataclass(frozen=True, slots=True)
class ReadNode:
    """A node that was read and verified, and what was wrong with the copies before it."""

    node: Node
    good: bytes
    bad: tuple[int, ...]  # addresses of copies to be written anew
    reason: str


class Nodes:
    """The cache of nodes, and the only reader of them."""

    def __init__(self, device: Device, geometry: Geometry, tag: int, limit_bytes: int) -> None:
        """Make an empty cache of *limit_bytes* for the filesystem with *tag*."""
        self.device = device
        self.geometry = geometry
        self.tag = tag
        self.set_limit(limit_bytes)
        self.cached_bytes = 0
        self.residence = Residence()
        self.stable_generation = 0  # nodes of later ones are on their way to the device, or never got there
        self.may_write = True  # False once the device has failed: what it holds is not known any more
        self.healed = 0
        self.walks = 0  # ways down from the root that came to a leaf
        self.misses = 0  # nodes that had to be read for one
        self.events: list[str] = []  # healed and damaged nodes, for whoever keeps a log; bounded
        self._resident: dict[Ref, None] = {}
        self._hand = iter(list[Ref]())  # what of these shrink() is still to look at, in this round

    def load(self, ref: Ref, level: int) -> Node:
        """Return the node of *ref*, read and verified. Raises CorruptImage if no copy is good, DeviceFailed."""
        return ref.node or self.take(ref, self.read(ref.pointer(), level))

    def load_cached(self, ref: Ref, level: int) -> Node | None:
        """Return the node of *ref* if its first copy is good and the host has it in memory."""
        raw = self.device.read_cached(ref.address * self.geometry.block_bytes, self.geometry.node_bytes)
        if raw is None:
            return None
        try:
            header = judge_node(raw, ref.pointer(), level, self.tag)
        except CorruptImage:
            return None  # read() tries the other one
        return self.take(ref, ReadNode(_decode(raw, header), raw, (), ""))

    def take(self, ref: Ref, found: ReadNode) -> Node:
        """Take what read() returned into the cache as the node of *ref*; bad copies are written anew."""
        for damaged in found.bad:
            self._heal(damaged, found.good, found.reason)
        self.misses += 1
        node = found.node
        if node.is_retired:  # others who had waited for it took it, and the cache has dropped it since
            node = _decode(found.good, decode_header(found.good))
        self.adopt(ref, node)
        return node

    def adopt(self, ref: Ref, node: Node) -> None:
        """Take *node* into the cache as what *ref* points to."""
        assert not node.is_retired, "a node that was dropped is not taken again"
        ref.node = node
        self._resident[ref] = None
        self.cached_bytes += self.cost(node)

    def drop(self, ref: Ref) -> None:
        """Forget the node of *ref*, which the tree does not use any more."""
        if ref.node is not None:
            self.cached_bytes -= self.cost(ref.node)
            self._resident.pop(ref, None)
            ref.node.retire()
            ref.node = None

    def unpack(self, node: Node) -> None:
        """Turn a packed leaf into lists."""
        assert node.raw is not None
        self.cached_bytes -= self.cost(node)
        header = decode_header(node.raw)
        node.keys, node.values = decode_items(node.raw, header)
        node.raw = None
        self.cached_bytes += self.cost(node)

    def cost(self, node: Node) -> int:
        """Return the bytes of memory that *node* is counted with: what a full node of its kind takes."""
        if node.raw is not None:
            return self.geometry.node_bytes + _NODE_OBJECT_BYTES
        if node.level:
            return self.geometry.node_bytes + self.geometry.node_bytes // CHILD_BYTES * UNPACKED_ITEM_BYTES
        return self._unpacked_leaf_bytes()

    def set_limit(self, limit_bytes: int) -> None:
        """Keep to another limit from now on; the next operation that ends drops what is too much."""
        self.limit_bytes = self._shrink_above = limit_bytes
        # Dirty nodes cannot be dropped. If they alone filled the cache, every operation would look at all of them in vain.
        self.dirty_count_max = max(limit_bytes // 2 // self._unpacked_leaf_bytes(), _DIRTY_NODES_MIN)

    def _unpacked_leaf_bytes(self) -> int:
        return self.geometry.node_bytes + self.geometry.node_bytes // _LEAF_ITEM_BYTES * UNPACKED_ITEM_BYTES

    def shrink(self, spared: Node | None = None) -> None:
        """Drop nodes that were not used lately until the limit holds. Not while an operation changes the tree.

        *spared* is where a walk stands: nothing below it is in memory yet. What is above it is safe by that.
        """
        if self.cached_bytes <= self._shrink_above:
            return
        resident = self._resident
        attempts = 2 * len(resident)
        while self.cached_bytes > self.limit_bytes and attempts:
            ref = next(self._hand, None)
            if ref is None:
                self._hand = iter(list(resident))  # a dictionary that is emptied from its front is slow to tell what is there
                continue
            node = ref.node
            if node is None:
                continue  # it was dropped meanwhile
            attempts -= 1
            if node.hot or node.dirty or node is spared or self._is_needed(ref, node):
                node.hot = False
            else:
                del resident[ref]
                self.cached_bytes -= self.cost(node)
                node.retire()
                ref.node = None
        # If what must be kept is more than the limit, another walk right away would find the same again.
        self._shrink_above = max(self.limit_bytes, self.cached_bytes + self.limit_bytes // 32 if not attempts else 0)

    def note_stable(self, generation: int) -> None:
        """The device holds every node of *generation* and before."""
        self.stable_generation = generation
        self._shrink_above = self.limit_bytes

    def _is_needed(self, ref: Ref, node: Node) -> bool:
        """Whether a node must stay: the device does not hold it yet, or nodes below it are in memory."""
        return ref.generation > self.stable_generation or any(child.node for child in node.children)

    def read(self, pointer: ChildPointer, level: int) -> ReadNode:
        """Return the first good copy of a node. For any thread. Raises CorruptImage if there is none, DeviceFailed."""
        reasons: list[str] = []
        bad: list[int] = []
        for address in (pointer.address, pointer.mirror):
            if not address:
                continue
            try:
                raw = self.device.read(address * self.geometry.block_bytes, self.geometry.node_bytes)
                header = judge_node(raw, pointer, level, self.tag)
            except (CorruptImage, DeviceFailed) as broken:
                reasons.append(f"block {address}: {broken}")
                bad.append(address)
                continue
            return ReadNode(_decode(raw, header), raw, tuple(bad), reasons[0] if reasons else "")
        raise CorruptImage(
            f"{self.device.name}: metadata is damaged and no good copy is left ({'; '.join(reasons)}); "
            f"unmount and run razorfsck --repair {self.device.name}"
        )

    def _heal(self, address: int, raw: bytes, reason: str) -> None:
        self.healed += 1
        outcome = "read from its mirror"
        if self.may_write and not self.device.read_only:
            try:
                self.device.write(address * self.geometry.block_bytes, raw)
                outcome = "rewritten from its mirror"
            except DeviceFailed as failed:
                outcome = f"read from its mirror, but not rewritten: {failed}"
        if len(self.events) < 1000:
            self.events.append(f"node at {reason}: {outcome}")


def node_key(pointer: ChildPointer) -> Hashable:
    """Return what tells this version of a node from every other one."""
    return ("node", pointer.address, pointer.generation, pointer.crc32c)


def _decode(raw: bytes, header: NodeHeader) -> Node:
    """Return the node in verified bytes, a leaf packed. Raises CorruptImage."""
    node = Node(header.level, header.low, header.high)
    node.used = header.used_bytes + header.item_count * (KEY_BYTES + VALUE_END_BYTES)
    if header.level:
        node.keys, values = decode_items(raw, header)
        node.children = [Ref(*ChildPointer.STRUCT.unpack(value)) for value in values]
        if not node.children:
            raise CorruptImage(f"node at block {header.address}: an inner node without children; run razorfsck")
    else:
        node.raw = raw
        node.count = header.item_count
    return node


def judge_node(raw: bytes, pointer: ChildPointer, level: int, tag: int) -> NodeHeader:
    """Return the header of *raw* if it is the node that *pointer* means. Raises CorruptImage otherwise."""
    checksum = node_checksum(raw)
    if checksum != pointer.crc32c:
        raise CorruptImage(f"checksum {checksum:#010x}, expected {pointer.crc32c:#010x}")
    header = decode_header(raw)
    if int.from_bytes(raw[4:8], "little") != checksum:
        raise CorruptImage(f"the checksum in its head is {raw[4:8].hex()}, expected {checksum:#010x}")
    if (header.address, header.mirror, header.generation) != (pointer.address, pointer.mirror, pointer.generation):
        raise CorruptImage(f"it is the node of block {header.address}, generation {header.generation}")
    if header.low >= header.high:
        raise CorruptImage("it spans no keys")
    if header.level != level or header.tag != tag:
        raise CorruptImage(f"level {header.level} and tag {header.tag:#x}, expected {level} and {tag:#x}")
    return header


def new_root(nodes: Nodes) -> Ref:
    """Return an empty tree: one dirty leaf that spans all keys."""
    root = Node(0, LOWEST_KEY, HIGHEST_KEY)
    root.dirty = True
    ref = Ref(0, 0, 0, 0)
    nodes.adopt(ref, root)
    return ref
