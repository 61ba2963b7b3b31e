"""Requests about attributes: stat, chmod, chown, utimes and truncate; symlink targets; the whole filesystem's figures."""

import time

from razortools.engine import attributes, namespace
from razortools.engine.attributes import AttributeChange
from razortools.engine.statfs import statfs
from razortools.service.callers import Caller, mode_after_chown, mode_after_truncating
from razortools.service.handlers import Handler, Handlers
from razortools.service.wire import SETATTR, STATFS_OUT, Opcode, SetattrField
from razortools.units import NANOSECONDS, InodeNo

# Plain numbers: the arithmetic of flags is slow.
_MODE, _UID, _GID, _SIZE = (int(field) for field in (SetattrField.MODE, SetattrField.UID, SetattrField.GID, SetattrField.SIZE))
_ATIME, _ATIME_NOW = int(SetattrField.ATIME), int(SetattrField.ATIME_NOW)
_MTIME, _MTIME_NOW = int(SetattrField.MTIME), int(SetattrField.MTIME_NOW)
_CTIME = int(SetattrField.CTIME)
_NAMED = _MODE | _UID | _GID | _SIZE | _ATIME | _MTIME


class AttributeHandlers(Handlers):
    """Handlers whose node is an inode."""

    def table(self) -> dict[int, Handler]:
        """Return the handlers of this family by opcode."""
        return super().table() | {
            Opcode.GETATTR: self.getattr,
            Opcode.SETATTR: self.setattr,
            Opcode.READLINK: self.readlink,
            Opcode.STATFS: self.statfs,
        }

    def getattr(self, ino: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """stat(2)."""
        return self.attributes_of(ino, self.volume.inodes.get(ino))

    def setattr(self, ino: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """chmod(2), chown(2), truncate(2), utimensat(2)."""
        fields, size, atime_s, mtime_s, ctime_s, atime_ns, mtime_ns, ctime_ns, new_mode, _, uid, gid = SETATTR.unpack_from(body)
        inode, mode = self.volume.inodes.get(ino), None
        if fields & (_UID | _GID) or not fields & _NAMED:  # a chown that names nobody still takes set-id bits
            mode = mode_after_chown(inode, caller)
        elif fields & _SIZE:
            mode = mode_after_truncating(inode, caller)
        if mode is None and fields & _MODE:
            mode = new_mode
        now_ns = time.time_ns()
        change = AttributeChange(
            mode=mode,
            uid=uid if fields & _UID else None,
            gid=gid if fields & _GID else None,
            size=size if fields & _SIZE else None,
            atime_ns=_time(fields & _ATIME, fields & _ATIME_NOW, atime_s, atime_ns, now_ns),
            mtime_ns=_time(fields & _MTIME, fields & _MTIME_NOW, mtime_s, mtime_ns, now_ns),
            ctime_ns=_time(fields & _CTIME, 0, ctime_s, ctime_ns, now_ns),
        )
        return self.attributes_of(ino, attributes.setattr(self.volume, ino, change))

    def readlink(self, ino: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Return the target of a symbolic link."""
        target = namespace.readlink(self.volume, ino)
        self.note_access(ino)
        return target

    def statfs(self, ino: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """statvfs(2)."""
        figures = statfs(self.volume)
        return STATFS_OUT.pack(
            figures.block_count,
            figures.free_blocks,
            figures.available_blocks,
            figures.inode_count + figures.free_inodes,
            figures.free_inodes,
            figures.block_bytes,
            figures.name_bytes_max,
            figures.block_bytes,
        )


def _time(given: int, is_now: int, seconds: int, nanoseconds: int, now_ns: int) -> int | None:
    """Return the time that a request sets; None: it leaves it alone."""
    if not given:
        return None
    return now_ns if is_now else seconds * NANOSECONDS + nanoseconds
