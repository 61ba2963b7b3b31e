"""Placing: the middle steps of a flush (flush.py): packed records get blocks, and are written there.

Invariants: blocks of a record are reserved or placed, never neither, so a flush cannot fail for lack of space; what is placed is
on record until it is applied or given back; blocks are never given back before it is certain that nobody writes to them any
more; nothing is in the tree before it is entered (entering.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from razortools.engine import late
from razortools.engine.adaptive import Packing
from razortools.engine.flush_plan import FlushPlan, Packed, PlannedRecord, is_current, is_placed
from razortools.engine.late import PlacedPages
from razortools.engine.records import Place
from razortools.errors import OutOfSpace
from razortools.format.data import DataRecord, Run, make_record
from razortools.format.node import value_bytes_max
from razortools.units import MIB, BlockNo, divide_up

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

WRITE_BYTES_MAX = MIB  # neighbours are written together up to this size

Item = tuple[Place, DataRecord]


@dataclass(frozen=True, slots=True)
class PlacedRecord:
    """One record with the blocks that it will take; no runs: inline data or a hole."""

    planned: PlannedRecord
    packing: Packing
    runs: list[Run]
    record: DataRecord | None
    padded: bytes

    @property
    def place(self) -> Place:
        """Which record it is."""
        return self.planned.ino, self.planned.record_no


@dataclass(slots=True, eq=False)
class Placed:
    """Records whose blocks are allocated. It must be applied or given back; until then the volume has it on record."""

    records: tuple[PlacedRecord, ...]
    pages: tuple[PlacedPages, ...] = ()  # then there are no records
    lock: Lock = field(default_factory=Lock)  # held while the records are written
    is_settled: bool = False  # written or given back: nobody writes to these blocks any more


def place(volume: "Volume", plan: FlushPlan, packed: Packed) -> Placed:
    """Allocate blocks for the records that are still as planned, and forget the others. Their reservations are used up by that.

    Raises OutOfSpace, with everything given back, only if the promise of the reservation was broken.
    """
    chosen = [
        (planned, packing) for planned, packing in zip(plan.records, packed.packings, strict=True)
        if is_current(volume, planned) and not is_placed(volume, planned.ino, planned.record_no)
    ]  # fmt: skip
    counts = [0 if packing.is_inline else divide_up(len(packing.stored), volume.block_bytes) for _, packing in chosen]
    left = volume.store.place_each([count for count in counts if count])[::-1]
    records: list[PlacedRecord] = []
    try:
        for (planned, packing), count in zip(chosen, counts, strict=True):
            records.append(_place_record(volume, planned, packing, left.pop() if count else []))
    except BaseException:
        give_back_records(volume, records)
        for runs in left:
            volume.store.unplace(runs)
        raise
    return _on_record(volume, Placed(tuple(records)))


def place_late(volume: "Volume", items: Sequence[Item]) -> tuple[Placed | None, list[Item]]:
    """Allocate blocks for the loose pages of *items* behind their records; return what there is to write, and the other items.

    None: nothing. The others have to be stored anew. Raises NotResident, with everything given back.
    """
    pages, others = late.place_pages(volume, items)
    return (_on_record(volume, Placed((), tuple(pages))) if pages else None), others


def _on_record(volume: "Volume", placed: Placed) -> Placed:
    volume.records.in_flight[placed] = None
    return placed


def write_out(volume: "Volume", placed: Placed) -> None:
    """Write the placed records to the device, unless that is done. For any thread; the second one waits for the first.

    Raises DeviceFailed; the caller then gives them back.
    """
    with placed.lock:
        if placed.is_settled:
            return
        store = volume.store
        for runs, parts in _joined((*placed.records, *placed.pages)):
            store.write_blocks(runs, *parts)
            for start, count in runs:
                store.device.start_flush(start * store.block_bytes, count * store.block_bytes)
        placed.is_settled = True


def give_back(volume: "Volume", placed: Placed) -> None:
    """Free the blocks of a flush that will not be applied; its records stay dirty. Waits for a thread that is writing them."""
    with placed.lock:
        placed.is_settled = True
    if placed in volume.records.in_flight:
        del volume.records.in_flight[placed]
        give_back_records(volume, placed.records)
        late.give_back(volume, placed.pages)


def give_back_records(volume: "Volume", records: Iterable[PlacedRecord]) -> None:
    """Free the blocks of records that will not be applied; what is still dirty has its reservation again."""
    for placed in records:
        if placed.runs:
            volume.store.unplace(placed.runs)
        dirty = volume.records.find_dirty(placed.planned.ino, placed.planned.record_no)
        if dirty is not None:
            volume.records.reserve(dirty)


def _place_record(volume: "Volume", planned: PlannedRecord, packing: Packing, runs: list[Run]) -> PlacedRecord:
    """Return the record as it is to lie in *runs*, none if it takes no blocks. Raises OutOfSpace, with the runs given back."""
    if not runs:
        return PlacedRecord(planned, packing, [], None, b"")
    block_bytes = volume.block_bytes
    record, padded = make_record(
        runs, packing.stored, len(planned.raw), packing.algorithm, volume.store.generation, block_bytes,
        twice=volume.store.checks_twice,
    )  # fmt: skip
    if DataRecord.FIXED_BYTES + len(record.more) > value_bytes_max(volume.store.geometry.node_bytes):
        volume.store.unplace(runs)
        raise OutOfSpace(f"inode {planned.ino}: the free space lies in too many small pieces; delete something")
    dirty = volume.records.find_dirty(planned.ino, planned.record_no)
    assert dirty is not None
    volume.records.unreserve(dirty)
    return PlacedRecord(planned, packing, runs, record, padded)


def _joined(records: Sequence[PlacedRecord | PlacedPages]) -> Iterator[tuple[list[Run], list[bytes]]]:
    """Yield (runs, parts) to write: records that lie side by side in one run, or one record in several."""
    parts: list[bytes] = []
    start = count = total = 0
    for placed in records:
        if not placed.runs:
            continue
        alone = len(placed.runs) > 1
        first, blocks = placed.runs[0]
        if parts and (alone or first != start + count or total + len(placed.padded) > WRITE_BYTES_MAX):
            yield [(BlockNo(start), count)], parts
            parts = []
        if alone:
            yield placed.runs, [placed.padded]
            continue
        if not parts:
            start, count, total = first, 0, 0
        count += blocks
        total += len(placed.padded)
        parts.append(placed.padded)
    if parts:
        yield [(BlockNo(start), count)], parts
