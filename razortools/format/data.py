"""File data: which stored bytes hold which part of a file.

Record n of a file covers bytes [n * record size, (n + 1) * record size). An absent record is a hole; bytes behind a
record's raw_bytes and before the file's end are zeros. Small files keep their bytes in the tree instead.

Stored blocks have two checksums. Whoever reads them verifies the CRC32C, which notices damage. The second one is for a repair:
the CRC32C tells which single bit may have flipped, but of other damage one case in 2**32 / bits looks like that. The CRC-32 of
Ethernet and zlib has another polynomial, without a common factor, so both together are one CRC of 64 bits: of other damage,
one case in 2**64 / bits looks like one flipped bit to both. Nobody computes it when reading.

A record need not be stored anew when pages of it change: they may be written behind it as late pages. Its stored blocks are then
those of the record below, and after them a page for each change, and the checksums cover all of them.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated

import crc32c
from construct import GreedyBytes, Int8ul, Int32ul, Int64ul
from zlib_ng.zlib_ng import crc32  # ten times as fast as the zlib of most systems; the numbers are the same

from razortools.errors import CorruptImage
from razortools.format.late_pages import LATE_PAGE_BYTES, LatePages
from razortools.format.record import Record, record
from razortools.units import BlockNo, divide_up

CHECKED_TWICE = 1  # flag of a record that has a second checksum
CUT_OUT = 2  # flag of a record that a repair gave up; reading it is an error
LATE = 4  # flag of a record with late pages
READABLE = CHECKED_TWICE | LATE  # the flags of records that can be read
RECORD_BYTES_MIN = 4096
RECORD_BYTES_MAX = 1 << 20
RECORD_LOG2 = range(RECORD_BYTES_MIN.bit_length() - 1, RECORD_BYTES_MAX.bit_length())  # the sizes are powers of two
STORED_BYTES_MAX = 2 * RECORD_BYTES_MAX  # no more than its contents, and the pages behind it
FILE_BYTES_MAX = (1 << 63) - 1 - RECORD_BYTES_MAX
_BLOCK_MASK = 0xFFFF_FFFF_FFFF  # an address is a device number (16 bits) and a block number (48 bits)
_RUN = struct.Struct("<QL")
RUN_BYTES = _RUN.size

Run = tuple[BlockNo, int]  # first block, block count


@record()
class SecondChecksum(Record):
    """A proof apart from CRC32C, by which a repair tells a flipped bit from other damage. Nobody else reads it."""

    crc32: Annotated[int, Int32ul * "CRC-32 (polynomial 0x04C11DB7, as in zlib) of the stored blocks, padding included"]


@record()
class DataRecord(Record):
    """Blocks that hold one piece of a file, or one large extended attribute. One run, unless the image is fragmented."""

    address: Annotated[int, Int64ul * "first block; the top 16 bits are the device number, 0 in this version"]
    stored_bytes: Annotated[int, Int32ul * "bytes stored, before padding with zeros to whole blocks"]
    raw_bytes: Annotated[int, Int32ul * "bytes after decompression"]
    crc32c: Annotated[int, Int32ul * "CRC32C of the stored blocks, padding included"]
    algorithm: Annotated[int, Int8ul * "how it is compressed"]
    flags: Annotated[int, Int8ul * "bit 0: second checksum follows; bit 1: cut out, it may own no blocks; bit 2: late pages"]
    birth: Annotated[int, Int64ul * "generation in which it was written"]
    more: Annotated[
        bytes,
        GreedyBytes
        * "second checksum if flag bit 0 is set; LatePages if bit 2 is; further runs, usually none: address u64, blocks u32 each",
    ] = b""

    @property
    def second_checksum(self) -> int | None:
        """The CRC-32 that its blocks must have; None: it has none, or it is cut off."""
        if not self.flags & CHECKED_TWICE or len(self.more) < SecondChecksum.FIXED_BYTES:
            return None
        return SecondChecksum.decode(self.more[: SecondChecksum.FIXED_BYTES]).crc32

    @property
    def _behind_second_checksum(self) -> bytes:
        if not self.flags & CHECKED_TWICE:
            return self.more
        if len(self.more) < SecondChecksum.FIXED_BYTES:
            raise CorruptImage(f"data record at block {self.address}: its second checksum is cut off")
        return self.more[SecondChecksum.FIXED_BYTES :]

    @property
    def late_pages(self) -> LatePages | None:
        """Which of its pages were written later; None: none were. Raises CorruptImage if that is cut off."""
        if not self.flags & LATE:
            return None
        late = LatePages.at_start_of(self._behind_second_checksum)
        if late is None:
            raise CorruptImage(f"data record at block {self.address}: the list of its late pages is cut off")
        return late

    @property
    def further_runs(self) -> bytes:
        """Its runs but for the first one, as they are stored. Raises CorruptImage if what stands before them is cut off."""
        late = self.late_pages
        rest = self._behind_second_checksum
        return rest if late is None else rest[late.encoded_bytes :]

    def checked_by(self, crc32: int | None) -> "DataRecord":
        """Return the record with another second checksum, or without one. Raises CorruptImage if the one it has is cut off."""
        rest = self._behind_second_checksum
        flags, second = (self.flags & ~CHECKED_TWICE, b"") if crc32 is None else (
            self.flags | CHECKED_TWICE, SecondChecksum(crc32).encode()
        )  # fmt: skip
        return replace(self, flags=flags, more=second + rest)

    def lies_like(self, other: "DataRecord") -> bool:
        """Return whether both name the same blocks. Raises CorruptImage if a second checksum is cut off."""
        return self.address == other.address and self.further_runs == other.further_runs

    def moved_to(self, first: BlockNo) -> "DataRecord":
        """Return the record as it is when its blocks lie in one run from *first* on. Raises CorruptImage as further_runs does."""
        return replace(self, address=int(first), more=self.more[: len(self.more) - len(self.further_runs)])

    def placed(self, runs: Sequence[Run]) -> "DataRecord":
        """Return the record as it is when its blocks lie in *runs*. Raises CorruptImage as further_runs does."""
        further = b"".join(_RUN.pack(first, count) for first, count in runs[1:])
        return replace(self, address=int(runs[0][0]), more=self.more[: len(self.more) - len(self.further_runs)] + further)

    def block_count(self, block_bytes: int) -> int:
        """Return how many blocks it takes."""
        return divide_up(self.stored_bytes, block_bytes)

    def runs(self, block_bytes: int) -> list[Run]:
        """Return its (first block, block count) runs in the order of the data. Raises CorruptImage if they do not add up."""
        if self.stored_bytes > STORED_BYTES_MAX:
            raise CorruptImage(f"data record at block {self.address}: {self.stored_bytes} bytes are more than one can take")
        total = divide_up(self.stored_bytes, block_bytes)
        if not self.flags & LATE and len(self.more) == (SecondChecksum.FIXED_BYTES if self.flags & CHECKED_TWICE else 0):
            return [(BlockNo(self.address & _BLOCK_MASK), total)]
        more = self.further_runs
        if len(more) % _RUN.size:
            raise CorruptImage(f"data record at block {self.address}: its list of runs is cut off")
        further = [(BlockNo(address & _BLOCK_MASK), count) for address, count in _RUN.iter_unpack(more)]
        first_count = total - sum(count for _, count in further)
        if first_count <= 0 or any(count <= 0 for _, count in further):
            raise CorruptImage(f"data record at block {self.address}: its runs do not add up to {total} blocks")
        return [(BlockNo(self.address & _BLOCK_MASK), first_count), *further]


@record()
class InlineData(Record):
    """The whole contents of a small file or symlink, kept in the tree."""

    algorithm: Annotated[int, Int8ul * "how it is compressed"]
    raw_bytes: Annotated[int, Int32ul * "bytes after decompression"]
    stored: Annotated[bytes, GreedyBytes * "the stored bytes"]


@record()
class Patch(Record):
    """Bytes of a file that are newer than the record below them: a small change that was synced and is not in its record yet.

    It covers an eighth of a node's size, 2 KiB at the most, from the place in its key on; fewer bytes if the file or its record
    ended there. What a file holds are its records with its patches laid over them. Whoever stores a record anew removes these.
    """

    reserved: Annotated[int, Int8ul * "zero"]
    data: Annotated[bytes, GreedyBytes * "the bytes, at least one"]


def laid_over(base: bytes | bytearray, pieces: Iterable[tuple[int, bytes | memoryview]]) -> bytes:
    """Return *base* with (place, bytes) pieces over it; what lies between is zeros."""
    data = bytearray(base)
    for at, piece in pieces:
        if at > len(data):
            data.extend(bytes(at - len(data)))
        data[at : at + len(piece)] = piece
    return bytes(data)


def blocks_crc32(blocks: bytes | bytearray | memoryview) -> int:
    """Return the second checksum of stored *blocks*."""
    return int(crc32(blocks))


def make_record(
    runs: list[Run], stored: bytes, raw_bytes: int, algorithm: int, birth: int, block_bytes: int, *, twice: bool
) -> tuple[DataRecord, bytes]:
    """Return (record, *stored* padded with zeros to whole blocks) for data that is to lie in *runs*.

    The checksums cover the padding, so that a changed byte anywhere in the blocks is noticed. *twice*: the record gets the
    second one, which only an image may have that announces it.
    """
    padded = stored + bytes(-len(stored) % block_bytes)
    more = b"".join(_RUN.pack(first, count) for first, count in runs[1:])
    flags = 0
    if twice:
        flags, more = CHECKED_TWICE, SecondChecksum.STRUCT.pack(crc32(padded)) + more
    return DataRecord(runs[0][0], len(stored), raw_bytes, crc32c.crc32c(padded), algorithm, flags, birth, more), padded


def with_late_pages(
    record: DataRecord, runs: list[Run], pages: Sequence[tuple[int, bytes]], birth: int, block_bytes: int
) -> tuple[DataRecord, bytes]:
    """Return (*record* with (place in it in bytes, page) *pages* written behind it in *birth*, what is to lie in *runs*).

    What lies in its blocks so far need not be read: the checksums go on from where they are. *block_bytes* divides a page.
    """
    late, written = record.late_pages, b"".join(page for _, page in pages)
    places = bytes(at // LATE_PAGE_BYTES for at, _ in pages)
    base_bytes = record.stored_bytes
    if late is not None:
        base_bytes, places = late.base_bytes, late.places + places
    second = record.second_checksum
    more = b"" if second is None else SecondChecksum(int(crc32(written, second))).encode()
    more += LatePages(base_bytes, len(places), places).encode() + record.further_runs
    more += b"".join([_RUN.pack(first, count) for first, count in runs])
    stored_bytes = record.block_count(block_bytes) * block_bytes + len(written)
    checksum = crc32c.crc32c(written, record.crc32c)
    return DataRecord(
        record.address, stored_bytes, record.raw_bytes, checksum, record.algorithm, record.flags | LATE, birth, more
    ), written  # fmt: skip


def changed_runs(old: DataRecord | None, new: DataRecord | None, block_bytes: int) -> tuple[list[Run], list[Run]]:
    """Return the runs that only *old* names and those that only *new* does: what an item lets go and takes when it changes.

    A record with more late pages goes on where it was. Raises CorruptImage as DataRecord.runs does.
    """
    if old is None or new is None:
        return (old.runs(block_bytes) if old is not None else []), (new.runs(block_bytes) if new is not None else [])
    if not (old.flags | new.flags) & LATE and old.lies_like(new):
        return [], []
    return differing(old.runs(block_bytes), new.runs(block_bytes))


def late_part(old: DataRecord | None, new: DataRecord, block_bytes: int) -> tuple[list[Run], int] | None:
    """Return (the runs of the late pages that *new* has and *old* has not, the checksum from which theirs goes on to *new*'s).

    None if *new* is not *old* with more late pages: who wrote it wrote all of it. Raises CorruptImage as DataRecord.runs does.
    """
    if old is None or not new.flags & LATE:
        return None
    before, after = old.runs(block_bytes), new.runs(block_bytes)
    if len(after) <= len(before) or after[: len(before)] != before:
        return None
    return after[len(before) :], old.crc32c


def joined(runs: Iterable[Run]) -> list[Run]:
    """Return *runs*, those that follow one another on the device as one."""
    found: list[Run] = []
    for first, count in runs:
        if found and found[-1][0] + found[-1][1] == first:
            found[-1] = found[-1][0], found[-1][1] + count
        else:
            found.append((first, count))
    return found


def differing(before: list[Run], after: list[Run]) -> tuple[list[Run], list[Run]]:
    """Return what is left of two lists of runs without those that both begin with."""
    kept = 0
    while kept < min(len(before), len(after)) and before[kept] == after[kept]:
        kept += 1
    return before[kept:], after[kept:]
