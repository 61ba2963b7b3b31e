"""The ground: records, nodes, checksums, compression."""

import crc32c

from bench.material import text
from bench.micro.conftest import Measure
from razortools.format.compression import Algorithm, pack, unpack
from razortools.format.data import blocks_crc32
from razortools.format.inode import Inode
from razortools.format.keys import inode_key
from razortools.format.node import NodeHeader, decode_items, encode_node
from razortools.units import KIB, InodeNo

RECORD = text()[: 128 * KIB]
KEYS = [inode_key(InodeNo(number)) for number in range(130)]
VALUES = [bytes(88)] * len(KEYS)
HEADER = NodeHeader(1, 2, 3, 4, len(KEYS), 0, 0, 88 * len(KEYS), KEYS[0], KEYS[-1])


def test_decode(measure: Measure) -> None:
    """Decode an inode."""
    raw = Inode(*range(18)).encode()
    measure(lambda: Inode.decode(raw))


def test_encode_node(measure: Measure) -> None:
    """Encode a leaf of 130 inodes."""
    measure(lambda: encode_node(HEADER, KEYS, VALUES, 16 * KIB), size_bytes=16 * KIB)


def test_decode_node(measure: Measure) -> None:
    """Unpack a leaf of 130 inodes."""
    raw, _ = encode_node(HEADER, KEYS, VALUES, 16 * KIB)
    measure(lambda: decode_items(raw, HEADER), size_bytes=16 * KIB)


def test_checksums(measure: Measure) -> None:
    """Both checksums of 128 KiB."""
    measure(lambda: (crc32c.crc32c(RECORD), blocks_crc32(RECORD)), size_bytes=len(RECORD))


def test_compress(measure: Measure) -> None:
    """Compress 128 KiB of sources, zstd:1."""
    measure(lambda: pack(RECORD, Algorithm.ZSTD, 1), size_bytes=len(RECORD))


def test_decompress(measure: Measure) -> None:
    """Decompress 128 KiB of sources, zstd."""
    stored = pack(RECORD, Algorithm.ZSTD, 1)
    measure(lambda: unpack(stored, Algorithm.ZSTD, len(RECORD)), size_bytes=len(RECORD))


def test_compress_fast(measure: Measure) -> None:
    """Compress 128 KiB of sources, lz4."""
    measure(lambda: pack(RECORD, Algorithm.LZ4), size_bytes=len(RECORD))
