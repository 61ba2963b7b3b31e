"""Contents that stand in the tree and do not decompress as they say: another algorithm, or length, with which they do.

One of both is wrong, if either is. Where the size of the file says the same length, that is right, and the bytes are wrong unless
another algorithm makes just so many of them. Else zstd's frame tells the length, zlib's own checksum vouches for one, and the
file's size tells that of all others.
"""

from collections.abc import Iterator
from dataclasses import replace

from razortools.errors import CorruptImage
from razortools.format.compression import STORED, Algorithm, frame_bytes, unpack
from razortools.format.data import RECORD_BYTES_MAX, InlineData

_LENGTH_BITS = range(32)  # of the field


def right_inline(inline: InlineData, size: int) -> tuple[InlineData, bytes] | None:
    """Return (*inline*, as it is or with its algorithm or length corrected, what it holds), or None. *size*: of its file."""
    for candidate in (inline, *_other_algorithms(inline), *_other_lengths(inline, size)):
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
    if inline.raw_bytes == size:
        return
    told = [size]
    if inline.algorithm == Algorithm.ZSTD:
        told = [frame_bytes(inline.stored)]
    elif inline.algorithm == Algorithm.ZLIB:
        told = [inline.raw_bytes ^ 1 << bit for bit in _LENGTH_BITS]
    for raw_bytes in told:
        if 0 < raw_bytes <= RECORD_BYTES_MAX:
            yield replace(inline, raw_bytes=raw_bytes)
