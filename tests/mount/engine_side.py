"""One side of the comparison: the engine without a mount, called as the kernel calls a mounted one.

Paths are walked by tests/mount/walking.py; open files with their positions are kept here. Rules that the engine is to know by
itself are not repeated. The caller is root.
"""

import errno
import os
import stat

from razortools.engine import directories, files, namespace, symlinks, xattrs
from razortools.engine.namespace import AttributeChange
from razortools.engine.volume import Volume
from razortools.errors import RazorError
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.keys import HASH_MIN
from razortools.units import InodeNo
from tests.engine.tree_rules import check_rules
from tests.mount.sidebyside import KEPT, LONG_AGO_NS, contents
from tests.mount.walking import DOTS, Place, Walker, refuse

DIRENT_BYTES = 19  # of struct linux_dirent64 before the name; records are padded to 8 bytes


class OpenFile:
    """What a descriptor stands for."""

    def __init__(self, ino: InodeNo, flags: int) -> None:
        self.ino = ino
        self.flags = flags
        self.position = 0  # of a directory: the cookie


class EngineSide(Walker):
    """What the machine of test_three_sides.py asks, asked of the engine."""

    def __init__(self, volume: Volume, umask: int) -> None:
        super().__init__(volume)
        self.slots: dict[int, OpenFile] = {}
        self._umask = umask

    def leave(self) -> None:
        """Close everything; what then stands in the tree obeys its rules."""
        for slot in list(self.slots):
            self.close(slot)
        check_rules(self.volume)
        self.volume.close()

    def call(self, name: str, *words: object) -> object:
        """Return what a call with paths answers, or the name of its errno."""
        return self._tried(f"_{name}", *words)

    def on(self, slot: int, call: str, *words: object) -> object:
        """Return what a call about an open file answers."""
        return self._tried(f"_on_{call}", self.slots[slot], *words)

    def _tried(self, name: str, *words: object) -> object:
        try:
            return getattr(self, name)(*words)
        except RazorError as refused:
            return errno.errorcode[refused.mount_errno]
        except OSError as refused:
            assert refused.errno is not None
            return errno.errorcode[refused.errno]

    # Calls with paths

    def _mkdir(self, path: str, mode: int) -> None:
        parent, name, _ = self._new_place(path, slash_may_follow=True)
        namespace.mkdir(self.volume, parent, name, mode & ~(stat.S_ISUID | stat.S_ISGID), 0, 0, self._umask)

    def _symlink(self, target: str, path: str) -> None:
        symlinks.check_target(os.fsencode(target))
        parent, name, _ = self._new_place(path)
        namespace.symlink(self.volume, parent, name, os.fsencode(target), 0, 0)

    def _link(self, old: str, new: str) -> None:
        ino = self._walk(old, follow=False)
        parent, name, _ = self._new_place(new)
        namespace.link(self.volume, ino, parent, name)

    def _unlink(self, path: str) -> None:
        place = self._parent(path)
        parent, name, trailing = place
        if not name or name in DOTS:
            raise refuse(errno.EISDIR)
        found = self._found(place)
        if trailing and found is not None and not found.is_directory:
            raise refuse(errno.ENOTDIR)
        namespace.unlink(self.volume, parent, name)

    def _rmdir(self, path: str) -> None:
        parent, name, _ = self._parent(path)
        if not name or name in DOTS:
            raise refuse({b"": errno.EBUSY, b".": errno.EINVAL, b"..": errno.ENOTEMPTY}[name])
        namespace.rmdir(self.volume, parent, name)

    def _rename(self, old: str, new: str, flags: int) -> None:
        source, target = self._parent(old), self._parent(new)
        if not source[1] or source[1] in DOTS:
            raise refuse(errno.EBUSY)
        if not target[1] or target[1] in DOTS:
            raise refuse(errno.EEXIST if flags == namespace.RENAME_NOREPLACE else errno.EBUSY)
        moved, replaced = self._found(source), self._found(target)
        is_judged = moved is not None and not (replaced and flags == namespace.RENAME_NOREPLACE)
        if is_judged and not (flags == namespace.RENAME_EXCHANGE and replaced is None):
            self._check_slashes(source, target, moved, replaced, flags)
        namespace.rename(self.volume, *source[:2], *target[:2], flags)

    @staticmethod
    def _check_slashes(source: Place, target: Place, moved: Inode | None, replaced: Inode | None, flags: int) -> None:
        """Refuse slashes behind names of what is no directory."""
        exchange = flags == namespace.RENAME_EXCHANGE
        if exchange and replaced is not None and not replaced.is_directory and target[2]:
            raise refuse(errno.ENOTDIR)
        if moved is not None and not moved.is_directory and (source[2] or (target[2] and not exchange)):
            raise refuse(errno.ENOTDIR)

    def _readlink(self, path: str) -> str:
        return os.fsdecode(namespace.readlink(self.volume, self._walk(path, follow=False)))

    def _truncate(self, path: str, size: int) -> None:
        self._change(self._walk(path), size=size)

    def _chmod(self, path: str, mode: int) -> None:
        self._change(self._walk(path), mode=mode)

    def _chown(self, path: str, uid: int, gid: int) -> None:
        self._change(self._walk(path), **_owners(uid, gid))

    def _lchown(self, path: str, uid: int, gid: int) -> None:
        self._change(self._walk(path, follow=False), **_owners(uid, gid))

    def _set_times(self, path: str, atime_ns: int, mtime_ns: int) -> tuple[int, int]:
        inode = self._change(self._walk(path), atime_ns=atime_ns, mtime_ns=mtime_ns)
        return inode.atime_ns, inode.mtime_ns

    def _change(self, ino: InodeNo, **changes: int) -> Inode:
        return namespace.setattr(self.volume, ino, AttributeChange(**changes))

    def _setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        xattrs.set(self.volume, self._walk(path), os.fsencode(name), value, flags)

    def _getxattr(self, path: str, name: str) -> bytes:
        return xattrs.get(self.volume, self._walk(path), os.fsencode(name))

    def _removexattr(self, path: str, name: str) -> None:
        ino = self._walk(path)
        if not (self._inode(ino).is_directory or self._inode(ino).is_regular):
            raise refuse(errno.EPERM)
        xattrs.remove(self.volume, ino, os.fsencode(name))

    def _listxattr(self, path: str) -> list[str]:
        return sorted(map(os.fsdecode, xattrs.names(self.volume, self._walk(path))))

    def _listdir(self, path: str) -> list[str]:
        ino = self._walk(path)
        if not self._inode(ino).is_directory:
            raise refuse(errno.ENOTDIR)
        return sorted(os.fsdecode(name) for _, name, _ in directories.entries(self.volume, ino))

    def _status(self, path: str) -> tuple[str, int]:
        return self._seen(self._inode(self._walk(path, follow=False)))

    @staticmethod
    def _seen(inode: Inode) -> tuple[str, int]:
        size = "" if inode.is_directory else f" {inode.size}"
        return f"{stat.filemode(inode.mode)} {inode.uid}:{inode.gid}{size}", inode.link_count

    # Open files

    def open(self, slot: int, path: str, flags: int, mode: int = 0o666) -> object:
        """Open a file in a slot that is free."""
        answer = self._tried("_open", path, flags, mode)
        if isinstance(answer, OpenFile):
            namespace.hold(self.volume, answer.ino)
            self.slots[slot] = answer
            return "opened"
        return answer

    def close(self, slot: int) -> None:
        namespace.release(self.volume, self.slots.pop(slot).ino)

    def _open(self, path: str, flags: int, mode: int) -> OpenFile:
        place = self._parent(path)
        while flags & os.O_CREAT:
            directory, name, trailing = place
            if not name or name in DOTS:
                raise refuse(errno.EEXIST if flags & os.O_EXCL else errno.EISDIR)
            if trailing:
                raise refuse(errno.EISDIR)
            found = self._found(place)
            if found is None:
                return OpenFile(namespace.create(self.volume, directory, name, mode, 0, 0, self._umask), flags)
            if flags & os.O_EXCL:
                raise refuse(errno.EEXIST)
            if not found.is_symlink or flags & os.O_NOFOLLOW:
                break
            place = self._followed(directory, namespace.lookup(self.volume, directory, name))
        ino = self._step(place, follow=not flags & os.O_NOFOLLOW)
        self._may_open(self._inode(ino), flags)
        if flags & os.O_TRUNC:
            self._change(ino, size=0)
        return OpenFile(ino, flags)

    @staticmethod
    def _may_open(inode: Inode, flags: int) -> None:
        if flags & os.O_DIRECTORY and not inode.is_directory:
            raise refuse(errno.ENOTDIR)
        if inode.is_symlink:
            raise refuse(errno.ELOOP)
        if inode.is_directory and flags & (os.O_ACCMODE | os.O_TRUNC | os.O_CREAT):
            raise refuse(errno.EISDIR)

    def _readable(self, file: OpenFile) -> None:
        if file.flags & os.O_ACCMODE == os.O_WRONLY:
            raise refuse(errno.EBADF)

    def _writable(self, file: OpenFile) -> None:
        if file.flags & os.O_ACCMODE == os.O_RDONLY:
            raise refuse(errno.EBADF)

    def _on_pread(self, file: OpenFile, length: int, offset: int) -> bytes:
        self._readable(file)
        return files.read(self.volume, file.ino, offset, length)

    def _on_read(self, file: OpenFile, length: int) -> bytes:
        data = self._on_pread(file, length, file.position)
        file.position += len(data)
        return data

    def _on_pwrite(self, file: OpenFile, data: bytes, offset: int) -> int:
        self._writable(file)
        at = self._inode(file.ino).size if file.flags & os.O_APPEND else offset  # Linux appends wherever the caller points
        return files.write(self.volume, file.ino, at, data)

    def _on_write(self, file: OpenFile, data: bytes) -> int:
        self._writable(file)
        if file.flags & os.O_APPEND and data:
            file.position = self._inode(file.ino).size
        written = files.write(self.volume, file.ino, file.position, data)
        file.position += written
        return written

    def _on_lseek(self, file: OpenFile, offset: int, whence: int) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: file.position, os.SEEK_END: self._inode(file.ino).size}[whence]
        if base + offset < 0:
            raise refuse(errno.EINVAL)
        file.position = base + offset
        return file.position

    def _on_ftruncate(self, file: OpenFile, size: int) -> None:
        if file.flags & os.O_ACCMODE == os.O_RDONLY:
            raise refuse(errno.EINVAL)
        self._change(file.ino, size=size)

    def _on_fsync(self, file: OpenFile) -> None:
        files.fsync(self.volume, file.ino)

    def _on_fchmod(self, file: OpenFile, mode: int) -> None:
        self._change(file.ino, mode=mode)

    def _on_fstat(self, file: OpenFile) -> tuple[str, int]:
        return self._seen(self._inode(file.ino))

    def entries(self, slot: int, room_bytes: int) -> list[tuple[str, int]]:
        """Return as many of the next (name, cookie) of a directory as fit in so many bytes; none at the end."""
        file, found = self.slots[slot], []
        for cookie, name, _ in directories.entries(self.volume, file.ino, max(file.position, HASH_MIN - 1)):
            room_bytes -= -(-(DIRENT_BYTES + len(name) + 1) // 8) * 8
            if room_bytes < 0:
                break
            found.append((os.fsdecode(name), cookie))
            file.position = cookie
        return found

    def seek(self, slot: int, cookie: int) -> None:
        """Go on behind the entry with this cookie, at the beginning for 0."""
        self.slots[slot].position = cookie

    # Everything

    def _picture(self) -> dict[str, object]:
        """Return what sidebyside.picture returns, and make all times old."""
        seen: dict[str, object] = {}
        found = self._tree()
        for path, ino in found:
            inode = self._inode(ino)
            (mode, _, owners), link_count = self._seen(inode)[0].partition(" "), inode.link_count
            attributes = {os.fsdecode(name): xattrs.get(self.volume, ino, name) for name in xattrs.names(self.volume, ino)}
            seen[path] = (
                f"{mode} {owners.split()[0]}",
                link_count,
                inode.rdev,
                inode.mtime_ns == LONG_AGO_NS,
                self._inside(ino, inode),
                {name: value for name, value in attributes.items() if name.startswith(KEPT)},
            )
        for _, ino in found:
            self._change(ino, atime_ns=LONG_AGO_NS, mtime_ns=LONG_AGO_NS)
        check_rules(self.volume)
        return seen

    def _inside(self, ino: InodeNo, inode: Inode) -> object:
        if inode.is_symlink:
            return os.fsdecode(namespace.readlink(self.volume, ino))
        if not inode.is_regular:
            return None
        return contents(lambda length, offset: files.read(self.volume, ino, offset, length), inode.size)

    def paths(self, *, directories_only: bool = False) -> list[str]:
        """Return the path of everything there is, in an order that depends on what was done only."""
        return [path for path, ino in self._tree() if not directories_only or self._inode(ino).is_directory]

    def inode_count(self) -> int:
        """Return how many files a name leads to."""
        return len({ino for _, ino in self._tree()})

    def _tree(self) -> list[tuple[str, InodeNo]]:
        found = [(".", ROOT_INODE)]
        for path, ino in found:
            if self._inode(ino).is_directory:
                entries = sorted((os.fsdecode(name), entry.inode) for _, name, entry in directories.entries(self.volume, ino))
                found += [(f"{path}/{name}".removeprefix("./"), InodeNo(number)) for name, number in entries]
        return found

    def statvfs(self) -> namespace.Statfs:
        return namespace.statfs(self.volume)


def _owners(uid: int, gid: int) -> dict[str, int]:
    return {name: owner for name, owner in (("uid", uid), ("gid", gid)) if owner != -1}
