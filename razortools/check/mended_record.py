"""Data in which one bit flipped: what they were before, and whether that is certain. The one place that decides it.

The CRC32C of a record tells which bit may have flipped. Other damage looks like one flipped bit in one case of 2**32 / bits: 4096
for 128 KiB. So a second witness must agree that is independent of the first: the record's second checksum, or the checksum of
the raw bytes that zlib stores with them. That data decompress is no witness: with two wrong bits in 128 KiB, about half the
records that zstd or lz4 made still do (bench/decisions.py). Where there is no witness the data stay as they are, which means
that they cannot be read: nothing wrong is ever returned.
"""

from dataclasses import dataclass

from razortools.check.bitflip import find_flipped_bit, is_certain, turned
from razortools.errors import CorruptImage
from razortools.format.compression import Algorithm
from razortools.format.data import LATE, DataRecord, blocks_crc32
from razortools.format.unpacking import unpack_record

_WITNESS_BITS = 32  # of the second checksum, and of zlib's own


@dataclass(frozen=True, slots=True)
class Mended:
    """The blocks of a record as they were written, which bit of them had flipped, and what they hold."""

    blocks: bytes
    bit: int
    raw: bytes


def mended(record: DataRecord, blocks: bytes) -> Mended | None:
    """Return what *blocks*, which do not verify, were before a bit flipped; None: that is not what happened, or not certain."""
    bit = find_flipped_bit(blocks, record.crc32c)
    if bit is None:
        return None
    whole = turned(blocks, bit)
    proof_bits = 0
    second = record.second_checksum
    if second is not None:
        if blocks_crc32(whole) != second:
            return None
        proof_bits += _WITNESS_BITS
    if record.algorithm == Algorithm.ZLIB and not record.flags & LATE:  # zlib's own checksum does not cover late pages
        proof_bits += _WITNESS_BITS
    if not is_certain(8 * len(blocks), proof_bits):
        return None
    try:
        raw = unpack_record(record, whole)
    except CorruptImage:
        return None
    return Mended(whole, bit, raw)
