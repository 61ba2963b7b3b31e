"""Items that make no sense: removed, or put where they belong; what can be known of them otherwise is written anew."""

from dataclasses import replace

from razortools.check.findings import Finding
from razortools.check.inode_rules import patch_fault
from razortools.check.repair import misfiled, plan_contents, plan_data, plan_inodes
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Purpose
from razortools.errors import CorruptImage
from razortools.format.data import Patch
from razortools.format.inode import OrphanReason
from razortools.format.keys import Kind, Table, object_of, object_range, offset_of, orphan_key
from razortools.format.node import patch_bytes
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


def orphan(draft: Draft, finding: Finding) -> None:
    """An orphan mark that does not fit its inode."""
    number = int(finding.inode or 0)
    inode, key = draft.inode(number), orphan_key(InodeNo(number))
    if inode is not None and inode.link_count == 0:
        draft.set(key, "reason", int(OrphanReason.UNLINKED), "mark it as deleted: no name leads to it")
    else:
        draft.delete(key, "remove the mark: the file is in use, or not there")
