"""Pieces: where the contents of files are broken up, and what is worth being put together.

A file is looked at in chunks of a few megabytes, so a terabyte takes no more memory than a megabyte. Invariants: a chunk is the
same each time, wherever its records lie; what was put together is never found to be scattered again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from razortools.check.image import Image
from razortools.check.tree import TreeIndex, kinds_mask
from razortools.format.data import CUT_OUT, DataRecord, Run, joined
from razortools.format.items import owned_record
from razortools.format.keys import Kind, Table
from razortools.units import MIB

CHUNK_BYTES = 4 * MIB  # no more has to be found free in one run
# A disk seeks in about the time in which it reads a megabyte. Where pieces are as large, joining them gains less than the half.
PIECE_BYTES_MIN = 1 * MIB

Owned = tuple[bytes, bytes, DataRecord]  # key, value, the record in it


@dataclass(slots=True)
class Chunk:
    """Records that follow one another in a file, or the one of a large extended attribute."""

    block_bytes: int
    records: list[Owned] = field(default_factory=list)
    block_count: int = 0
    joins_before: bool = False  # its first record lies right behind the record before it in the file
    joins_after: bool = False

    def add(self, owned: Owned) -> None:
        """Take one more record."""
        self.records.append(owned)
        self.block_count += owned[2].block_count(self.block_bytes)

    def runs(self, first: int = 0, behind: int | None = None) -> list[Run]:
        """Return where the records, or some of them, lie; what lies side by side is one run."""
        return joined(run for _, _, record in self.records[first:behind] for run in record.runs(self.block_bytes))

    @property
    def piece_count(self) -> int:
        """In how many pieces it lies."""
        return len(self.runs())

    @property
    def is_scattered(self) -> bool:
        """Whether it lies in pieces that are small."""
        count = self.piece_count
        return count > 1 and self.block_count * self.block_bytes < count * PIECE_BYTES_MIN

    def joins(self, place: int) -> bool:
        """Return whether record number *place* lies right behind the one before it; the numbers around those here count too."""
        if place == 0:
            return self.joins_before
        if place == len(self.records):
            return self.joins_after
        return self._end_of(place - 1) == self.records[place][2].runs(self.block_bytes)[0][0]

    def _end_of(self, place: int) -> int:
        first, count = self.records[place][2].runs(self.block_bytes)[-1]
        return first + count


def chunks(image: Image, tree: TreeIndex) -> Iterator[Chunk]:
    """Yield the chunks of all files and large extended attributes, in the order of the keys. What was cut out is in none."""
    bb = image.block_bytes
    chunk = Chunk(bb)
    for _, (keys, values) in tree.leaves(kinds_mask(Kind.XATTR, Kind.DATA_RECORD)):
        for key, value in zip(keys, values, strict=True):
            record = owned_record(key, value) if key[0] == Table.FILES else None
            if record is None:
                continue
            after = Chunk(bb)
            if chunk.records and not _belong_together(chunk, key, record):
                yield chunk
                chunk = after
            elif chunk.block_count * bb >= CHUNK_BYTES:
                chunk.joins_after = after.joins_before = chunk.runs()[-1][0] + chunk.runs()[-1][1] == record.runs(bb)[0][0]
                yield chunk
                chunk = after
            if not record.flags & CUT_OUT:
                chunk.add((key, value, record))
    if chunk.records:
        yield chunk


def _belong_together(chunk: Chunk, key: bytes, record: DataRecord) -> bool:
    """Return whether *key* is the next record of the file that *chunk* is of: of the same inode, and data like the one before."""
    before = chunk.records[-1][0]
    return before[:10] == key[:10] and key[9] == Kind.DATA_RECORD and not record.flags & CUT_OUT
