"""The survey before a tree is built anew: which leaves are still proven by checksums, what is lost, what a scan finds instead.

Invariants: nodes are read with distrust and visited once; a node in which one bit flipped is mended on the device (an overlay),
so that what lies below it stays proven. Nothing else is written.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

import crc32c

from razortools.check.bitflip import without_flipped_bit
from razortools.check.claims import Claims
from razortools.check.findings import Progress
from razortools.check.image import BLOCK_MASK, Image
from razortools.check.record_rules import record_fault
from razortools.check.repair.coverage import Child, Identity, Leaf, Open, Tile, identity, offers, tile
from razortools.check.repair.forged import without_forged
from razortools.check.repair.remade import proven_below
from razortools.check.repair.used import UsedBlocks
from razortools.check.scan import FoundNode, read_items, scan_nodes
from razortools.check.steps import PARTS, scaled
from razortools.check.tree import Place, Visit, root_place, visit_node
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.items import owned_record
from razortools.format.keys import KIND_AT, Kind
from razortools.format.node import LEVEL_MAX, NODE_MAGIC, ChildPointer, NodeHeader, node_checksum

PROGRESS_STEP = 64  # nodes
GIVEN_UP_MAX = 100_000  # old nodes that are remembered, about 50 MB: a large image may be full of them

Result = TypeVar("Result")


@dataclass(slots=True)
class Survey:
    """What is there of a tree."""

    leaves: list[Leaf] = field(default_factory=list)  # proven; lost ones have block 0
    lost: list[Place] = field(default_factory=list)  # nodes whose children are not known
    inner: list[tuple[int, int]] = field(default_factory=list)  # places of the proven inner nodes
    mended: int = 0  # nodes in which one bit was turned back
    scanned: int = 0  # nodes that the scan found, old ones among them


def survey(image: Image) -> Generator[Progress, None, tuple[list[Tile], Survey]]:
    """Return the tiles of the keys, and what was found on the way."""
    seen = Survey()
    yield from scaled(_walk(image, seen), 0, 200)
    open_ranges = Open()
    for leaf in seen.leaves:
        if leaf.block:
            open_ranges.take(leaf.low, leaf.high)
    found: list[FoundNode] = []
    used = UsedBlocks(image)
    if not open_ranges.is_empty:
        found = yield from scaled(_scan(image, seen, used, open_ranges), 200, 800)
        seen.scanned = len(found)
    current = [node for node in found if not node.is_at_home or _is_used(image, used, node) is not False]
    current = yield from scaled(without_forged(image, current, item_runs, item_verifies), 800, PARTS)
    _find_where_they_are(seen, current)
    certain = _certain(image, used, current, seen)

    def leaf_of(node: FoundNode) -> Leaf:
        return replace(_leaf_of(node), is_certain=identity(node.pointer) in certain)

    offered = offers(current, seen.leaves, _children_of(image))
    return tile(seen.leaves, offered, found, leaf_of), seen


def _certain(image: Image, used: UsedBlocks, found: list[FoundNode], seen: Survey) -> set[Identity]:
    """Return which of the *found* nodes are proven to be of the last checkpoint: somebody proven names them, they make a lost
    node what its checksum says, the space map calls them used, or one that is certain is above them. Where nobody says that,
    the newest that was found may be an older one.
    """
    named, children = _looked_for(seen), _children_of(image)
    certain = {identity(node.pointer) for node in proven_below(image, seen.lost, found)}
    for node in sorted(found, key=lambda node: -node.level):
        known = identity(node.pointer)
        if known in certain or node.pointer.crc32c in named or _is_used(image, used, node):
            certain.add(known)
            if node.level:
                certain.update(identity(pointer) for _, _, pointer in children(node))
    return certain


def _looked_for(seen: Survey) -> set[int]:
    """Return the checksums that proven nodes tell of those that were not found where they are said to be."""
    return {leaf.pointer.crc32c for leaf in seen.leaves if not leaf.block} | {place.pointer.crc32c for place in seen.lost}


def _find_where_they_are(seen: Survey, found: list[FoundNode]) -> None:
    """Take lost leaves from where a scan *found* them: what has the checksum that a good parent tells is the leaf it means.

    The pointer may lie about the place, or the node may have been written to another one.
    """
    leaves = {(node.pointer.crc32c, node.pointer.generation, node.low): node for node in found if node.level == 0}
    for number, leaf in enumerate(seen.leaves):
        node = leaves.get((leaf.pointer.crc32c, leaf.pointer.generation, leaf.low)) if not leaf.block else None
        if node is not None and node.high == leaf.high:
            seen.leaves[number] = _leaf_of(node)


def _walk(image: Image, seen: Survey) -> Generator[Progress, None, None]:
    """Visit what can be reached from the root, parents first."""
    visited: set[tuple[int, int]] = set()
    pending = [(root_place(image), True)]
    number = 0
    while pending:
        place, is_exact = pending.pop()
        if number % PROGRESS_STEP == 0:
            yield Progress(number, max(image.superblock.node_count, number))
        number += 1
        visit = _visit(image, place, seen)
        again = (place.pointer.address, place.level) in visited
        visited.add((place.pointer.address, place.level))
        if visit.header is None:
            _note_lost(place, is_exact, seen)
        elif place.level == 0:
            seen.leaves += _proven_leaf(visit, visit.header, again=again)
        elif again:
            seen.lost.append(place)
        else:
            seen.inner += [(block & BLOCK_MASK, image.geometry.node_blocks) for block in _places(place.pointer)]
            pending += reversed(list(_children(visit, is_exact and not visit.disorder)))


def _visit(image: Image, place: Place, seen: Survey) -> Visit:
    """Visit a node; if no copy of it is good, turn back the one bit that may have flipped in a copy."""
    visit = visit_node(image, place)
    if visit.header is not None or place.level > LEVEL_MAX:
        return visit
    copies = {block: raw for block in _places(place.pointer) if (raw := _raw_copy(image, block)) is not None}
    checksum = place.pointer.crc32c
    for raw in copies.values():
        body = raw[8:] if node_checksum(raw) == checksum else without_flipped_bit(memoryview(raw)[8:], checksum)
        if body is None:
            continue
        # What stands in front of the body follows from it; damage there can be of any size.
        for block in copies:
            image.device.write(block * image.block_bytes, NODE_MAGIC + checksum.to_bytes(4, "little") + body)
        again = visit_node(image, place)
        if again.header is not None:
            seen.mended += 1
            return again
        for block, before in copies.items():
            image.device.write(block * image.block_bytes, before)
    return visit


def _raw_copy(image: Image, block: int) -> bytes | None:
    try:
        return image.read_blocks(block, image.geometry.node_blocks)
    except (CorruptImage, DeviceFailed):
        return None


def _places(pointer: ChildPointer) -> list[int]:
    return [block for block in dict.fromkeys((pointer.address, pointer.mirror)) if block]


def _note_lost(place: Place, is_exact: bool, seen: Survey) -> None:
    """A leaf of which the range is known for sure was the newest there; nothing older than it is the truth."""
    if place.level == 0 and is_exact:
        seen.leaves.append(Leaf(place.low, place.high, place.pointer, 0, is_sound=False))
    else:
        seen.lost.append(place)


def _proven_leaf(visit: Visit, header: NodeHeader, *, again: bool) -> Iterator[Leaf]:
    """Yield the leaf with the range that it answers for. A leaf pointed at twice answers where its keys lie."""
    place, keys = visit.place, visit.keys
    low, high = max(place.low, header.low), min(place.high, header.high)
    is_sound = not visit.wrong and not visit.disorder and not again
    if not (low < high and all(low <= key < high for key in keys)):
        if keys and not any(place.low <= key < place.high for key in keys):
            return
        if not keys and again:
            return
        low, high, is_sound = place.low, place.high, False
    yield Leaf(low, high, place.pointer, visit.read.address, is_sound=is_sound)


def _children(visit: Visit, is_exact: bool) -> Iterator[tuple[Place, bool]]:
    """Yield the places of the children. If their keys are in disorder, each may hold anything of the range."""
    place = visit.place
    for number, value in enumerate(visit.values):
        if len(value) != ChildPointer.FIXED_BYTES:
            continue
        low, high = place.low, place.high
        if is_exact:
            low = visit.keys[number]
            high = visit.keys[number + 1] if number + 1 < len(visit.keys) else place.high
        yield Place(ChildPointer.decode(value), place.level - 1, low, high), is_exact


def _scan(image: Image, seen: Survey, used: UsedBlocks, open_ranges: Open) -> Generator[Progress, None, list[FoundNode]]:
    """Return the nodes on the device that cover any of the open ranges and are not younger than the superblock."""
    looked_for = _looked_for(seen)
    newest = image.superblock.generation
    data = yield from scaled(_claimed_data(image, seen), 0, 200)
    given_up = 0

    def wanted(node: FoundNode) -> bool:
        nonlocal given_up
        if node.pointer.generation > newest:  # of a checkpoint that never came to its end: the journal knows better
            return False
        if not (node.is_at_home or node.pointer.crc32c in looked_for) or not open_ranges.touches(node.low, node.high):
            return False
        if not node.is_at_home or _is_used(image, used, node) is not False:
            return True
        given_up += 1
        return given_up <= GIVEN_UP_MAX

    return (yield from scaled(scan_nodes(image, wanted, data.holds), 200, PARTS))


def _claimed_data(image: Image, seen: Survey) -> Generator[Progress, None, Claims]:
    """Return the blocks that hold the files' data according to the proven leaves: what looks like a node in them is none."""
    claims = Claims(image.geometry.spacemap)
    for number, leaf in enumerate(seen.leaves):
        if number % PROGRESS_STEP == 0:
            yield Progress(number, len(seen.leaves))
        if leaf.block:
            _claim_data(image, leaf, claims)
    return claims


def _claim_data(image: Image, leaf: Leaf, claims: Claims) -> None:
    """Note the blocks of files' data that a leaf names. Items that make no sense name none."""
    try:
        keys, values = read_items(image, leaf.block, leaf.pointer)
    except (CorruptImage, DeviceFailed, ValueError):
        return
    for key, value in zip(keys, values, strict=True):
        for first, count in item_runs(image, key, value):
            claims.claim(first, count)


def item_runs(image: Image, key: bytes, value: bytes) -> list[tuple[int, int]]:
    """Return the blocks that an item owns; none if it makes no sense."""
    try:
        record = owned_record(key, value)
    except (CorruptImage, IndexError):
        return []
    if record is None or record_fault(image, record, None, is_data=key[KIND_AT] == Kind.DATA_RECORD):
        return []
    return [(first, count) for first, count in record.runs(image.block_bytes) if count]


def item_verifies(image: Image, key: bytes, value: bytes) -> bool:
    """Return whether the blocks that an item owns hold what it says."""
    try:
        record = owned_record(key, value)
        runs = item_runs(image, key, value)
        raw = image.read_runs(runs)
    except (CorruptImage, DeviceFailed, IndexError):
        return False
    return record is not None and bool(runs) and crc32c.crc32c(raw) == record.crc32c


def _children_of(image: Image) -> Callable[[FoundNode], list[Child]]:
    """Return a function that reads what a found inner node says about its children."""

    def read(node: FoundNode) -> list[Child]:
        keys, values = read_items(image, node.block, node.pointer)
        ends = [*keys[1:], node.high][: len(keys)]
        return [
            (low, high, ChildPointer.decode(value))
            for low, high, value in zip(keys, ends, values, strict=True)
            if len(value) == ChildPointer.FIXED_BYTES and node.low <= low < high <= node.high
        ]

    return read


def _leaf_of(node: FoundNode) -> Leaf:
    """Return a found node as a leaf. It may stay where it is if all its copies are good."""
    is_sound = node.good_copies.issuperset(place & BLOCK_MASK for place in _places(node.pointer))
    return Leaf(node.low, node.high, node.pointer, node.block, is_sound=is_sound)


def _is_used(image: Image, used: UsedBlocks, node: FoundNode) -> bool | None:
    """Return what the space map says about a node: if a copy of it is free, it was given up. None: the map does not know.

    Of a node that was given up, one copy may have been overwritten by something that is in use now.
    """
    blocks = image.geometry.node_blocks
    answers = [used.are_used(place & BLOCK_MASK, blocks) for place in _places(node.pointer)]
    return False if False in answers else None if None in answers else True
