"""Attributes of files: what chmod, chown, utimensat and truncate change, and access times.

The kernel has judged whether the caller may; the rules kept here are those about the result: set-id bits go when the owner
changes, an access control list follows the mode, ctime moves with every change, times outside of what 64 bits of nanoseconds
hold (the years 1677 to 2262) are moved to their edge.
"""

import errno
import stat
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from razortools.engine import acls, files
from razortools.engine.xattrs import HAS_XATTRS
from razortools.errors import OutOfSpace, PosixError
from razortools.format.inode import TIME_MAX_NS, TIME_MIN_NS, Inode
from razortools.format.journal import Operation
from razortools.units import NANOSECONDS, InodeNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

DAY_NS = 24 * 60 * 60 * NANOSECONDS
ID_MAX = (1 << 32) - 2  # the highest number means "nobody was named"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeChange:
    """What to change; None leaves it as it is. Only the permission bits of *mode* count. *ctime_ns*: now, if not given."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None


class AtimePolicy(Enum):
    """When reading moves a file's access time."""

    NEVER = "noatime"
    RELATIVE = "relatime"  # once after each change, and once a day
    ALWAYS = "strictatime"


def setattr(volume: "Volume", ino: InodeNo, change: AttributeChange) -> Inode:  # noqa: A001  (named for the request it serves)
    """Change attributes and return the inode (the table's own copy: do not edit). The size goes first, by files.truncate.

    Raises PosixError: ENOENT, EISDIR (size of a directory), EINVAL (size of what has none, impossible owner).
    """
    inode = volume.inodes.get(ino)
    if change.size is not None:
        _check_size(inode)
    for owner in (change.uid, change.gid):
        if owner is not None and not 0 <= owner <= ID_MAX:
            raise PosixError(errno.EINVAL, f"{owner} cannot own a file")
    if change.size is not None:
        files.truncate(volume, ino, change.size)
        inode = volume.inodes.get(ino)
    if change == AttributeChange(size=change.size):
        return inode
    if change.mode is not None and inode.flags & HAS_XATTRS:
        acls.follow_mode(volume, ino, inode, _new_mode(inode, change))
    with volume.operation(Operation.SETATTR, ino) as now_ns:
        inode.mode = _new_mode(inode, change)
        if change.uid is not None:
            inode.uid = change.uid
        if change.gid is not None:
            inode.gid = change.gid
        if change.atime_ns is not None:
            inode.atime_ns = clamp_time(change.atime_ns)
        if change.mtime_ns is not None:
            inode.mtime_ns = clamp_time(change.mtime_ns)
        inode.ctime_ns = now_ns if change.ctime_ns is None else clamp_time(change.ctime_ns)
        volume.inodes.put(ino, inode)
    return inode


def touch_atime(volume: "Volume", ino: InodeNo, policy: AtimePolicy = AtimePolicy.RELATIVE) -> None:
    """Note that a file or directory was read, as *policy* wants it. Never fails for lack of space or on a read-only volume."""
    if policy is AtimePolicy.NEVER or volume.read_only:
        return
    inode = volume.inodes.get(ino)
    if policy is AtimePolicy.RELATIVE and not _is_stale(inode, volume.now_ns()):
        return
    if not volume.has_room_now():
        return  # a checkpoint is too much for an access time, and on a full image each read would make one in vain
    with suppress(OutOfSpace), volume.operation(Operation.ACCESS, ino) as now_ns:
        inode.atime_ns = now_ns
        volume.inodes.put(ino, inode)


def clamp_time(time_ns: int) -> int:
    """Return *time_ns*, moved to the edge of what an inode can hold."""
    return max(TIME_MIN_NS, min(TIME_MAX_NS, time_ns))


def without_set_id(mode: int, *, in_group: bool = True) -> int:
    """Return *mode* as Linux leaves it when the owner of a file changes, or its contents by somebody without privilege.

    Set-gid without group execution meant mandatory locking and is no privilege: who is *in_group*, the file's, keeps it.
    """
    mode &= ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP or not in_group else mode


def _is_stale(inode: Inode, now_ns: int) -> bool:
    atime_ns = inode.atime_ns
    return atime_ns <= inode.mtime_ns or atime_ns <= inode.ctime_ns or now_ns - atime_ns >= DAY_NS


def _check_size(inode: Inode) -> None:
    if inode.is_directory:
        raise PosixError(errno.EISDIR)
    if not inode.is_regular:
        raise PosixError(errno.EINVAL, "only a regular file can be truncated")


def _new_mode(inode: Inode, change: AttributeChange) -> int:
    """Return the mode after *change*: the one it names; a new owner alone takes the set-id bits away, but not a directory's."""
    if change.mode is not None:
        return stat.S_IFMT(inode.mode) | stat.S_IMODE(change.mode)
    if (change.uid is None and change.gid is None) or inode.is_directory:
        return inode.mode
    return without_set_id(inode.mode)
