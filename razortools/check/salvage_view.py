"""The view of a salvage: an image that may be damaged anywhere, truncated too, made readable in memory.

Invariant: the device is only read. What has to be written for it to be readable, a replay or a new tree, lies in an overlay.
"""

from collections.abc import Generator
from dataclasses import dataclass, field

from razortools.check.findings import Progress
from razortools.check.image import Image
from razortools.check.journal_pass import recovering
from razortools.check.repair.journal import scanned
from razortools.check.repair.newer_state import finding_younger
from razortools.check.repair.rebuild import Examined, RebuildResult, examine, rebuild
from razortools.check.repair.stock import items_of
from razortools.check.scan import find_superblock
from razortools.check.steps import PARTS, mapped, scaled
from razortools.check.superblock_pass import all_copies
from razortools.check.tree import ALL_KINDS, Items, TreeIndex, walk
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.errors import DeviceFailed, OutOfSpace
from razortools.format.geometry import geometry_of
from razortools.format.superblock import SLOT_COUNT, Superblock

PROGRESS_STEP = 64  # nodes


class StretchedDevice(OverlayDevice):
    """A device that is as large as its filesystem, though its end is missing; there, only what was written in memory is read."""

    def __init__(self, base: Device, size_bytes: int) -> None:
        """Lay it over *base*."""
        super().__init__(base)
        self.size_bytes = max(size_bytes, base.size_bytes)

    def _below(self, offset: int, length: int) -> bytes:
        if offset + length > self.base.size_bytes:
            raise DeviceFailed(f"{self.name}: the image is truncated; {length} bytes at {offset} are missing")
        return super()._below(offset, length)


@dataclass(slots=True)
class View:
    """What can be read, and what had to be done for that."""

    image: Image
    tree: TreeIndex
    rebuilt: RebuildResult | None = None
    remarks: list[str] = field(default_factory=list)


def readable_view(device: Device) -> Generator[Progress, None, View]:
    """Return the image as far as it can be read. Raises NotAnImage if there is no superblock."""
    found = yield from scaled(find_superblock(device), 0, 100)
    superblock = found.superblock
    stretched = StretchedDevice(device, superblock.block_count * superblock.block_bytes)
    image = Image(stretched, superblock, geometry_of(superblock))
    tree, is_whole = yield from scaled(_walked(image), 100, 200)
    view = View(image, tree)
    younger = yield from scaled(_younger(view, device, is_whole=is_whole), 200, 300)
    if younger is not None:
        view.image = Image(stretched, younger, geometry_of(younger))
    elif not is_whole:
        try:
            view.rebuilt = yield from scaled(rebuild(stretched), 300, 600)
        except OutOfSpace:
            return (yield from scaled(_view_in_memory(stretched), 600, PARTS))
        view.image = Image(stretched, view.rebuilt.superblock, geometry_of(view.rebuilt.superblock))
        view.remarks += view.rebuilt.sentences
    try:
        replay = mapped(recovering(view.image), lambda share: Progress(600 + int(300 * share), PARTS))
        view.image, dropped = yield from replay
        if dropped:
            view.remarks.append(f"transactions of the journal whose data never arrived: {dropped}")
    except Exception as failed:  # as in the runner: damage can take any shape, and what can be read without the journal is there
        view.remarks.append(f"the journal could not be replayed, its changes are missing: {failed or type(failed).__name__}")
    view.tree, _ = yield from scaled(_walked(view.image), 900, PARTS)
    return view


def _younger(view: View, device: Device, *, is_whole: bool) -> Generator[Progress, None, Superblock | None]:
    """Return the superblock of a state newer than that of *view* that is there as a whole; note one that is there in parts.

    Looking for it costs a scan. There is no reason for one where the tree is whole, the journal is not damaged, and the slot that
    the next superblock went to holds the one before.
    """
    truth = view.image.superblock
    journal_is_damaged = bool(scanned(view.image).damage)
    slots = {copy.block for copy in all_copies(device) if copy.block < SLOT_COUNT}
    if is_whole and not journal_is_damaged and (truth.generation + 1) % SLOT_COUNT in slots:
        return None
    try:
        found = yield from finding_younger(view.image.device, truth, journal_is_damaged=journal_is_damaged)
    except Exception:  # as in the runner: damage can take any shape, and what the superblock tells of is there
        return None
    if found.superblock is not None:
        which = f"generation {found.superblock.generation}, not {truth.generation}"
        view.remarks.append(f"a newer state was found than any superblock tells of: {which}")
    believed = found.superblock or truth
    if found.generation > believed.generation + 1:
        which = f"generation {found.generation}, not {believed.generation}"
        view.remarks.append(f"there are parts of a still newer state ({which}), which is not whole: what was copied is older")
    return found.superblock

class TileIndex(TreeIndex):
    """An index over the leaves that a rebuild would use, where there is no room to write it."""

    def __init__(self, found: Examined) -> None:
        """Take over what was found."""
        super().__init__(found.image)
        self._found = found
        for tile in found.tiles:
            self.leaf_lows.append(tile.low)
            self.leaf_addresses.append(tile.leaf.block if tile.leaf is not None else 0)
            self.leaf_kinds.append(ALL_KINDS & 0xFFFF)

    def items_of(self, leaf: int) -> Items:
        """See TreeIndex: only what the leaf answers for, or what stands in its place."""
        tile = self._found.tiles[leaf]
        gap = self._found.stock.gaps.get(tile.low)
        items = list(items_of(self.image, tile, tile.leaf)) if tile.leaf is not None else gap.items if gap is not None else []
        return [key for key, _ in items], [value for _, value in items]


def _view_in_memory(device: Device) -> Generator[Progress, None, View]:
    """Return a view without a tree and without the journal's changes."""
    found = yield from examine(device)
    remarks = [*found.result.sentences, "there was no room to replay the journal, so its changes are missing"]
    return View(found.image, TileIndex(found), found.result, remarks)


def _walked(image: Image) -> Generator[Progress, None, tuple[TreeIndex, bool]]:
    """Return the index of the tree, and whether all of it is in order."""
    tree = TreeIndex(image)
    is_whole = True
    for number, visit in enumerate(walk(image, tree)):
        if number % PROGRESS_STEP == 0:
            yield Progress(number, max(image.superblock.node_count, number))
        is_whole &= visit.header is not None and not visit.wrong and not visit.disorder
    return tree, is_whole
