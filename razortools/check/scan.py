"""Scanning: superblocks and tree nodes found without anything that points to them, because they describe themselves.

Invariants: a node that is handed on verifies (after one flipped bit was turned back, if need be), carries the filesystem's tag
and lies where it says that it lies, or is word for word what a pointer that is known to be good is looking for. So what users
keep in files, an image among them, is not taken for a node by accident. The device is read once, from start to end, in large
pieces, and only headers are kept. Nothing is written.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

from razortools.check.bitflip import mend_sealed
from razortools.check.findings import Progress
from razortools.check.image import BLOCK_MASK, Image
from razortools.engine.store.device import Device
from razortools.errors import CorruptImage, DeviceFailed, NotAnImage, UnsupportedFormat
from razortools.format.geometry import BACKUP_SPACING, geometry_of
from razortools.format.layout import layout_fault
from razortools.format.node import LEVEL_MAX, NODE_MAGIC, ChildPointer, NodeHeader, decode_header, decode_items
from razortools.format.superblock import (
    BLOCK_BYTES_CHOICES,
    KNOWN_INCOMPAT,
    MAGIC,
    SUPERBLOCK_BYTES,
    VERSION_MAJOR,
    Superblock,
)
from razortools.units import MIB

PIECE_BYTES = 4 * MIB  # a few milliseconds of reading
PROGRESS_STEP = 64  # nodes
_STEP_BYTES = min(BLOCK_BYTES_CHOICES)  # superblocks lie at block boundaries, whatever the size of a block is


@dataclass(frozen=True, slots=True)
class FoundSuperblock:
    """A superblock that verifies and describes a possible layout. *mended*: one bit of it had flipped."""

    superblock: Superblock
    mended: bool


@dataclass(frozen=True, slots=True)
class FoundNode:
    """A node as a scan found it. Its items are read again when they are needed."""

    block: int  # of a copy that verifies
    pointer: ChildPointer  # what a parent of it would say
    level: int
    low: bytes
    high: bytes
    is_at_home: bool  # it lies where it says that it lies
    mended: bool  # only with one bit turned back
    good_copies: frozenset[int] = frozenset()  # places at home where it verifies as it is


def find_superblock(device: Device) -> Generator[Progress, None, FoundSuperblock]:
    """Return the newest superblock that can be found: in the slots, in the places of backups, anywhere.

    Raises NotAnImage if there is none, UnsupportedFormat if the image needs newer razortools.
    """
    found = _known_places(device)
    if not found:
        for offset in (yield from _magic_places(device)):
            found += _superblock_at(device, offset)
    if not found:
        raise NotAnImage(f"{device.name}: no superblock was found anywhere in it, so nothing tells how its blocks are laid out")
    newest = max(found, key=lambda one: (one.superblock.generation, not one.mended, -one.superblock.slot))
    superblock = newest.superblock
    unknown = superblock.incompat & ~KNOWN_INCOMPAT
    if superblock.version_major != VERSION_MAJOR or unknown:
        what = f"unknown features {unknown:#x}" if unknown else f"format version {superblock.version_major}"
        raise UnsupportedFormat(f"{device.name}: has {what}; use newer razortools")
    return newest


def _known_places(device: Device) -> list[FoundSuperblock]:
    """Return the superblocks where mkfs puts them, as far as they can be read."""
    offsets = dict.fromkeys((0, *BLOCK_BYTES_CHOICES))
    for block_bytes in BLOCK_BYTES_CHOICES:
        count = device.size_bytes // block_bytes
        for place in (count - 1, count // 2, count // 4, count // BACKUP_SPACING):
            offsets[max(place, 0) * block_bytes] = None
    found = [one for offset in offsets for one in _superblock_at(device, offset)]
    for known in {(one.superblock.block_bytes, geometry_of(one.superblock).backups) for one in found}:
        block_bytes, backups = known
        found += [one for place in backups for one in _superblock_at(device, place * block_bytes)]
    return found


def _magic_places(device: Device) -> Generator[Progress, None, list[int]]:
    """Look for the magic at every place where a block may begin."""
    places: list[int] = []
    for start, length in _pieces(device, 0, device.size_bytes, _STEP_BYTES):
        yield Progress(start, device.size_bytes)
        heads = _heads(device, start, length, _STEP_BYTES, len(MAGIC))
        places += [start + number * _STEP_BYTES for number, head in enumerate(heads) if _is_like(head, MAGIC)]
    return places


def _superblock_at(device: Device, offset: int) -> Iterator[FoundSuperblock]:
    """Yield the superblock at *offset* if there is one that makes sense."""
    if offset + SUPERBLOCK_BYTES > device.size_bytes:
        return
    try:
        raw = device.read(offset, SUPERBLOCK_BYTES)
        whole = mend_sealed(raw, MAGIC)
        if whole is None:
            return
        found = Superblock.decode(whole)
    except (CorruptImage, DeviceFailed):
        return
    if not layout_fault(found) and found.address * found.block_bytes == offset:
        yield FoundSuperblock(found, whole is not raw)


def scan_nodes(
    image: Image, wanted: Callable[[FoundNode], bool], is_data: Callable[[int], bool]
) -> Generator[Progress, None, list[FoundNode]]:
    """Return the *wanted* nodes of this filesystem on the device, each once. Blocks that hold files' data are passed over.

    *is_data* is asked for a block in which a node seems to lie.
    """
    found: dict[tuple[int, int, int], FoundNode] = {}
    places = yield from _node_places(image)
    for number, block in enumerate(places):
        if number % PROGRESS_STEP == 0:
            yield Progress(image.geometry.block_count, image.geometry.block_count)
        node = None if is_data(block) else node_at(image, block)
        if node is None or not wanted(node):
            continue
        known = found.get(_identity(node), node)
        better = node if known.mended and not node.mended else known
        found[_identity(node)] = replace(better, good_copies=known.good_copies | node.good_copies)
    return list(found.values())


def _identity(node: FoundNode) -> tuple[int, int, int]:
    return node.pointer.address, node.pointer.generation, node.pointer.crc32c


def _node_places(image: Image) -> Generator[Progress, None, list[int]]:
    """Return the blocks outside of the fixed parts that start as a node does."""
    block_bytes, end = image.block_bytes, min(image.geometry.block_count, image.device.size_bytes // image.block_bytes)
    places: list[int] = []
    start = 0
    for fixed, fixed_count in [*image.geometry.fixed_extents(), (end, 0)]:
        for offset, length in _pieces(image.device, start * block_bytes, min(fixed, end) * block_bytes, block_bytes):
            first = offset // block_bytes
            yield Progress(first, end)
            heads = _heads(image.device, offset, length, block_bytes, len(NODE_MAGIC))
            places += [first + number for number, head in enumerate(heads) if _is_like(head, NODE_MAGIC)]
        start = fixed + fixed_count
    return places


def _pieces(device: Device, start: int, end: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of the pieces from *start* to *end* in which there is anything, in whole strides from *start*."""
    while start < end:
        start += (device.next_data(start) - start) // stride * stride
        length = min(PIECE_BYTES, end - start)
        if length > 0:
            yield start, length
        start += length


def _heads(device: Device, start: int, length: int, stride: int, head_bytes: int) -> list[bytes]:
    """Return the first bytes of every *stride* bytes; of what cannot be read, nothing."""
    try:
        return device.read_strided(start, length, stride, head_bytes)
    except DeviceFailed:
        pass
    heads = []
    for at in range(start, start + length, stride):
        try:
            heads.append(device.read(at, head_bytes))
        except DeviceFailed:
            heads.append(b"")
    return heads


def _is_like(head: bytes, magic: bytes) -> bool:
    """Whether *head* is the magic, but for a bit."""
    if head == magic:
        return True
    return len(head) == len(magic) and (int.from_bytes(head, "little") ^ int.from_bytes(magic, "little")).bit_count() == 1


def node_at(image: Image, block: int) -> FoundNode | None:
    """Return the node of this filesystem that starts in *block*, wherever it says that it lies, or None."""
    try:
        raw = image.read_blocks(block, image.geometry.node_blocks)
        whole = mend_sealed(raw, NODE_MAGIC)
        if whole is None:
            return None
        header = decode_header(whole)
        decode_items(whole, header)  # a checksum tells nothing about the sense of what it covers
    except (CorruptImage, DeviceFailed, ValueError):
        return None
    if header.tag != image.tag or header.level > LEVEL_MAX or header.low >= header.high:
        return None
    pointer = ChildPointer(header.address, header.mirror, header.generation, int.from_bytes(whole[4:8], "little"))
    at_home, mended = _is_at_home(header, block), whole is not raw
    good = frozenset((block,) if at_home and not mended else ())
    return FoundNode(block, pointer, header.level, header.low, header.high, at_home, mended, good)


def _is_at_home(header: NodeHeader, block: int) -> bool:
    return block in (header.address & BLOCK_MASK, header.mirror & BLOCK_MASK)


def read_items(image: Image, block: int, pointer: ChildPointer) -> tuple[list[bytes], list[bytes]]:
    """Return (keys, values) of the node at *block*, mended. Raises CorruptImage or DeviceFailed if it is there no longer."""
    whole = mend_sealed(image.read_blocks(block, image.geometry.node_blocks), NODE_MAGIC)
    if whole is None or int.from_bytes(whole[4:8], "little") != pointer.crc32c:
        raise CorruptImage(f"tree node at block {block}: it is not there any more")
    return decode_items(whole, decode_header(whole))
