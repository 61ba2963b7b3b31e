"""The view of a salvage: an image that may be damaged anywhere, truncated too, made readable in memory.

Invariant: the device is only read. What has to be written for it to be readable, a replay or a new tree, lies in an overlay.
"""

from collections.abc import Generator
from dataclasses import dataclass, field

from razortools.check.findings import Progress
from razortools.check.image import Image
from razortools.check.journal_pass import recovered_view
from razortools.check.repair.rebuild import Examined, RebuildResult, examine, rebuild
from razortools.check.repair.stock import items_of
from razortools.check.scan import find_superblock
from razortools.check.tree import ALL_KINDS, Items, TreeIndex, walk
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.errors import DeviceFailed, OutOfSpace
from razortools.format.geometry import geometry_of

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
    found = yield from find_superblock(device)
    superblock = found.superblock
    stretched = StretchedDevice(device, superblock.block_count * superblock.block_bytes)
    image = Image(stretched, superblock, geometry_of(superblock))
    tree, is_whole = yield from _walked(image)
    view = View(image, tree)
    if not is_whole:
        try:
            view.rebuilt = yield from rebuild(stretched)
        except OutOfSpace:
            return (yield from _view_in_memory(stretched))
        view.image = Image(stretched, view.rebuilt.superblock, geometry_of(view.rebuilt.superblock))
        view.remarks += view.rebuilt.sentences
    try:
        view.image, dropped = recovered_view(view.image)
        if dropped:
            view.remarks.append(f"transactions of the journal whose data never arrived: {dropped}")
    except Exception as failed:  # as in the runner: damage can take any shape, and what can be read without the journal is there
        view.remarks.append(f"the journal could not be replayed, its changes are missing: {failed or type(failed).__name__}")
    view.tree, _ = yield from _walked(view.image)
    return view


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
