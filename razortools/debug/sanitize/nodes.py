"""Tree nodes of the copy: those that a scan finds and those that something points to, sealed again from the leaves up.

What verifies is replaced item by item, and so is what verifies with one bit turned back, which is turned again in the copy. What
does not verify is overwritten with letters where it lies. Invariant: a pointer that names a node rightly does so in the copy; one
that does not, does not.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from razortools.check.bitflip import mend_sealed
from razortools.check.image import BLOCK_MASK, Image
from razortools.check.scan import scan_nodes
from razortools.check.steps import finished
from razortools.debug.sanitize.items import Items
from razortools.debug.sanitize.standins import StandIns
from razortools.engine.store.device import Device
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.keys import KEY_BYTES
from razortools.format.node import (
    LEVEL_MAX,
    NODE_HEADER_BYTES,
    NODE_MAGIC,
    VALUE_END_BYTES,
    ChildPointer,
    NodeHeader,
    decode_header,
    decode_items,
    node_checksum,
)

DEPTH_MAX = 4 * LEVEL_MAX  # of nodes below one another; damage can make more of it than a tree has
_CHECKED_FROM = len(NODE_MAGIC) + 4


@dataclass(frozen=True, slots=True)
class Parts:
    """A node taken apart, as far as that goes. *values* None: they cannot be told apart. *keys* None: nor can the keys."""

    header: NodeHeader
    keys: list[bytes] | None
    values: list[bytes] | None

    @property
    def is_inner(self) -> bool:
        """Whether it holds pointers. That it says so is not enough: a leaf may have a wrong level under a right checksum."""
        return self.header.level > 0 and all(len(value) == ChildPointer.FIXED_BYTES for value in self.values or ())

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items of a leaf."""
        if not self.is_inner and self.keys is not None and self.values is not None:
            yield from zip(self.keys, self.values, strict=True)

    def pointers(self) -> Iterator[ChildPointer]:
        """Yield what an inner node points to."""
        if self.is_inner:
            yield from map(ChildPointer.decode, self.values or ())

    def all_keys(self) -> Iterator[bytes]:
        """Yield every key in it."""
        yield from (self.header.low, self.header.high, *(self.keys or ()))


def taken_apart(raw: bytes) -> Parts:
    """Return the parts of a node that verifies, whatever it says."""
    header = NodeHeader(*NodeHeader.STRUCT.unpack_from(raw, _CHECKED_FROM))
    keys_end = NODE_HEADER_BYTES + header.item_count * KEY_BYTES
    if keys_end > len(raw):
        return Parts(header, None, None)
    keys = [raw[at : at + KEY_BYTES] for at in range(NODE_HEADER_BYTES, keys_end, KEY_BYTES)]
    try:
        return Parts(header, keys, decode_items(raw, decode_header(raw))[1])
    except CorruptImage:
        return Parts(header, keys, None)


@dataclass(slots=True)
class Nodes:
    """The nodes of an image. Memory: about 200 bytes a node."""

    image: Image
    places: dict[int, bool] = field(default_factory=dict)  # block -> whether a node verifies there
    _sealed: dict[int, tuple[int, int] | None] = field(default_factory=dict)  # block -> checksum before, and in the copy

    def find(self, roots: list[ChildPointer]) -> None:
        """Find the nodes: by a scan, and from *roots* down."""
        for node in finished(scan_nodes(self.image, lambda node: node.is_at_home, lambda block: False)):
            for place in filter(None, (node.block, node.pointer.address & BLOCK_MASK, node.pointer.mirror & BLOCK_MASK)):
                self._visit(place)
        for root in roots:
            self._visit_copies(root)

    def whole(self) -> Iterator[Parts]:
        """Yield the nodes that verify."""
        for place, verifies in self.places.items():
            if verifies:
                yield taken_apart(self._read(place)[1])

    def write_rubbish(self, target: Device, names: StandIns, is_taken: object) -> None:
        """Write letters where something that does not verify is taken for a node, unless the blocks belong to somebody."""
        assert callable(is_taken)
        count = self.image.geometry.node_blocks
        for place, verifies in self.places.items():
            if verifies or not self.image.holds(place, count) or any(map(is_taken, range(place, place + count))):
                continue
            try:
                raw = self.image.read_blocks(place, count)
            except (CorruptImage, DeviceFailed):
                raw = b"\1" * self.image.geometry.node_bytes
            if any(raw) and (place + count) * self.image.block_bytes <= target.size_bytes:
                magic = NODE_MAGIC if raw.startswith(NODE_MAGIC) else b""
                target.write(place * self.image.block_bytes, magic + names.letters(raw[len(magic) :]))

    def write(self, target: Device, items: Items) -> int:
        """Write those that verify to the copy; return how many."""
        for place in self.places:
            self._seal(place, target, items)
        return sum(self.places.values())

    def pointer(self, pointer: ChildPointer, names: StandIns) -> ChildPointer:
        """Return *pointer* as it is in the copy, when what it names has been written."""
        for place in _copies(pointer):
            sealed = self._sealed.get(place)
            if sealed is not None and sealed[0] == pointer.crc32c:
                return replace(pointer, crc32c=sealed[1])
        return replace(pointer, crc32c=int.from_bytes(names.digest(pointer.encode())[:4], "little"))

    def _visit_copies(self, pointer: ChildPointer) -> None:
        for place in _copies(pointer):
            self._visit(place)

    def _visit(self, place: int) -> None:
        waiting = [place]
        while waiting:
            place = waiting.pop()
            if place in self.places:
                continue
            _, whole = self._read(place)
            self.places[place] = bool(whole)
            if whole:
                waiting += [copy for pointer in taken_apart(whole).pointers() for copy in _copies(pointer)]

    def _read(self, place: int) -> tuple[bytes, bytes]:
        """Return (what lies at *place*, the node in it with its flipped bit turned back); nothing where there is none."""
        try:
            raw = self.image.read_blocks(place, self.image.geometry.node_blocks)
        except (CorruptImage, DeviceFailed):
            return b"", b""
        return raw, mend_sealed(raw, NODE_MAGIC) or b""

    def _seal(self, place: int, target: Device, items: Items, depth: int = 0) -> None:
        """Write the node at *place* to the copy, those below it first."""
        if place in self._sealed or not self.places.get(place) or depth > DEPTH_MAX:
            return
        self._sealed[place] = None  # if it is met again on the way down, pointers go round in a circle
        raw, whole = self._read(place)
        parts = taken_apart(whole)
        for pointer in parts.pointers():
            for copy in _copies(pointer):
                self._seal(copy, target, items, depth + 1)
        made = self._made(whole, parts, items)
        self._sealed[place] = (node_checksum(whole), node_checksum(made))
        if raw != whole:
            flipped = int.from_bytes(raw, "little") ^ int.from_bytes(whole, "little")
            made = (int.from_bytes(made, "little") ^ flipped).to_bytes(len(made), "little")
        target.write(place * self.image.block_bytes, made)

    def _made(self, raw: bytes, parts: Parts, items: Items) -> bytes:
        """Return the node as it is in the copy."""
        header = replace(parts.header, low=items.key(parts.header.low), high=items.key(parts.header.high))
        body = header.STRUCT.pack(*NodeHeader._FLATTEN(header))
        if parts.keys is None:
            body += items.letters(raw[NODE_HEADER_BYTES:])
        else:
            ends_at = NODE_HEADER_BYTES + len(parts.keys) * KEY_BYTES
            values_at = ends_at + len(parts.keys) * VALUE_END_BYTES
            body += b"".join(map(items.key, parts.keys)) + raw[ends_at:values_at]
            if parts.values is None:
                body += items.letters(raw[values_at:])
            else:
                body += b"".join(self._value(parts, number, items) for number in range(len(parts.keys)))
        body = body[: len(raw) - _CHECKED_FROM].ljust(len(raw) - _CHECKED_FROM, b"\0")
        checksum = node_checksum(bytes(_CHECKED_FROM) + body)
        return NODE_MAGIC + checksum.to_bytes(4, "little") + body

    def _value(self, parts: Parts, number: int, items: Items) -> bytes:
        assert parts.keys is not None and parts.values is not None
        value = parts.values[number]
        if not parts.is_inner:
            return items.value(parts.keys[number], value)
        return self.pointer(ChildPointer.decode(value), items.names).encode()


def _copies(pointer: ChildPointer) -> list[int]:
    return [place & BLOCK_MASK for place in (pointer.address, pointer.mirror) if place]
