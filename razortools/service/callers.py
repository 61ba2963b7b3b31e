"""Callers: what the kernel judges a process by and FUSE does not tell, read from /proc; and what follows for set-id bits.

FUSE names a caller's user and one group. The kernel takes set-id bits away itself where it asks us for a new mode; where it
leaves that to the daemon (truncating, writing, set-gid without group execution) the rules of Linux's fs/attr.c are kept here.
What cannot be read (the process is gone, or lives where we cannot see it) counts as not held: the bits go, the safe side.
"""

import os
import stat
from pathlib import Path

from razortools.engine.attributes import without_set_id
from razortools.engine.store.mounts import lines_of
from razortools.format.inode import Inode

Caller = tuple[int, int, int]  # uid, gid, pid

CAP_SYS_ADMIN = 1 << 21  # may see and change trusted.* attributes
CAP_FSETID = 1 << 4  # linux/capability.h: may keep set-id bits, and set them for groups of others
_SET_ID = stat.S_ISUID | stat.S_ISGID


def mode_after_truncating(inode: Inode, caller: Caller) -> int | None:
    """Return the mode that is left when *caller* truncates a file; None: nothing changes."""
    if not inode.mode & _SET_ID or not inode.is_regular or may_keep_set_id(caller):
        return None
    return without_set_id(inode.mode, in_group=is_in_group(caller, inode.gid))


def mode_after_chown(inode: Inode, caller: Caller) -> int | None:
    """Return the mode that is left when *caller* gives a file another owner, or calls chown and names nobody; None: as it was."""
    if not inode.mode & _SET_ID or inode.is_directory:
        return None
    in_group = may_keep_set_id(caller) or not inode.mode & stat.S_ISGID or is_in_group(caller, inode.gid)
    return without_set_id(inode.mode, in_group=in_group)


def may_keep_set_id(caller: Caller) -> bool:
    """Tell whether the caller is root with CAP_FSETID."""
    return _is_root_with(CAP_FSETID, caller)


def may_see_trusted(caller: Caller) -> bool:
    """Tell whether the caller is root with CAP_SYS_ADMIN: from others Linux hides trusted.* names, see xattr(7)."""
    return _is_root_with(CAP_SYS_ADMIN, caller)


def _is_root_with(capability: int, caller: Caller) -> bool:
    return caller[0] == 0 and bool(int(_status(caller[2]).get("CapEff", "0"), 16) & capability)


def is_in_group(caller: Caller, gid: int) -> bool:
    """Tell whether the caller is of group *gid*, by its main group or a further one."""
    return caller[1] == gid or str(gid) in _status(caller[2]).get("Groups", "").split()


def _status(pid: int) -> dict[str, str]:
    """Return the fields of /proc/PID/status; none if it cannot be read. Memory of the kernel: reading it does not wait."""
    try:
        text = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return {}
    lines = (os.fsdecode(line) for line in lines_of(text))  # one holds the process's name, which it chooses
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
