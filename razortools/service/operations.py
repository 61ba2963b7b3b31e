"""All request handlers together, and what the kernel tells without waiting for an answer."""

import trio

from razortools.engine import orphans
from razortools.engine.store.residence import NotResident
from razortools.service.attributes import AttributeHandlers
from razortools.service.callers import Caller
from razortools.service.data import DataHandlers
from razortools.service.handlers import Answer, Handler
from razortools.service.names import NameHandlers
from razortools.service.options import MountOptions
from razortools.service.streams import StreamHandlers
from razortools.service.wire import BATCH_FORGET, FORGET, FORGET_ONE, Opcode
from razortools.service.xattrs import XattrHandlers
from razortools.units import InodeNo

FORGOTTEN_AT_ONCE = 128  # about as long as a handful of other requests


class Operations(NameHandlers, StreamHandlers, AttributeHandlers, XattrHandlers, DataHandlers):
    """The filesystem that the pump serves. What no family has is libfuse's to answer."""

    def table(self) -> dict[int, Handler]:
        """Return all handlers by opcode."""
        return super().table() | {Opcode.FORGET: self.forget, Opcode.BATCH_FORGET: self.forget_many}

    def adopt(self, options: MountOptions) -> None:
        """Go by *options* from now on."""
        self.options = options

    def forget(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        """The kernel drops an inode from its memory."""
        left = self._let_go([(ino, *FORGET.unpack_from(body))])
        return self._finish(left) if left else b""

    def forget_many(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        """The kernel drops several inodes from its memory, up to some ten thousand."""
        (count, _) = BATCH_FORGET.unpack_from(body)
        dropped = list(FORGET_ONE.iter_unpack(body[BATCH_FORGET.size : BATCH_FORGET.size + count * FORGET_ONE.size]))
        if count > FORGOTTEN_AT_ONCE:
            return self._forget_in_turns(dropped)
        left = self._let_go(dropped)
        return self._finish(left) if left else b""

    async def _forget_in_turns(self, dropped: list[tuple[InodeNo, int]]) -> bytes:
        """Let go of many inodes; others are served in between."""
        for first in range(0, len(dropped), FORGOTTEN_AT_ONCE):
            await self._finish(self._let_go(dropped[first : first + FORGOTTEN_AT_ONCE]))
            await trio.lowlevel.checkpoint()
        return b""

    def _let_go(self, dropped: list[tuple[InodeNo, int]]) -> list[InodeNo]:
        """Count the kernel's look-ups down; return the unlinked files that are still to be deleted."""
        left = []
        for ino, count in dropped:
            try:
                # Counting is no operation: it must not be run again because something is not in memory.
                with self.fetcher.residence.in_place():
                    is_unlinked = orphans.release(self.volume, ino, count, finish_now=False)
                if is_unlinked and orphans.finish_step(self.volume, ino):
                    left.append(ino)
            except NotResident:
                left.append(ino)
            except Exception as failure:  # nobody waits for an answer
                with self.fetcher.residence.in_place():  # it looks for a path, and that must not run the counting again either
                    self.refusal(failure, "forget", ino)
        return left

    async def _finish(self, orphaned: list[InodeNo]) -> bytes:
        """Delete what is left of unlinked files, step by step; others are served in between."""
        for ino in orphaned:
            try:
                while await self.fetcher.run(orphans.finish_step, self.volume, ino):
                    await trio.lowlevel.checkpoint()
            except Exception as failure:
                self.refusal(failure, "forget", ino)
        return b""
