"""Extended attributes that are wrong: put right where it is known what they were, else filed where they belong, else removed."""

from razortools.check.findings import Finding
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Purpose
from razortools.check.right_attribute import hidden_record, is_about_its_record, right_attribute
from razortools.errors import CorruptImage
from razortools.format.data import DataRecord
from razortools.format.inode import InodeFlag
from razortools.format.keys import PROBE_WINDOW, Kind, inode_key, kind_range, object_of, own_range, xattr_key
from razortools.format.name import hash_name
from razortools.format.xattr import XATTR_VALUE_BYTES_MAX, Xattr, XattrFlag
from razortools.units import InodeNo


def attribute(draft: Draft, finding: Finding) -> None:
    """An extended attribute that is wrong becomes what it was, or is filed where it belongs; others are removed."""
    key = finding.key
    value = draft.get(key) if key is not None else None
    if key is None or value is None or put_right(draft, key) or is_about_its_record(draft.image, key, value):
        return  # its record is judged by itself
    place = _right_place(draft, key, value)
    if place is None:
        draft.delete(key, "remove the item that makes no sense", purpose=Purpose.DISCARD)
    else:
        draft.delete(key, "take the attribute from under a wrong hash")
        draft.put(place, value, "file the attribute under the hash of its name")


def put_right(draft: Draft, key: bytes) -> bool:
    """Plan to make of an attribute what it was meant to be; return whether that is known, and it is not that."""
    value, number = draft.get(key) or b"", InodeNo(object_of(key))
    right = right_attribute(draft.image, key, value, draft.items(*own_range(number)), draft.inode(number))
    if right is None:
        return False
    if right[1] != value[1]:
        draft.put(key, right, "clear flags that are not true")
    else:
        draft.put(key, right, "correct its name: it is the one by which it is filed")
    return True


def find_records(draft: Draft, number: InodeNo, blocks: int) -> None:
    """Plan that an attribute is a record again if it was one: *blocks* are missing that the volume counts and nobody has."""
    for key, value in list(draft.items(*kind_range(number, Kind.XATTR))):
        record = hidden_record(draft.image, key, value)
        if record is not None and record.block_count(draft.image.block_bytes) <= blocks and _is_orphaned(draft, record):
            right = Xattr.outside(Xattr.decode(value).name, record).encode()
            draft.put(key, right, "let its value be the data that its record names: they verify, and are nobody else's")


def _is_orphaned(draft: Draft, record: DataRecord) -> bool:
    """Return whether the blocks of a record are in use and nobody's."""
    return all(
        any(first in blocks and first + count - 1 in blocks for blocks in draft.orphaned)
        for first, count in record.runs(draft.image.block_bytes)
    )


def _right_place(draft: Draft, key: bytes, value: bytes) -> bytes | None:
    try:
        xattr = Xattr.decode(value)
        outside = xattr.out_of_line
    except CorruptImage:
        return None
    size = outside.raw_bytes if outside is not None else len(xattr.value)
    if (
        not xattr.name or len(xattr.name) != xattr.name_bytes or not xattr.name.isascii()
        or b"\0" in xattr.name or xattr.flags & ~int(XattrFlag.OUT_OF_LINE) or size > XATTR_VALUE_BYTES_MAX
        or not xattr.name.startswith((b"user.", b"trusted.", b"security.", b"system."))
    ):  # fmt: skip
        return None
    number = InodeNo(object_of(key))
    low = hash_name(xattr.name, draft.image.superblock.hash_seed)
    places = [xattr_key(number, offset) for offset in range(low, low + PROBE_WINDOW)]
    there = [draft.get(place) for place in places]
    if any(other is not None and Xattr.decode(other).name == xattr.name for other in there if other and len(other) > 2):
        return None  # the attribute is there already
    return next((place for place, other in zip(places, there, strict=True) if other is None), None)


def attribute_flag(draft: Draft, finding: Finding) -> None:
    """Let the inode's flag say whether there are attributes."""
    number = int(finding.inode or 0)
    inode = draft.inode(number)
    if inode is not None:
        has_some = next(draft.items(xattr_key(InodeNo(number), 0), xattr_key(InodeNo(number), (1 << 64) - 1)), None) is not None
        flags = inode.flags & ~int(InodeFlag.HAS_XATTRS) | (int(InodeFlag.HAS_XATTRS) if has_some else 0)
        draft.set(inode_key(InodeNo(number)), "flags", flags, "let its flag say whether it has attributes")
