"""How long the records of a file are, and which record size they agree with: for inodes that do not say it, or say it wrongly."""

from contextlib import suppress
from dataclasses import dataclass

from razortools.check.tree import TreeIndex
from razortools.errors import CorruptImage
from razortools.format.data import FILE_BYTES_MAX, RECORD_BYTES_MAX, RECORD_LOG2, DataRecord, InlineData
from razortools.format.keys import KIND_AT, Kind, kind_range, offset_of
from razortools.units import InodeNo


@dataclass(slots=True)
class RecordLengths:
    """The records of one file, in the order of their numbers. Lengths are in bytes, uncompressed."""

    usual_log2: int  # of new files
    count: int = 0
    largest: int = 0
    smallest: int = RECORD_BYTES_MAX  # of all but the last
    last: tuple[int, int] = (-1, 0)  # number and length of the last record
    inline_bytes: int = 0  # of contents that lie in the tree instead

    def add_inline(self, inline: InlineData) -> None:
        """Take contents that lie in the tree into account."""
        self.inline_bytes = min(inline.raw_bytes, RECORD_BYTES_MAX)

    def add(self, number: int, raw_bytes: int) -> None:
        """Take the next record into account."""
        if raw_bytes <= RECORD_BYTES_MAX:  # what claims more tells nothing of the others
            self.largest = max(self.largest, raw_bytes)
        if self.last[0] >= 0:
            self.smallest = min(self.smallest, self.last[1])
        self.count += 1
        if (number + 1) * RECORD_BYTES_MAX <= FILE_BYTES_MAX:
            self.last = number, min(raw_bytes, RECORD_BYTES_MAX)

    def fitting_log2(self, size: int) -> int:
        """Return the record size that fits best to a file of *size* bytes (0: of any size); there is always one."""
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

    def contradict(self, record_log2: int, size: int) -> bool:
        """Return whether a record is longer than a record can be, or the last one begins behind the end of the file."""
        begins_behind = self.last[0] > 0 and self.last[0] << record_log2 >= size
        return begins_behind or max(self.largest, self.inline_bytes) > 1 << record_log2

    def agreed_log2(self, size: int) -> int | None:
        """Return the one record size with which all records make a file of *size* bytes; None: there is none, or several.

        Where nothing but the first record is there, all sizes that it may have make the same file.
        """
        if self.last[0] <= 0:
            log2 = self.fitting_log2(size)
            return log2 if max(self.last[1], self.inline_bytes) == size and not self.contradict(log2, size) else None
        agreeing = [log2 for log2 in RECORD_LOG2 if not self.contradict(log2, size) and self._agree(log2, size)]
        return agreeing[0] if len(agreeing) == 1 else None

    def _agree(self, record_log2: int, size: int) -> bool:
        """Return whether the last record ends where the file does, or the records are full and the file ends in the last one.

        Behind several full records the file may end in a hole: what follows two of them is the third.
        """
        number, tail = self.last
        start, full = number << record_log2, 1 << record_log2
        if start + tail == size:
            return True
        return self.largest == full and (size <= start + full or (self.count > 2 and self.smallest == full))


def lengths_of(tree: TreeIndex, number: InodeNo) -> RecordLengths:
    """Return how long the records of inode *number* are; what cannot be read tells nothing."""
    found = RecordLengths(tree.image.superblock.record_bytes.bit_length() - 1)
    for key, value in tree.range_items(kind_range(number, Kind.INLINE_DATA)[0], kind_range(number, Kind.DATA_RECORD)[1]):
        with suppress(CorruptImage):
            if key[KIND_AT] == Kind.INLINE_DATA:
                found.add_inline(InlineData.decode(value))
            elif key[KIND_AT] == Kind.DATA_RECORD:
                found.add(offset_of(key), DataRecord.decode(value).raw_bytes)
    return found
