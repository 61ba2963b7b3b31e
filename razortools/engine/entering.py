"""Entering: the last step of a flush (flush.py): the tree is told where the records that were written lie now.

Invariants: a record that was written, cut or dropped since the plan is not applied, and its blocks are given back; one that was
written stays dirty; an operation is of bounded size; what the damaged tree can never take is given up alone, and told.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from razortools.engine import late, patches
from razortools.engine.flush_plan import inode_or_none, is_current
from razortools.engine.late import PlacedPages
from razortools.engine.placing import Placed, PlacedRecord, give_back_records
from razortools.engine.store.room import PROMISED_PLACES
from razortools.errors import CorruptImage
from razortools.format.compression import Algorithm
from razortools.format.data import DataRecord, InlineData
from razortools.format.inode import Inode, InodeFlag
from razortools.format.journal import Operation
from razortools.format.keys import inline_key, inode_key, record_key
from razortools.units import InodeNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

_LATE_PAGES = int(InodeFlag.LATE_PAGES)  # a plain number: the arithmetic of flags is slow
STEP_RECORDS = 64  # records of one operation: with their values before and after, they take 10 KiB of journal
NEAR_RECORDS = 4  # records whose numbers differ by no more count as one place

OneT = TypeVar("OneT", PlacedRecord, PlacedPages)


def apply_flush(volume: "Volume", placed: Placed) -> None:
    """Enter the written records in the tree, in operations of bounded size. What failed or changed meanwhile is given back.

    Does nothing if somebody else has finished this flush already.
    """
    if placed not in volume.records.in_flight:
        return
    assert placed.is_settled, "a flush is written before it is applied"
    del volume.records.in_flight[placed]
    _apply(volume, placed.records, _apply_step, give_back_records, _lose)
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
