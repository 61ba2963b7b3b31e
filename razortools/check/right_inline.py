"""Contents that stand in the tree and do not decompress as they say: another algorithm, or length, with which they do.

One of both is wrong, if either is. Where the size of the file says the same length, that is right, and the bytes are wrong unless
another algorithm makes just so many of them. Else zstd's frame tells the length, zlib's own checksum vouches for one, and the
file's size tells that of all others.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain

from razortools.errors import CorruptImage
from razortools.format.compression import STORED, Algorithm, frame_bytes, unpack
from razortools.format.data import RECORD_BYTES_MAX, InlineData

_LENGTH_BITS = range(32)  # of the field


def right_inline(inline: InlineData, size: int) -> tuple[InlineData, bytes]:
    """Return (*inline*, as it is or with its algorithm or length corrected, what it holds). *size*: of its file.

    Raises CorruptImage with what is wrong with it as it is, if it can be read in no way.
    """
    try:
        return inline, _unpacked(inline)
    except CorruptImage as broken:
        failure = broken
    for candidate in chain(_other_algorithms(inline), _other_lengths(inline, size)):
        with suppress(CorruptImage):
            return candidate, _unpacked(candidate)
    raise failure


def _unpacked(inline: InlineData) -> bytes:
    return unpack(inline.stored, inline.algorithm, inline.raw_bytes)


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
