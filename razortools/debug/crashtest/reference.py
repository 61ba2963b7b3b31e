"""A filesystem in plain dicts: POSIX as a reader of its manual pages would write it, to compare the engine with.

Refusals are Refused(errno). The clock is a number that whoever uses it sets; times follow the manual pages too. It shares
nothing with the engine, not even constants: what both get wrong in the same way nobody would notice.
"""

import errno
import stat
from dataclasses import dataclass, field

LINK_MAX = 65_000


class Refused(Exception):
    """The manual page says no, with this errno."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


@dataclass(eq=False)
class File:
    """A file of any type."""

    mode: int
    uid: int
    gid: int
    atime: int
    mtime: int
    ctime: int
    number: int = 0  # what the engine calls it
    rdev: int = 0
    links: int = 1
    target: bytes = b""
    data: bytes = b""
    compression: bytes = b""
    entries: dict[bytes, "File"] = field(default_factory=dict)
    parent: "File | None" = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    holds: int = 0

    @property
    def is_directory(self) -> bool:
        """Whether it has entries."""
        return stat.S_ISDIR(self.mode)

    @property
    def size(self) -> int:
        """As stat tells it; of a directory the number of its entries."""
        if self.is_directory:
            return len(self.entries)
        return len(self.target) if stat.S_ISLNK(self.mode) else len(self.data)


class Model:
    """The namespace. Everything the engine may be asked, with the same names."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.root = File(stat.S_IFDIR | 0o755, 0, 0, now, now, now, number=1, links=2)
        self.root.parent = self.root
        self.held: list[File] = []

    def files(self) -> list[File]:
        """Return every file that exists, each once, the root first."""
        found, todo = {}, [self.root, *self.held]
        while todo:
            file = todo.pop(0)
            if id(file) not in found:
                found[id(file)] = file
                todo += file.entries.values()
        return list(found.values())

    def directories(self) -> list[File]:
        """Return every directory that exists."""
        return [file for file in self.files() if file.is_directory]

    def make(self, parent: File, name: bytes, mode: int, uid: int, gid: int, rdev: int = 0, target: bytes = b"") -> File:
        """Make a file of any type and its first name."""
        file_type = stat.S_IFMT(mode)
        if file_type == stat.S_IFLNK and not target:
            raise Refused(errno.ENOENT)
        self._require_new(parent, name)
        if parent.mode & stat.S_ISGID:
            gid = parent.gid
            mode |= stat.S_ISGID if file_type == stat.S_IFDIR else 0
        rdev = rdev if file_type in (stat.S_IFCHR, stat.S_IFBLK) else 0
        file = File(mode, uid, gid, self.now, self.now, self.now, rdev=rdev, target=target)
        if file.is_directory:
            file.links, file.parent = 2, parent
            parent.links += 1
        if file_type in (stat.S_IFDIR, stat.S_IFREG) and b"user.razorfs.compression" in parent.xattrs:
            file.xattrs[b"user.razorfs.compression"] = parent.xattrs[b"user.razorfs.compression"]
        parent.entries[name] = file
        self._changed(parent)
        return file

    def lookup(self, parent: File, name: bytes) -> File:
        """Return what a name leads to."""
        if name in parent.entries:
            return parent.entries[name]
        self._require_directory(parent)
        if name == b".":
            return parent
        if name == b"..":
            if parent.links == 0:
                raise Refused(errno.ENOENT)
            assert parent.parent is not None
            return parent.parent
        self._require_name(name)
        raise Refused(errno.ENOENT)

    def link(self, file: File, parent: File, name: bytes) -> None:
        """Give a file a further name."""
        self._require_new(parent, name)
        if file.is_directory:
            raise Refused(errno.EPERM)
        if file.links == 0:
            raise Refused(errno.ENOENT)
        parent.entries[name] = file
        file.links += 1
        file.ctime = self.now
        self._changed(parent)

    def unlink(self, parent: File, name: bytes) -> None:
        """Remove a name of anything but a directory."""
        file = self._require_old(parent, name)
        if file.is_directory:
            raise Refused(errno.EISDIR)
        del parent.entries[name]
        self._lost_name(file)
        self._changed(parent)

    def rmdir(self, parent: File, name: bytes) -> None:
        """Remove an empty directory."""
        file = self._require_old(parent, name)
        if not file.is_directory:
            raise Refused(errno.ENOTDIR)
        if file.entries:
            raise Refused(errno.ENOTEMPTY)
        del parent.entries[name]
        parent.links -= 1
        self._lost_name(file)
        self._changed(parent)

    def rename(self, parent: File, name: bytes, new_parent: File, new_name: bytes, *, noreplace: bool, exchange: bool) -> None:
        """Move a name, over another one or in exchange with it."""
        self._require_name(name)
        self._require_name(new_name)
        self._require_directory(parent)
        self._require_directory(new_parent)
        file, other = parent.entries.get(name), new_parent.entries.get(new_name)
        if file is None or (exchange and other is None):
            raise Refused(errno.ENOENT)
        if noreplace and other is not None:
            raise Refused(errno.EEXIST)
        if parent is not new_parent:
            if self._is_above(file, new_parent):
                raise Refused(errno.EINVAL)
            if other is not None and self._is_above(other, parent):
                raise Refused(errno.EINVAL if exchange else errno.ENOTEMPTY)
        if file is other:
            return
        if not exchange:
            self._require_replaceable(file, new_parent, other)
        self._take(parent, name, file)
        if other is not None:
            self._take(new_parent, new_name, other)
            if exchange:
                self._give(parent, name, other)
                other.ctime = self.now
            else:
                self._lost_name(other)
        self._give(new_parent, new_name, file)
        file.ctime = self.now
        self._changed(parent)
        self._changed(new_parent)

    def _require_replaceable(self, file: File, new_parent: File, other: File | None) -> None:
        if new_parent.links == 0:
            raise Refused(errno.ENOENT)
        if other is not None:
            if file.is_directory and not other.is_directory:
                raise Refused(errno.ENOTDIR)
            if other.is_directory and not file.is_directory:
                raise Refused(errno.EISDIR)
            if other.entries:
                raise Refused(errno.ENOTEMPTY)

    def set_xattr(self, file: File, name: bytes, value: bytes, *, create: bool, replace: bool) -> None:
        """Set an extended attribute."""
        if not 0 < len(name) <= 255:
            raise Refused(errno.ERANGE)
        if len(value) > 65536:
            raise Refused(errno.E2BIG)
        if not name.startswith((b"user.", b"trusted.")):
            raise Refused(errno.EOPNOTSUPP)
        if name.startswith(b"user.") and not (file.is_directory or stat.S_ISREG(file.mode)):
            raise Refused(errno.EPERM)
        if create and name in file.xattrs:
            raise Refused(errno.EEXIST)
        if replace and name not in file.xattrs:
            raise Refused(errno.ENODATA)
        file.xattrs[name] = value
        file.ctime = self.now

    def remove_xattr(self, file: File, name: bytes) -> None:
        """Remove an extended attribute."""
        if name not in file.xattrs:
            raise Refused(errno.ENODATA)
        del file.xattrs[name]
        file.ctime = self.now

    def get_xattr(self, file: File, name: bytes) -> bytes:
        """Return an extended attribute."""
        if name not in file.xattrs:
            raise Refused(errno.ENODATA)
        return file.xattrs[name]

    def chmod(self, file: File, mode: int) -> None:
        """Set the permission bits."""
        file.mode = stat.S_IFMT(file.mode) | mode
        file.ctime = self.now

    def chown(self, file: File, uid: int, gid: int) -> None:
        """Set owner and group; what made it run as its owner goes."""
        file.uid, file.gid = uid, gid
        if not file.is_directory:
            file.mode &= ~stat.S_ISUID
            if file.mode & stat.S_IXGRP:
                file.mode &= ~stat.S_ISGID
        file.ctime = self.now

    def utimens(self, file: File, atime: int, mtime: int) -> None:
        """Set the times of access and change, in nanoseconds."""
        file.atime, file.mtime, file.ctime = atime, mtime, self.now

    def write(self, file: File, offset: int, data: bytes) -> None:
        """Put data into a file; what is skipped becomes zeros."""
        self._require_data(file)
        file.data = file.data.ljust(offset, b"\0")
        file.data = file.data[:offset] + data + file.data[offset + len(data) :]
        file.mtime = file.ctime = self.now

    def truncate(self, file: File, size: int) -> None:
        """Set the size of a file."""
        self._require_data(file)
        file.data = file.data[:size].ljust(size, b"\0")
        file.mtime = file.ctime = self.now

    def hold(self, file: File) -> None:
        """Keep a file although its last name may go."""
        file.holds += 1
        if file not in self.held:
            self.held.append(file)

    def release(self, file: File) -> None:
        """Give a hold back."""
        file.holds -= 1
        if not file.holds:
            self.held.remove(file)

    def forget_holds(self) -> None:
        """Give all holds back: whoever had them is gone."""
        for file in self.held:
            file.holds = 0
        self.held = []

    def _take(self, parent: File, name: bytes, file: File) -> None:
        del parent.entries[name]
        parent.links -= file.is_directory

    def _give(self, parent: File, name: bytes, file: File) -> None:
        parent.entries[name] = file
        parent.links += file.is_directory
        if file.is_directory:
            file.parent = parent

    def _lost_name(self, file: File) -> None:
        file.links = 0 if file.is_directory else file.links - 1
        file.ctime = self.now

    def _changed(self, directory: File) -> None:
        directory.mtime = directory.ctime = self.now

    def _is_above(self, file: File, directory: File) -> bool:
        while directory is not self.root:
            if directory is file:
                return True
            if directory.links == 0:
                raise Refused(errno.ENOENT)
            assert directory.parent is not None
            directory = directory.parent
        return file is self.root

    def _require_data(self, file: File) -> None:
        if file.is_directory:
            raise Refused(errno.EISDIR)
        if not stat.S_ISREG(file.mode):
            raise Refused(errno.EINVAL)

    def _require_directory(self, file: File) -> None:
        if not file.is_directory:
            raise Refused(errno.ENOTDIR)

    def _require_name(self, name: bytes) -> None:
        if len(name) > 255:
            raise Refused(errno.ENAMETOOLONG)
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise Refused(errno.EINVAL)

    def _require_new(self, parent: File, name: bytes) -> None:
        self._require_directory(parent)
        if parent.links == 0:
            raise Refused(errno.ENOENT)
        self._require_name(name)
        if name in parent.entries:
            raise Refused(errno.EEXIST)

    def _require_old(self, parent: File, name: bytes) -> File:
        self._require_directory(parent)
        self._require_name(name)
        if name not in parent.entries:
            raise Refused(errno.ENOENT)
        return parent.entries[name]
