"""Carrying a plan out, in an overlay: records are shown at their new places, leaves are packed, the nodes above them made anew.

Invariants: nothing that the old view names is overwritten, so both views are whole until the superblock is; the space map goes
into the copy that the old view does not use.
"""

from collections.abc import Iterator
from dataclasses import replace

from razortools.check.compact.plan import Plan, plant
from razortools.check.image import Image
from razortools.check.repair.bulk import TreeWriter
from razortools.check.repair.superblock_copies import settle
from razortools.check.repair.write_order import REPAIR_GENERATIONS
from razortools.engine.store.nodepool import NodePool
from razortools.engine.store.pages import OverlayDevice
from razortools.format.data import Run
from razortools.format.node import ChildPointer
from razortools.format.superblock import State


def carry_out(plan: Plan, overlay: OverlayDevice) -> Image:
    """Make *overlay*, which shows the image that *plan* is for, show what it will be. Raises OutOfSpace; it is of no use then."""
    image, maps = plan.measured.image, plan.maps
    truth, geometry = image.superblock, image.geometry
    pool = NodePool(maps, geometry, truth.metadata_copies)
    writer = TreeWriter(overlay, geometry, pool, image.tag, truth.generation + REPAIR_GENERATIONS - 1)
    root, level = plant(plan, writer)
    for before, target in plan.copies:
        _show(overlay, before, target, image.block_bytes)
        maps.free_later(before)
    for pointer in _given_up(plan):
        maps.free_later(plan.measured.node_runs(pointer))
    writes, top, free_blocks = maps.encode_checkpoint(pool.runs())
    for offset, data in writes:
        overlay.write(offset, data)
    sealed = replace(
        truth,
        generation=truth.generation + REPAIR_GENERATIONS,
        state=State.CLEAN,
        root=root,
        root_level=level,
        spacemap_active=1 - maps.active,
        spacemap_top=top,
        free_blocks=free_blocks,
        node_count=writer.node_count,
    )
    settle(overlay, sealed)
    return Image(overlay, sealed, geometry)


def _given_up(plan: Plan) -> Iterator[ChildPointer]:
    """Yield the nodes that the new tree does not use."""
    measured = plan.measured
    written = set(plan.touched)
    for section in plan.sections:
        written.update(range(section.first, section.behind))
    yield from (measured.leaf_pointers[leaf] for leaf in sorted(written))
    yield from measured.inner


def _show(overlay: OverlayDevice, before: list[Run], target: int, block_bytes: int) -> None:
    """Show from block *target* on what lies in the runs *before*."""
    for first, count in before:
        overlay.show(target * block_bytes, first * block_bytes, count * block_bytes)
        target += count
