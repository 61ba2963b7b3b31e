"""Inodes: fields with impossible values, inodes that are missing while parts of their files are there, the root."""

from collections.abc import Callable

from razortools.check.findings import Finding
from razortools.check.inode_rules import DEVICES
from razortools.check.repair import lost_found, misfiled
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Purpose
from razortools.check.repair.file_contents import Contents, contents_of
from razortools.check.repair.naming import confirmed_links, entry_to
from razortools.check.repair.true_type import has_kind, set_type, true_type
from razortools.format.inode import ROOT_INODE, FileType, Inode, InodeFlag
from razortools.format.keys import Kind, Table, inode_key, object_range
from razortools.units import InodeNo

_BY_TYPE = frozenset(("size", "device number"))  # fields that are right or wrong by the type of the file


def field(draft: Draft, finding: Finding) -> None:
    """A field has an impossible value."""
    number = int(finding.inode or 0)
    inode = draft.inode(number)
    change = _FIELDS.get(finding.values["field"])
    if inode is None or change is None:
        return
    if finding.values["field"] in _BY_TYPE and (wanted := _told_type(draft, number, inode)) != inode.file_type:
        set_type(draft, number, inode, wanted)
        return  # what is wrong with the rest then the next look tells
    name, value = change(draft, number, inode)
    draft.set(inode_key(InodeNo(number)), name, value, f"set its {finding.values['field']} to {value}")


def _told_type(draft: Draft, number: int, inode: Inode) -> int:
    """Return the type of a file by its entry, its contents and its inode."""
    entry = entry_to(draft, number)
    told = FileType.DIRECTORY if number == ROOT_INODE else entry.file_type if entry is not None else 0
    return true_type(draft, number, inode, told)


def _mode(draft: Draft, number: int, inode: Inode) -> tuple[str, int]:
    return "mode", _told_type(draft, number, inode) << 12 | inode.mode & 0o7777


def _record_size(draft: Draft, number: int, inode: Inode) -> tuple[str, int]:
    return "record_log2", contents_of(draft, number).lengths.fitting_log2(inode.size)


def _compression(draft: Draft, number: int, inode: Inode) -> tuple[str, int]:
    return "compression", draft.image.superblock.compression


def _size(draft: Draft, number: int, inode: Inode) -> tuple[str, int]:
    if inode.file_type in (FileType.REGULAR, FileType.SYMLINK):
        contents = contents_of(draft, number)
        return "size", contents.end(inode.record_log2 if inode.record_log2 < 32 else contents.lengths.fitting_log2(0))
    return "size", 0


_FIELDS: dict[str, Callable[[Draft, int, Inode], tuple[str, int]]] = {
    "mode": _mode,
    "record size": _record_size,
    "compression": _compression,
    "compression level": lambda draft, number, inode: ("compression_level", 0),
    "flags": lambda draft, number, inode: ("flags", inode.flags & sum(InodeFlag)),
    "reserved byte": lambda draft, number, inode: ("reserved", 0),
    "device number": lambda draft, number, inode: ("rdev", 0),
    "size": _size,
}


def record_size(draft: Draft, finding: Finding) -> None:
    """The records of a file agree with a record size that is not the one that its inode tells."""
    number = int(finding.inode or 0)
    inode = draft.inode(number)
    agreed = contents_of(draft, number).lengths.agreed_log2(inode.size) if inode is not None else None
    if agreed is not None:
        why = f"set its record size to {1 << agreed} bytes: all its records agree with that, and none with the one that it had"
        draft.set(inode_key(InodeNo(number)), "record_log2", agreed, why)


def missing(draft: Draft, finding: Finding) -> None:
    """Parts of a file are there, but no inode."""
    number = int(finding.inode or 0)
    if draft.inode(number) is None and not _is_misfiled(draft, number):
        make_anew(draft, number)


def _is_misfiled(draft: Draft, number: int) -> bool:
    """Plan to put the only item that is there where it belongs, if the number in its key has one wrong bit."""
    items = draft.items(*object_range(Table.FILES, number))
    first, second = next(items, None), next(items, None)
    return first is not None and second is None and misfiled.put_right(draft, first[0])


def make_anew(draft: Draft, number: int) -> None:
    """Plan an inode for what is left of a file; where nothing of worth is left, plan to remove the rest."""
    contents = contents_of(draft, number)
    entry = entry_to(draft, number)
    told = FileType.DIRECTORY if number == ROOT_INODE else entry.file_type if entry is not None else 0
    file_type = true_type(draft, number, None, told)
    has_entries = has_kind(draft, number, Kind.DIRECTORY_ENTRY)
    if not contents.kinds and not has_entries and (told == 0 or told in DEVICES or told == FileType.SYMLINK):
        for key, _ in list(draft.items(*object_range(Table.FILES, number))):
            draft.delete(key, f"remove what is left of inode {number}: nothing of its contents is there")
        return
    inode = lost_found.new_inode(draft, file_type)
    _describe(draft, number, inode, contents)
    inode.link_count = len(confirmed_links(draft, number)) or 1
    if inode.is_directory:
        inode.mode = 0o040755 if number == ROOT_INODE else inode.mode
        inode.link_count = 2
    why = f"make anew: inode {number}, for what is left of the file"
    draft.put(inode_key(InodeNo(number)), inode.encode(), why, purpose=Purpose.ANEW)


def make_directory(draft: Draft, number: int) -> None:
    """Plan a directory that is missing while back links of others name it."""
    if draft.get(inode_key(InodeNo(number))) is None:
        inode = lost_found.new_inode(draft, FileType.DIRECTORY)
        inode.next_link_no = max((link_no + 1 for link_no in draft.back_links(number)), default=0)
        path = draft.paths.of(number)
        why = f"make anew: directory {number}, in which others say that they lie"
        draft.put(inode_key(InodeNo(number)), inode.encode(), why, path, purpose=Purpose.ANEW)


def _describe(draft: Draft, number: int, inode: Inode, contents: Contents) -> None:
    """Let *inode* say what the items around it tell."""
    inode.next_link_no = max((link_no + 1 for link_no in draft.back_links(number)), default=0)
    inode.flags = int(InodeFlag.HAS_XATTRS) if has_kind(draft, number, Kind.XATTR) else 0
    inode.stored_blocks = contents.blocks
    if inode.is_directory:
        inode.size = sum(1 for _ in draft.entries(number))
    elif contents.kinds:
        inode.record_log2 = contents.lengths.fitting_log2(0)
        inode.size = contents.end(inode.record_log2)


def root(draft: Draft, finding: Finding) -> None:
    """The root directory is missing, or no directory."""
    inode = draft.inode(ROOT_INODE)
    if inode is None:
        made = lost_found.new_inode(draft, FileType.DIRECTORY)
        made.mode = 0o040755
        made.size = sum(1 for _ in draft.entries(ROOT_INODE))
        draft.put(inode_key(ROOT_INODE), made.encode(), "make anew: the root directory", purpose=Purpose.ANEW)
    else:
        draft.set(inode_key(ROOT_INODE), "mode", 0o040000 | inode.mode & 0o7777, "make the root a directory again")
