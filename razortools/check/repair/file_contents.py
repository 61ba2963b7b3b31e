"""What the items of one file hold: for inodes that do not say it, or say it wrongly."""

from contextlib import suppress
from dataclasses import dataclass, field

from razortools.check.record_lengths import RecordLengths
from razortools.check.repair.draft import Draft
from razortools.check.repair.surveying import owned
from razortools.errors import CorruptImage
from razortools.format.data import InlineData, Patch
from razortools.format.keys import KIND_AT, Kind, Table, kind_range, object_range, offset_of
from razortools.units import InodeNo


@dataclass(slots=True)
class Contents:
    """The contents of a file, by its items alone."""

    lengths: RecordLengths
    kinds: set[int] = field(default_factory=set)
    blocks: int = 0  # of records and attributes
    patched_to: int = 0  # where the last of its patches ends

    def end(self, record_log2: int) -> int:
        """Return where the last byte of the file lies, by its records and the patches over them."""
        number, tail = self.lengths.last
        end: int = (number << record_log2) + tail if number >= 0 else 0
        end = max(end, self.lengths.inline_bytes)
        # A patch may make the last record longer. One that lies elsewhere makes no sense.
        return self.patched_to if end < self.patched_to <= (max(number, 0) + 1) << record_log2 else end


def contents_of(draft: Draft, number: int) -> Contents:
    """Return what the items of inode *number* hold."""
    found = Contents(RecordLengths(draft.image.superblock.record_bytes.bit_length() - 1))
    first, last = kind_range(InodeNo(number), Kind.XATTR)[0], kind_range(InodeNo(number), Kind.DATA_RECORD)[1]
    for key, value in draft.items(first, last):
        kind = key[KIND_AT]
        if kind == Kind.INLINE_DATA:
            found.kinds.add(kind)
            with suppress(CorruptImage):
                found.lengths.add_inline(InlineData.decode(value))
            continue
        record = owned(key, value)
        if record is None:
            continue
        found.blocks += record.block_count(draft.image.block_bytes)
        if kind == Kind.DATA_RECORD:
            found.kinds.add(kind)
            found.lengths.add(offset_of(key), record.raw_bytes)
    for key, value in draft.items(*object_range(Table.PATCHES, number)):
        found.patched_to = offset_of(key) + max(len(value) - Patch.FIXED_BYTES, 0)
    return found
