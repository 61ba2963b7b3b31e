"""The geometry of an image of another size: which fixed parts stay, and where those go that cannot.

Slots and journal stay where they are. Backups lie at fractions of the image, so they have other places. The copies of the space
map stay as long as their pages fit; otherwise they get a place in what is free. Nothing is written here.
"""

from collections.abc import Mapping
from dataclasses import replace

from razortools.check.image import Image
from razortools.engine.store.spacemaps import SpaceMaps
from razortools.errors import OutOfSpace
from razortools.format.geometry import IMAGE_BYTES_MIN, Geometry, backup_places, geometry_of
from razortools.format.spacemap import spacemap_shape
from razortools.format.superblock import Superblock
from razortools.units import BlockNo

NO_ROOM_FOR_MAP = "there is no room for its space map"


def smallest_block_count(superblock: Superblock) -> int:
    """Return the fewest blocks that an image with these fixed parts can have, whatever it holds."""
    geometry = geometry_of(superblock)
    ends = [geometry.journal_start + geometry.journal_blocks + 1]
    return max(*ends, -(-IMAGE_BYTES_MIN // superblock.block_bytes))


def resized_geometry(image: Image, block_count: int, groups: Mapping[int, bytes | bytearray]) -> tuple[Superblock, SpaceMaps]:
    """Return (superblock with the new geometry, map in which all is in use that the old view or the new geometry uses).

    *groups*: what is in use in the old view. Raises OutOfSpace.
    """
    truth, old = image.superblock, image.geometry
    shape = spacemap_shape(block_count, truth.block_bytes)
    starts, pages = list(old.spacemap_starts), shape.page_count
    backups = backup_places(block_count, old.journal_start + old.journal_blocks)

    def stays(start: int) -> bool:
        fits = pages <= old.spacemap.page_count and start + pages < block_count
        return fits and not any(start <= place < start + pages for place in backups)

    # Where a copy must go its place is not known yet. Block 0 stands for it, which is taken anyway.
    known = BlockNo(starts[0] if stays(starts[0]) else 0), BlockNo(starts[1] if stays(starts[1]) else 0)
    geometry = replace(old, block_count=block_count, spacemap_starts=known, spacemap=shape, backups=backups)
    maps = SpaceMaps(image.device, geometry)
    maps.take_over(_cut(groups, old, block_count))
    maps.active = truth.spacemap_active & 1
    for copy, start in enumerate(known):
        if not start:
            starts[copy] = _free_run(maps, pages, min(old.block_count, block_count))
    return replace(truth, block_count=block_count, spacemap_a=starts[0], spacemap_b=starts[1]), maps


def _free_run(maps: SpaceMaps, block_count: int, near: int) -> BlockNo:
    """Take a free run of any length. Raises OutOfSpace."""
    start = maps.allocate_run(block_count, near) if block_count <= maps.group_blocks else None
    if start is None:
        start = next((first for first, count in maps.free_runs() if count >= block_count), None)
        if start is None:
            raise OutOfSpace(NO_ROOM_FOR_MAP)
        maps.mark_used(start, block_count)
    return start


def _cut(groups: Mapping[int, bytes | bytearray], old: Geometry, block_count: int) -> dict[int, bytes]:
    """Return the bitmaps of what is in use below *block_count*, without what marks the old end."""
    group_blocks = old.spacemap.group_blocks
    end = min(old.block_count, block_count)
    found = {}
    for group, page in groups.items():
        there = min(max(end - group * group_blocks, 0), group_blocks)
        bits = int.from_bytes(page, "little") & ((1 << there) - 1)
        if there:
            found[group] = bits.to_bytes(len(page), "little")
    return found
