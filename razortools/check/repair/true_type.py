"""The type of a file, as far as its contents, its entries and its names tell it."""

from razortools.check.inode_rules import DEVICES, SIZED, SYMLINK_BYTES_MAX
from razortools.check.repair.draft import Draft
from razortools.check.repair.naming import confirmed_links
from razortools.check.stored_file import read_record
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.compression import unpack
from razortools.format.data import DataRecord, InlineData
from razortools.format.inode import FileType, Inode
from razortools.format.keys import Kind, inline_key, inode_key, kind_range, record_key
from razortools.units import InodeNo

_TYPES = frozenset(FileType)


def has_kind(draft: Draft, number: int, kind: Kind) -> bool:
    """Return whether an inode has items of *kind*."""
    return next(draft.items(*kind_range(InodeNo(number), kind)), None) is not None


def fitting_types(draft: Draft, number: int) -> frozenset[int]:
    """Return the types that a file with these items may have."""
    entries = frozenset((int(FileType.DIRECTORY),))
    contents = frozenset((int(FileType.REGULAR), int(FileType.SYMLINK)))
    has_entries = has_kind(draft, number, Kind.DIRECTORY_ENTRY)
    if has_kind(draft, number, Kind.INLINE_DATA) or has_kind(draft, number, Kind.DATA_RECORD):
        return contents | entries if has_entries else contents
    if has_entries:
        return entries
    return frozenset(int(kind) for kind in FileType if kind is not FileType.SYMLINK)


def _is_like_symlink(inode: Inode) -> bool:
    """Return whether size and permissions are those of a symbolic link."""
    return 0 < inode.size <= SYMLINK_BYTES_MAX and inode.mode & 0o7777 == 0o777


def _leads_somewhere(draft: Draft, number: int, inode: Inode) -> bool:
    """Return whether the contents of a file look like where a symbolic link leads: one line, without an end."""
    try:
        text = _text(draft, InodeNo(number))
    except (CorruptImage, DeviceFailed):
        return False
    return len(text) == inode.size and b"\n" not in text and b"\0" not in text


def _text(draft: Draft, number: InodeNo) -> bytes:
    """Return the contents of a small file. Raises CorruptImage, DeviceFailed."""
    value = draft.get(inline_key(number))
    if value is not None:
        inline = InlineData.decode(value)
        return unpack(inline.stored, inline.algorithm, inline.raw_bytes)
    key = record_key(number, 0)
    return read_record(draft.image, key, DataRecord.decode(draft.get(key) or b""), draft.inode(number))[0]


def _is_as_told(draft: Draft, number: int, inode: Inode, told: int) -> bool:
    """Return whether the rest of an inode speaks for what an entry says of its type, and against the type that it has."""
    current = inode.file_type
    if told in DEVICES:
        return bool(inode.rdev) and current not in DEVICES
    if told == FileType.SYMLINK:
        return current == FileType.REGULAR and _is_like_symlink(inode) and _leads_somewhere(draft, number, inode)
    return told == FileType.REGULAR and bool(inode.size) and current not in SIZED


def true_type(draft: Draft, number: int, inode: Inode | None, told: int) -> int:
    """Return the type of inode *number*; *told*: what an entry says, 0 if none does."""
    possible = fitting_types(draft, number)
    current = inode.file_type if inode is not None and inode.file_type in _TYPES else 0
    if inode is not None and told == FileType.DIRECTORY in possible and current != told and inode.link_count == 2:
        links = draft.back_links(number)
        if len(links) == 1 and len(confirmed_links(draft, number)) == 1:
            return told  # an empty directory: nothing else has a link count of two and one name
    if inode is not None and told == FileType.REGULAR in possible and current == FileType.SYMLINK and not _is_like_symlink(inode):
        return told  # one bit of a mode makes it a symbolic link that nobody can follow
    if inode is not None and told in possible and _is_as_told(draft, number, inode, told):
        return told
    for candidate in (current, told):
        if candidate in possible:
            return candidate
    if FileType.DIRECTORY in possible and len(possible) == 1:
        return int(FileType.DIRECTORY)
    return int(FileType.REGULAR)


def set_type(draft: Draft, number: int, inode: Inode, wanted: int) -> None:
    """Plan to give an inode another type; its permissions stay."""
    mode = wanted << 12 | inode.mode & 0o7777
    draft.set(inode_key(InodeNo(number)), "mode", mode, f"set its mode to {mode:#o}, as its name and contents say")
