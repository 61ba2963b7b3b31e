"""The connection to the kernel: takes requests, gives replies.

Invariants: a request is read whole into one buffer, which is used again by the next one, so whoever keeps a part copies it; each
request but FORGET is answered exactly once. Never blocks.
"""

import errno
import os

from razortools.service.logs import log
from razortools.service.wire import (
    NOTIFY_INVAL_INODE,
    NOTIFY_INVAL_INODE_CODE,
    REPLY_HEAD,
    REQUEST_BYTES_MAX,
)
from razortools.units import InodeNo

_HEAD_BYTES = REPLY_HEAD.size
PARTS_MAX = 256  # the system takes four times as many at once
_COPIED_BYTES_MAX = 8192  # up to here joining head and reply is cheaper than writing them as two
# The request was interrupted before it was answered, or the connection ended.
_NOBODY_WAITS = (errno.ENOENT, errno.ENODEV, errno.ECONNABORTED)


class Channel:
    """One open /dev/fuse."""

    def __init__(self, descriptor: int) -> None:
        """Take over *descriptor*."""
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.buffer = memoryview(bytearray(REQUEST_BYTES_MAX))
        self._buffers = [self.buffer]

    def receive(self) -> int:
        """Read the next request into the buffer and return its length; 0 if the connection has ended.

        Raises BlockingIOError if there is none.
        """
        while True:
            try:
                return os.readv(self.descriptor, self._buffers)
            except OSError as failed:
                if failed.errno == errno.ENODEV:
                    return 0
                if failed.errno not in (errno.ENOENT, errno.EINTR):  # ENOENT: it was interrupted while we took it
                    raise

    def reply(self, unique: int, answer: bytes | tuple[bytes, ...]) -> None:
        """Answer the request *unique*. No more than PARTS_MAX parts."""
        if isinstance(answer, tuple):
            self._reply_in_parts(unique, answer)
            return
        head = REPLY_HEAD.pack(_HEAD_BYTES + len(answer), 0, unique)
        try:
            if len(answer) <= _COPIED_BYTES_MAX:
                os.write(self.descriptor, head + answer)
            else:
                os.writev(self.descriptor, (head, answer))
        except OSError as failed:
            self._note(failed)

    def _reply_in_parts(self, unique: int, parts: tuple[bytes, ...]) -> None:
        head = REPLY_HEAD.pack(_HEAD_BYTES + sum(map(len, parts)), 0, unique)
        try:
            os.writev(self.descriptor, (head, *parts))
        except OSError as failed:
            self._note(failed)

    def refuse(self, unique: int, number: int) -> None:
        """Answer the request *unique* with the errno *number*."""
        self.pass_on(REPLY_HEAD.pack(_HEAD_BYTES, -number, unique))

    def pass_on(self, message: bytes) -> None:
        """Write a reply, or a notice, that is complete with its head."""
        try:
            os.write(self.descriptor, message)
        except OSError as failed:
            self._note(failed)

    def forget_attributes(self, ino: InodeNo) -> None:
        """Have the kernel ask again for the attributes of *ino*, if it knows it."""
        self._notify(ino, -1)

    def forget_pages(self, ino: InodeNo) -> None:
        """Have the kernel drop what it has cached of *ino*. Waits while a page is locked: in a thread other than the loop's."""
        self._notify(ino, 0)

    def _notify(self, ino: InodeNo, offset: int) -> None:
        """Have the kernel take what it knows of *ino* from *offset* on for stale; negative: the attributes only."""
        notice = NOTIFY_INVAL_INODE.pack(ino, offset, 0)
        self.pass_on(REPLY_HEAD.pack(_HEAD_BYTES + len(notice), NOTIFY_INVAL_INODE_CODE, 0) + notice)

    def close(self) -> None:
        """Give the descriptor back: the kernel ends the connection."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _note(self, failed: OSError) -> None:
        """Log a reply that the kernel does not take, unless nobody waits for it any more."""
        if failed.errno not in _NOBODY_WAITS:
            log.error("the kernel does not take a reply: %s", failed.strerror)
