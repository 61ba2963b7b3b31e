"""Contents that stand in the tree and do not decompress as they say: another algorithm, or length, with which they do.

One of both is wrong. Whatever decompresses to just the bytes that are told was made so: each algorithm has its own form, and the
length is told by zstd's frame, by the file's size, or by what one wrong bit of it leaves possible.
"""

from collections.abc import Iterator
from dataclasses import replace

from razortools.errors import CorruptImage
from razortools.format.compression import STORED, Algorithm, frame_bytes, unpack
from razortools.format.data import RECORD_BYTES_MAX, InlineData

_LENGTH_BITS = range(RECORD_BYTES_MAX.bit_length())


def right_inline(inline: InlineData, size: int) -> tuple[InlineData, bytes] | None:
    """Return (*inline* with its algorithm or length corrected, what it holds), or None. *size*: of its file."""
    for candidate in (*_other_algorithms(inline), *_other_lengths(inline, size)):
        try:
            return candidate, unpack(candidate.stored, candidate.algorithm, candidate.raw_bytes)
        except CorruptImage:
            continue
    return None


def _other_algorithms(inline: InlineData) -> Iterator[InlineData]:
    for algorithm in sorted(STORED):
        if algorithm != inline.algorithm:
            yield replace(inline, algorithm=algorithm)


def _other_lengths(inline: InlineData, size: int) -> Iterator[InlineData]:
    told = len(inline.stored) if inline.algorithm == Algorithm.NONE else frame_bytes(inline.stored)
    for raw_bytes in (told, size, *(inline.raw_bytes ^ 1 << bit for bit in _LENGTH_BITS)):
        if 0 < raw_bytes <= RECORD_BYTES_MAX:
            yield replace(inline, raw_bytes=raw_bytes)
