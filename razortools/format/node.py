"""Tree nodes: packed bytes on the device, sorted keys and values inside.

Layout: header, then all keys (18 bytes each), then the end of each value (u16 each, counted from the first value), then the
values. Level 0 holds items; above, each value is a ChildPointer and its key the lowest key below it.
"""

import struct
from functools import lru_cache
from itertools import accumulate
from typing import Annotated

import crc32c
from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64ul

from razortools.errors import CorruptImage
from razortools.format.keys import KEY_BYTES
from razortools.format.record import Record, record

NODE_MAGIC = b"RZND"
VALUE_END_BYTES = 2
LEVEL_MAX = 12


@record()
class ChildPointer(Record):
    """Where a node lies and what it must hold. Its checksum stands here, apart from the node."""

    address: Annotated[int, Int64ul * "first block; the top 16 bits are the device number, 0 in this version"]
    mirror: Annotated[int, Int64ul * "first block of the second copy; 0: there is none"]
    generation: Annotated[int, Int64ul * "generation that wrote it"]
    crc32c: Annotated[int, Int32ul * "the node's checksum"]


@record(magic=NODE_MAGIC)
class NodeHeader(Record):
    """Start of a node. It describes itself, so that a scan finds it when nothing points to it any more."""

    tag: Annotated[int, Int64ul * "first half of the filesystem's UUID"]
    address: Annotated[int, Int64ul * "where the first copy lies"]
    mirror: Annotated[int, Int64ul * "where the second copy lies, or 0"]
    generation: Annotated[int, Int64ul * "checkpoint that wrote it"]
    item_count: Annotated[int, Int16ul * "items"]
    level: Annotated[int, Int8ul * "0 for a leaf"]
    reserved: Annotated[int, Int8ul * "zero"]
    used_bytes: Annotated[int, Int32ul * "bytes of the values"]
    low: Annotated[bytes, Bytes(KEY_BYTES) * "lowest key that may stand here"]
    high: Annotated[bytes, Bytes(KEY_BYTES) * "first key that stands in the next node; all 255: none"]


NODE_HEADER_BYTES = NodeHeader.FIXED_BYTES + NodeHeader.skipped_bytes()
PATCH_BYTES_MAX = 2048  # a change of a byte writes all of a patch
ITEM_OVERHEAD_BYTES = KEY_BYTES + VALUE_END_BYTES
CHILD_BYTES = ITEM_OVERHEAD_BYTES + ChildPointer.FIXED_BYTES
ITEMS_MAX = (1 << 8 * VALUE_END_BYTES) // ITEM_OVERHEAD_BYTES  # in a node of any size that its value table can tell of
_CHECKED_FROM = len(NODE_MAGIC) + 4


@lru_cache(maxsize=2048)
def _keys_codec(count: int) -> struct.Struct:
    return struct.Struct(f"{KEY_BYTES}s" * count)


@lru_cache(maxsize=2048)
def _ends_codec(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}H")


def node_capacity(node_bytes: int) -> int:
    """Return how many bytes of items (with ITEM_OVERHEAD_BYTES each) fit into a node."""
    return node_bytes - NODE_HEADER_BYTES


def value_bytes_max(node_bytes: int) -> int:
    """Return the largest value: a quarter of a node, so that a split always makes room."""
    return node_capacity(node_bytes) // 4 - ITEM_OVERHEAD_BYTES


def inline_bytes_max(node_bytes: int) -> int:
    """Return the most bytes that are kept in the tree instead of in blocks: 2 KiB in a node of 16 KiB."""
    return node_bytes // 8


def patch_bytes(node_bytes: int) -> int:
    """Return how many bytes of a file a patch covers: as many as are kept in the tree, but not more than 2 KiB."""
    return min(inline_bytes_max(node_bytes), PATCH_BYTES_MAX)


def encode_node(header: NodeHeader, keys: list[bytes], values: list[bytes], node_bytes: int) -> tuple[bytes, int]:
    """Return (bytes of the node, checksum). *header*.item_count and used_bytes are taken as they are."""
    ends = _ends_codec(len(values)).pack(*accumulate(map(len, values)))
    body = b"".join((header.STRUCT.pack(*NodeHeader._FLATTEN(header)), *keys, ends, *values))
    body += bytes(node_bytes - _CHECKED_FROM - len(body))
    checksum = crc32c.crc32c(body)
    return NODE_MAGIC + checksum.to_bytes(4, "little") + body, checksum


def node_checksum(raw: bytes) -> int:
    """Return the checksum that *raw*'s contents have, whatever its header says."""
    return crc32c.crc32c(memoryview(raw)[_CHECKED_FROM:])


def decode_header(raw: bytes) -> NodeHeader:
    """Return the header of a node whose checksum has been judged already. Raises CorruptImage for a wrong shape."""
    if raw[:4] != NODE_MAGIC:
        raise CorruptImage(f"node: magic {raw[:4]!r} found, {NODE_MAGIC!r} expected")
    header = NodeHeader(*NodeHeader.STRUCT.unpack_from(raw, _CHECKED_FROM))
    if NODE_HEADER_BYTES + header.item_count * ITEM_OVERHEAD_BYTES + header.used_bytes > len(raw):
        raise CorruptImage(f"node at block {header.address}: {header.item_count} items do not fit into it")
    return header


def decode_items(raw: bytes, header: NodeHeader) -> tuple[list[bytes], list[bytes]]:
    """Return (keys, values) of a node. Raises CorruptImage if the value table is not in order."""
    count = header.item_count
    keys = list(_keys_codec(count).unpack_from(raw, NODE_HEADER_BYTES))
    at = NODE_HEADER_BYTES + count * KEY_BYTES
    ends = _ends_codec(count).unpack_from(raw, at)
    first = at + count * VALUE_END_BYTES
    if count and (ends[-1] != header.used_bytes or list(ends) != sorted(ends)):
        raise CorruptImage(f"node at block {header.address}: the table of its values is not in order")
    start = first
    values = []
    for end in ends:
        values.append(raw[start : first + end])
        start = first + end
    return keys, values
