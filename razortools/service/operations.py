"""All request handlers together, as pyfuse3 calls them."""

import os
from collections.abc import Callable, Sequence

import pyfuse3
import trio

from razortools.engine import orphans
from razortools.engine.statfs import Statfs, statfs
from razortools.engine.volume import Volume
from razortools.format.inode import ROOT_INODE
from razortools.service.attributes import AttributeHandlers
from razortools.service.committer import Committer
from razortools.service.data import DataHandlers
from razortools.service.names import NameHandlers
from razortools.service.options import MountOptions
from razortools.units import InodeNo


class Operations(NameHandlers, AttributeHandlers, DataHandlers, pyfuse3.Operations):
    """The filesystem that pyfuse3 serves. What no family has answers ENOSYS, and the kernel does it by itself."""

    supports_dot_lookup = True

    def __init__(self, volume: Volume, committer: Committer, options: MountOptions, started: Callable[[], None]) -> None:
        """Serve *volume*; *started* is called when the kernel has said hello, from when on it sends requests."""
        super().__init__(volume, committer, options)
        self.enable_acl = os.geteuid() == 0  # others' mounts cannot leave the umask to us: service/kernel_mount.py
        self.enable_writeback_cache = options.writeback
        self._started = started
        committer.after_commit = self.settle

    def init(self) -> None:
        """The kernel has said hello."""
        self._started()

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """The kernel drops inodes from its memory; unlinked ones go now. Nobody waits for an answer, so nothing may be raised."""
        for ino, count in inode_list:
            try:
                if orphans.release(self.volume, InodeNo(ino), count, finish_now=False):
                    while orphans.finish_step(self.volume, InodeNo(ino)):
                        await trio.lowlevel.checkpoint()  # a large file goes in many steps, others are served in between
            except Exception as failure:
                self.refusal(failure, "forget", InodeNo(ino))

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """statvfs(2). It names no inode."""
        try:
            return _as_statvfs(statfs(self.volume))
        except Exception as failure:
            raise self.refusal(failure, "statfs", ROOT_INODE) from None


def _as_statvfs(figures: Statfs) -> pyfuse3.StatvfsData:
    reply = pyfuse3.StatvfsData()
    reply.f_bsize = reply.f_frsize = figures.block_bytes
    reply.f_blocks = figures.block_count
    reply.f_bfree = figures.free_blocks
    reply.f_bavail = figures.available_blocks
    reply.f_files = figures.inode_count + figures.free_inodes
    reply.f_ffree = reply.f_favail = figures.free_inodes
    reply.f_namemax = figures.name_bytes_max
    return reply
