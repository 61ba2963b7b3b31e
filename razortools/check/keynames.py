"""What a key stands for, in words: for findings about items and lost parts of the tree."""

from razortools.format.inode import Inode
from razortools.format.keys import HIGHEST_KEY, LOWEST_KEY, Kind, Table, kind_of, object_of, offset_of
from razortools.format.layout import COUNT_MAX

_KIND_WORDS = {
    Kind.INODE: "the inode",
    Kind.BACK_LINK: "back link",
    Kind.XATTR: "extended attribute",
    Kind.INLINE_DATA: "inline data",
    Kind.DATA_RECORD: "data record",
    Kind.DIRECTORY_ENTRY: "directory entry",
    Kind.NAME: "the name",
    Kind.ORPHAN: "orphan mark",
    Kind.COUNTERS: "the counters",
    Kind.PATCH: "patch of the bytes from",
}
_NUMBERED = {Kind.BACK_LINK, Kind.XATTR, Kind.DATA_RECORD, Kind.DIRECTORY_ENTRY, Kind.PATCH}

TABLE_OF_KIND = {
    **{kind: Table.FILES for kind in Kind if kind < Kind.NAME},
    Kind.NAME: Table.NAMES,
    Kind.ORPHAN: Table.ORPHANS,
    Kind.COUNTERS: Table.VOLUME,
    Kind.PATCH: Table.PATCHES,
}


def key_fault(key: bytes) -> str:
    """Return why *key* makes no sense, or an empty string."""
    kind = kind_of(key)
    table = TABLE_OF_KIND.get(kind)  # type: ignore[call-overload]
    if table is None:
        return f"kind {kind:#04x}"
    if key[0] != table:
        return f"{item_words(key)} in table {key[0]}"
    if kind not in _NUMBERED and offset_of(key):
        return f"{item_words(key)} with offset {offset_of(key)}"
    if (object_of(key) == 0) != (table == Table.VOLUME) or object_of(key) >= COUNT_MAX:
        return f"{item_words(key)} of object {object_of(key)}"
    return ""


def item_words(key: bytes) -> str:
    """Return what kind of item *key* names: ``data record 5``."""
    kind = kind_of(key)
    words = _KIND_WORDS.get(kind)  # type: ignore[call-overload]
    if words is None:
        return f"an item of kind {kind:#04x}"
    return f"{words} {offset_of(key)}" if kind in _NUMBERED else str(words)


def range_words(low: bytes, high: bytes) -> str:
    """Return what may stand between the keys *low* and *high* (the latter not included)."""
    if low == LOWEST_KEY and high == HIGHEST_KEY:
        return "everything"
    first, last = _object_words(low), "the end" if high == HIGHEST_KEY else _object_words(high)
    if low[:9] == high[:9]:
        return f"a part of {first}"
    return f"{first} to {last}"


def _object_words(key: bytes) -> str:
    table, number = key[0], object_of(key)
    if table == Table.NAMES:
        return f"name {number}"
    if table == Table.ORPHANS:
        return "the orphans"
    if table == Table.VOLUME:
        return "the counters"
    if table >= Table.PATCHES:
        return f"patches of inode {number}"
    return f"inode {max(number, 1)}"


def record_range(inode: Inode, record_no: int) -> tuple[int, int]:
    """Return (first byte, first byte behind) of a record within the file's size."""
    first = record_no * inode.record_bytes
    return first, max(first, min(first + inode.record_bytes, inode.size))


def bytes_words(byte_range: tuple[int, int]) -> str:
    """Return a byte range for people."""
    first, behind = byte_range
    return f"bytes {first} to {max(behind - 1, first)}"
