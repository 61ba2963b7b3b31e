"""Carrying a plan out, in an overlay: records are shown at new places, nodes are written anew, the map follows from the tree.

Invariants: nothing that the old view names is overwritten, so both views are whole until the superblock is; the space map goes
into the copy that the old view does not use.
"""

from dataclasses import replace

from razortools.check.compact.layout import Measured, measure
from razortools.check.image import Image
from razortools.check.repair.bulk import TreeWriter
from razortools.check.repair.superblock_copies import settle
from razortools.check.repair.write_order import REPAIR_GENERATIONS
from razortools.check.resize.plan import Plan, plant
from razortools.engine.store.nodepool import NodePool
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.spacemaps import SpaceMaps
from razortools.engine.store.superblocks import backup_images
from razortools.format.data import Run
from razortools.format.superblock import State, Superblock


def carry_out(plan: Plan, overlay: OverlayDevice) -> Measured:
    """Make *overlay*, which shows the image that *plan* is for, show what it will be. Raises OutOfSpace; it is of no use then.

    If the image has to be longer, the overlay is; if it can be shorter, it is not: what writes it cuts it off.
    """
    image, geometry = plan.measured.image, plan.geometry
    size_bytes = geometry.block_count * geometry.block_bytes
    if size_bytes > overlay.size_bytes:
        overlay.resize(size_bytes)
    pool = NodePool(plan.maps, geometry, image.superblock.metadata_copies)
    writer = TreeWriter(overlay, geometry, pool, image.tag, image.superblock.generation + REPAIR_GENERATIONS - 1)
    root, level = plant(plan, writer)
    for before, after in plan.copies:
        _show(overlay, before, after, image.block_bytes)
    _forget_backups(plan, overlay)
    sealed = replace(
        plan.superblock,
        generation=image.superblock.generation + REPAIR_GENERATIONS,
        state=State.CLEAN,
        root=root,
        root_level=level,
        node_count=writer.node_count,
        spacemap_active=1 - plan.maps.active,
    )
    measured = measure(Image(overlay, sealed, geometry))
    maps = SpaceMaps(overlay, geometry)
    maps.take_over(measured.claims.groups)
    maps.active = plan.maps.active
    writes, top, free_blocks = maps.encode_checkpoint(())
    for offset, data in writes:
        overlay.write(offset, data)
    sealed = replace(sealed, spacemap_top=top, free_blocks=free_blocks)
    settle(overlay, sealed)
    _write_new_backups(plan, overlay, sealed)
    measured.image = Image(overlay, sealed, geometry)
    return measured


def _show(overlay: OverlayDevice, before: list[Run], after: list[Run], block_bytes: int) -> None:
    """Show in the runs *after* what lies in the runs *before*."""
    targets = (block for first, count in after for block in range(first, first + count))
    sources = (block for first, count in before for block in range(first, first + count))
    for target, source in zip(targets, sources, strict=True):
        overlay.show(target * block_bytes, source * block_bytes, block_bytes)


def _write_new_backups(plan: Plan, overlay: OverlayDevice, sealed: Superblock) -> None:
    """Write the backups that lie where there was none: older than all others, so that nobody believes them before it is time.

    They are written before the superblock that makes their places count; see write_order.py.
    """
    older = replace(sealed, generation=max(plan.measured.image.superblock.generation - 1, 0))
    before = {place * sealed.block_bytes for place in plan.measured.image.geometry.backups}
    for offset, data in backup_images(older, plan.geometry):
        if offset not in before:
            overlay.write(offset, data.ljust(sealed.block_bytes, b"\0"))


def _forget_backups(plan: Plan, overlay: OverlayDevice) -> None:
    """Wipe the old backups: whoever looks for one without knowing the geometry must not find them."""
    size = plan.geometry.block_bytes
    taken = {place for first, count in plan.geometry.fixed_extents() for place in range(first, first + count)}
    for place in plan.measured.image.geometry.backups:
        if place not in taken and (place + 1) * size <= overlay.size_bytes:
            overlay.write(place * size, bytes(size))
