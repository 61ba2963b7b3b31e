"""Requests about names: looking them up, making, moving and removing them.

Invariant: whatever is about to change entries of a directory says so to the listings first.
"""

import errno
import stat

import trio

from razortools.engine import directories, namespace
from razortools.format.directory import NAME_BYTES_MAX
from razortools.service.callers import Caller
from razortools.service.handlers import TIMEOUT_S, Answer, Handler, Handlers, Refused
from razortools.service.wire import ENTRY_OUT, LINK, MKDIR, MKNOD, RENAME, RENAME2, Opcode
from razortools.units import InodeNo

# "There is no such name, and remember that."
_ABSENT = ENTRY_OUT.pack(0, 0, TIMEOUT_S, 0, 0, 0, *[0] * 15)


class NameHandlers(Handlers):
    """Handlers whose node is a directory. Names end with a zero byte."""

    def table(self) -> dict[int, Handler]:
        """Return the handlers of this family by opcode."""
        return super().table() | {
            Opcode.LOOKUP: self.lookup,
            Opcode.MKNOD: self.mknod,
            Opcode.MKDIR: self.mkdir,
            Opcode.SYMLINK: self.symlink,
            Opcode.LINK: self.link,
            Opcode.UNLINK: self.unlink,
            Opcode.RMDIR: self.rmdir,
            Opcode.RENAME: self.rename,
            Opcode.RENAME2: self.rename2,
        }

    def lookup(self, parent: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Find a name; that there is none is remembered by the kernel."""
        name = bytes(body[:-1])
        if len(name) > NAME_BYTES_MAX:
            raise Refused(errno.ENAMETOOLONG)
        if name == b"." or name == b"..":  # asked by those who open files by handle
            return self.entry(parent if name == b"." else directories.parent_of(self.volume, parent))
        found = directories.find_inode(self.volume, parent, name)
        return _ABSENT if found is None else self.entry(found)

    def mknod(self, parent: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Make a file of any kind but a directory or symlink."""
        mode, rdev, umask = MKNOD.unpack_from(body)
        name = bytes(body[MKNOD.size : -1])
        self.listings.change(parent)
        if stat.S_ISREG(mode):
            return self.entry(namespace.create(self.volume, parent, name, mode, caller[0], caller[1], umask))
        return self.entry(namespace.mknod(self.volume, parent, name, mode, rdev, caller[0], caller[1], umask))

    def mkdir(self, parent: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Make a directory."""
        mode, umask = MKDIR.unpack_from(body)
        self.listings.change(parent)
        return self.entry(namespace.mkdir(self.volume, parent, bytes(body[MKDIR.size : -1]), mode, caller[0], caller[1], umask))

    def symlink(self, parent: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Make a symbolic link."""
        name, target, _ = bytes(body).split(b"\0")
        self.listings.change(parent)
        return self.entry(namespace.symlink(self.volume, parent, name, target, caller[0], caller[1]))

    def link(self, parent: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Give a file one more name."""
        (ino,) = LINK.unpack_from(body)
        self.listings.change(parent)
        namespace.link(self.volume, ino, parent, bytes(body[LINK.size : -1]))
        return self.entry(ino)

    def unlink(self, parent: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Remove a name of anything but a directory."""
        self.listings.change(parent)
        namespace.unlink(self.volume, parent, bytes(body[:-1]))
        return b""

    def rmdir(self, parent: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Remove an empty directory."""
        self.listings.change(parent)
        namespace.rmdir(self.volume, parent, bytes(body[:-1]))
        return b""

    def rename(self, parent: InodeNo, body: memoryview, caller: Caller) -> Answer:
        """Move a name, replacing what stands in its new place."""
        (new_parent,) = RENAME.unpack_from(body)
        return self._rename(parent, body[RENAME.size :], new_parent, 0)

    def rename2(self, parent: InodeNo, body: memoryview, caller: Caller) -> Answer:
        """Move a name, refusing to replace, or exchanging it with what stands in its new place."""
        new_parent, flags = RENAME2.unpack_from(body)
        return self._rename(parent, body[RENAME2.size :], new_parent, flags)

    def _rename(self, parent: InodeNo, names: memoryview, new_parent: InodeNo, flags: int) -> Answer:
        name, new_name, _ = bytes(names).split(b"\0")
        self.listings.change(parent)
        to_drop = list[InodeNo]()
        if parent != new_parent:
            self.listings.change(new_parent)
            found = [directories.find_inode(self.volume, *side) for side in ((parent, name), (new_parent, new_name))]
            to_drop = [moved for moved in found if moved is not None and self.listings.move(moved)]
        namespace.rename(self.volume, parent, name, new_parent, new_name, flags)
        return self._drop_listings(to_drop) if to_drop else b""

    async def _drop_listings(self, moved: list[InodeNo]) -> bytes:
        """Have the kernel drop the listings of directories that have another ".." now, while others are served."""
        for ino in moved:
            await trio.to_thread.run_sync(self.listings.drop, ino, abandon_on_cancel=True)
        return b""
