"""The layout: how well the tree's nodes are filled, in how many pieces the files lie, what is free. Measured in one walk.

Invariant: nothing is written. The image must be sound: a node that cannot be read raises CorruptImage.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from razortools.check.claims import Claims
from razortools.check.compact.pieces import Chunk, chunks
from razortools.check.image import BLOCK_MASK, Image
from razortools.check.map_rules import fixed_claims
from razortools.check.tree import TreeIndex, kinds_mask, walk
from razortools.errors import CorruptImage
from razortools.format.data import CUT_OUT, Run
from razortools.format.items import owned_record
from razortools.format.keys import Kind, Table
from razortools.format.node import ITEM_OVERHEAD_BYTES, ChildPointer, node_capacity
from razortools.units import BlockNo

_OWNING = kinds_mask(Kind.XATTR, Kind.DATA_RECORD)


@dataclass(frozen=True, slots=True)
class Layout:
    """The figures that a compaction is about."""

    node_count: int
    leaf_fill: float  # of the leaves' room, 0 to 1
    string_count: int
    fragment_count: int  # pieces in which contents lie, what lies side by side in a file being one
    used_bytes: int  # of the image, fixed parts included
    largest_free_bytes: int  # in one run

    def as_json(self) -> dict[str, int | float]:
        """Return the figures as --json tells them."""
        return {
            "nodes": self.node_count,
            "leaf_fill": round(self.leaf_fill, 3),
            "strings": self.string_count,
            "fragments": self.fragment_count,
            "used_bytes": self.used_bytes,
            "largest_free_bytes": self.largest_free_bytes,
        }


@dataclass(slots=True)
class Measured:
    """An image, its tree, and how it lies there."""

    image: Image
    tree: TreeIndex
    claims: Claims  # of everything that is in use
    leaf_pointers: list[ChildPointer] = field(default_factory=list)  # as the tree's index counts its leaves
    leaf_used: "array[int]" = field(default_factory=lambda: array("I"))  # bytes of items, with what each takes beside its value
    inner: list[ChildPointer] = field(default_factory=list)

    @property
    def capacity(self) -> int:
        """Bytes of items that a leaf can hold."""
        return node_capacity(self.image.geometry.node_bytes)

    def node_runs(self, pointer: ChildPointer) -> list[Run]:
        """Return the runs of both copies of a node."""
        return node_runs(self.image, pointer)

    def chunks(self) -> Iterator[Chunk]:
        """Yield what the files hold, in the order of their records."""
        return chunks(self.image, self.tree)

    def layout(self) -> Layout:
        """Return the figures."""
        strings = fragments = 0
        for _, (keys, _) in self.tree.leaves(kinds_mask(Kind.NAME)):
            strings += sum(key[0] == Table.NAMES for key in keys)
        for chunk in self.chunks():
            fragments += chunk.piece_count - chunk.joins_before
        room = self.capacity * len(self.leaf_pointers)
        used, largest = usage(self.claims, self.image)
        block_bytes = self.image.block_bytes
        return Layout(
            len(self.leaf_pointers) + len(self.inner), sum(self.leaf_used) / room, strings, fragments, used * block_bytes,
            largest * block_bytes,
        )  # fmt: skip


def measure(image: Image) -> Measured:
    """Walk over the tree of *image*. Raises CorruptImage if it is not sound."""
    found = Measured(image, TreeIndex(image), fixed_claims(image))
    for visit in walk(image, found.tree):
        header, pointer = visit.header, visit.place.pointer
        if header is None or visit.wrong or visit.disorder:
            raise CorruptImage(f"{image.device.name}: the node at block {pointer.address} is damaged; run razorfsck")
        for first, count in found.node_runs(pointer):
            found.claims.claim(first, count)
        if visit.place.level:
            found.inner.append(pointer)
        else:
            found.leaf_pointers.append(pointer)
            found.leaf_used.append(header.used_bytes + header.item_count * ITEM_OVERHEAD_BYTES)
    for _, (keys, values) in found.tree.leaves(_OWNING):
        for key, value in zip(keys, values, strict=True):
            record = owned_record(key, value) if key[0] == Table.FILES else None
            if record is None or (record.flags & CUT_OUT and not record.stored_bytes):
                continue
            for first, count in record.runs(image.block_bytes):
                found.claims.claim(first, count)
    return found


def node_runs(image: Image, pointer: ChildPointer) -> list[Run]:
    """Return the runs of both copies of a node."""
    places = [place & BLOCK_MASK for place in (pointer.address, pointer.mirror) if place]
    return [(BlockNo(place), image.geometry.node_blocks) for place in places]


def usage(claims: Claims, image: Image) -> tuple[int, int]:
    """Return (blocks in use, blocks of the largest free run)."""
    shape = image.geometry.spacemap
    used = largest = tail = 0  # tail: free blocks at the end of the groups before
    for group in range(shape.level_pages[0]):
        page = claims.groups.get(group)
        if page is None:
            tail += shape.group_blocks
            continue
        bits = int.from_bytes(page, "little")
        used += bits.bit_count()
        # Strings are split far faster than bits are counted off; the first character is the last block.
        free = f"{bits:0{shape.group_blocks}b}".split("1")
        largest = max(largest, tail + len(free[-1]), *map(len, free))
        tail = len(free[0]) if len(free) > 1 else tail + len(free[0])
    behind = shape.level_pages[0] * shape.group_blocks - image.geometry.block_count
    return used - behind, max(largest, tail)
