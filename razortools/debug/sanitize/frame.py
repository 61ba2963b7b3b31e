"""Superblocks and space maps of the copy. Only the label and the key of the hashes are anybody's secret; damage stays damage."""

from collections.abc import Callable
from dataclasses import replace

from razortools.check.bitflip import find_flipped_bit, mend_sealed
from razortools.check.image import Image
from razortools.check.map_rules import MapPage, map_pages
from razortools.debug.sanitize.nodes import Nodes
from razortools.debug.sanitize.standins import StandIns
from razortools.engine.store.device import Device
from razortools.engine.store.superblocks import traces
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.geometry import Geometry
from razortools.format.superblock import MAGIC, SLOT_COUNT, SUPERBLOCK_BYTES, Superblock


def superblock_places(geometry: Geometry) -> list[int]:
    """Return the blocks in which copies of the superblock lie."""
    return [*range(SLOT_COUNT), *geometry.backups]


def superblocks_of(image: Image) -> list[Superblock]:
    """Return every copy that verifies, if need be with one bit turned back."""
    raws = (_read(image, block * image.block_bytes, SUPERBLOCK_BYTES) for block in superblock_places(image.geometry))
    return [found for raw in raws if (found := _decoded(raw)) is not None]


def write_superblocks(image: Image, target: Device, nodes: Nodes, names: StandIns, holds: Callable[[int], bool]) -> None:
    """Write every copy, and what other filesystems have left of theirs; *holds* tells whether a record has a block."""
    for block in superblock_places(image.geometry):
        offset = block * image.block_bytes
        raw = _read(image, offset, SUPERBLOCK_BYTES)
        tail = _read(image, offset + SUPERBLOCK_BYTES, image.block_bytes - SUPERBLOCK_BYTES)
        made = _superblock(raw, nodes, names) + bytes(map(bool, tail))
        if raw and any(made):
            target.write(offset, made)
    for offset in _rests(image, holds):
        target.write(offset, _superblock(_read(image, offset, SUPERBLOCK_BYTES), nodes, names))


def _rests(image: Image, holds: Callable[[int], bool]) -> list[int]:
    """Return the offsets of superblocks of other filesystems that lie where one is looked for, and are not a part of a file."""
    places = {block * image.block_bytes for block in superblock_places(image.geometry)}
    found = traces(image.device, image.geometry.block_count * image.block_bytes)
    return [offset for offset in found if offset not in places and not holds(offset // image.block_bytes)]


def write_maps(image: Image, target: Device, superblocks: list[Superblock], names: StandIns) -> None:
    """Write the pages of the space maps. A page has no content but the bits of blocks, so what verifies is copied as it is."""
    pages: list[tuple[Superblock, MapPage]] = []
    for superblock in superblocks:
        if superblock.spacemap_a == image.superblock.spacemap_a and superblock.spacemap_b == image.superblock.spacemap_b:
            pages += [(superblock, page) for page in map_pages(image, superblock.spacemap_active & 1, superblock.spacemap_top)]
    for verifies in (False, True):  # of an older superblock the pages may have been written over
        for _, page in pages:
            if (page.raw is not None) is verifies:
                raw = _page(image, page, names)
                if raw and (page.block + 1) * image.block_bytes <= target.size_bytes:
                    target.write(page.block * image.block_bytes, raw)


def _page(image: Image, page: MapPage, names: StandIns) -> bytes:
    if page.raw is not None:
        return page.raw
    raw = _read(image, page.block * image.block_bytes, image.block_bytes)
    if not any(raw) or find_flipped_bit(raw, page.checksum) is not None:
        return raw
    return names.letters(raw)


def _superblock(raw: bytes, nodes: Nodes, names: StandIns) -> bytes:
    """Return what stands for what lies where a superblock may."""
    found = _decoded(raw)
    if found is None:
        is_like = raw[: len(MAGIC) - 1] == MAGIC[:-1]
        head = raw[: len(MAGIC)] if is_like else b""
        return head + (names.letters(raw[len(head) :]) if any(raw) else bytes(len(raw)))
    whole = mend_sealed(raw, MAGIC) or raw
    made = replace(
        found, label=_label(found.label), hash_seed=masked(found.hash_seed, names), root=nodes.pointer(found.root, names),
        reserved=bytes(map(bool, found.reserved)),
    ).encode()  # fmt: skip
    return bytes(new ^ old ^ turned for new, old, turned in zip(made, raw, whole, strict=True))


def masked(seed: bytes, names: StandIns) -> bytes:
    """Return the copy's key of the hashes for one of the image: another for another."""
    return bytes(one ^ other for one, other in zip(seed, names.digest(b"the key of the hashes"), strict=False))


def _label(label: bytes) -> bytes:
    """Return a label of the same length, as sound as this one."""
    new = bytes(ord("x") if byte else 0 for byte in label)
    try:
        label.decode()
    except UnicodeDecodeError:
        return b"\xff" + new[1:]
    return new


def _decoded(raw: bytes) -> Superblock | None:
    whole = mend_sealed(raw, MAGIC)
    try:
        return Superblock.decode(whole) if whole is not None else None
    except CorruptImage:
        return None


def _read(image: Image, offset: int, length: int) -> bytes:
    """Return what lies there, nothing if it cannot be read."""
    try:
        return image.device.read(offset, length) if length else b""
    except DeviceFailed:
        return b""
