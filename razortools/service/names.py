"""Requests about names: looking them up, making and removing them, and reading directories."""

import errno
import stat

import pyfuse3

from razortools.engine import directories, namespace
from razortools.errors import PosixError
from razortools.format.directory import NAME_BYTES_MAX
from razortools.format.keys import HASH_MIN
from razortools.service.handlers import TIMEOUT_S, Handlers, handler
from razortools.service.logs import log
from razortools.units import InodeNo

SELF_COOKIE = 1  # cookies below HASH_MIN are ours
PARENT_COOKIE = 2
assert PARENT_COOKIE < HASH_MIN


def _absent() -> pyfuse3.EntryAttributes:
    """Return the reply that says: no such name, and remember that."""
    reply = pyfuse3.EntryAttributes()
    reply.st_ino = 0
    reply.entry_timeout = TIMEOUT_S
    return reply


_ABSENT = _absent()


class NameHandlers(Handlers):
    """Handlers whose first argument is a directory."""

    @handler
    def lookup(self, parent: InodeNo, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Find a name; that there is none is remembered by the kernel."""
        if len(name) > NAME_BYTES_MAX:
            raise pyfuse3.FUSEError(errno.ENAMETOOLONG)
        if name == b"." or name == b"..":  # asked by those who open files by handle
            return self.remembered(parent if name == b"." else directories.parent_of(self.volume, parent))
        found = directories.find(self.volume, parent, name)
        return _ABSENT if found is None else self.remembered(InodeNo(found[1].inode))

    @handler
    def mknod(self, parent: InodeNo, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Make a file of any kind but a directory or symlink."""
        if stat.S_ISREG(mode):
            return self.remembered(namespace.create(self.volume, parent, name, mode, ctx.uid, ctx.gid, ctx.umask))
        return self.remembered(namespace.mknod(self.volume, parent, name, mode, rdev, ctx.uid, ctx.gid, ctx.umask))

    @handler
    def mkdir(self, parent: InodeNo, name: bytes, mode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Make a directory."""
        return self.remembered(namespace.mkdir(self.volume, parent, name, mode, ctx.uid, ctx.gid, ctx.umask))

    @handler
    def symlink(self, parent: InodeNo, name: bytes, target: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Make a symbolic link."""
        return self.remembered(namespace.symlink(self.volume, parent, name, target, ctx.uid, ctx.gid))

    @handler
    def link(self, ino: InodeNo, parent: InodeNo, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Give a file one more name."""
        namespace.link(self.volume, ino, parent, name)
        return self.remembered(ino)

    @handler
    def unlink(self, parent: InodeNo, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove a name of anything but a directory."""
        namespace.unlink(self.volume, parent, name)

    @handler
    def rmdir(self, parent: InodeNo, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove an empty directory."""
        namespace.rmdir(self.volume, parent, name)

    @handler
    def rename(
        self, parent: InodeNo, name: bytes, new_parent: InodeNo, new_name: bytes, flags: int, ctx: pyfuse3.RequestContext
    ) -> None:
        """Move a name, replacing, refusing or exchanging what stands in its new place."""
        namespace.rename(self.volume, parent, name, new_parent, new_name, flags)

    # Directories as streams. A handle is the directory's inode number: a cookie says all about the position.

    @handler
    def opendir(self, ino: InodeNo, ctx: pyfuse3.RequestContext) -> int:
        """Open a directory for reading."""
        return ino

    @handler
    def readdir(self, ino: InodeNo, after: int, token: pyfuse3.ReaddirToken) -> None:
        """Give entries and their attributes from behind the cookie *after* until the kernel's buffer is full."""
        volume = self.volume
        reply, inodes = pyfuse3.readdir_reply, volume.inodes
        if not self._give_dots(ino, after, token):
            return
        for cookie, name, found in directories.entries(volume, ino, max(after, HASH_MIN - 1)):
            child = InodeNo(found.inode)
            try:
                attributes = self.attributes_of(child, inodes.get(child))
            except PosixError:  # an entry that leads nowhere is damage: the others are still to be seen
                log.error("%s: entry %r leads to inode %d, which is not there; run razorfsck", self.path_of(ino), name, child)
                continue
            if not reply(token, name, attributes, cookie):
                return
            inodes.hold(child)

    def _give_dots(self, ino: InodeNo, after: int, token: pyfuse3.ReaddirToken) -> bool:
        """Give "." and ".." if they come behind *after*; whether there is room for more. The kernel does not count these two."""
        if after < SELF_COOKIE and not pyfuse3.readdir_reply(token, b".", self.entry(ino), SELF_COOKIE):
            return False
        if after < PARENT_COOKIE:
            try:
                parent = self.entry(directories.parent_of(self.volume, ino))
            except PosixError:
                return False  # removed while open: nothing is in it, not even ".."
            return pyfuse3.readdir_reply(token, b"..", parent, PARENT_COOKIE)
        return True

    @handler
    def releasedir(self, ino: InodeNo) -> None:
        """Close a directory."""
