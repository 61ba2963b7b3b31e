"""The namespace: what POSIX says about names, links and directories. Each function is one atomic operation.

Names and paths are bytes. The caller has judged permissions (the kernel does, for a mount); what is judged here is what the
result must obey: types, existing names, link counts, removed directories, set-gid inheritance. All refusals are PosixError, and
nothing has changed then. Rename, attributes, orphans and statfs live in modules of their own and are offered here under one
roof. A directory hands down a default access control list and its compression to what is made in it, unless that is a copy of
something that has its own attributes (*inherits* is false): then nothing is added to it.
"""

import errno
import stat
from typing import TYPE_CHECKING

from razortools.engine import acls, directories, orphans, symlinks, xattrs
from razortools.engine.attributes import AtimePolicy, AttributeChange, setattr, touch_atime
from razortools.engine.orphans import finish_orphans, hold, release
from razortools.engine.outside import Outside
from razortools.engine.rename import RENAME_EXCHANGE, RENAME_NOREPLACE, rename
from razortools.engine.statfs import Statfs, statfs
from razortools.errors import PosixError
from razortools.format.directory import DirectoryEntry
from razortools.format.inode import LINK_MAX, ROOT_INODE, Inode, InodeFlag
from razortools.format.journal import Operation
from razortools.units import InodeNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

__all__ = [
    "RENAME_EXCHANGE",
    "RENAME_NOREPLACE",
    "AtimePolicy",
    "AttributeChange",
    "Statfs",
    "create",
    "finish_orphans",
    "hold",
    "link",
    "lookup",
    "mkdir",
    "mknod",
    "readlink",
    "release",
    "rename",
    "resolve",
    "rmdir",
    "setattr",
    "statfs",
    "symlink",
    "touch_atime",
    "unlink",
]

_CREATE, _MKDIR, _UNLINK = Operation.CREATE, Operation.MKDIR, Operation.UNLINK  # a member of an enumeration is found slowly
LINK_NO_MAX = (1 << 32) - 1  # what a back link's number holds; they are never used twice
HAS_XATTRS = int(InodeFlag.HAS_XATTRS)  # a plain number: the arithmetic of flags is slow, and this runs for every new file
_NODE_TYPES = frozenset((stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))
_DEVICE_TYPES = frozenset((stat.S_IFCHR, stat.S_IFBLK))


def lookup(volume: "Volume", parent: InodeNo, name: bytes) -> InodeNo:
    """Return the inode that *name* in *parent* leads to; "." and ".." are understood. Raises ENOENT, ENOTDIR, ENAMETOOLONG."""
    found = directories.find_inode(volume, parent, name)
    if found is not None:
        return found
    _directory(volume, parent)
    if name == b".":
        return parent
    if name == b"..":
        return directories.parent_of(volume, parent)
    directories.check_name(name)
    raise PosixError(errno.ENOENT)


def resolve(volume: "Volume", path: bytes) -> InodeNo:
    """Return the inode at an absolute path; symbolic links are not followed. Raises EINVAL (relative), ENOENT, ENOTDIR."""
    if not path.startswith(b"/"):
        raise PosixError(errno.EINVAL, f"{path!r} is not an absolute path")
    ino = ROOT_INODE
    for name in path.split(b"/"):
        if name:
            ino = lookup(volume, ino, name)
    if path.endswith(b"/"):
        _directory(volume, ino)
    return ino


def create(
    volume: "Volume", parent: InodeNo, name: bytes, mode: int, uid: int, gid: int, umask: int = 0, *, inherits: bool = True
) -> InodeNo:
    """Make an empty regular file and return its inode; *umask* counts unless *parent* has a default access control list.

    Raises EEXIST, ENOENT, ENOTDIR, and for the name EINVAL, ENAMETOOLONG.
    """
    return _make(volume, _CREATE, parent, name, stat.S_IFREG | mode & 0o7777, uid, gid, umask=umask, inherits=inherits)


def mkdir(
    volume: "Volume", parent: InodeNo, name: bytes, mode: int, uid: int, gid: int, umask: int = 0, *, inherits: bool = True
) -> InodeNo:
    """Make a directory and return its inode. Raises as create does, and EMLINK if *parent* has too many subdirectories."""
    return _make(volume, _MKDIR, parent, name, stat.S_IFDIR | mode & 0o7777, uid, gid, umask=umask, inherits=inherits)


def mknod(
    volume: "Volume",
    parent: InodeNo,
    name: bytes,
    mode: int,
    rdev: int,
    uid: int,
    gid: int,
    umask: int = 0,
    *,
    inherits: bool = True,
) -> InodeNo:
    """Make a file, fifo, socket or device node, by the type in *mode* (none: a file).

    Raises as create does, EPERM for a directory, EINVAL for another type.
    """
    file_type = stat.S_IFMT(mode) or stat.S_IFREG
    if file_type == stat.S_IFDIR:
        raise PosixError(errno.EPERM, "mknod makes no directories")
    if file_type not in _NODE_TYPES:
        raise PosixError(errno.EINVAL, f"mknod makes no files of type {file_type:#o}")
    device = rdev if file_type in _DEVICE_TYPES else 0
    mode = file_type | stat.S_IMODE(mode)
    return _make(volume, Operation.MKNOD, parent, name, mode, uid, gid, rdev=device, umask=umask, inherits=inherits)


def symlink(volume: "Volume", parent: InodeNo, name: bytes, target: bytes, uid: int, gid: int) -> InodeNo:
    """Make a symbolic link and return its inode. Raises as create does; for the target ENOENT (empty), ENAMETOOLONG, EINVAL."""
    symlinks.check_target(target)
    return _make(volume, Operation.SYMLINK, parent, name, stat.S_IFLNK | 0o777, uid, gid, target=target)


def readlink(volume: "Volume", ino: InodeNo) -> bytes:
    """Return the target of a symbolic link. Raises EINVAL if it is none."""
    return symlinks.read_target(volume, ino)


def link(volume: "Volume", ino: InodeNo, parent: InodeNo, name: bytes) -> None:
    """Give an inode a further name.

    Raises EPERM (a directory), EMLINK, EEXIST, ENOENT (it has no name left), and as create does.
    """
    inode = volume.inodes.get(ino)
    directory = _living_directory(volume, parent)
    key = _free_key(volume, parent, name)
    if inode.is_directory:
        raise PosixError(errno.EPERM, "a directory has one name only")
    if inode.link_count == 0:
        raise PosixError(errno.ENOENT, f"inode {ino} has been removed")
    if inode.link_count >= LINK_MAX or inode.next_link_no >= LINK_NO_MAX:
        raise PosixError(errno.EMLINK)
    with volume.operation(Operation.LINK, ino) as now_ns:
        directories.insert(volume, parent, key, name, ino, inode)
        inode.link_count += 1
        inode.ctime_ns = now_ns
        volume.inodes.put(ino, inode)
        _touch_directory(volume, parent, directory, now_ns)


def unlink(volume: "Volume", parent: InodeNo, name: bytes) -> None:
    """Remove a name of anything but a directory; with the last name the file goes, once nobody holds it.

    Raises ENOENT, EISDIR.
    """
    directory, key, entry = _entry(volume, parent, name)
    ino = InodeNo(entry.inode)
    inode = volume.inodes.get(ino)
    if inode.is_directory:
        raise PosixError(errno.EISDIR)
    with volume.operation(_UNLINK, ino, deleting=True) as now_ns:
        directories.remove(volume, directory, key, entry)
        _touch_directory(volume, parent, directory, now_ns)
        settle = orphans.drop_link(volume, ino, inode, entry.link_no, now_ns)
    if settle:
        orphans.settle(volume, ino)


def rmdir(volume: "Volume", parent: InodeNo, name: bytes) -> None:
    """Remove an empty directory. Raises ENOENT, ENOTDIR, ENOTEMPTY."""
    directory, key, entry = _entry(volume, parent, name)
    ino = InodeNo(entry.inode)
    inode = volume.inodes.get(ino)
    if not inode.is_directory:
        raise PosixError(errno.ENOTDIR)
    if inode.size:
        raise PosixError(errno.ENOTEMPTY)
    with volume.operation(Operation.RMDIR, ino, deleting=True) as now_ns:
        directories.remove(volume, directory, key, entry)
        directory.link_count -= 1
        _touch_directory(volume, parent, directory, now_ns)
        settle = orphans.drop_link(volume, ino, inode, entry.link_no, now_ns)
    if settle:
        orphans.settle(volume, ino)


def _make(
    volume: "Volume",
    operation: Operation,
    parent: InodeNo,
    name: bytes,
    mode: int,
    uid: int,
    gid: int,
    *,
    rdev: int = 0,
    umask: int = 0,
    target: bytes = b"",
    inherits: bool = True,
) -> InodeNo:
    """Make an inode of any type and its first name, in one operation."""
    directory = _living_directory(volume, parent)
    key = _free_key(volume, parent, name)
    if operation is _MKDIR and directory.link_count >= LINK_MAX:
        raise PosixError(errno.EMLINK)
    if not target and not (inherits and directory.flags & HAS_XATTRS):  # as usual: nothing is handed down, nothing needs blocks
        with volume.operation(operation, parent) as now_ns:
            ino, inode = volume.inodes.new(mode & ~(umask & 0o777), uid, gid, rdev, now_ns, directory)
            _enter(volume, operation, parent, directory, key, name, ino, inode, now_ns)
        return ino
    mode, handed_down = acls.for_new(volume, parent, directory, mode, umask)
    blocks = symlinks.block_count(volume, target) if target else xattrs.block_count(volume, handed_down)
    with Outside(volume) as outside, volume.operation(operation, parent, blocks=blocks) as now_ns:
        ino, inode = volume.inodes.new(mode, uid, gid, rdev, now_ns, directory)
        if target:
            symlinks.write_target(volume, ino, inode, target, outside)
        if directory.flags & HAS_XATTRS:
            xattrs.inherit(volume, parent, ino, inode)
            xattrs.give(volume, ino, inode, handed_down, outside)
        _enter(volume, operation, parent, directory, key, name, ino, inode, now_ns)
    return ino


def _enter(
    volume: "Volume",
    operation: Operation,
    parent: InodeNo,
    directory: Inode,
    key: bytes,
    name: bytes,
    ino: InodeNo,
    inode: Inode,
    now_ns: int,
) -> None:
    """Put a new inode and its name in place. Part of the running operation."""
    directories.insert(volume, parent, key, name, ino, inode)
    inodes = volume.inodes
    inodes.put(ino, inode)
    if operation is _MKDIR:
        directory.link_count += 1
    directory.mtime_ns = directory.ctime_ns = now_ns
    inodes.put(parent, directory)


def _directory(volume: "Volume", ino: InodeNo) -> Inode:
    """Return the inode of a directory. Raises ENOENT, ENOTDIR."""
    inode = volume.inodes.get(ino)
    if inode.mode & 0o170000 != stat.S_IFDIR:
        raise PosixError(errno.ENOTDIR)
    return inode


def _living_directory(volume: "Volume", ino: InodeNo) -> Inode:
    """Return the inode of a directory that can take new names. Raises ENOENT (also if it was removed while open), ENOTDIR."""
    inode = _directory(volume, ino)
    if inode.link_count == 0:
        raise PosixError(errno.ENOENT, f"directory {ino} has been removed")
    return inode


def _free_key(volume: "Volume", parent: InodeNo, name: bytes) -> bytes:
    """Return the key that a new *name* in *parent* gets. Raises EINVAL, ENAMETOOLONG, EEXIST."""
    directories.check_name(name)
    key, entry = directories.probe(volume, parent, name)
    if entry is not None:
        raise PosixError(errno.EEXIST)
    return key


def _entry(volume: "Volume", parent: InodeNo, name: bytes) -> tuple[Inode, bytes, DirectoryEntry]:
    """Return (directory, key, entry) of an existing name. Raises ENOENT, ENOTDIR, EINVAL, ENAMETOOLONG."""
    found = directories.find(volume, parent, name)
    directory = _directory(volume, parent)
    if found is None:
        directories.check_name(name)
        raise PosixError(errno.ENOENT)
    return directory, *found


def _touch_directory(volume: "Volume", ino: InodeNo, directory: Inode, now_ns: int) -> None:
    """Write a directory whose entries changed."""
    directory.mtime_ns = directory.ctime_ns = now_ns
    volume.inodes.put(ino, directory)
