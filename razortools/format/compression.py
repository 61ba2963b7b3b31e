"""Compression: zstd, lz4 and zlib behind three functions. The only module that knows these libraries.

These functions are pure and release the interpreter lock while they work, so threads may call them side by side.
"""

import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import lz4.block
import zstandard

from razortools.errors import CorruptImage, UsageError
from razortools.format.data import RECORD_BYTES_MAX


class Algorithm(IntEnum):
    """How stored bytes are compressed. AUTO is a policy only and never stored with data."""

    NONE = 0
    ZSTD = 1
    LZ4 = 2
    ZLIB = 3
    AUTO = 255


STORED = frozenset(Algorithm) - {Algorithm.AUTO}  # what data may say of themselves
LEVELS = {Algorithm.ZSTD: range(-7, 20), Algorithm.ZLIB: range(1, 10)}
USUAL_LEVEL = {Algorithm.ZSTD: 1, Algorithm.ZLIB: 6}

_local = threading.local()  # zstd contexts may not be shared between threads


@dataclass(frozen=True, slots=True)
class Policy:
    """What to do with new data: an algorithm, or AUTO; level 0 is the algorithm's usual one."""

    algorithm: Algorithm = Algorithm.AUTO
    level: int = 0

    def __str__(self) -> str:
        name = self.algorithm.name.lower()
        return f"{name}:{self.level}" if self.level else name


def parse_policy(text: str) -> Policy:
    """Return the policy that *text* means: auto, none, zstd[:LEVEL], lz4, zlib[:LEVEL]. Raises UsageError."""
    name, _, level = text.partition(":")
    try:
        algorithm = Algorithm[name.upper()]
        policy = Policy(algorithm, int(level) if level else 0)
    except (KeyError, ValueError):
        raise UsageError(f"'{text}' is not a compression; choose auto, none, zstd[:LEVEL], lz4 or zlib[:LEVEL]") from None
    if policy.level and policy.level not in LEVELS.get(algorithm, ()):
        raise UsageError(f"'{text}': {name} takes no level {level}")
    return policy


def pack(raw: bytes, algorithm: Algorithm, level: int = 0) -> bytes:
    """Return *raw* compressed with *algorithm* (not AUTO); level 0 is its usual level. Whether it shrank, the caller sees."""
    if algorithm is Algorithm.NONE:
        return raw
    if algorithm is Algorithm.ZSTD:
        return _zstd_compressor(level or USUAL_LEVEL[algorithm]).compress(raw)
    if algorithm is Algorithm.LZ4:
        return bytes(lz4.block.compress(raw, store_size=False))
    return zlib.compress(raw, level or USUAL_LEVEL[Algorithm.ZLIB])


def pack_all(raws: Sequence[bytes], algorithm: Algorithm, level: int = 0) -> list[bytes]:
    """Return each of *raws* as pack() does, or as it is if it did not shrink, in their order.

    zstd does them in one go: a thread that comes back to the interpreter after each record waits for its lock each time, up to
    half a millisecond beside one that is busy, and keeps that one from its work.
    """
    if algorithm is not Algorithm.ZSTD or len(raws) < 2 or "multi_compress_to_buffer" not in zstandard.backend_features:
        return [pack(raw, algorithm, level) for raw in raws]
    packed = _zstd_compressor(level or USUAL_LEVEL[algorithm]).multi_compress_to_buffer(list(raws), threads=0)
    return [packed[number].tobytes() if len(packed[number]) < len(raw) else raw for number, raw in enumerate(raws)]


def unpack(stored: bytes | memoryview, algorithm: int, raw_bytes: int) -> bytes:
    """Return exactly *raw_bytes* bytes. Raises CorruptImage if *stored* does not decompress to that, or nothing can be that long.

    *raw_bytes* may come from an item that makes no sense: no memory is taken on its word beyond what a record may hold.
    """
    if raw_bytes > RECORD_BYTES_MAX:
        raise CorruptImage(f"stored bytes claim to hold {raw_bytes} bytes, {RECORD_BYTES_MAX} are the most that is possible")
    try:
        if algorithm == Algorithm.NONE:
            raw = bytes(stored)
        elif algorithm == Algorithm.ZSTD:
            # The frame's own idea of its size decides how much memory is taken: judged first.
            if zstandard.frame_content_size(stored) != raw_bytes:
                raise CorruptImage(f"stored bytes claim another size than the {raw_bytes} bytes expected")
            raw = _zstd_decompressor().decompress(stored)
        elif algorithm == Algorithm.LZ4:
            raw = bytes(lz4.block.decompress(stored, uncompressed_size=raw_bytes))
        elif algorithm == Algorithm.ZLIB:
            inflater = zlib.decompressobj()
            raw = inflater.decompress(stored, raw_bytes + 1)  # one more, so that too long data and its checksum are noticed
            if not inflater.eof:
                raise CorruptImage(f"stored bytes do not decompress to {raw_bytes} bytes")
        else:
            raise CorruptImage(f"unknown compression algorithm {algorithm}")
    except (zstandard.ZstdError, lz4.block.LZ4BlockError, zlib.error, ValueError, MemoryError) as broken:
        raise CorruptImage(f"stored bytes do not decompress: {broken}") from None
    if len(raw) != raw_bytes:
        raise CorruptImage(f"stored bytes decompress to {len(raw)} bytes, {raw_bytes} expected")
    return raw


def frame_bytes(stored: bytes) -> int:
    """Return how many bytes a zstd frame tells that it holds (RFC 8878, frame header); 0: none, or it is no frame."""
    try:
        return max(int(zstandard.frame_content_size(stored)), 0)
    except zstandard.ZstdError:
        return 0


def _zstd_compressor(level: int) -> zstandard.ZstdCompressor:
    contexts: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in contexts:
        contexts[level] = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False)
    return contexts[level]


def _zstd_decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    found: zstandard.ZstdDecompressor = _local.decompressor
    return found
