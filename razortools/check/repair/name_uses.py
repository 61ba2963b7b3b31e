"""How often names are used, counted in what is current and in what older leaves tell: the string table knows better."""

from collections import Counter
from collections.abc import Iterable

from razortools.check.image import Image
from razortools.check.repair.coverage import Tile
from razortools.check.repair.stock import items_of
from razortools.format.directory import DirectoryEntry
from razortools.format.keys import KIND_AT, Kind


def count_uses(image: Image, tiles: Iterable[Tile], old: Iterable[DirectoryEntry]) -> Counter[int]:
    """Return how many entries have each name that an *old* one has: old ones, and those in the leaves of *tiles*. By name id."""
    uses = Counter(entry.name_id for entry in old)
    for tile in tiles:
        for key, value in items_of(image, tile, tile.leaf) if tile.leaf is not None else ():
            name_id = int.from_bytes(value[8:16], "little") if key[KIND_AT] == Kind.DIRECTORY_ENTRY else -1
            if name_id in uses:
                uses[name_id] += 1
    return uses
