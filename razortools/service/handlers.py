"""What all request handlers share: the mounted volume, what the kernel knows of it, and how a failure becomes an errno.

A handler is a plain method ``(node, body, caller) -> bytes``: the inode that the request is about, what follows its head
(valid until the handler returns), who asks; and the reply without its head, as it is or in parts. Invariants: a handler runs
from its first look at the engine to its last change without anything in between, so it is atomic; if it lacks something that
is not in memory (NotResident), or room (OutOfSpace), it has changed nothing and is run again, so what it does outside of the
engine's operations comes last; an inode is held in the engine exactly as often as the kernel has looked it up and not
forgotten it, so that files that are unlinked but open live on. A handler that has to wait returns a coroutine instead, which
ends in the reply; or it says what it waits for (Soon).
"""

import errno
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from enum import Enum
from typing import Any

import trio

from razortools.engine import attributes, orphans
from razortools.engine.attributes import AtimePolicy
from razortools.engine.store.residence import NotResident
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage, DeviceFailed, PosixError, RazorError
from razortools.format.inode import Inode
from razortools.service.callers import Caller
from razortools.service.committer import Committer
from razortools.service.failures import Failures
from razortools.service.listings import Listings
from razortools.service.logs import log
from razortools.service.options import MountOptions
from razortools.service.phases import Phase, phase
from razortools.service.residence import Fetcher
from razortools.service.settled import Settled
from razortools.service.wire import ATTRIBUTES_OUT, ENTRY_OUT, Opcode
from razortools.units import MIB, NANOSECONDS, InodeNo


class Soon(Enum):
    """Answers that the pump gives when it has served what is there, to all who wait for the same at once."""

    DURABLE = "everything done so far is durable"


Reply = bytes | tuple[bytes, ...]  # parts follow one another: a megabyte need not be put together before it is handed over
Answer = Reply | Soon | Coroutine[Any, Any, bytes]
Handler = Callable[[InodeNo, memoryview, Caller], Answer]

# This daemon is the only writer and the kernel sees every change first, so what it knows stays true.
TIMEOUT_S = 86_400
FORGETTING_S = 0.01  # time for a handful of requests
SECTOR_BYTES = 512  # the unit of st_blocks
WAITING_BYTES_MIN = 8 * MIB
IO_BYTES = 4096  # st_blksize: what programs take for their buffers; a record would make each open file of Python cost 128 KiB

CHANGING_TREE = frozenset(
    map(
        int,
        (
            Opcode.MKNOD, Opcode.MKDIR, Opcode.SYMLINK, Opcode.LINK, Opcode.UNLINK, Opcode.RMDIR, Opcode.RENAME, Opcode.RENAME2,
            Opcode.SETATTR, Opcode.SETXATTR, Opcode.REMOVEXATTR,
        ),
    )
)  # fmt: skip

_pack_entry = ENTRY_OUT.pack
_pack_attributes = ATTRIBUTES_OUT.pack


class Refused(Exception):
    """The errno that a request is answered with, nothing having changed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:  # put together when somebody wants to read it: the kernel asks each new file for an attribute
        return os.strerror(self.number)


class Handlers:
    """State of the mounted volume. The families of handlers derive from this."""

    def __init__(self, volume: Volume, committer: Committer, settled: Settled, options: MountOptions) -> None:
        """Serve *volume*; *committer* makes its changes durable, *settled* knows which figures the kernel must ask for again."""
        self.volume = volume
        self.committer = committer
        self.options = options
        self.fetcher = Fetcher(volume.store.residence, lambda: volume.store.device.read_s)
        self._estimated = settled.estimated
        self.listings = Listings()
        self._bugs_seen: set[str] = set()
        self.holds_back = False  # whether what changes the tree is to wait for `less_dirty`
        self.read_bytes = self.written_bytes = 0  # of files, by programs
        self.failures = Failures(volume)
        # With the kernel's write-back cache a file may have data that we have not seen.
        self._sectors_min = 1 if options.writeback else 0
        self._sectors_per_block = volume.block_bytes // SECTOR_BYTES

    def table(self) -> dict[int, Handler]:
        """Return the handlers of this family by opcode."""
        return {}

    # What the kernel knows

    def entry(self, ino: InodeNo) -> bytes:
        """Return the reply after which the kernel knows *ino* once more. Raises PosixError(ENOENT) if there is no such inode."""
        reply = self.entry_of(ino, self.volume.inodes.get(ino))
        self.volume.inodes.hold(ino)
        return reply

    def entry_of(self, ino: InodeNo, inode: Inode) -> bytes:
        """Return what a name's reply says about *inode*. The caller holds it."""
        return _pack_entry(ino, 0, TIMEOUT_S, TIMEOUT_S, 0, 0, *self._fields(ino, inode))

    def attributes_of(self, ino: InodeNo, inode: Inode) -> bytes:
        """Return what stat(2) is told of *inode*."""
        return _pack_attributes(TIMEOUT_S, 0, 0, *self._fields(ino, inode))

    def _fields(self, ino: InodeNo, inode: Inode) -> tuple[int, ...]:
        """Return the attributes of *inode* in the order of the protocol."""
        size = inode.size
        if self.volume.records.is_dirty(ino):
            self._estimated.add(ino)
            sectors = max(inode.stored_blocks * self._sectors_per_block, -(-size // SECTOR_BYTES))
        elif inode.stored_blocks:
            sectors = inode.stored_blocks * self._sectors_per_block
        else:
            # Data may stand in the tree. Some programs take a file of no blocks for one of zeros and do not read it.
            sectors = 1 if size else self._sectors_min
        atime_s, atime_ns = divmod(inode.atime_ns, NANOSECONDS)
        mtime_s, mtime_ns = divmod(inode.mtime_ns, NANOSECONDS)
        ctime_s, ctime_ns = divmod(inode.ctime_ns, NANOSECONDS)
        return (
            ino, size, sectors, atime_s, mtime_s, ctime_s, atime_ns, mtime_ns, ctime_ns,
            inode.mode, inode.link_count, inode.uid, inode.gid, inode.rdev, IO_BYTES,
        )  # fmt: skip

    def note_access(self, ino: InodeNo) -> None:
        """Note that a directory or symbolic link was read, unless the disk would have to be waited for."""
        if self.options.atime is not AtimePolicy.NEVER:
            with suppress(NotResident):
                attributes.touch_atime(self.volume, ino, self.options.atime)

    def commit_here(self) -> bool:
        """Make everything done so far durable at once if that is quick; whether it was. Raises what kept it from being so."""
        return self.committer.commit_here()

    def loss_of(self, ino: InodeNo) -> CorruptImage | None:
        """Return why something that was written to a file can never be stored; None: all of it is."""
        return self.volume.records.losses.of(ino)

    def tell_losses(self) -> None:
        """Log what has been given up lately."""
        lately = self.volume.records.losses.lately
        while lately:
            ino, failure = lately.pop()
            self.failures.meet(failure, "write", ino)

    def after_burst(self) -> None:
        """See to what the requests of the last moment may have left to do; others have their turn now."""
        self.tell_losses()
        self.committer.note_changes()
        self.holds_back = self.committer.holds_back

    async def less_dirty(self) -> None:
        """Return when the tree may be changed without keeping others waiting."""
        await self.committer.less_dirty()

    def waiting_bytes_max(self) -> int:
        """Return how many bytes the requests that wait may hold: as much as may be dirty, and room for some large ones."""
        return max(WAITING_BYTES_MIN, self.volume.limits.dirty_bytes)

    async def durable(self) -> bytes:
        """Return when everything done so far is durable, which is an empty reply. Raises what kept it from being so."""
        await self.committer.durable()
        return b""

    async def durable_file(self, ino: InodeNo) -> bytes:
        """Do what durable() does; raise if something of this file can never be."""
        reply = await self.durable()
        loss = self.loss_of(ino)
        if loss is not None:
            raise loss
        return reply

    async def may_have_room_soon(self) -> bool:
        """When the image is full: wait for unlinked files to go that the kernel is about to forget; whether there are any.

        It puts forgetting behind up to eight requests, so a program that deletes and then writes would find no room.
        """
        if next(orphans.standing(self.volume), None) is None:
            return False
        with phase(Phase.ROOM):
            await trio.sleep(FORGETTING_S)
        return True

    # What went wrong

    def refusal(self, failure: Exception, what: str, ino: InodeNo) -> int:
        """Return the errno for *failure* of the request *what* on *ino*, after logging what an operator should know."""
        if isinstance(failure, Refused):
            return failure.number
        if isinstance(failure, PosixError):
            return failure.mount_errno
        if isinstance(failure, CorruptImage | DeviceFailed):
            self.failures.meet(failure, what, ino)
            return failure.mount_errno
        if isinstance(failure, RazorError):
            return failure.mount_errno
        bug = f"{what}: {failure!r}"
        known = bug in self._bugs_seen
        self._bugs_seen.add(bug)  # the traceback once: a program that tries again would fill the log
        log.error("%s of inode %d failed, a bug in razortools; the mount goes on", what, ino, exc_info=None if known else failure)
        return errno.EIO


_NAMES = {int(opcode): opcode.name.lower() for opcode in Opcode}


def name_of(opcode: int) -> str:
    """Return what the log calls a request."""
    return _NAMES.get(opcode) or f"request {opcode}"
