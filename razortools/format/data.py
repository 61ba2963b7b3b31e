"""File data: which stored bytes hold which part of a file.

Record n of a file covers bytes [n * record size, (n + 1) * record size). An absent record is a hole; bytes behind a
record's raw_bytes and before the file's end are zeros. Small files keep their bytes in the tree instead.
"""

import struct
from collections.abc import Iterable
from typing import Annotated

import crc32c
from construct import GreedyBytes, Int8ul, Int32ul, Int64ul

from razortools.errors import CorruptImage
from razortools.format.record import Record, record
from razortools.units import BlockNo, divide_up

CUT_OUT = 2  # flag of a record that a repair gave up; reading it is an error
RECORD_BYTES_MIN = 4096
RECORD_BYTES_MAX = 1 << 20
FILE_BYTES_MAX = (1 << 63) - 1 - RECORD_BYTES_MAX
_BLOCK_MASK = 0xFFFF_FFFF_FFFF  # an address is a device number (16 bits) and a block number (48 bits)
_RUN = struct.Struct("<QL")

Run = tuple[BlockNo, int]  # first block, block count


@record()
class DataRecord(Record):
    """Blocks that hold one piece of a file, or one large extended attribute. One run, unless the image is fragmented."""

    address: Annotated[int, Int64ul * "first block; the top 16 bits are the device number, 0 in this version"]
    stored_bytes: Annotated[int, Int32ul * "bytes stored, before padding with zeros to whole blocks"]
    raw_bytes: Annotated[int, Int32ul * "bytes after decompression"]
    crc32c: Annotated[int, Int32ul * "CRC32C of the stored blocks, padding included"]
    algorithm: Annotated[int, Int8ul * "how it is compressed"]
    flags: Annotated[int, Int8ul * "bit 0: an extension follows (none is defined); bit 1: cut out, it may own no blocks"]
    birth: Annotated[int, Int64ul * "generation in which it was written"]
    more: Annotated[bytes, GreedyBytes * "further runs, usually none: address u64, blocks u32 each"] = b""

    def block_count(self, block_bytes: int) -> int:
        """Return how many blocks it takes."""
        return divide_up(self.stored_bytes, block_bytes)

    def runs(self, block_bytes: int) -> list[Run]:
        """Return its (first block, block count) runs in the order of the data. Raises CorruptImage if they do not add up."""
        total = divide_up(self.stored_bytes, block_bytes)
        if not self.more:
            return [(BlockNo(self.address & _BLOCK_MASK), total)]
        if len(self.more) % _RUN.size:
            raise CorruptImage(f"data record at block {self.address}: its list of runs is cut off")
        further = [(BlockNo(address & _BLOCK_MASK), count) for address, count in _RUN.iter_unpack(self.more)]
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


def laid_over(base: bytes | bytearray, pieces: Iterable[tuple[int, bytes]]) -> bytes:
    """Return *base* with (place, bytes) pieces over it; what lies between is zeros."""
    data = bytearray(base)
    for at, piece in pieces:
        if at > len(data):
            data.extend(bytes(at - len(data)))
        data[at : at + len(piece)] = piece
    return bytes(data)


def make_record(
    runs: list[Run], stored: bytes, raw_bytes: int, algorithm: int, birth: int, block_bytes: int
) -> tuple[DataRecord, bytes]:
    """Return (record, *stored* padded with zeros to whole blocks) for data that is to lie in *runs*.

    The checksum covers the padding, so that a changed byte anywhere in the blocks is noticed.
    """
    padded = stored + bytes(-len(stored) % block_bytes)
    more = b"".join(_RUN.pack(first, count) for first, count in runs[1:])
    return DataRecord(runs[0][0], len(stored), raw_bytes, crc32c.crc32c(padded), algorithm, 0, birth, more), padded
