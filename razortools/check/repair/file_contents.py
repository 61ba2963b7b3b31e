"""What the items of one file hold: for inodes that do not say it, or say it wrongly."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from razortools.check.image import Image
from razortools.check.repair.draft import Draft
from razortools.check.repair.surveying import owned
from razortools.errors import CorruptImage
from razortools.format.data import FILE_BYTES_MAX, RECORD_BYTES_MAX, RECORD_LOG2, InlineData, Patch
from razortools.format.keys import KIND_AT, Kind, Table, kind_range, object_range, offset_of
from razortools.units import InodeNo


@dataclass(slots=True)
class Contents:
    """The contents of a file, by its items alone."""

    usual_log2: int  # of new files
    kinds: set[int] = field(default_factory=set)
    blocks: int = 0  # of records and attributes
    records: int = 0
    largest: int = 0  # bytes in a record
    smallest: int = RECORD_BYTES_MAX  # bytes in a record but the last
    last: tuple[int, int] = (-1, 0)  # number and bytes of the last record
    inline_bytes: int = 0
    patched_to: int = 0  # where the last of its patches ends

    def record_log2(self, size: int) -> int:
        """Return a record size with which the records make a file of *size* bytes (0: of any size)."""
        choices: list[int] = [self.usual_log2, *reversed(RECORD_LOG2)]
        needed = max(self.largest, self.inline_bytes)
        possible = [log2 for log2 in choices if log2 in RECORD_LOG2 and 1 << log2 >= needed]
        number, tail = self.last
        for log2 in possible:
            if number < 0 or not size or number << log2 < size <= (number << log2) + max(tail, 1 << log2):
                if number > 0 and self.largest and 1 << log2 != self.largest and self.largest.bit_count() == 1:
                    continue  # full records are as long as a record is
                return log2
        return possible[0] if possible else RECORD_LOG2[-1]

    def contradicts(self, record_log2: int, size: int) -> bool:
        """Return whether a record is longer than a record can be, or the last one begins behind the end of the file."""
        begins_behind = self.last[0] > 0 and self.last[0] << record_log2 >= size
        return begins_behind or max(self.largest, self.inline_bytes) > 1 << record_log2

    def agreed_log2(self, size: int) -> int | None:
        """Return the one record size with which all records make a file of *size* bytes; None: there is none, or several.

        Where only the first record is there, all sizes that it may have make the same file.
        """
        if self.last[0] <= 0:
            return self.record_log2(size)
        agreeing = [log2 for log2 in RECORD_LOG2 if not self.contradicts(log2, size) and self._agrees(log2, size)]
        return agreeing[0] if len(agreeing) == 1 else None

    def _agrees(self, record_log2: int, size: int) -> bool:
        """Return whether the last record ends where the file does, or the records are full and the file ends in the last one.

        Behind several full records the file may end in a hole: what follows two of them is the third.
        """
        number, tail = self.last
        start, full = number << record_log2, 1 << record_log2
        if start + tail == size:
            return True
        return self.largest == full and (size <= start + full or (self.records > 2 and self.smallest == full))

    def end(self, record_log2: int) -> int:
        """Return where the last byte of the file lies, by its records and the patches over them."""
        number, tail = self.last
        end: int = (number << record_log2) + tail if number >= 0 else 0
        end = max(end, self.inline_bytes)
        # A patch may make the last record longer. One that lies elsewhere makes no sense.
        return self.patched_to if end < self.patched_to <= (max(number, 0) + 1) << record_log2 else end


def contents_of(draft: Draft, number: int) -> Contents:
    """Return what the items of inode *number* hold."""
    found = contents_among(draft.image, draft.items(*range_of_contents(number)))
    for key, value in draft.items(*object_range(Table.PATCHES, number)):
        found.patched_to = offset_of(key) + max(len(value) - Patch.FIXED_BYTES, 0)
    return found


def range_of_contents(number: int) -> tuple[bytes, bytes]:
    """Return the keys from the first to the last that an item may have which contents_among() looks at."""
    return kind_range(InodeNo(number), Kind.XATTR)[0], kind_range(InodeNo(number), Kind.DATA_RECORD)[1]


def contents_among(image: Image, items: Iterable[tuple[bytes, bytes]]) -> Contents:
    """Return what the *items* of one file hold, patches aside."""
    found = Contents(image.superblock.record_bytes.bit_length() - 1)
    for key, value in items:
        kind = key[KIND_AT]
        if kind == Kind.INLINE_DATA:
            found.kinds.add(kind)
            try:
                found.inline_bytes = min(InlineData.decode(value).raw_bytes, RECORD_BYTES_MAX)
            except CorruptImage:
                continue
            continue
        record = owned(key, value)
        if record is None:
            continue
        found.blocks += record.block_count(image.block_bytes)
        if kind == Kind.DATA_RECORD:
            found.kinds.add(kind)
            raw_bytes = min(record.raw_bytes, RECORD_BYTES_MAX)
            if record.raw_bytes <= RECORD_BYTES_MAX:  # what claims more tells nothing of the others
                found.largest = max(found.largest, raw_bytes)
            if found.last[0] >= 0:
                found.smallest = min(found.smallest, found.last[1])
            found.records += 1
            if (offset_of(key) + 1) * RECORD_BYTES_MAX <= FILE_BYTES_MAX:
                found.last = offset_of(key), raw_bytes
    return found
