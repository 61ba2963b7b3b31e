"""All request handlers together, and what the kernel tells without waiting for an answer."""

from collections.abc import Iterator

import trio

from razortools.engine import orphans
from razortools.format.keys import Table, table_range
from razortools.service.attributes import AttributeHandlers
from razortools.service.callers import Caller
from razortools.service.data import DataHandlers
from razortools.service.handlers import Answer, Handler
from razortools.service.names import NameHandlers
from razortools.service.streams import StreamHandlers
from razortools.service.wire import BATCH_FORGET, FORGET, FORGET_ONE, Opcode
from razortools.service.xattrs import XattrHandlers
from razortools.units import InodeNo

FORGETTING_S = 0.01  # time for a handful of requests


class Operations(NameHandlers, StreamHandlers, AttributeHandlers, XattrHandlers, DataHandlers):
    """The filesystem that the pump serves. What no family has is libfuse's to answer."""

    def table(self) -> dict[int, Handler]:
        """Return all handlers by opcode."""
        return super().table() | {Opcode.FORGET: self.forget, Opcode.BATCH_FORGET: self.forget_many}

    def forget(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        """The kernel drops an inode from its memory."""
        return self._forget([(ino, *FORGET.unpack_from(body))])

    def forget_many(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        """The kernel drops several inodes from its memory."""
        (count, _) = BATCH_FORGET.unpack_from(body)
        pairs = body[BATCH_FORGET.size : BATCH_FORGET.size + count * FORGET_ONE.size]
        return self._forget(FORGET_ONE.iter_unpack(pairs))

    def _forget(self, dropped: "Iterator[tuple[InodeNo, int]] | list[tuple[InodeNo, int]]") -> Answer:
        """Let go of inodes; unlinked ones go now, large ones in many steps between which others are served."""
        left = []
        for ino, count in dropped:
            try:
                if orphans.release(self.volume, ino, count, finish_now=False) and orphans.finish_step(self.volume, ino):
                    left.append(ino)
            except Exception as failure:  # nobody waits for an answer
                self.refusal(failure, "forget", ino)
        return self._finish(left) if left else b""

    async def _finish(self, orphaned: list[InodeNo]) -> bytes:
        """Delete what is left of unlinked files, step by step."""
        for ino in orphaned:
            try:
                while orphans.finish_step(self.volume, ino):
                    await trio.lowlevel.checkpoint()
            except Exception as failure:
                self.refusal(failure, "forget", ino)
        return b""

    async def may_have_room_soon(self) -> bool:
        """When the image is full: wait for unlinked files to go that the kernel is about to forget; whether there are any.

        It puts forgetting behind up to eight requests, so a program that deletes and then writes would find no room.
        """
        if next(iter(self.volume.store.items(*table_range(Table.ORPHANS))), None) is None:
            return False
        await trio.sleep(FORGETTING_S)
        return True
