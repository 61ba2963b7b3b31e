"""Tree keys: 18 bytes, big-endian, so that they sort as bytes in the order (table, object, kind, offset).

The kind alone tells what the value is; `razortools.format.items` maps it to the record.
"""

from enum import IntEnum
from typing import Annotated

from construct import Int8ub, Int64ub

from razortools.format.record import Record, record
from razortools.units import InodeNo, NameId, RecordNo


class Table(IntEnum):
    """First byte of a key: which table of the volume."""

    FILES = 1  # object = inode number
    NAMES = 2  # object = name id
    ORPHANS = 3  # object = inode number
    VOLUME = 4  # object = 0
    PATCHES = 5  # object = inode number


class Kind(IntEnum):
    """Second to last part of a key: what the value is."""

    INODE = 0x10  # offset 0
    BACK_LINK = 0x20  # offset = link number, unique in the inode
    XATTR = 0x30  # offset = hash of the attribute's name
    INLINE_DATA = 0x40  # offset 0
    DATA_RECORD = 0x50  # offset = record number
    DIRECTORY_ENTRY = 0x60  # offset = hash of the entry's name; it is also the readdir cookie
    NAME = 0x70  # offset 0
    ORPHAN = 0x80  # offset 0
    COUNTERS = 0x90  # offset 0
    PATCH = 0xA0  # offset = number of the first byte in the file, a multiple of what a patch covers


@record()
class Key(Record):
    """Key of an item. Big-endian: the order of the bytes is the order of the fields."""

    table: Annotated[int, Int8ub * "which table: 1 files, 2 names, 3 orphans, 4 volume, 5 patches"]
    object: Annotated[int, Int64ub * "inode number, name id, or 0"]
    kind: Annotated[int, Int8ub * "what the value is, see the kinds below"]
    offset: Annotated[int, Int64ub * "record number, hash, link number, place in the file, or 0"]


KEY_BYTES = Key.FIXED_BYTES
KIND_AT = 9  # where the kind stands in a key
LOWEST_KEY = bytes(KEY_BYTES)
HIGHEST_KEY = b"\xff" * KEY_BYTES  # above every key in use: no table has the number 255
HASH_MAX = 0x7FFF_FFFF_FFFF_FF00  # a cookie fits a signed 64-bit offset, with room for the probe window above
HASH_MIN = 0x100  # the cookies below belong to "." and ".." and to whoever serves the directory
PROBE_WINDOW = 16  # names of equal hash take neighbouring offsets; the whole window is looked at, so deleting leaves no gap

_pack = Key.STRUCT.pack

# The same as plain numbers: looking a member of an enumeration up takes longer than packing a key, and several keys are packed
# for every request.
_FILES, _NAMES, _ORPHANS = int(Table.FILES), int(Table.NAMES), int(Table.ORPHANS)
_INODE, _BACK_LINK, _XATTR, _INLINE_DATA = int(Kind.INODE), int(Kind.BACK_LINK), int(Kind.XATTR), int(Kind.INLINE_DATA)
_DATA_RECORD, _DIRECTORY_ENTRY = int(Kind.DATA_RECORD), int(Kind.DIRECTORY_ENTRY)
_NAME, _ORPHAN = int(Kind.NAME), int(Kind.ORPHAN)
_PATCHES, _PATCH = int(Table.PATCHES), int(Kind.PATCH)


def inode_key(inode: InodeNo) -> bytes:
    """Return the key of an inode."""
    return _pack(_FILES, inode, _INODE, 0)


def back_link_key(inode: InodeNo, link_no: int) -> bytes:
    """Return the key of one back link of an inode."""
    return _pack(_FILES, inode, _BACK_LINK, link_no)


def xattr_key(inode: InodeNo, name_hash: int) -> bytes:
    """Return the key of an extended attribute."""
    return _pack(_FILES, inode, _XATTR, name_hash)


def inline_key(inode: InodeNo) -> bytes:
    """Return the key of a file's inline data."""
    return _pack(_FILES, inode, _INLINE_DATA, 0)


def record_key(inode: InodeNo, record_no: RecordNo | int) -> bytes:
    """Return the key of a data record."""
    return _pack(_FILES, inode, _DATA_RECORD, record_no)


def entry_key(directory: InodeNo, name_hash: int) -> bytes:
    """Return the key of a directory entry."""
    return _pack(_FILES, directory, _DIRECTORY_ENTRY, name_hash)


def name_key(name_id: NameId) -> bytes:
    """Return the key of a string in the string table."""
    return _pack(_NAMES, name_id, _NAME, 0)


def orphan_key(inode: InodeNo) -> bytes:
    """Return the key that marks an inode as to be finished at the next mount."""
    return _pack(_ORPHANS, inode, _ORPHAN, 0)


def patch_key(inode: InodeNo, offset: int) -> bytes:
    """Return the key of the patch of a file's bytes from *offset* on."""
    return _pack(_PATCHES, inode, _PATCH, offset)


COUNTERS_KEY = _pack(Table.VOLUME, 0, Kind.COUNTERS, 0)

_ENDS = (1 << 64) - 1


def kind_range(inode: InodeNo, kind: Kind) -> tuple[bytes, bytes]:
    """Return (lowest, highest) key of the items of one kind of an inode; both ends are included."""
    return _pack(_FILES, inode, kind, 0), _pack(_FILES, inode, kind, _ENDS)


def own_range(inode: InodeNo) -> tuple[bytes, bytes]:
    """Return (lowest, highest) key of an inode and of what belongs to it, but for a directory's entries; both are included."""
    return _pack(_FILES, inode, _INODE, 0), _pack(_FILES, inode, _DATA_RECORD, _ENDS)


def object_range(table: Table, number: int) -> tuple[bytes, bytes]:
    """Return (lowest, highest) key of all items of one object; both ends are included."""
    return _pack(table, number, 0, 0), _pack(table, number, 255, _ENDS)


def table_range(table: Table) -> tuple[bytes, bytes]:
    """Return (lowest, highest) key of a table; both ends are included."""
    return _pack(table, 0, 0, 0), _pack(table, _ENDS, 255, _ENDS)


def kind_of(key: bytes) -> int:
    """Return the kind byte of *key*."""
    return key[KIND_AT]


def object_of(key: bytes) -> int:
    """Return the object number of *key*."""
    return int.from_bytes(key[1:9], "big")


def offset_of(key: bytes) -> int:
    """Return the offset of *key*."""
    return int.from_bytes(key[10:18], "big")
