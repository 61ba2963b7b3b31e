"""Stored bytes that stand for others: of the same length, nearly all zeros, and they decompress just as well or as badly.

What a record decompresses to has no meaning here, only how many bytes it is. So each algorithm gets the shortest text that makes
so many equal bytes, and zeros up to the length that was asked for.
"""

from functools import lru_cache

from razortools.errors import CorruptImage
from razortools.format.compression import Algorithm, pack, unpack
from razortools.units import KIB

FILL = 0x78  # what the contents are made of where they are compressed: the letter x
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK_BYTES = 128 * KIB
_SINGLE_SEGMENT = 0x20
_LAST_BLOCK, _RUN_BLOCK = 1, 2
_LZ4_ENDS = range(5, 15)  # literals at the end: five at the least, and so few that their number fits into the token
_LZ4_MATCH_MIN = 4


@lru_cache(maxsize=1024)
def stand_in(algorithm: int, stored_bytes: int, raw_bytes: int, *, whole: bool = True) -> tuple[int, bytes]:
    """Return (algorithm, *stored_bytes* bytes) that decompress to *raw_bytes*; if not *whole*, that do not.

    The algorithm is another one only if there is no such text for the one that was asked for.
    """
    made = ((algorithm, text) for text in _texts(algorithm, stored_bytes, raw_bytes))
    other = ((int(one), text) for one in (Algorithm.ZSTD, Algorithm.NONE) for text in _texts(one, stored_bytes, raw_bytes))
    if not whole:
        broken = ((algorithm, text) for text in (bytes(stored_bytes), b"\xff" * stored_bytes))
        return next((one for one in broken if not decompresses(*one, raw_bytes)), (algorithm, bytes(stored_bytes)))
    fitting = (one for part in (made, other) for one in part if decompresses(*one, raw_bytes))
    return next(fitting, (algorithm, bytes(stored_bytes)))


def decompresses(algorithm: int, stored: bytes, raw_bytes: int) -> bool:
    """Return whether *stored* decompresses to *raw_bytes* bytes."""
    try:
        unpack(stored, algorithm, raw_bytes)
    except CorruptImage:
        return False
    return True


def _texts(algorithm: int, stored_bytes: int, raw_bytes: int) -> list[bytes]:
    """Return texts of *stored_bytes* that may do."""
    if algorithm == Algorithm.LZ4:
        as_it_is = bytes([min(raw_bytes, 15) << 4]) + _lz4_more(raw_bytes - 15) + bytes(raw_bytes)
        texts = (as_it_is if len(as_it_is) == stored_bytes else None, *(_lz4(stored_bytes, raw_bytes, end) for end in _LZ4_ENDS))
        return [text for text in texts if text is not None]
    if algorithm == Algorithm.ZSTD:
        text = _zstd(raw_bytes)
    elif algorithm == Algorithm.ZLIB:
        text = pack(bytes([FILL]) * raw_bytes, Algorithm.ZLIB, 9)
    else:
        text = b""
    return [text.ljust(stored_bytes, b"\0")] if len(text) <= stored_bytes else []


def _zstd(raw_bytes: int) -> bytes:
    """Return the shortest frame (RFC 8878) of *raw_bytes* equal bytes that tells its size: blocks of "this byte, so often"."""
    if raw_bytes < 256:
        head = bytes([_SINGLE_SEGMENT, raw_bytes])
    elif raw_bytes < 256 + 65536:
        head = bytes([_SINGLE_SEGMENT | 1 << 6]) + (raw_bytes - 256).to_bytes(2, "little")
    else:
        head = bytes([_SINGLE_SEGMENT | 2 << 6]) + raw_bytes.to_bytes(4, "little")
    blocks = b""
    left = raw_bytes
    while left or not blocks:
        size = min(left, _ZSTD_BLOCK_BYTES)
        left -= size
        blocks += (size << 3 | _RUN_BLOCK | (0 if left else _LAST_BLOCK)).to_bytes(3, "little") + bytes([FILL])
    return _ZSTD_MAGIC + head + blocks


def _lz4(stored_bytes: int, raw_bytes: int, end: int) -> bytes | None:
    """Return a block of exactly *stored_bytes*: zeros as they are, one match that repeats the last of them, *end* zeros; or None.

    LZ4's blocks allow nothing behind their end, so the zeros as they are make it as long as it must be.
    """
    low, high = 1, min(stored_bytes, raw_bytes - end - _LZ4_MATCH_MIN)
    while low <= high:  # more of them make it longer, by what they take and less by what the match does not
        literals = (low + high) // 2
        text = _lz4_block(literals, raw_bytes - end - literals, end)
        if len(text) == stored_bytes:
            return text
        low, high = (literals + 1, high) if len(text) < stored_bytes else (low, literals - 1)
    return None


def _lz4_block(literals: int, match: int, end: int) -> bytes:
    token = min(literals, 15) << 4 | min(match - _LZ4_MATCH_MIN, 15)
    head = bytes([token]) + _lz4_more(literals - 15)
    return head + bytes(literals) + b"\1\0" + _lz4_more(match - _LZ4_MATCH_MIN - 15) + bytes([end << 4]) + bytes(end)


def _lz4_more(number: int) -> bytes:
    """Return what is left of a number that did not fit into the token."""
    return b"\xff" * (number // 255) + bytes([number % 255]) if number >= 0 else b""
