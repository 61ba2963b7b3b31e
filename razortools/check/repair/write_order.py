"""The order in which a repaired view is written over the image: which page belongs to which stage.

The image holds the old filesystem, the overlay the new one. What the new one needs goes first (AHEAD), then the one superblock
that makes it the truth (TRUTH), then whatever it does not need (BEHIND): blocks that are free in it, its spare space map, its
journal, the other slot and the backups. So as long as no block that the new filesystem needs was in use in the old one, the image
is the old or the new filesystem at every moment.
"""

from dataclasses import replace
from typing import Protocol

from razortools.check.repair.superblock_copies import mendable
from razortools.engine.store import superblocks
from razortools.engine.store.device import Device
from razortools.engine.store.pages import PAGE_BYTES
from razortools.engine.store.spacemaps import SpaceMaps
from razortools.errors import RazorError
from razortools.format.geometry import Geometry, geometry_of
from razortools.format.layout import layout_fault
from razortools.format.superblock import ERROR_COUNT_MAX, SLOT_COUNT, SUPERBLOCK_BYTES, State, Superblock
from razortools.format.undo import Stage
from razortools.units import BlockNo

REPAIR_GENERATIONS = 2  # from the view that is repaired to the repaired one

assert SUPERBLOCK_BYTES == PAGE_BYTES


class Order(Protocol):
    """What writing out has to know of a view that lies over an image."""

    superblock: Superblock  # of the filesystem: whose undo file it is
    slots: list[int]  # where the slots lie, in bytes

    def stage(self, offset: int) -> Stage:
        """Return when the page at byte *offset* is written."""

    def mark(self, image: Device, *, is_sound: bool) -> tuple[int, bytes] | None:
        """Return (offset, bytes) of a superblock that is written first of all; None: there is none."""


class WriteOrder:
    """Tells the stage of each page of the new view."""

    def __init__(self, overlay: Device) -> None:
        """Read the new filesystem's superblock and space map. Raises what superblocks.newest() raises."""
        self.superblock = truth = superblocks.newest(overlay)
        geometry = geometry_of(truth)
        self.slots = [slot * truth.block_bytes for slot in range(SLOT_COUNT)]
        self.truth_offset = truth.address * truth.block_bytes
        self._block_bytes = truth.block_bytes
        self._end = geometry.block_count * truth.block_bytes
        self._needed, self._not_needed = _fixed_parts(overlay, truth, geometry)
        self._maps = _map_of(overlay, truth, geometry)

    def stage(self, offset: int) -> Stage:
        """Return when the page at byte *offset* is written."""
        if offset == self.truth_offset:
            return Stage.TRUTH
        if offset >= self._end:
            return Stage.BEHIND
        block = offset // self._block_bytes
        if any(block in part for part in self._not_needed):
            return Stage.BEHIND
        if any(block in part for part in self._needed) or self._maps is None:
            return Stage.AHEAD
        try:
            return Stage.AHEAD if self._maps.is_used(BlockNo(block)) else Stage.BEHIND
        except RazorError:
            return Stage.AHEAD

    def mark(self, image: Device, *, is_sound: bool) -> tuple[int, bytes] | None:
        """See Order."""
        return marked(image, self.superblock, is_sound=is_sound)


def marked(image: Device, new: Superblock, *, is_sound: bool = False) -> tuple[int, bytes] | None:
    """Return (offset, bytes) of a superblock that says what the old one does, and that there were errors; or None.

    *is_sound*: nothing is wrong with the old filesystem, so of errors nothing is said.

    It goes into the slot whose turn it is, as when a mount marks an image as in use. Without it a repair that was cut off might
    leave an image in which nothing asks for a check, and `razorfsck -p` would not look at it. It also keeps the generations of
    the slots in step, for a repair is two generations later than what it repairs.
    """
    old = _repaired_from(image, new)
    if old is None or new.generation <= old.generation or layout_fault(old):
        return None
    # The state stays what it is: to mount what is not clean, the space map must be whole, and the repair may be about that.
    errors = min(old.error_count + (not is_sound), ERROR_COUNT_MAX)
    return superblocks.slot_image(replace(old, generation=old.generation + 1, error_count=errors))


def _repaired_from(image: Device, new: Superblock) -> Superblock | None:
    """Return the superblock of the view that was repaired.

    That is what a mount finds, unless the newest one has a flipped bit: then it becomes the truth before anything is written that
    the older one, which a mount has gone by so far, may need.
    """
    try:
        found = superblocks.newest(image)
    except RazorError:
        found = None
    wanted = new.generation - REPAIR_GENERATIONS
    if found is None or found.generation != wanted:
        return next((mended for _, mended in mendable(image) if mended.generation == wanted), found)
    return found


def _fixed_parts(overlay: Device, truth: Superblock, geometry: Geometry) -> tuple[list[range], list[range]]:
    """Return the blocks that the new filesystem needs, and those that it does not, outside of its space map's say."""
    pages = geometry.spacemap.page_count
    maps = [range(start, start + pages) for start in geometry.spacemap_starts]
    needed = [maps[truth.spacemap_active]]
    not_needed = [range(SLOT_COUNT), maps[1 - truth.spacemap_active]]
    for place in geometry.backups:
        # One that is older than the truth lies where there was none before: it must be there when the place begins to count.
        found = superblocks.read_copy(overlay, place * truth.block_bytes).superblock
        is_new_place = found is not None and found.generation < truth.generation
        (needed if is_new_place else not_needed).append(range(place, place + 1))
    journal = range(geometry.journal_start, geometry.journal_start + geometry.journal_blocks)
    # At rest nothing in the journal waits for replay; what lies there is what the old filesystem may still need.
    (not_needed if truth.state == State.CLEAN else needed).append(journal)
    return needed, not_needed


def _map_of(overlay: Device, truth: Superblock, geometry: Geometry) -> SpaceMaps | None:
    """Return the new filesystem's space map, or None if it cannot be read: then every block may be needed."""
    maps = SpaceMaps(overlay, geometry)
    try:
        maps.load(truth)
    except RazorError:
        return None
    return maps
