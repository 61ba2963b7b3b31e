"""Access control lists: kept as extended attributes, enforced by the kernel; kept in step with the mode and handed down here.

The rules are those of Linux (fs/posix_acl.c). Invariants: the owner's and others' permissions of an access list are those of the
mode, and its mask, or without one the owning group's, is the mode's group part; a list that says no more than a mode is not kept.
"""

import errno
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from razortools.engine import xattrs
from razortools.engine.xattrs import ACCESS_ACL, DEFAULT_ACL, HAS_XATTRS
from razortools.errors import PosixError
from razortools.format.acl import Acl, Tag, decode_acl, encode_acl
from razortools.format.inode import Inode
from razortools.units import InodeNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

NAMES = frozenset((ACCESS_ACL, DEFAULT_ACL))
_OWNER_SHIFT, _GROUP_SHIFT = 6, 3
_MINIMAL = frozenset((Tag.OWNER, Tag.OWNING_GROUP, Tag.OTHERS))


def set(volume: "Volume", ino: InodeNo, name: bytes, value: bytes, *, keeps_set_gid: bool = True) -> None:  # noqa: A001
    """Give a file the list *value*, the access list (then the mode follows, in the same operation) or the default one.

    An empty list takes away what is there. *keeps_set_gid*: whether the caller is of the file's group or may do without.
    Raises PosixError: EINVAL (no list), EACCES (a default list, and no directory), EOPNOTSUPP (a symbolic link); and as
    xattrs.set does.
    """
    inode = volume.inodes.get(ino)
    if inode.is_symlink:
        raise PosixError(errno.EOPNOTSUPP, "a symbolic link has no access control list")
    acl = _parse(value)
    if not acl:
        remove(volume, ino, name)
        return
    if name == DEFAULT_ACL:
        if not inode.is_directory:
            raise PosixError(errno.EACCES, "only a directory has a default access control list")
        xattrs.set(volume, ino, name, encode_acl(acl))
        return
    mode = inode.mode & ~0o777 | _mode_of(acl)
    if not keeps_set_gid:
        mode &= ~stat.S_ISGID
    if says_more_than_a_mode(acl):
        xattrs.set(volume, ino, name, encode_acl(acl), mode=mode)
    else:
        xattrs.remove(volume, ino, name, mode=mode, missing_ok=True)


def remove(volume: "Volume", ino: InodeNo, name: bytes) -> None:
    """Take a list away; there need not be one. The mode stays: what the mask let through stays visible as the group's."""
    xattrs.remove(volume, ino, name, missing_ok=True)


def follow_mode(volume: "Volume", ino: InodeNo, inode: Inode, mode: int) -> None:
    """Bring the access list of a file, if it has one, in step with a new *mode*, and give the file that mode: one operation.

    The mode of a file without a list is left to the caller.
    """
    acl = _stored(volume, ino, inode, ACCESS_ACL)
    if not acl:
        return
    after = _limited_to(acl, mode)
    if after != acl:
        xattrs.set(volume, ino, ACCESS_ACL, encode_acl(after), mode=mode)


def for_new(volume: "Volume", parent_no: InodeNo, parent: Inode, mode: int, umask: int) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Return (mode, attributes) that a new file with the wished *mode* gets: a default list in *parent* counts, else *umask*.

    Raises PosixError(EINVAL) if the default list is none.
    """
    if stat.S_ISLNK(mode):
        return mode, []
    default = _stored(volume, parent_no, parent, DEFAULT_ACL)
    if not default:
        return mode & ~(umask & 0o777), []
    # What is asked for and what is handed down: only what both allow.
    allowed = _mode_of(default) & mode
    access = _limited_to(default, allowed)
    handed_down = [(ACCESS_ACL, encode_acl(access))] if says_more_than_a_mode(access) else []
    if stat.S_ISDIR(mode):
        handed_down.append((DEFAULT_ACL, encode_acl(default)))
    return mode & ~0o777 | allowed, handed_down


def says_more_than_a_mode(acl: Acl) -> bool:
    """Return whether an access list has more than owner, owning group and others: only then is it kept."""
    return any(entry.tag not in _MINIMAL for entry in acl)


def _parse(value: bytes) -> Acl:
    try:
        return decode_acl(value) if value else ()
    except ValueError as refused:
        raise PosixError(errno.EINVAL, str(refused)) from None


def _stored(volume: "Volume", ino: InodeNo, inode: Inode, name: bytes) -> Acl:
    """Return the list that an inode has under *name*; empty if it has none. Raises PosixError(EINVAL) if it is none."""
    if not inode.flags & HAS_XATTRS:
        return ()
    value = xattrs.find(volume, ino, name)
    return () if value is None else _parse(value)


def _mode_of(acl: Acl) -> int:
    """Return the nine permission bits that *acl* shows as."""
    found = {entry.tag: entry.permissions for entry in acl}
    group = found.get(Tag.MASK, found[Tag.OWNING_GROUP])
    return found[Tag.OWNER] << _OWNER_SHIFT | group << _GROUP_SHIFT | found[Tag.OTHERS]


def _limited_to(acl: Acl, mode: int) -> Acl:
    """Return *acl* so that it shows as *mode*: the owner, others, and the mask or else the owning group get what it says."""
    has_mask = any(entry.tag == Tag.MASK for entry in acl)
    shown = {
        Tag.OWNER: mode >> _OWNER_SHIFT & 0o7,
        Tag.MASK if has_mask else Tag.OWNING_GROUP: mode >> _GROUP_SHIFT & 0o7,
        Tag.OTHERS: mode & 0o7,
    }
    return tuple(replace(entry, permissions=shown.get(entry.tag, entry.permissions)) for entry in acl)
