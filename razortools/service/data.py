"""Requests about contents: opening, reading, writing and making durable.

A file handle is the inode's number, so nothing has to be kept for an open file; one bit above tells that it was opened with
O_SYNC.
"""

import errno
import os

import pyfuse3

from razortools.engine import attributes, files, namespace
from razortools.engine.attributes import AtimePolicy, AttributeChange
from razortools.service.callers import mode_after_truncating
from razortools.service.handlers import Handlers, handler, waiting_handler
from razortools.units import InodeNo

SYNC_BIT = 1 << 62  # inode numbers are handed out one after the other and never get there
INODE_MASK = SYNC_BIT - 1


def _handle(ino: int, flags: int) -> pyfuse3.FileInfo:
    """Return the handle of a file opened with *flags*. What the kernel has cached of it stays true: nobody else writes."""
    return pyfuse3.FileInfo(fh=ino | (SYNC_BIT if flags & os.O_DSYNC else 0), keep_cache=True)


class DataHandlers(Handlers):
    """Handlers whose first argument is a file or its handle."""

    @handler
    def open(self, ino: InodeNo, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Open a file; O_TRUNC is ours to do, the kernel leaves it in the flags."""
        if flags & os.O_TRUNC:
            mode = mode_after_truncating(self.volume.inodes.get(ino), ctx)
            attributes.setattr(self.volume, ino, AttributeChange(size=0, mode=mode))
        return _handle(ino, flags)

    @handler
    def create(
        self, parent: InodeNo, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Make a regular file and open it."""
        ino = namespace.create(self.volume, parent, name, mode, ctx.uid, ctx.gid, ctx.umask)
        return _handle(ino, flags), self.remembered(ino)

    @handler
    def read(self, handle: InodeNo, offset: int, size: int) -> bytes:
        """Return bytes of a file; fewer than asked for only at its end."""
        ino = InodeNo(handle & INODE_MASK)
        data = files.read(self.volume, ino, offset, size)
        if self.options.atime is not AtimePolicy.NEVER:
            attributes.touch_atime(self.volume, ino, self.options.atime)
        return data

    @waiting_handler
    async def write(self, handle: InodeNo, offset: int, data: bytes) -> int:
        """Write all of *data*; waits while more is dirty than may be."""
        ino = InodeNo(handle & INODE_MASK)
        if self.committer.is_pressed:
            await self.committer.room()
        written = files.write(self.volume, ino, offset, data)
        if handle & SYNC_BIT:
            await self.committer.durable()
        return written

    @handler
    def release(self, handle: InodeNo) -> None:
        """Close a file. The kernel's look-up keeps an unlinked one alive, and it ends after this."""

    @handler
    def flush(self, handle: InodeNo) -> None:
        """Say that close(2) need not tell: it promises nothing, and the kernel stops asking."""
        raise pyfuse3.FUSEError(errno.ENOSYS)

    @waiting_handler
    async def fsync(self, handle: InodeNo, only_data: bool) -> None:
        """Return when the file, and with it everything done before, is durable."""
        await self.committer.durable()

    @waiting_handler
    async def fsyncdir(self, handle: InodeNo, only_data: bool) -> None:
        """Return when the directory, and with it everything done before, is durable."""
        await self.committer.durable()
