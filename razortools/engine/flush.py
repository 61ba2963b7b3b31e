"""Flush: dirty records become stored ones, in five steps of which the slow ones may run in threads.

    plan_flush    reads memory, decides                       the volume's thread      (flush_plan.py)
    pack          compresses; bytes to bytes                  any thread               (flush_plan.py)
    place         allocates blocks                            the volume's thread
    write_out     writes them to the device                   any thread
    apply_flush   enters them in the tree, frees the old      the volume's thread

Between the steps anything may happen to the files. Invariants: a record that was written, cut or dropped since the plan is
not applied, and its blocks are given back; one that was written stays dirty. Blocks of a record are reserved or placed, never
neither, so a flush cannot fail for lack of space. What is placed is on record until it is applied or given back; who must
flush here and now, while a thread is still writing, waits for the thread and applies that first. Blocks are never given back
before it is certain that nobody writes to them any more. Nothing here is durable before the volume commits.

Loose pages that are written behind their records (late.py) need no plan, and nothing is packed: they go the same way from
`place_late` on.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from razortools.engine import late, loose, patches
from razortools.engine.adaptive import Packing
from razortools.engine.flush_plan import FlushPlan, Packed, PlannedRecord, inode_or_none, is_current, is_placed, pack, plan_flush
from razortools.engine.late import PlacedPages
from razortools.engine.records import Place
from razortools.engine.store.room import PROMISED_PLACES
from razortools.errors import CorruptImage, OutOfSpace
from razortools.format.compression import Algorithm
from razortools.format.data import DataRecord, InlineData, Run, make_record
from razortools.format.inode import Inode, InodeFlag
from razortools.format.journal import Operation
from razortools.format.keys import inline_key, inode_key, record_key
from razortools.format.node import value_bytes_max
from razortools.units import MIB, BlockNo, InodeNo, divide_up

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

_LATE_PAGES = int(InodeFlag.LATE_PAGES)  # a plain number: the arithmetic of flags is slow
BATCH_BYTES = 8 * MIB  # raw data in flight in one synchronous round: bounds the memory for compressed copies
STEP_RECORDS = 64  # records of one operation: with their values before and after, they take 10 KiB of journal
NEAR_RECORDS = 4  # records whose numbers differ by no more count as one place
WRITE_BYTES_MAX = MIB  # neighbours are written together up to this size


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


Item = tuple[Place, DataRecord]
OneT = TypeVar("OneT", PlacedRecord, PlacedPages)


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
        _give_back(volume, records)
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


def apply_flush(volume: "Volume", placed: Placed) -> None:
    """Enter the written records in the tree, in operations of bounded size. What failed or changed meanwhile is given back.

    Does nothing if somebody else has finished this flush already.
    """
    if placed not in volume.records.in_flight:
        return
    assert placed.is_settled, "a flush is written before it is applied"
    del volume.records.in_flight[placed]
    _apply(volume, placed.records, _apply_step, _give_back, _lose)
    _apply(volume, placed.pages, _enter_late, late.give_back)


def _apply(
    volume: "Volume",
    records: Sequence[OneT],
    enter: Callable[["Volume", Sequence[OneT]], Sequence[OneT]],
    give_back: Callable[["Volume", Sequence[OneT]], None],
    lose: Callable[["Volume", OneT, CorruptImage], None] | None = None,
) -> None:
    """Enter *records* step by step. What the damaged tree can never take is handed to *lose*, alone; all others are entered."""
    steps: deque[list[OneT]] = deque(_steps(records))
    while steps:
        step = steps.popleft()
        try:
            skipped = enter(volume, step)
        except BaseException as failure:
            if lose is not None and isinstance(failure, CorruptImage):
                if len(step) == 1:
                    lose(volume, step[0], failure)
                    give_back(volume, step)
                else:
                    steps.extendleft([record] for record in reversed(step))
                continue
            give_back(volume, step)
            for rest in steps:
                give_back(volume, rest)
            raise
        give_back(volume, skipped)


def _lose(volume: "Volume", placed: PlacedRecord, failure: CorruptImage) -> None:
    volume.records.lose(*placed.place, failure)


def visit(volume: "Volume", placed: Placed) -> None:
    """Look at all that apply_flush will change. Run as an attempt before it, this keeps it from waiting for the device."""
    store = volume.store
    places = [record.place for record in placed.records] + [pages.place for pages in placed.pages]
    for ino, record_no in places:
        with suppress(CorruptImage):  # entering it tells
            inode_or_none(volume, ino)
            store.get(inode_key(ino))
            store.get(record_key(ino, record_no))
            if record_no == 0:
                store.get(inline_key(ino))


def give_back(volume: "Volume", placed: Placed) -> None:
    """Free the blocks of a flush that will not be applied; its records stay dirty. Waits for a thread that is writing them."""
    with placed.lock:
        placed.is_settled = True
    if placed in volume.records.in_flight:
        del volume.records.in_flight[placed]
        _give_back(volume, placed.records)
        late.give_back(volume, placed.pages)


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


def _give_back(volume: "Volume", records: Iterable[PlacedRecord]) -> None:
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


def _steps(records: Sequence[OneT]) -> Iterator[list[OneT]]:
    """Yield the records of one operation after the other."""
    step: list[OneT] = []
    places = 0
    for placed in records:
        before = step[-1].place if step else None
        here = placed.place
        near = before is not None and before[0] == here[0] and abs(here[1] - before[1]) <= NEAR_RECORDS
        if len(step) == STEP_RECORDS or (places == PROMISED_PLACES and not near):
            yield step
            step, places, near = [], 0, False
        places += not near
        step.append(placed)
    if step:
        yield step


def _enter_late(volume: "Volume", step: Sequence[PlacedPages]) -> list[PlacedPages]:
    """Enter late pages in one operation; return those whose records are others now."""
    applied: list[PlacedPages] = []
    with volume.operation(Operation.FLUSH_DATA, step[0].place[0]):
        for ino, of_file in groupby(step, key=lambda placed: placed.place[0]):
            if inode_or_none(volume, ino) is None:
                continue
            current = [placed for placed in of_file if late.is_current(volume, placed)]
            if not current:
                continue
            for placed in current:
                volume.store.put(record_key(*placed.place), _born_now(volume, placed.record).encode())
            blocks = sum(count for placed in current for _, count in placed.runs)
            volume.counters.data_blocks += blocks
            inode = volume.inodes.peek(ino)
            inode.stored_blocks += blocks
            inode.flags |= _LATE_PAGES
            volume.inodes.write(ino, inode)
            applied += current
    for placed in applied:
        volume.records.note_late(*placed.place, placed.pages)
    return _left(step, applied)


def _apply_step(volume: "Volume", step: Sequence[PlacedRecord]) -> list[PlacedRecord]:
    """Apply some records in one operation; return those that had to be skipped."""
    applied: list[PlacedRecord] = []
    with volume.operation(Operation.FLUSH_DATA, step[0].planned.ino), volume.store.tree.rising():
        for ino, of_file in groupby(step, key=lambda placed: placed.planned.ino):
            inode = inode_or_none(volume, ino)
            if inode is not None:
                applied += _apply_to_file(volume, ino, inode, of_file)
    for placed in applied:
        planned = placed.planned
        volume.records.note_flushed(planned.ino, planned.record_no, planned.raw if placed.packing.stored else b"")
        volume.records.tallies.count(planned.ino, planned.record_no, planned.raw, placed.packing)
    return _left(step, applied)


def _left(step: Sequence[OneT], applied: Sequence[OneT]) -> list[OneT]:
    """Return what of *step* was not applied. The very objects count: to compare them would compare their data."""
    done = set(map(id, applied))
    return [placed for placed in step if id(placed) not in done]


def _apply_to_file(volume: "Volume", ino: InodeNo, inode: Inode, of_file: Iterable[PlacedRecord]) -> list[PlacedRecord]:
    """Put the records of one file into the tree and account for them; return those that still were as planned."""
    fits_inline = inode.size <= inode.record_bytes
    applied = [
        placed for placed in of_file if is_current(volume, placed.planned) and (fits_inline or not placed.packing.is_inline)
    ]
    block_delta = raw_delta = 0
    is_fast = False
    for placed in applied:
        blocks, raw_bytes = _enter(volume, ino, placed)
        block_delta += blocks
        raw_delta += raw_bytes
        planned = placed.planned
        is_fast |= placed.record is not None and planned.packing is None and planned.policy.algorithm is Algorithm.AUTO
    if is_fast:
        volume.lately.note(ino, volume.now_ns(), volume.store.generation)
    volume.counters.raw_bytes += raw_delta
    if block_delta:
        volume.counters.data_blocks += block_delta
        inode = volume.inodes.peek(ino)
        inode.stored_blocks += block_delta
        volume.inodes.write(ino, inode)
    return applied


def _enter(volume: "Volume", ino: InodeNo, placed: PlacedRecord) -> tuple[int, int]:
    """Make the tree say what *placed* says; return by how much the file's (blocks, raw bytes in records) changed."""
    store = volume.store
    record_no = placed.planned.record_no
    key = record_key(ino, record_no)
    before = store.get(key)
    old = None if before is None else DataRecord.decode(before)
    new = placed.record
    if new is not None:
        store.put(key, _born_now(volume, new).encode())
    elif old is not None:
        store.delete(key)
    patches.remove(volume, ino, record_no)
    if placed.packing.is_inline:
        inline = InlineData(int(placed.packing.algorithm), len(placed.planned.raw), placed.packing.stored)
        store.put(inline_key(ino), inline.encode())
    elif record_no == 0:
        store.delete(inline_key(ino))
    block_bytes = volume.block_bytes
    blocks = (new.block_count(block_bytes) if new else 0) - (old.block_count(block_bytes) if old else 0)
    return blocks, (new.raw_bytes if new else 0) - (old.raw_bytes if old else 0)


def _born_now(volume: "Volume", record: DataRecord) -> DataRecord:
    """Return *record* as one of the present generation: a checkpoint may have come since its blocks were placed."""
    generation = volume.store.generation
    return record if record.birth == generation else replace(record, birth=generation)
