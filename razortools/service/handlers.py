"""What all request handlers share: the mounted volume, what the kernel knows of it, and how a failure becomes an errno.

Invariants: a handler runs without an await from its first look at the engine to its last change, so it is atomic; it never lets
anything but pyfuse3.FUSEError out, because pyfuse3 would end the mount; an inode is held in the engine exactly as often as the
kernel has looked it up and not forgotten it, so that files that are unlinked but open live on.
"""

import errno
import functools
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import pyfuse3
import trio

from razortools.engine import directories
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage, DeviceFailed, OutOfSpace, PosixError, RazorError
from razortools.format.inode import Inode
from razortools.format.keys import Table, table_range
from razortools.service.committer import Committer
from razortools.service.logs import log
from razortools.service.options import MountOptions
from razortools.units import InodeNo

R = TypeVar("R")

# This daemon is the only writer and the kernel sees every change first, so what it knows stays true.
TIMEOUT_S = 86_400.0
FORGETTING_S = 0.01  # time for a handful of requests
SECTOR_BYTES = 512  # the unit of st_blocks
IO_BYTES = 4096  # st_blksize: what programs take for their buffers; a record would make each open file of Python cost 128 KiB


class Handlers:
    """State of the mounted volume. The families of handlers derive from this."""

    enable_acl: bool  # whether the kernel enforces access control lists here

    def __init__(self, volume: Volume, committer: Committer, options: MountOptions) -> None:
        """Serve *volume*; *committer* makes its changes durable."""
        self.volume = volume
        self.committer = committer
        self.options = options
        self.unsettled: set[InodeNo] = set()  # the kernel was told an estimate of their blocks, since data waited for a commit
        self._bugs_seen: set[str] = set()
        self._sectors_per_block = volume.block_bytes // SECTOR_BYTES

    # What the kernel knows

    def entry(self, ino: InodeNo) -> pyfuse3.EntryAttributes:
        """Return what a reply says about *ino*. Raises PosixError(ENOENT) if there is no such inode."""
        return self.attributes_of(ino, self.volume.inodes.get(ino))

    def remembered(self, ino: InodeNo) -> pyfuse3.EntryAttributes:
        """Like entry, for a reply after which the kernel knows the inode once more."""
        attributes = self.attributes_of(ino, self.volume.inodes.get(ino))
        self.volume.inodes.hold(ino)
        return attributes

    def attributes_of(self, ino: InodeNo, inode: Inode) -> pyfuse3.EntryAttributes:
        """Return *inode* as pyfuse3 wants it."""
        reply = pyfuse3.EntryAttributes()
        reply.st_ino = ino
        reply.st_mode = inode.mode
        reply.st_nlink = inode.link_count
        reply.st_uid = inode.uid
        reply.st_gid = inode.gid
        reply.st_size = inode.size
        reply.st_atime_ns = inode.atime_ns
        reply.st_mtime_ns = inode.mtime_ns
        reply.st_ctime_ns = inode.ctime_ns
        if inode.rdev:
            reply.st_rdev = inode.rdev
        reply.entry_timeout = reply.attr_timeout = TIMEOUT_S
        if self.volume.records.dirty_of(ino):
            self.unsettled.add(ino)
            reply.st_blocks = max(inode.stored_blocks * self._sectors_per_block, -(-inode.size // SECTOR_BYTES))
        elif inode.stored_blocks:
            reply.st_blocks = inode.stored_blocks * self._sectors_per_block
        elif inode.size:
            # Data may stand in the tree. Some programs take a file of no blocks for one of zeros and do not read it.
            reply.st_blocks = 1
        return reply

    def settle(self) -> None:
        """After a commit: have the kernel ask again for the files whose blocks are known now."""
        dirty_of = self.volume.records.dirty_of
        settled = [ino for ino in self.unsettled if not dirty_of(ino)]
        self.unsettled.difference_update(settled)
        for ino in settled:
            with suppress(OSError):  # it has forgotten the file meanwhile
                pyfuse3.invalidate_inode(ino, attr_only=True)

    async def may_have_room_soon(self) -> bool:
        """When the image is full: wait for unlinked files to go that the kernel is about to forget; whether there are any.

        It puts forgetting behind up to eight requests, so a program that deletes and then writes would find no room.
        """
        if next(iter(self.volume.store.items(*table_range(Table.ORPHANS))), None) is None:
            return False
        await trio.sleep(FORGETTING_S)
        return True

    # What went wrong

    def refusal(self, failure: Exception, what: str, ino: InodeNo) -> pyfuse3.FUSEError:
        """Return the errno for *failure* of the request *what* on *ino*, after logging what an operator should know."""
        if isinstance(failure, pyfuse3.FUSEError):
            return failure
        if isinstance(failure, PosixError):
            return pyfuse3.FUSEError(failure.mount_errno)
        if isinstance(failure, CorruptImage | DeviceFailed):
            log.error("%s of %s: %s", what, self.path_of(ino), failure)
            return pyfuse3.FUSEError(failure.mount_errno)
        if isinstance(failure, RazorError):
            return pyfuse3.FUSEError(failure.mount_errno)
        bug = f"{what}: {failure!r}"
        known = bug in self._bugs_seen
        self._bugs_seen.add(bug)  # the traceback once: a program that tries again would fill the log
        log.error("%s of inode %d failed, a bug in razortools; the mount goes on", what, ino, exc_info=None if known else failure)
        return pyfuse3.FUSEError(errno.EIO)

    def path_of(self, ino: InodeNo) -> str:
        """Return a path that leads to *ino*, for people; its number if none can be found."""
        try:
            found = directories.paths(self.volume, ino)
        except RazorError:
            found = []
        return os.fsdecode(found[0]).encode("utf-8", "backslashreplace").decode() if found else f"inode {ino}"


def handler(function: Callable[..., R]) -> Any:
    """Return the pyfuse3 handler that answers with what *function* returns.

    *function*'s first argument is an inode or a handle. The result is typed Any because pyfuse3 speaks of plain integers.
    """
    what = function.__name__

    @functools.wraps(function)
    async def answer(self: Handlers, ino: InodeNo, *args: Any) -> R:
        try:
            try:
                return function(self, ino, *args)
            except OutOfSpace:
                if not await self.may_have_room_soon():
                    raise
                return function(self, ino, *args)
        except Exception as failure:
            raise self.refusal(failure, what, ino) from None

    return answer


def waiting_handler(function: Callable[..., Coroutine[Any, Any, R]]) -> Any:
    """Like handler, for a function that may have to wait for a commit or for room, before or after its atomic part."""
    what = function.__name__

    @functools.wraps(function)
    async def answer(self: Handlers, ino: InodeNo, *args: Any) -> R:
        try:
            try:
                return await function(self, ino, *args)
            except OutOfSpace:
                if not await self.may_have_room_soon():
                    raise
                return await function(self, ino, *args)
        except Exception as failure:
            raise self.refusal(failure, what, ino) from None

    return answer
