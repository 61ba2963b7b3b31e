"""Flush: dirty records become stored ones, in five steps of which the slow ones may run in threads.

    plan_flush    reads memory, decides                       the volume's thread      (flush_plan.py)
    pack          compresses; bytes to bytes                  any thread               (flush_plan.py)
    place         allocates blocks                            the volume's thread      (placing.py)
    write_out     writes them to the device                   any thread               (placing.py)
    apply_flush   enters them in the tree, frees the old      the volume's thread      (entering.py)

Between the steps anything may happen to the files. Invariants: who must flush here and now, while a thread is still writing,
waits for the thread and applies that first; a flush that nobody disturbs leaves less dirty than there was. Nothing here is
durable before the volume commits.

Loose pages that are written behind their records (late.py) need no plan, and nothing is packed: they go the same way from
`place_late` on.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from razortools.engine import loose
from razortools.engine.entering import apply_flush
from razortools.engine.flush_plan import FlushPlan, pack, plan_flush
from razortools.engine.placing import Placed, give_back, place, place_late, write_out
from razortools.units import MIB, InodeNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

BATCH_BYTES = 8 * MIB  # raw data in flight in one synchronous round: bounds the memory for compressed copies


def flush(volume: "Volume", plan: FlushPlan) -> None:
    """All steps in a row, here and now."""
    finish_placed(volume, place(volume, plan, pack(plan)))


def finish_placed(volume: "Volume", placed: Placed) -> None:
    """Write and apply what is placed. Raises DeviceFailed, with everything given back."""
    try:
        write_out(volume, placed)
    except BaseException:
        give_back(volume, placed)
        raise
    apply_flush(volume, placed)


def finish_in_flight(volume: "Volume") -> None:
    """Finish what others have placed but not yet applied."""
    for placed in list(volume.records.in_flight):
        write_out(volume, placed)
        apply_flush(volume, placed)


def flush_all(volume: "Volume", inodes: Sequence[InodeNo] | None = None, *, patched: bool = True) -> None:
    """Flush every dirty record (of *inodes*), in rounds of bounded memory. Raises DeviceFailed, ReadOnly, CorruptImage.

    Without *patched* those stay dirty that the tree has in patches.
    """
    with volume.store.residence.in_place():  # to come back for a node would mean to compress everything again
        finish_in_flight(volume)
        while True:
            while (plan := plan_flush(volume, inodes, bytes_max=BATCH_BYTES, patched=patched)).records:
                before = volume.records.dirty_count
                flush(volume, plan)
                assert volume.records.dirty_count < before, "a flush that nobody disturbed left everything dirty"
            if not store_loose(volume, inodes):
                return


def store_loose(volume: "Volume", inodes: Sequence[InodeNo] | None = None) -> bool:
    """Write a batch of those loose pages (of *inodes*) that are oldest behind their records, or make these dirty with them.

    Returns whether there were any. Waits for the device. Raises as flush_all does.
    """
    if not len(volume.records.loose):  # nearly always
        return False
    places = volume.records.loose.oldest(BATCH_BYTES, of=inodes)
    before = len(volume.records.loose)
    placed, others = place_late(volume, loose.items_of(volume, places))
    if placed is not None:
        finish_placed(volume, placed)
    loose.merge(volume, loose.read_bases(volume, others))
    assert before - len(volume.records.loose) == len(places), "records kept their loose pages although nobody disturbed"
    return bool(places)


def make_room(volume: "Volume", wanted_bytes: int) -> None:
    """Flush the oldest records until *wanted_bytes* more fit below limits.dirty_bytes (or nothing is dirty any more)."""
    limit = volume.limits.dirty_bytes
    if volume.records.dirty_bytes + wanted_bytes <= limit:
        return
    with volume.store.residence.in_place():
        finish_in_flight(volume)
        # A quarter of the limit at a time: a flush for every single write would compress growing records over and over.
        target = max(0, limit * 3 // 4 - wanted_bytes)
        while (excess := volume.records.dirty_bytes - target) > 0:
            plan = plan_flush(volume, bytes_max=min(excess, BATCH_BYTES))
            if plan.records:
                flush(volume, plan)
            elif not store_loose(volume):
                return
