"""Requests about contents: reading, writing and making durable.

Files are never opened or closed here: the kernel learns with the first OPEN that it need not ask (ENOSYS), and its look-ups keep
an unlinked file alive. CREATE is refused in the same way, so that the kernel makes a file with MKNOD and needs no RELEASE.
"""

import errno
import os

from razortools.engine import attributes, files
from razortools.engine.attributes import AtimePolicy, AttributeChange
from razortools.errors import OutOfSpace
from razortools.service.callers import Caller, mode_after_truncating
from razortools.service.channel import PARTS_MAX
from razortools.service.handlers import Answer, Handler, Handlers, Refused, Reply, Soon
from razortools.service.wire import READ, WRITE, WRITE_KILL_SUIDGID, WRITE_OUT, Opcode
from razortools.units import InodeNo


class DataHandlers(Handlers):
    """Handlers whose node is a file."""

    def table(self) -> dict[int, Handler]:
        """Return the handlers of this family by opcode."""
        return super().table() | {
            Opcode.READ: self.read,
            Opcode.WRITE: self.write,
            Opcode.FSYNC: self.fsync,
            Opcode.FSYNCDIR: self.fsync,
            Opcode.OPEN: self.unneeded,
            Opcode.CREATE: self.unneeded,
            Opcode.FLUSH: self.unneeded,
            Opcode.INTERRUPT: self.unneeded,
        }

    def unneeded(self, ino: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Say that there is no need to ask this, ever."""
        raise Refused(errno.ENOSYS)

    def read(self, ino: InodeNo, body: memoryview, caller: Caller) -> Reply:
        """Return bytes of a file; fewer than asked for only at its end."""
        offset, size, _ = READ.unpack_from(body)
        parts = files.read_parts(self.volume, ino, offset, size)
        if self.options.atime is not AtimePolicy.NEVER:
            attributes.touch_atime(self.volume, ino, self.options.atime)
        if len(parts) == 1:
            data = parts[0]
            self.read_bytes += len(data)
            return data
        self.read_bytes += sum(map(len, parts))
        return tuple(parts) if len(parts) <= PARTS_MAX else b"".join(parts)

    def write(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        """Write all of the data; waits while more is dirty than may be, and for a file that was opened with O_SYNC."""
        offset, size, write_flags, flags = WRITE.unpack_from(body)
        data = body[WRITE.size : WRITE.size + size]
        if write_flags & WRITE_KILL_SUIDGID:
            mode = mode_after_truncating(self.volume.inodes.get(ino), caller)
            if mode is not None:
                attributes.setattr(self.volume, ino, AttributeChange(mode=mode))
        if self.committer.note_write() or flags & os.O_DSYNC:
            return self._write_and_wait(ino, offset, bytes(data), durably=bool(flags & os.O_DSYNC))
        written = files.write(self.volume, ino, offset, data)
        self.written_bytes += written
        return WRITE_OUT.pack(written, 0)

    async def _write_and_wait(self, ino: InodeNo, offset: int, data: bytes, *, durably: bool) -> bytes:
        """Write when there is room for more dirty data, and return when that is durable, if asked for."""
        await self.committer.room()
        try:
            written = await self.fetcher.run(files.write, self.volume, ino, offset, data)
        except OutOfSpace:
            if not await self.may_have_room_soon():
                raise
            written = await self.fetcher.run(files.write, self.volume, ino, offset, data)
        self.written_bytes += written
        if durably:
            await self.durable_file(ino)
        return WRITE_OUT.pack(written, 0)

    def fsync(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        """Say that the file or directory, and with it everything done before, is to be durable."""
        return Soon.DURABLE
