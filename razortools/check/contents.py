"""Contents: reads all stored data and verifies it, in threads, in batches, with bounded memory.

Reading, checksums and decompression release the interpreter's lock, so threads use all processors. Results come in the order of
the tree.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum

import crc32c

from razortools.check.facts import InodeFacts
from razortools.check.image import Image
from razortools.check.record_rules import record_fault
from razortools.check.tree import kinds_mask
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.compression import STORED
from razortools.format.data import CUT_OUT, DataRecord, blocks_crc32
from razortools.format.items import owned_record
from razortools.format.keys import Kind, Table, object_of
from razortools.format.unpacking import unpack_record
from razortools.units import MIB

BATCH_BYTES = 4 * MIB  # stored bytes of a batch: a few milliseconds of work, so handing it to a thread costs little
BATCH_RECORDS = 256
BATCH_LEAVES = 64
READ_BYTES_MAX = 2 * MIB  # records that lie side by side are read together


class Fault(Enum):
    """How a record is broken."""

    UNREADABLE = 1
    CHECKSUM = 2
    ALGORITHM = 3
    COMPRESSION = 4
    SECOND_CHECKSUM = 5  # the data are good
    CUT_OUT = 6  # the data are good, but are not to be read


@dataclass(frozen=True, slots=True)
class Broken:
    """One record that does not verify."""

    key: bytes
    fault: Fault
    reason: str
    found: int = 0
    expected: int = 0

    @property
    def is_readable(self) -> bool:
        """Whether its data are good all the same."""
        return self.fault is Fault.SECOND_CHECKSUM


@dataclass(slots=True)
class Batch:
    """Records to verify together, and what came of it."""

    leaf: int  # of the tree, for the progress
    records: list[tuple[bytes, DataRecord]] = field(default_factory=list)
    cut_out: list[tuple[bytes, DataRecord]] = field(default_factory=list)  # that own blocks: what lies there should not verify
    stored_bytes: int = 0
    broken: list[Broken] = field(default_factory=list)


def verify(facts: InodeFacts, selected: bytearray | None, threads: int, *, decompress: bool) -> Iterator[Batch]:
    """Yield the verified batches of all records (of the *selected* inodes). Closing the iterator stops the threads.

    With one thread that is the caller's own.
    """
    image = facts.tree.image
    if threads == 1:
        yield from (_verify_batch(image, batch, decompress) for batch in _batches(facts, selected))
        return
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            for batch in _batches(facts, selected):
                waiting.append(pool.submit(_verify_batch, image, batch, decompress))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _batches(facts: InodeFacts, selected: bytearray | None) -> Iterator[Batch]:
    """Yield the records in the order of the tree. Those with senseless fields are left to the data pass."""
    tree, image = facts.tree, facts.tree.image
    batch = Batch(0)
    for leaf, (keys, values) in tree.leaves(kinds_mask(Kind.XATTR, Kind.DATA_RECORD)):
        if leaf - batch.leaf >= BATCH_LEAVES:  # few of the items here are records, or selected: tell how far it is all the same
            yield batch
            batch = Batch(leaf)
        for key, value in zip(keys, values, strict=True):
            if key[0] != Table.FILES or (selected is not None and not is_selected(facts, selected, key)):
                continue
            record = _owning_record(image, key, value)
            if record is None:
                continue
            (batch.cut_out if record.flags & CUT_OUT else batch.records).append((key, record))
            batch.stored_bytes += record.stored_bytes
            if batch.stored_bytes >= BATCH_BYTES or len(batch.records) + len(batch.cut_out) >= BATCH_RECORDS:
                yield batch
                batch = Batch(leaf)
    if batch.records or batch.cut_out:
        yield batch


def is_selected(facts: InodeFacts, selected: bytearray, key: bytes) -> bool:
    """Return whether the item belongs to a selected inode."""
    place = facts.find(object_of(key))
    return place >= 0 and bool(selected[place])


def sound_record(image: Image, key: bytes, value: bytes) -> DataRecord | None:
    """Return the record of an item if it has one whose blocks can be read, otherwise None."""
    record = _owning_record(image, key, value)
    return None if record is None or record.flags & CUT_OUT else record


def _owning_record(image: Image, key: bytes, value: bytes) -> DataRecord | None:
    """Return the record of an item if it has one that names blocks, otherwise None."""
    try:
        record = owned_record(key, value)
    except (CorruptImage, IndexError):
        return None
    if record is None or record_fault(image, record, None, is_data=key[9] == Kind.DATA_RECORD) or not record.stored_bytes:
        return None
    return record


def is_whole(image: Image, record: DataRecord) -> bool:
    """Return whether the data of *record* can be read and agree with everything that it says of them."""
    try:
        raw = image.read_runs(record.runs(image.block_bytes))
    except (CorruptImage, DeviceFailed):
        return False
    return _judge(b"", record, memoryview(raw), decompress=True) is None


def _verify_batch(image: Image, batch: Batch, decompress: bool) -> Batch:
    """Read and verify a batch. Runs in a thread; touches nothing but *batch*."""
    for group, raw in _read_groups(image, batch):
        at = 0
        for key, record in group:
            length = record.block_count(image.block_bytes) * image.block_bytes
            broken = _judge(key, record, raw[at : at + length], decompress=decompress)
            at += length
            if broken is not None:
                batch.broken.append(broken)
    batch.broken += [Broken(key, Fault.CUT_OUT, "") for key, record in batch.cut_out if is_whole(image, record)]
    return batch


def _read_groups(image: Image, batch: Batch) -> Iterator[tuple[list[tuple[bytes, DataRecord]], memoryview]]:
    """Yield (records, their blocks). What cannot be read is entered in batch.broken and left out."""
    for first, count, group in _neighbours(image, batch.records):
        try:
            yield group, memoryview(image.read_blocks(first, count))
            continue
        except (CorruptImage, DeviceFailed):
            pass
        for key, record in group:
            try:
                raw = image.read_runs(record.runs(image.block_bytes))
            except (CorruptImage, DeviceFailed) as failed:
                batch.broken.append(Broken(key, Fault.UNREADABLE, str(failed)))
                continue
            yield [(key, record)], memoryview(raw)


def _neighbours(
    image: Image, records: Iterable[tuple[bytes, DataRecord]]
) -> Iterator[tuple[int, int, list[tuple[bytes, DataRecord]]]]:
    """Yield (first block, blocks, records) for records that lie side by side. One in pieces comes alone, with no blocks."""
    blocks_max = READ_BYTES_MAX // image.block_bytes
    start, count = 0, 0
    group: list[tuple[bytes, DataRecord]] = []
    for key, record in records:
        runs = record.runs(image.block_bytes)
        first, blocks = runs[0]
        if group and (len(runs) > 1 or first != start + count or count + blocks > blocks_max):
            yield start, count, group
            group = []
        if len(runs) > 1:
            yield 0, 0, [(key, record)]
            continue
        if not group:
            start, count = first, 0
        count += blocks
        group.append((key, record))
    if group:
        yield start, count, group


def _judge(key: bytes, record: DataRecord, raw: memoryview, *, decompress: bool) -> Broken | None:
    found = crc32c.crc32c(raw)
    if found != record.crc32c:
        return Broken(key, Fault.CHECKSUM, "", found, record.crc32c)
    broken = _judge_compression(key, record, raw) if decompress else None
    second = record.second_checksum
    if broken is None and second is not None and (found := blocks_crc32(raw)) != second:
        return Broken(key, Fault.SECOND_CHECKSUM, "", found, second)
    return broken


def _judge_compression(key: bytes, record: DataRecord, raw: memoryview) -> Broken | None:
    if record.algorithm not in STORED:
        return Broken(key, Fault.ALGORITHM, "")
    try:
        # bytes: the libraries take any buffer, but what they return must not hold on to a shared one.
        unpack_record(record, bytes(raw))
    except CorruptImage as wrong:
        return Broken(key, Fault.COMPRESSION, str(wrong))
    return None
