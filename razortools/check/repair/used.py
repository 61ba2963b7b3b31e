"""Used blocks: what the space map that the superblock names says, as a witness.

The map is written with each checkpoint and holds exactly what that checkpoint's tree names. A node or record whose blocks
verify and are in use is therefore part of that tree; one whose blocks are free was given up. Where the map itself is damaged it
says nothing.
"""

from razortools.check.image import Image
from razortools.engine.store.spacemaps import GROUPS_IN_MEMORY, SpaceMaps
from razortools.errors import CorruptImage, DeviceFailed
from razortools.units import BlockNo


class UsedBlocks:
    """The map of the last checkpoint. Reads pages when they are asked for, and does not keep too many."""

    def __init__(self, image: Image) -> None:
        """Look at the map of *image* as it is now: before anything writes to it."""
        self._image = image
        self._maps = self._load()
        self._groups: set[int] = set()

    def are_used(self, first: int, count: int) -> bool | None:
        """Return whether all the blocks are in use; None if the map cannot tell."""
        if self._maps is None or not self._image.holds(first, count):
            return None
        try:
            return all(self._is_used(self._maps, block) for block in range(first, first + count))
        except (CorruptImage, DeviceFailed):
            return None

    def _is_used(self, maps: SpaceMaps, block: int) -> bool:
        self._groups.add(block // maps.group_blocks)
        used = maps.is_used(BlockNo(block))
        if len(self._groups) > GROUPS_IN_MEMORY:
            self._groups.clear()
            self._maps = self._load()
        return used

    def _load(self) -> SpaceMaps | None:
        maps = SpaceMaps(self._image.device, self._image.geometry)
        try:
            maps.load(self._image.superblock)
        except (CorruptImage, DeviceFailed):
            return None
        return maps
