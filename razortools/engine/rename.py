"""Rename: all its rules in one place.

The order of the tests is that of Linux (fs/namei.c, do_renameat2 and vfs_rename), so that a caller who breaks two rules at once
gets the same answer from us. Everything is judged before anything changes; then the change is one operation.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from razortools.engine import directories, orphans
from razortools.errors import PosixError
from razortools.format.directory import DirectoryEntry
from razortools.format.inode import LINK_MAX, Inode
from razortools.format.journal import Operation
from razortools.units import InodeNo, NameId

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

_Look = Callable[["Volume", InodeNo, bytes], tuple[bytes, DirectoryEntry | None] | tuple[bytes, DirectoryEntry] | None]


@dataclass(slots=True)  # not frozen, for speed: that triples what it takes to make one; nobody changes it
class _Side:
    """One end of a rename: a name in a directory, and what it leads to."""

    directory_no: InodeNo
    directory: Inode
    name: bytes
    key: bytes  # of the entry; for the new side also where it would go
    entry: DirectoryEntry | None
    inode: Inode | None
    is_directory: bool  # whether the name leads to a directory


def rename(volume: "Volume", parent: InodeNo, name: bytes, new_parent: InodeNo, new_name: bytes, flags: int = 0) -> None:
    """Move a name; what the new name led to loses it, or with RENAME_EXCHANGE takes the old one.

    Nothing happens if both names lead to the same inode. Raises PosixError: ENOENT, ENOTDIR, EISDIR, ENOTEMPTY, EEXIST
    (RENAME_NOREPLACE), EMLINK, EINVAL (flags; a directory into itself or below), EINVAL and ENAMETOOLONG for impossible names.
    """
    if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
        raise PosixError(errno.EINVAL, f"unknown flags {flags:#x} for rename")
    directories.check_name(name)
    directories.check_name(new_name)
    old = _side(volume, parent, name, directories.find)
    new = _side(volume, new_parent, new_name, directories.probe)
    if old.entry is None or (flags == RENAME_EXCHANGE and new.entry is None):
        raise PosixError(errno.ENOENT)
    if flags == RENAME_NOREPLACE and new.entry is not None:
        raise PosixError(errno.EEXIST)
    _check_ancestry(volume, old, new, flags)
    if new.entry is not None and new.entry.inode == old.entry.inode:
        return
    if flags == RENAME_EXCHANGE:
        _check_link_room(old, new, exchange=True)
        _exchange(volume, old, new)
        return
    if new.directory.link_count == 0:
        raise PosixError(errno.ENOENT, "the directory has been removed")
    if new.entry is not None:
        _check_replacement(old, new)
    _check_link_room(old, new, exchange=False)
    _move(volume, old, new)


def _side(volume: "Volume", directory_no: InodeNo, name: bytes, look: _Look) -> _Side:
    """Return what *look* finds out about *name*. Raises PosixError: ENOENT, ENOTDIR for the directory."""
    directory = volume.inodes.get(directory_no)
    if not directory.is_directory:
        raise PosixError(errno.ENOTDIR)
    key, entry = look(volume, directory_no, name) or (b"", None)
    if entry is None:
        return _Side(directory_no, directory, name, key, None, None, False)
    inode = volume.inodes.get(InodeNo(entry.inode))
    return _Side(directory_no, directory, name, key, entry, inode, inode.is_directory)


def _check_ancestry(volume: "Volume", old: _Side, new: _Side, flags: int) -> None:
    """Raise PosixError if one end lies inside what the other end names: nothing may become its own ancestor."""
    if old.directory_no == new.directory_no:
        return
    if old.is_directory and old.entry is not None:
        above_new = directories.ancestors(volume, new.directory_no)
        if any(directory == old.entry.inode for directory in above_new):
            raise PosixError(errno.EINVAL, "a directory cannot move into itself")
    if new.is_directory and new.entry is not None:
        above_old = directories.ancestors(volume, old.directory_no)
        if any(directory == new.entry.inode for directory in above_old):
            raise PosixError(errno.EINVAL if flags == RENAME_EXCHANGE else errno.ENOTEMPTY)


def _check_replacement(old: _Side, new: _Side) -> None:
    """Raise PosixError unless what *new* leads to may be replaced by what *old* leads to."""
    assert new.inode is not None
    if old.is_directory and not new.is_directory:
        raise PosixError(errno.ENOTDIR)
    if new.is_directory and not old.is_directory:
        raise PosixError(errno.EISDIR)
    if new.is_directory and new.inode.size:
        raise PosixError(errno.ENOTEMPTY)


def _check_link_room(old: _Side, new: _Side, *, exchange: bool) -> None:
    """Raise PosixError(EMLINK) if a directory would arrive where there are as many subdirectories as can be."""
    if old.directory_no == new.directory_no:
        return
    if old.is_directory and not new.is_directory and new.directory.link_count >= LINK_MAX:
        raise PosixError(errno.EMLINK)
    if exchange and new.is_directory and not old.is_directory and old.directory.link_count >= LINK_MAX:
        raise PosixError(errno.EMLINK)


def _move(volume: "Volume", old: _Side, new: _Side) -> None:
    """Give the old name's inode the new name, and take that from what had it."""
    assert old.entry is not None and old.inode is not None
    moved_no = InodeNo(old.entry.inode)
    gone: InodeNo | None = None
    with volume.operation(Operation.RENAME, moved_no) as now_ns:
        if new.entry is None or new.inode is None:
            directories.move(volume, old.directory_no, old.key, old.entry, new.directory_no, new.key, new.name)
        else:
            replaced_no = InodeNo(new.entry.inode)
            directories.replace(volume, old.directory_no, old.key, old.entry, new.key, new.entry)
            if orphans.drop_link(volume, replaced_no, new.inode, new.entry.link_no, now_ns):
                gone = replaced_no
            if new.is_directory:
                new.directory.link_count -= 1
        if old.is_directory:
            old.directory.link_count -= 1
            new.directory.link_count += 1
        _touch(volume, old, new, now_ns)
    if gone is not None:
        orphans.settle(volume, gone)


def _exchange(volume: "Volume", old: _Side, new: _Side) -> None:
    """Let two names lead to one another's inode."""
    assert old.entry is not None and old.inode is not None and new.entry is not None and new.inode is not None
    with volume.operation(Operation.RENAME, InodeNo(old.entry.inode)) as now_ns:
        directories.put_entry(volume, old.key, _relabelled(new.entry, old.entry))
        directories.put_entry(volume, new.key, _relabelled(old.entry, new.entry))
        change = int(new.is_directory) - int(old.is_directory)
        old.directory.link_count += change
        new.directory.link_count -= change
        new.inode.ctime_ns = now_ns
        volume.inodes.put(InodeNo(new.entry.inode), new.inode)
        _touch(volume, old, new, now_ns)


def _relabelled(entry: DirectoryEntry, label: DirectoryEntry) -> DirectoryEntry:
    """Return *entry* under the name of *label*."""
    return DirectoryEntry(entry.inode, NameId(label.name_id), entry.link_no, entry.file_type)


def _touch(volume: "Volume", old: _Side, new: _Side, now_ns: int) -> None:
    """Write the directories and the moved inode, with the times that a rename leaves."""
    assert old.entry is not None and old.inode is not None
    old.inode.ctime_ns = now_ns
    volume.inodes.put(InodeNo(old.entry.inode), old.inode)
    old.directory.mtime_ns = old.directory.ctime_ns = now_ns
    volume.inodes.put(old.directory_no, old.directory)
    if new.directory_no != old.directory_no:
        new.directory.mtime_ns = new.directory.ctime_ns = now_ns
        volume.inodes.put(new.directory_no, new.directory)
