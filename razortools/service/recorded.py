"""Serving a mount whose image is recorded, for tests that ask what a power cut may leave of a program's files.

When a commit comes is chance: the timer, another program's fsync. A crash may so show the state after any operation that was not
synced yet. Therefore a recorded mount commits after every request that changes something, and the recording holds all these
states; a note in it tells where a program was promised that what it did is durable, which no other commit promises anybody. A
request that takes several operations of the engine (cutting a file of thousands of records) is committed as one.
"""

import os
from collections.abc import Coroutine
from typing import Any

from razortools.engine.store.recording import RecordingDevice
from razortools.format.inode import ROOT_INODE
from razortools.service.callers import Caller
from razortools.service.handlers import Answer, Handler, Soon
from razortools.service.operations import Operations
from razortools.service.wire import WRITE, Opcode
from razortools.units import InodeNo

CHANGING = (
    Opcode.WRITE,
    Opcode.MKNOD,
    Opcode.MKDIR,
    Opcode.SYMLINK,
    Opcode.LINK,
    Opcode.UNLINK,
    Opcode.RMDIR,
    Opcode.RENAME,
    Opcode.RENAME2,
    Opcode.SETATTR,
    Opcode.SETXATTR,
    Opcode.REMOVEXATTR,
    Opcode.FORGET,
    Opcode.BATCH_FORGET,
)  # fmt: skip  (read only moves access times)
SYNCING = (Opcode.FSYNC, Opcode.FSYNCDIR)


class RecordedOperations(Operations):
    """Operations on a volume that was opened on a RecordingDevice."""

    def table(self) -> dict[int, Handler]:
        """Return all handlers, each followed by what the recording needs."""
        table = super().table()
        table.update({opcode: self._then_commit(opcode, table[opcode]) for opcode in CHANGING})
        table.update({opcode: self._then_note(table[opcode]) for opcode in SYNCING})
        return table

    def commit(self) -> None:
        """Commit on nobody's account. What fails here fails again when a program asks, and is told then."""
        try:
            with self.fetcher.residence.in_place():  # the request has been answered for: it must not run again
                self.volume.commit()
        except Exception as failure:
            self.refusal(failure, "commit", ROOT_INODE)

    def note_synced(self) -> None:
        """Note that a program is about to be told that all it did is durable."""
        device = self.volume.store.device
        if isinstance(device, RecordingDevice):  # a read-only volume may lie on an overlay, and has nothing to promise
            device.note_synced()

    def _then_commit(self, opcode: Opcode, handler: Handler) -> Handler:
        def answered(ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
            syncs = opcode == Opcode.WRITE and bool(WRITE.unpack_from(body)[3] & os.O_DSYNC)
            answer = handler(ino, body, caller)
            assert not isinstance(answer, Soon)
            if not isinstance(answer, bytes | tuple):
                return self._end(answer, syncs=syncs, commits=True)
            self.commit()
            return answer

        return answered

    def _then_note(self, handler: Handler) -> Handler:
        def answered(ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
            answer = handler(ino, body, caller)
            assert answer is Soon.DURABLE, "syncing waits for a commit"
            return self._end(self.durable_file(ino), syncs=True, commits=False)

        return answered

    async def _end(self, answer: Coroutine[Any, Any, bytes], *, syncs: bool, commits: bool) -> bytes:
        """Return the reply of a handler that had to wait, after what the recording needs."""
        reply = await answer
        if syncs:
            self.note_synced()
        if commits:
            self.commit()
        return reply
