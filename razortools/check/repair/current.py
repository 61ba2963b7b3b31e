"""The current leaves, asked key by key: what stands there now, and since when, or that nobody knows."""

from bisect import bisect_right

from razortools.check.image import Image
from razortools.check.repair.coverage import Tile
from razortools.check.repair.stock import items_of

CACHED_LEAVES = 64
NEVER = 1 << 64  # a generation that comes after all others


class Current:
    """The current leaves, asked key by key."""

    def __init__(self, image: Image, tiles: list[Tile]) -> None:
        """Read from *tiles*, which cover every key."""
        self._image = image
        self._tiles = tiles
        self._lows = [tile.low for tile in tiles]
        self._cache: dict[int, dict[bytes, bytes]] = {}

    def is_lost(self, key: bytes) -> bool:
        """Whether nobody knows what stands there now."""
        return self._tiles[bisect_right(self._lows, key) - 1].leaf is None

    def generation(self, key: bytes) -> int:
        """Return when the current leaf at *key* was written; what it holds has not changed since."""
        leaf = self._tiles[bisect_right(self._lows, key) - 1].leaf
        return leaf.pointer.generation if leaf is not None else NEVER

    def get(self, key: bytes) -> bytes | None:
        """Return the current value, None if there is none or it is lost."""
        number = bisect_right(self._lows, key) - 1
        leaf = self._tiles[number].leaf
        if leaf is None:
            return None
        if number not in self._cache:
            if len(self._cache) >= CACHED_LEAVES:
                del self._cache[next(iter(self._cache))]
            self._cache[number] = dict(items_of(self._image, self._tiles[number], leaf))
        return self._cache[number].get(key)
