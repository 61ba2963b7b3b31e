"""The tree as it lies on the device: walked once with distrust, then read leaf by leaf.

The walk judges every node against its parent's pointer and against itself. What remains is an index of the good leaves, small
enough for any image, through which the later passes read items in key order. Invariants: a node is visited once, whatever the
pointers say; levels fall by one from parent to child, so the walk ends; a leaf in the index had a good copy when it was walked.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from razortools.check.image import BLOCK_MASK, Image
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.keys import HIGHEST_KEY, LOWEST_KEY, Kind
from razortools.format.node import (
    ITEM_OVERHEAD_BYTES,
    LEVEL_MAX,
    NODE_MAGIC,
    ChildPointer,
    NodeHeader,
    decode_header,
    decode_items,
    node_capacity,
    node_checksum,
)

CACHED_LEAVES = 64

Items = tuple[list[bytes], list[bytes]]


def kinds_mask(*kinds: int) -> int:
    """Return the set of *kinds* as bits."""
    mask = 0
    for kind in kinds:
        mask |= 1 << (kind >> 4)
    return mask


ALL_KINDS = kinds_mask(*Kind)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node must lie and what it must be, as its parent tells."""

    pointer: ChildPointer
    level: int
    low: bytes
    high: bytes


@dataclass(frozen=True, slots=True)
class CopyFault:
    """A copy of a node that is not what its parent's pointer says."""

    address: int
    reason: str


@dataclass(frozen=True, slots=True)
class NodeRead:
    """What reading a node gave: the bytes of a good copy, or none, and the copies that are bad."""

    raw: bytes | None
    address: int  # of the good copy
    faults: tuple[CopyFault, ...]


@dataclass(slots=True)
class TreeIndex:
    """The nodes that were found, and the leaves among them in key order. Filled by the walk, then only read."""

    image: Image
    addresses: "array[int]" = field(default_factory=lambda: array("Q"))  # all nodes, parents before children
    mirrors: "array[int]" = field(default_factory=lambda: array("Q"))
    checksums: "array[int]" = field(default_factory=lambda: array("I"))
    unread_mirrors: "array[int]" = field(default_factory=lambda: array("Q"))  # indexes of nodes whose second copy was not read
    leaf_lows: list[bytes] = field(default_factory=list)
    leaf_addresses: "array[int]" = field(default_factory=lambda: array("Q"))  # of the good copy
    leaf_kinds: "array[int]" = field(default_factory=lambda: array("H"))
    leaf_checksums: "array[int]" = field(default_factory=lambda: array("I"))
    lost: list[Place] = field(default_factory=list)
    shared: list[Place] = field(default_factory=list)  # where a node that belongs elsewhere was named: what belongs here is gone
    item_count: int = 0
    item_bytes: int = 0  # in the leaves, with what each item takes beside its value
    _cache: dict[int, Items] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether every part of the tree could be read."""
        return not self.lost

    @property
    def leaf_fill(self) -> float:
        """Part of the leaves' room that is used."""
        return self.item_bytes / (self.leaf_count * node_capacity(self.image.geometry.node_bytes)) if self.leaf_count else 1.0

    @property
    def leaf_count(self) -> int:
        """Leaves in the index."""
        return len(self.leaf_addresses)

    def items_of(self, leaf: int) -> Items:
        """Return (keys, values) of leaf number *leaf*. Raises CorruptImage or DeviceFailed if it changed since the walk."""
        raw = self.image.read_blocks(self.leaf_addresses[leaf], self.image.geometry.node_blocks)
        if node_checksum(raw) != self.leaf_checksums[leaf]:
            raise CorruptImage(f"tree node at block {self.leaf_addresses[leaf]} has changed since it was read first")
        return decode_items(raw, decode_header(raw))

    def leaves(self, mask: int = ALL_KINDS, first: int = 0) -> Iterator[tuple[int, Items]]:
        """Yield (leaf number, items) of the leaves that hold any of the kinds in *mask*, in key order."""
        for leaf in range(first, self.leaf_count):
            if self.leaf_kinds[leaf] & mask:
                yield leaf, self.items_of(leaf)

    def range_items(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items from *low* to *high*, both included, as far as they can be read."""
        leaf = max(bisect_right(self.leaf_lows, low) - 1, 0)
        while leaf < self.leaf_count and self.leaf_lows[leaf] <= high:
            keys, values = self._cached(leaf)
            for index in range(bisect_left(keys, low), len(keys)):
                if keys[index] > high:
                    return
                yield keys[index], values[index]
            leaf += 1

    def get(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None."""
        for _, value in self.range_items(key, key):
            return value
        return None

    def _cached(self, leaf: int) -> Items:
        items = self._cache.get(leaf)
        if items is None:
            try:
                items = self.items_of(leaf)
            except (CorruptImage, DeviceFailed):
                items = ([], [])
            if len(self._cache) >= CACHED_LEAVES:
                del self._cache[next(iter(self._cache))]
            self._cache[leaf] = items
        return items


@dataclass(frozen=True, slots=True)
class Visit:
    """One node as the walk saw it. *raw* None: no copy is good. *wrong*: (field, found, expected); *disorder*: sentences."""

    place: Place
    read: NodeRead
    header: NodeHeader | None
    keys: list[bytes]
    values: list[bytes]
    wrong: tuple[tuple[str, object, object], ...]
    disorder: tuple[str, ...]
    shared: bool = False


def root_place(image: Image) -> Place:
    """Return where the superblock says that the root is."""
    return Place(image.superblock.root, image.superblock.root_level, LOWEST_KEY, HIGHEST_KEY)


def walk(image: Image, index: TreeIndex) -> Iterator[Visit]:
    """Visit every node that can be reached, parents first, in key order; fill *index*."""
    seen: set[int] = set()
    pending = [root_place(image)]
    while pending:
        place = pending.pop()
        if place.pointer.address in seen:
            index.shared.append(place)
            yield Visit(place, NodeRead(None, 0, ()), None, [], [], (), (), shared=True)
            continue
        seen.add(place.pointer.address)
        visit = visit_node(image, place)
        _note(index, visit)
        yield visit
        if visit.header is not None and place.level > 0:
            pending += reversed(list(_children(visit)))


def visit_node(image: Image, place: Place) -> Visit:
    """Read and judge one node. Never raises for damage."""
    if place.level > LEVEL_MAX:
        fault = CopyFault(place.pointer.address, f"level {place.level} is above the highest possible, {LEVEL_MAX}")
        return Visit(place, NodeRead(None, 0, (fault,)), None, [], [], (), ())
    return judge_node(image, place, read_node(image, place.pointer))


def judge_node(image: Image, place: Place, read: NodeRead) -> Visit:
    """Judge what was read of a node, whose checksum is right. Never raises for damage."""
    if read.raw is None:
        return Visit(place, read, None, [], [], (), ())
    try:
        header = decode_header(read.raw)
        keys, values = decode_items(read.raw, header)
        if not keys and header.used_bytes:
            raise CorruptImage(f"it holds no items, but {header.used_bytes} bytes of them")
    except (CorruptImage, ValueError) as broken:
        fault = CopyFault(read.address, str(broken))
        return Visit(place, NodeRead(None, 0, (*read.faults, fault)), None, [], [], (), ())
    wrong = tuple(_header_faults(image, place, header))
    return Visit(place, read, header, keys, values, wrong, tuple(_disorder(place, keys, values)))


def read_node(image: Image, pointer: ChildPointer) -> NodeRead:
    """Return the first good copy of the node that *pointer* names; the second is read only if the first is bad."""
    faults: list[CopyFault] = []
    for address in (pointer.address, pointer.mirror) if pointer.mirror else (pointer.address,):
        raw, reason = read_node_copy(image, address, pointer.crc32c)
        if raw is not None:
            return NodeRead(raw, address & BLOCK_MASK, tuple(faults))
        faults.append(CopyFault(address, reason))
    return NodeRead(None, 0, tuple(faults))


def read_node_copy(image: Image, address: int, checksum: int) -> tuple[bytes | None, str]:
    """Return (bytes, "") of one copy of a node, or (None, why it is bad)."""
    if address > BLOCK_MASK:
        return None, f"its address names device {address >> 48}, which does not exist"
    try:
        raw = image.read_blocks(address, image.geometry.node_blocks)
    except (CorruptImage, DeviceFailed) as broken:
        return None, str(broken)
    found = node_checksum(raw)
    if found != checksum:
        return None, f"checksum {found:#010x} found, {checksum:#010x} expected"
    if raw[:4] != NODE_MAGIC:
        return None, f"magic {raw[:4]!r} found, {NODE_MAGIC!r} expected"
    if int.from_bytes(raw[4:8], "little") != found:
        return None, f"the checksum in its header is {int.from_bytes(raw[4:8], 'little'):#010x}, expected {found:#010x}"
    return raw, ""


def second_copies(index: TreeIndex) -> Iterator[tuple[int, int, str]]:
    """Read the second copies that the walk has not; yield (number of the copy, block, why it is bad or an empty string)."""
    for number, node in enumerate(index.unread_mirrors):
        _, reason = read_node_copy(index.image, index.mirrors[node], index.checksums[node])
        yield number, index.mirrors[node], reason


def _header_faults(image: Image, place: Place, header: NodeHeader) -> Iterator[tuple[str, object, object]]:
    """Yield (field, found, expected) for what the header says differently from the parent."""
    pointer = place.pointer
    expectations: list[tuple[str, object, object]] = [
        ("filesystem tag", header.tag, image.tag),
        ("address", header.address, pointer.address),
        ("second address", header.mirror, pointer.mirror),
        ("generation", header.generation, pointer.generation),
        ("level", header.level, place.level),
        ("reserved byte", header.reserved, 0),
        ("lowest key", header.low.hex(), place.low.hex()),
        ("first key behind it", header.high.hex(), place.high.hex()),
    ]
    yield from ((name, found, expected) for name, found, expected in expectations if found != expected)
    if header.generation > image.superblock.generation:
        yield "generation", header.generation, f"at most {image.superblock.generation}"


def _disorder(place: Place, keys: list[bytes], values: list[bytes]) -> Iterator[str]:
    """Yield what is wrong with the order and range of the keys, and with the children of an inner node."""
    if any(a >= b for a, b in pairwise(keys)):
        yield "its keys are not in order"
    elif keys and (keys[0] < place.low or keys[-1] >= place.high):
        yield "it holds keys outside of its range"
    if place.level:
        if not keys:
            yield "it is an inner node without children"
        elif keys[0] != place.low:
            yield "its first key is not the lowest key of its range"
        if any(len(value) != ChildPointer.FIXED_BYTES for value in values):
            yield "a pointer in it has the wrong length"


def _children(visit: Visit) -> Iterator[Place]:
    """Yield the places of the children. If the keys are in disorder, every child may hold anything of the parent's range."""
    place, keys = visit.place, visit.keys
    in_order = all(a < b for a, b in pairwise(keys))
    for number, value in enumerate(visit.values):
        if len(value) != ChildPointer.FIXED_BYTES:
            continue
        last = number + 1 == len(keys)
        low = keys[number] if in_order else place.low
        high = keys[number + 1] if in_order and not last else place.high
        yield Place(ChildPointer.decode(value), place.level - 1, low, high)


def _note(index: TreeIndex, visit: Visit) -> None:
    """Enter the node into the index."""
    place, pointer = visit.place, visit.place.pointer
    if visit.header is None:
        index.lost.append(place)
    if pointer.mirror and visit.read.raw is not None and not visit.read.faults:
        index.unread_mirrors.append(len(index.addresses))
    index.addresses.append(pointer.address & BLOCK_MASK)
    index.mirrors.append(pointer.mirror & BLOCK_MASK)
    index.checksums.append(pointer.crc32c)
    if visit.header is not None and place.level == 0:
        index.leaf_lows.append(place.low)
        index.leaf_addresses.append(visit.read.address)
        index.leaf_checksums.append(pointer.crc32c)
        index.leaf_kinds.append(kinds_mask(*{key[9] for key in visit.keys}) & 0xFFFF)
        index.item_count += len(visit.keys)
        index.item_bytes += visit.header.used_bytes + len(visit.keys) * ITEM_OVERHEAD_BYTES
