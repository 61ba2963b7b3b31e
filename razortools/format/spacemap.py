"""Space maps: which blocks are in use, twice (A and B), each a small tree of checksums at a fixed place.

Level 0 are bitmap pages of one block, a bit for each block of the image (1: in use), a "group". Level 1 and above are index
pages: a SpaceMapEntry for each page of the level below. The topmost page's entry stands in the superblock. A page that was never
written has the entry VIRGIN: nothing is used in it but the fixed places, which follow from the geometry.
"""

from dataclasses import dataclass
from typing import Annotated

from construct import Int32ul

from razortools.format.record import Record, record
from razortools.units import divide_up


@record()
class SpaceMapEntry(Record):
    """What one page must hold."""

    crc32c: Annotated[int, Int32ul * "CRC32C of the page"]
    free_count: Annotated[int, Int32ul * "free blocks below it, at most 4294967294 told; 4294967295: never written"]


ENTRY_BYTES = SpaceMapEntry.FIXED_BYTES
NEVER_WRITTEN = 0xFFFF_FFFF
FREE_COUNT_MAX = NEVER_WRITTEN - 1  # an index page over more than this many blocks tells this many
VIRGIN = SpaceMapEntry(0, NEVER_WRITTEN)


@dataclass(frozen=True, slots=True)
class SpaceMapShape:
    """How many pages each level has, and where they lie within a copy of the map."""

    block_bytes: int
    block_count: int
    level_pages: tuple[int, ...]  # pages of level 0, 1, ..; the last is always 1

    @property
    def page_count(self) -> int:
        """Pages, and thereby blocks, of one copy of the map."""
        return sum(self.level_pages)

    @property
    def group_blocks(self) -> int:
        """Blocks that one bitmap page tells of."""
        return self.block_bytes * 8

    def page_place(self, level: int, index: int) -> int:
        """Return the block of page *index* of *level*, counted from the start of the copy. The top page comes first."""
        return sum(self.level_pages[level + 1 :]) + index


def spacemap_shape(block_count: int, block_bytes: int) -> SpaceMapShape:
    """Return the shape of the map of an image of *block_count* blocks."""
    pages = [divide_up(block_count, block_bytes * 8)]
    while pages[-1] > 1:
        pages.append(divide_up(pages[-1], block_bytes // ENTRY_BYTES))
    return SpaceMapShape(block_bytes, block_count, tuple(pages))
