"""File data: records that are wrong are mended if their checksum says how, else cut out; the rest of the file stays.

A record that is cut out keeps its blocks where they are its own: what lies there may be read by other means, and a bad sector is
not given to another file. Where they are not its own, it owns none.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import crc32c

from razortools.check.contents import is_whole
from razortools.check.findings import Finding
from razortools.check.image import Image
from razortools.check.mended_record import mended
from razortools.check.record_rules import record_fault
from razortools.check.repair import plan_attributes
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Verb
from razortools.check.repair.surveying import owned
from razortools.check.right_record import right_record
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.compression import Algorithm, frame_bytes
from razortools.format.data import (
    CHECKED_TWICE,
    CUT_OUT,
    LATE,
    RECORD_BYTES_MAX,
    RUN_BYTES,
    DataRecord,
    SecondChecksum,
    blocks_crc32,
)
from razortools.format.inode import Inode
from razortools.format.keys import KIND_AT, Kind, object_of, offset_of
from razortools.format.late_pages import LATE_PAGE_BYTES, LatePages
from razortools.format.unpacking import unpack_record
from razortools.format.xattr import XATTR_VALUE_BYTES_MAX, Xattr
from razortools.units import divide_up

CORRECTED_WORDS = "correct the record: with these values its data verify"
CUT_OUT_WORDS = "cut it out: reading these bytes gives an I/O error, the rest of the file stays"


def wrong_field(draft: Draft, finding: Finding) -> None:
    """A record has a field that makes no sense."""
    key = finding.key
    record = _record_at(draft, key)
    if key is None or record is None:
        return
    corrected = _corrected(draft.image, record, draft.inode(object_of(key)), is_data=key[KIND_AT] == Kind.DATA_RECORD)
    if corrected is not None:
        _put_record(draft, key, corrected, CORRECTED_WORDS)
    elif not _put_right(draft, key, record) and not (key[KIND_AT] == Kind.XATTR and plan_attributes.put_right(draft, key)):
        cut(draft, key, keeps_blocks=False)


def _put_right(draft: Draft, key: bytes, record: DataRecord) -> bool:
    """Plan to turn back the one bit of a record that is wrong while its data are whole; return whether that is so."""
    right = right_record(draft.image, key, record, draft.inode(object_of(key)), elsewhere=bool(draft.orphaned))
    if right is not None:
        _put_record(draft, key, right[0], CORRECTED_WORDS)
    return right is not None


def _corrected(image: Image, record: DataRecord, inode: Inode | None, *, is_data: bool) -> DataRecord | None:
    """Return *record* with other values in single fields, if its data verify then; None otherwise."""
    limit = XATTR_VALUE_BYTES_MAX
    if is_data:
        limit = min(inode.record_bytes, RECORD_BYTES_MAX) if inode is not None else RECORD_BYTES_MAX
    for candidate in _candidates(image, record, limit):
        if not record_fault(image, candidate, inode, is_data=is_data) and _verifies(image, candidate):
            return candidate
    return None


def _verifies(image: Image, record: DataRecord) -> bool:
    """Return whether the data of a record can be read as it says."""
    raw = blocks_of(image, record)
    if raw is None or crc32c.crc32c(raw) != record.crc32c:
        return False
    try:
        unpack_record(record, raw)
    except CorruptImage:
        return False
    return True


def _candidates(image: Image, record: DataRecord, limit: int) -> Iterator[DataRecord]:
    """Yield what *record*, which may hold *limit* bytes, may have been."""
    plain = replace(
        record,
        flags=record.flags & CUT_OUT | _told_flags(record.more),
        birth=min(record.birth, image.superblock.generation),
        address=record.address & (1 << 48) - 1,
    )
    yield plain
    if plain.flags & LATE:
        yield from _with_late_pages(image, plain)
        return
    is_checked_twice = plain.flags & CHECKED_TWICE
    yield replace(plain, more=b"", flags=plain.flags & CUT_OUT)
    if is_checked_twice:
        yield replace(plain, more=plain.more[: SecondChecksum.FIXED_BYTES])
    if record.algorithm == Algorithm.NONE:
        # Where both are possible, nothing tells which one is right: how many zeros at the end are padding.
        if not 0 < plain.raw_bytes <= limit:
            yield replace(plain, raw_bytes=plain.stored_bytes)
        elif not 0 < plain.stored_bytes <= limit:
            yield replace(plain, stored_bytes=plain.raw_bytes)
    elif record.algorithm == Algorithm.ZSTD:
        raw = blocks_of(image, plain)
        size = frame_bytes(raw[: plain.stored_bytes]) if raw is not None else 0
        if 0 < size <= RECORD_BYTES_MAX:
            yield replace(plain, raw_bytes=size)


def _told_flags(more: bytes) -> int:
    """Return what the flags of a record must say, by what stands behind its fixed fields."""
    for flags, at in ((LATE, 0), (LATE | CHECKED_TWICE, SecondChecksum.FIXED_BYTES)):
        with suppress(CorruptImage):
            if LatePages.at_start_of(more[at:]) is not None:
                return flags
    return CHECKED_TWICE * (len(more) % RUN_BYTES == SecondChecksum.FIXED_BYTES)


def _with_late_pages(image: Image, plain: DataRecord) -> Iterator[DataRecord]:
    """Yield a record with late pages with other numbers of bytes: those that its list of runs, or its data, tell."""
    late = plain.late_pages
    assert late is not None
    blocks = divide_up(late.base_bytes, image.block_bytes)
    yield replace(plain, stored_bytes=blocks * image.block_bytes + late.page_count * LATE_PAGE_BYTES)
    if plain.algorithm == Algorithm.ZSTD:
        raw = blocks_of(image, plain)
        size = frame_bytes(raw[: late.base_bytes]) if raw is not None else 0
        if 0 < size <= RECORD_BYTES_MAX:
            yield replace(plain, raw_bytes=size)


def blocks_of(image: Image, record: DataRecord) -> bytes | None:
    """Return what lies in the blocks of a record, or None if they cannot be read."""
    try:
        if not 0 < record.stored_bytes <= 2 * RECORD_BYTES_MAX:
            return None
        return image.read_runs(record.runs(image.block_bytes))
    except (CorruptImage, DeviceFailed):
        return None


def broken(draft: Draft, finding: Finding) -> None:
    """The stored bytes of a record do not verify, or do not decompress."""
    key = finding.key
    record = _record_at(draft, key)
    if key is None or record is None or record.flags & CUT_OUT:
        return
    if key in draft.judged or _verifies(draft.image, record):
        return  # mended by another planner
    if _put_right(draft, key, record):
        return
    bit = _flipped_bit(draft.image, record)
    if bit is not None:
        block, number = bit
        draft.other(
            Verb.FLIP, f"turn bit {number} of block {block}, the one that makes the data verify", block=block, value=number
        )
    else:
        cut(draft, key, keeps_blocks=True)


def _flipped_bit(image: Image, record: DataRecord) -> tuple[int, int] | None:
    """Return (block, bit in it) of the one bit that is wrong in a record's blocks, or None."""
    raw = blocks_of(image, record)
    if raw is None:
        return None
    found = mended(record, raw)
    if found is None:
        return None
    block_no, inside = divmod(found.bit, 8 * image.block_bytes)
    for first, count in record.runs(image.block_bytes):
        if block_no < count:
            return first + block_no, inside
        block_no -= count
    return None


def checked_anew(draft: Draft, finding: Finding) -> None:
    """The second checksum of a record is not that of its data, which verify."""
    key = finding.key
    record = _record_at(draft, key)
    if key is None or record is None or record.second_checksum is None:
        return
    raw = blocks_of(draft.image, record)
    if raw is not None and crc32c.crc32c(raw) == record.crc32c:
        _put_record(draft, key, record.checked_by(blocks_crc32(raw)), "compute its second checksum from its data, which verify")


def given_back(draft: Draft, finding: Finding) -> None:
    """A record is marked as cut out, and its data verify."""
    key = finding.key
    record = _record_at(draft, key)
    if key is None or record is None or not record.flags & CUT_OUT or not is_whole(draft.image, record):
        return
    _put_record(draft, key, replace(record, flags=record.flags & ~CUT_OUT), "let it be read again: its data verify")


def shared(draft: Draft, finding: Finding) -> None:
    """Blocks that are claimed twice: each owner whose data verify gets blocks of its own."""
    key = finding.key
    record = _record_at(draft, key)
    if key is None or record is None or key in draft.judged:
        return
    draft.judged.add(key)
    raw = blocks_of(draft.image, record)
    if record.flags & CUT_OUT:
        cut(draft, key, keeps_blocks=False)
    elif raw is not None and crc32c.crc32c(raw) == record.crc32c:
        draft.move(key, "copy its data, which verify, to blocks of its own")
    elif not _put_right(draft, key, record):
        cut(draft, key, keeps_blocks=False)


def cut(draft: Draft, key: bytes, *, keeps_blocks: bool) -> None:
    """Plan to cut a record out."""
    record = _record_at(draft, key)
    if keeps_blocks and record is not None:
        _put_record(draft, key, replace(record, flags=record.flags | CUT_OUT), CUT_OUT_WORDS)
        return
    inode = draft.inode(object_of(key))
    if key[KIND_AT] == Kind.XATTR:
        raw_bytes = record.raw_bytes if record is not None and 0 < record.raw_bytes <= XATTR_VALUE_BYTES_MAX else 1
    else:
        record_bytes = inode.record_bytes if inode is not None and inode.record_log2 < 32 else draft.image.superblock.record_bytes
        size = inode.size if inode is not None else 0
        raw_bytes = max(min(record_bytes, size - offset_of(key) * record_bytes), 1)
        if record is not None and 0 < record.raw_bytes <= record_bytes:
            raw_bytes = record.raw_bytes
    _put_record(draft, key, DataRecord(0, 0, raw_bytes, 0, 0, CUT_OUT, 0), CUT_OUT_WORDS)


def blocks_at(draft: Draft, key: bytes) -> int:
    """Return how many blocks the record under *key* takes; 0 if there is none."""
    record = _record_at(draft, key)
    return record.block_count(draft.image.block_bytes) if record is not None else 0


def _record_at(draft: Draft, key: bytes | None) -> DataRecord | None:
    value = draft.get(key) if key is not None else None
    return owned(key, value) if key is not None and value is not None else None


def _put_record(draft: Draft, key: bytes, record: DataRecord, why: str) -> None:
    if key[KIND_AT] == Kind.DATA_RECORD:
        draft.put(key, record.encode(), why)
        return
    draft.put(key, Xattr.outside(Xattr.decode(draft.get(key) or b"").name, record).encode(), why)
