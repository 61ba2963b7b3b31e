"""Writing rescued files to the host, with everything that the host lets us keep.

Invariants: nothing that exists is overwritten and no symlink is followed; runs of zeros become holes; what the host refuses of
one file's attributes is noted and does not end the work, but a host that is full or broken does.
"""

import errno
import os
import stat
from collections.abc import Callable
from functools import partial

from razortools.errors import DeviceFailed
from razortools.format.inode import Inode

HOLE_BYTES = 4096  # runs of zeros of at least this many bytes are not written
_ZEROS = bytes(HOLE_BYTES)
_NO_USE_GOING_ON = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)


class HostCopy:
    """Makes files below one directory of the host."""

    def __init__(self) -> None:
        self.not_kept: set[str] = set()  # what the host refused to keep

    def make(self, target: bytes, action: Callable[[], object]) -> str:
        """Do *action*, which makes *target*; return why it could not be done, or an empty string. Raises DeviceFailed."""
        try:
            action()
        except OSError as refused:
            if refused.errno in _NO_USE_GOING_ON:
                raise DeviceFailed(f"{os.fsdecode(target)}: {refused.strerror}; name a place with more room") from None
            return refused.strerror or str(refused)
        except (ValueError, OverflowError) as refused:  # a name or a number that no host takes
            return str(refused)
        return ""

    def describe(self, inode: Inode, attributes: list[tuple[bytes, bytes]], target: bytes) -> list[tuple[bytes, str]]:
        """Give a file its attributes: the owner first, because chown takes set-id bits away; the times last.

        Returns (name, reason) for each extended attribute that the host refused.
        """
        refused: list[tuple[bytes, str]] = []
        self._keep("owners", partial(os.chown, target, inode.uid, inode.gid, follow_symlinks=False))
        for name, value in attributes:
            reason = self._keep("extended attributes", partial(os.setxattr, target, name, value, follow_symlinks=False))
            if reason:
                refused.append((name, reason))
        if not inode.is_symlink:
            self._keep("modes", partial(os.chmod, target, stat.S_IMODE(inode.mode)))
        times = (inode.atime_ns, inode.mtime_ns)
        self._keep("times", partial(os.utime, target, ns=times, follow_symlinks=False))
        return refused

    def _keep(self, what: str, action: Callable[[], object]) -> str:
        """Do what the host may refuse; "no space" is a refusal, too: some hosts have little of it for attributes."""
        try:
            action()
        except (OSError, OverflowError, ValueError) as refused:
            self.not_kept.add(what)
            return str(getattr(refused, "strerror", None) or refused)
        return ""


def write_but_zeros(descriptor: int, offset: int, data: bytes) -> None:
    """Write *data* at *offset*, leaving out blocks of zeros: the file has its size already, they are holes."""
    if data.count(0) < HOLE_BYTES and len(data) >= HOLE_BYTES:
        _write_all(descriptor, offset, memoryview(data))  # no whole block of zeros is in it
        return
    start = 0
    for at in range(0, len(data), HOLE_BYTES):
        block = data[at : at + HOLE_BYTES]
        if block == _ZEROS[: len(block)]:
            _write_all(descriptor, offset + start, memoryview(data)[start:at])
            start = at + len(block)
    _write_all(descriptor, offset + start, memoryview(data)[start:])


def _write_all(descriptor: int, offset: int, view: memoryview) -> None:
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written
