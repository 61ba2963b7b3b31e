"""Serving a mount whose image is recorded, for tests that ask what a power cut may leave of a program's files.

When a commit comes is chance: the timer, another program's fsync. A crash may so show the state after any operation that was not
synced yet. Therefore a recorded mount commits after every request that changes something, and the recording holds all these
states; a note in it tells where a program was promised that what it did is durable, which no other commit promises anybody. A
request that takes several operations of the engine (cutting a file of thousands of records) is committed as one.
"""

import functools
from collections.abc import Callable, Coroutine
from typing import Any

from razortools.engine.store.recording import RecordingDevice
from razortools.format.inode import ROOT_INODE
from razortools.service.data import SYNC_BIT
from razortools.service.operations import Operations

Answer = Callable[..., Coroutine[Any, Any, Any]]

CHANGING = (
    "open", "create", "write", "mknod", "mkdir", "symlink", "link", "unlink", "rmdir", "rename", "setattr", "setxattr",
    "removexattr", "forget",
)  # fmt: skip  (open may truncate; read only moves access times)
SYNCING = ("fsync", "fsyncdir")


class RecordedOperations(Operations):
    """Operations on a volume that was opened on a RecordingDevice."""

    def commit(self) -> None:
        """Commit on nobody's account. What fails here fails again when a program asks, and is told then."""
        try:
            self.volume.commit()
        except Exception as failure:
            self.refusal(failure, "commit", ROOT_INODE)

    def note_synced(self) -> None:
        """Note that a program is about to be told that all it did is durable."""
        device = self.volume.store.device
        if isinstance(device, RecordingDevice):  # a read-only volume may lie on an overlay, and has nothing to promise
            device.note_synced()


def _then_commit(answer: Answer) -> Answer:
    @functools.wraps(answer)
    async def answered(self: RecordedOperations, first: Any, *args: Any) -> Any:
        reply = await answer(self, first, *args)
        if answer.__name__ == "write" and first & SYNC_BIT:
            self.note_synced()
        self.commit()
        return reply

    return answered


def _then_note(answer: Answer) -> Answer:
    @functools.wraps(answer)
    async def answered(self: RecordedOperations, *args: Any) -> Any:
        reply = await answer(self, *args)
        self.note_synced()
        return reply

    return answered


for _name in CHANGING:
    setattr(RecordedOperations, _name, _then_commit(getattr(Operations, _name)))
for _name in SYNCING:
    setattr(RecordedOperations, _name, _then_note(getattr(Operations, _name)))
