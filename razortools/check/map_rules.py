"""The space map as it lies on the device, read from its top page down; every page is judged against the entry above it."""

from collections.abc import Iterator
from dataclasses import dataclass

import crc32c

from razortools.check.claims import Claims
from razortools.check.image import Image
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.spacemap import ENTRY_BYTES, FREE_COUNT_MAX, NEVER_WRITTEN, VIRGIN, SpaceMapEntry
from razortools.units import BlockNo


@dataclass(frozen=True, slots=True)
class MapPage:
    """One page that was written. *raw* None: it is damaged, *reason* says how."""

    level: int
    index: int
    block: BlockNo
    told: int  # free blocks, as the entry above says
    raw: bytes | None
    reason: str
    checksum: int  # as the entry above says


def fixed_claims(image: Image) -> Claims:
    """Return the claims of the fixed parts, and of the blocks behind the end that the last page has bits for."""
    geometry, shape = image.geometry, image.geometry.spacemap
    claims = Claims(shape)
    for first, count in geometry.fixed_extents():
        claims.claim(first, count)
    claims.claim(geometry.block_count, shape.level_pages[0] * shape.group_blocks - geometry.block_count)
    return claims


class FreeCount:
    """The free blocks of a map, counted while its pages go by. What was never written is free but for the fixed parts."""

    def __init__(self, image: Image, fixed: Claims) -> None:
        """Count for *image*, whose fixed parts claim *fixed*."""
        self._shape = image.geometry.spacemap
        self._fixed = fixed
        self._counted = 0
        self.groups: set[int] = set()  # that were written

    def add(self, group: int, free: int) -> None:
        """The page of *group* was written and tells *free* blocks."""
        self.groups.add(group)
        self._counted += free

    @property
    def total(self) -> int:
        """Free blocks of the whole image, once all its pages went by."""
        unseen = self._fixed.groups.keys() - self.groups
        taken = sum(int.from_bytes(self._fixed.page(group), "little").bit_count() for group in unseen)
        return self._counted + (self._shape.level_pages[0] - len(self.groups)) * self._shape.group_blocks - taken


def free_of_map(image: Image) -> int | None:
    """Return the free blocks that the map on the device tells; None if a page of it cannot be read."""
    superblock = image.superblock
    count = FreeCount(image, fixed_claims(image))
    for page in map_pages(image, superblock.spacemap_active & 1, superblock.spacemap_top):
        if page.raw is None:
            return None
        if not page.level:
            count.add(page.index, counted_free(image, page))
    return count.total


def map_pages(image: Image, copy: int, top: SpaceMapEntry) -> Iterator[MapPage]:
    """Yield the pages of one copy of the map that were ever written, as far as damage above them lets them be found."""
    shape = image.geometry.spacemap
    fan_out = shape.block_bytes // ENTRY_BYTES
    pending = [(len(shape.level_pages) - 1, 0, top)]
    while pending:
        level, index, entry = pending.pop()
        if entry.free_count == NEVER_WRITTEN:
            continue
        page = _read(image, copy, level, index, entry)
        yield page
        if page.raw is None or level == 0:
            continue
        below = shape.level_pages[level - 1]
        for number, values in enumerate(SpaceMapEntry.STRUCT.iter_unpack(page.raw)):
            if index * fan_out + number < below:
                pending.append((level - 1, index * fan_out + number, SpaceMapEntry(*values)))


def _read(image: Image, copy: int, level: int, index: int, entry: SpaceMapEntry) -> MapPage:
    block = BlockNo(image.geometry.spacemap_starts[copy] + image.geometry.spacemap.page_place(level, index))
    try:
        raw = image.read_blocks(block, 1)
    except (CorruptImage, DeviceFailed) as failed:
        return MapPage(level, index, block, entry.free_count, None, str(failed), entry.crc32c)
    found = crc32c.crc32c(raw)
    if found != entry.crc32c:
        reason = f"checksum {found:#010x} found, {entry.crc32c:#010x} expected"
        return MapPage(level, index, block, entry.free_count, None, reason, entry.crc32c)
    return MapPage(level, index, block, entry.free_count, raw, "", entry.crc32c)


def counted_free(image: Image, page: MapPage) -> int:
    """Return how many free blocks a good page tells, the way its entry counts them."""
    assert page.raw is not None
    if page.level == 0:
        return image.geometry.spacemap.group_blocks - int.from_bytes(page.raw, "little").bit_count()
    told = [free for _, free in SpaceMapEntry.STRUCT.iter_unpack(page.raw) if free != NEVER_WRITTEN]
    return int(min(sum(told), FREE_COUNT_MAX))


def stray_entries(image: Image, page: MapPage) -> int:
    """Return how many entries of an index page stand for pages that do not exist and are not marked so."""
    assert page.raw is not None and page.level > 0
    shape = image.geometry.spacemap
    first = page.index * (shape.block_bytes // ENTRY_BYTES)
    real = max(shape.level_pages[page.level - 1] - first, 0)
    blank = VIRGIN.encode()
    places = range(real * ENTRY_BYTES, len(page.raw), ENTRY_BYTES)
    return sum(1 for at in places if page.raw[at : at + ENTRY_BYTES] != blank)
