"""Items that make no sense: removed, or put where they belong; what can be known of them otherwise is written anew."""

from dataclasses import replace

from razortools.check.findings import Finding
from razortools.check.inode_rules import patch_fault, xattr_fault
from razortools.check.repair import misfiled, plan_contents, plan_data, plan_inodes
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Purpose
from razortools.errors import CorruptImage
from razortools.format.data import Patch
from razortools.format.inode import InodeFlag, OrphanReason
from razortools.format.keys import PROBE_WINDOW, Kind, Table, inode_key, object_of, object_range, offset_of, orphan_key, xattr_key
from razortools.format.name import hash_name
from razortools.format.node import patch_bytes
from razortools.format.xattr import XATTR_VALUE_BYTES_MAX, Xattr, XattrFlag
from razortools.units import InodeNo


def drop(draft: Draft, finding: Finding) -> None:
    """Remove the item."""
    if finding.key is not None:
        draft.delete(finding.key, "remove the item that makes no sense", purpose=Purpose.DISCARD)


def unknown(draft: Draft, finding: Finding) -> None:
    """An item under a key that makes no sense goes where it belongs, if one wrong bit explains the key."""
    if finding.key is not None and not misfiled.put_right(draft, finding.key):
        drop(draft, finding)


def malformed(draft: Draft, finding: Finding) -> None:
    """An item that cannot be read. What must be there in its place depends on its kind."""
    key = finding.key
    if key is None:
        return
    if key[9] == Kind.DATA_RECORD:
        plan_data.cut(draft, key, keeps_blocks=False)
    elif key[9] == Kind.INLINE_DATA:
        plan_contents.cut_inline(draft, key)
    elif key[9] == Kind.INODE and key[0] == Table.FILES:
        plan_inodes.make_anew(draft, object_of(key))
    else:
        drop(draft, finding)


def patch(draft: Draft, finding: Finding) -> None:
    """A patch that makes no sense. It is newer than the record below it: it goes only if nothing can be made of it."""
    key = finding.key
    value = draft.get(key) if key is not None else None
    if key is None or value is None:
        return
    number = object_of(key)
    inode = draft.inode(number)
    if inode is None and next(draft.items(*object_range(Table.FILES, number)), None) is not None:
        return  # what is to become of its file is not decided yet
    file_type, size = (inode.file_type, inode.size) if inode is not None else (None, 0)
    step = patch_bytes(draft.image.geometry.node_bytes)
    try:
        plain = replace(Patch.decode(value), reserved=0).encode()
    except CorruptImage:
        plain = b""
    if patch_fault(offset_of(key), plain, step, file_type, size):
        drop(draft, finding)
    else:
        draft.set(key, "reserved", 0, "set its reserved byte to 0")


def attribute(draft: Draft, finding: Finding) -> None:
    """An extended attribute that is filed in the wrong place goes to the right one; others are removed."""
    key = finding.key
    value = draft.get(key) if key is not None else None
    if key is None or value is None:
        return
    for flags in (value[1] & int(XattrFlag.OUT_OF_LINE), 0) if len(value) > 1 else ():
        plain = value[:1] + bytes([flags]) + value[2:]
        if plain != value and _is_right(draft, key, plain):
            draft.put(key, plain, "clear flags that are not true")
            return
    place = _right_place(draft, key, value)
    if place is None:
        drop(draft, finding)
    else:
        draft.delete(key, "take the attribute from under a wrong hash")
        draft.put(place, value, "file the attribute under the hash of its name")


def _is_right(draft: Draft, key: bytes, value: bytes) -> bool:
    try:
        return not xattr_fault(Xattr.decode(value), offset_of(key), draft.image.superblock.hash_seed)
    except CorruptImage:
        return False


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


def orphan(draft: Draft, finding: Finding) -> None:
    """An orphan mark that does not fit its inode."""
    number = int(finding.inode or 0)
    inode, key = draft.inode(number), orphan_key(InodeNo(number))
    if inode is not None and inode.link_count == 0:
        draft.set(key, "reason", int(OrphanReason.UNLINKED), "mark it as deleted: no name leads to it")
    else:
        draft.delete(key, "remove the mark: the file is in use, or not there")
