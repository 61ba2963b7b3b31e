"""Safety: whether changes of items can destroy anything. What -p does is decided here, edit by edit, not by the kind of problem.

Invariant: an item may be added, moved or have a number corrected, and one bit of a name's text may be turned back. Whatever drops
an item, puts another one in its place, cuts bytes out of a file or turns a file into something else is not safe, however good the
reason.
"""

from collections.abc import Sequence
from dataclasses import replace

from razortools.errors import CorruptImage
from razortools.format.data import CUT_OUT, DataRecord
from razortools.format.inode import Inode
from razortools.format.items import decode_item
from razortools.format.keys import KIND_AT, Kind, Table
from razortools.format.name import Name
from razortools.format.xattr import Xattr

Change = tuple[bytes, bytes | None, bytes | None]  # key, value before, value after; None: not there

_NUMBERS: dict[int, frozenset[str]] = {  # fields that may be corrected, by the kind of item
    Kind.INODE: frozenset(("link_count", "stored_blocks", "flags", "next_link_no", "reserved")),
    Kind.DIRECTORY_ENTRY: frozenset(("link_no", "file_type")),
    Kind.NAME: frozenset(("reference_count",)),
}


def are_harmless(changes: Sequence[Change]) -> bool:
    """Return whether *changes*, made together, destroy nothing."""
    first: dict[bytes, bytes | None] = {}
    last: dict[bytes, bytes | None] = {}
    for key, before, after in changes:
        first.setdefault(key, before)
        last[key] = after
    added = {(key[:KIND_AT], key[KIND_AT], last[key]) for key in last if first[key] is None}
    return all(_is_harmless(key, first[key], last[key], added) for key in last)


def _is_harmless(key: bytes, before: bytes | None, after: bytes | None, added: set[tuple[bytes, int, bytes | None]]) -> bool:
    if before == after:
        return True
    if before is None:
        return not (key[KIND_AT] == Kind.DATA_RECORD and _is_cut_out(after or b""))
    if after is None:  # it may be filed elsewhere; a name is only removed if nothing uses it
        return (key[KIND_AT] == Kind.NAME and key[0] == Table.NAMES) or (key[:KIND_AT], key[KIND_AT], before) in added
    return _differs_in_numbers(key, before, after)


def _is_cut_out(value: bytes) -> bool:
    try:
        return bool(DataRecord.decode(value).flags & CUT_OUT)
    except CorruptImage:
        return True


def _is_readable_again(old: DataRecord | Xattr, new: DataRecord | Xattr) -> bool:
    """Return whether two items say the same but for the mark of what was cut out, which the new one has not."""
    one, other = (item.out_of_line if isinstance(item, Xattr) else item for item in (old, new))
    if one is None or other is None or not _are_alike_outside(old, new):
        return False
    return bool(one.flags & CUT_OUT) and replace(one, flags=one.flags & ~CUT_OUT) == other


def _differs_in_second_checksum(old: DataRecord | Xattr, new: DataRecord | Xattr) -> bool:
    """Return whether two items say the same but for the second checksum of a record, which both have."""
    one, other = (item.out_of_line if isinstance(item, Xattr) else item for item in (old, new))
    if one is None or other is None or one.second_checksum is None or other.second_checksum is None:
        return False
    return _are_alike_outside(old, new) and one.checked_by(0) == other.checked_by(0)


def _are_alike_outside(old: DataRecord | Xattr, new: DataRecord | Xattr) -> bool:
    """Return whether two items that hold a record say the same around it."""
    if isinstance(old, Xattr) and isinstance(new, Xattr):
        return (old.name, old.flags) == (new.name, new.flags)
    return True


def _differs_in_numbers(key: bytes, before: bytes, after: bytes) -> bool:
    try:
        old, new = decode_item(key, before), decode_item(key, after)
    except (CorruptImage, IndexError):
        return False
    if type(old) is not type(new):
        return False
    if (isinstance(old, DataRecord) and isinstance(new, DataRecord)) or (isinstance(old, Xattr) and isinstance(new, Xattr)):
        return _differs_in_second_checksum(old, new) or _is_readable_again(old, new)
    changed = {field.name for field in type(old).FIELDS if getattr(old, field.name) != getattr(new, field.name)}
    allowed = _NUMBERS.get(key[KIND_AT], frozenset())
    if isinstance(old, Inode) and isinstance(new, Inode):
        if old.is_directory:
            allowed |= {"size"}  # its number of entries
        if not new.link_count:
            return False  # the next mount would delete it
    if isinstance(old, Name) and isinstance(new, Name) and _is_one_bit(old.text, new.text):
        allowed |= {"text"}
    return changed <= allowed


def _is_one_bit(old: bytes, new: bytes) -> bool:
    """Return whether two texts differ in one bit: only a bit that the hash of the name tells of is turned in one."""
    return len(old) == len(new) and (int.from_bytes(old, "big") ^ int.from_bytes(new, "big")).bit_count() == 1
