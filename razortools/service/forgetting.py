"""What the kernel tells without waiting for an answer: which inodes it drops from its memory.

With that an unlinked file goes. Nobody waits for it. So what is told of files without a name is counted in the next pause between
two requests, when the pump would only look for the next one; a file in limbo (engine/limbo.py) is gone with that. The deletion of
any other one is put off until the pump has nothing else to do, or several can be deleted together, which costs a third.

Invariants: look-ups are counted down once, in order for each file; no more than TOLD_MAX wait to be counted; no more than
PUT_OFF_MAX files are put off, small ones that lost their names lately (engine/inodes.py), which a commit may find still there; a
file that somebody has got hold of again meanwhile, by its handle, is left alone.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from razortools.engine import orphans
from razortools.engine.orphans import TOGETHER_MAX
from razortools.engine.store.residence import NotResident
from razortools.service.callers import Caller
from razortools.service.handlers import Answer, Handler, Handlers
from razortools.service.wire import BATCH_FORGET, FORGET, FORGET_ONE, Opcode
from razortools.units import InodeNo

TOLD_MAX = 16  # the next pause comes within a few requests
FORGOTTEN_AT_ONCE = 128  # about as long as a handful of other requests
PUT_OFF_MAX = 4 * TOGETHER_MAX  # fewer than may be without a name and not in the orphan table


class ForgetHandlers(Handlers):
    """Handlers of what needs no answer."""

    def __init__(self, *shared: Any) -> None:
        """Take what Handlers takes."""
        super().__init__(*shared)
        self._put_off: list[InodeNo] = []  # unlinked, forgotten and not deleted yet
        self._told: list[tuple[InodeNo, int]] = []  # of files without a name: look-ups that are not counted down yet

    def table(self) -> dict[int, Handler]:
        """Return the handlers of this family by opcode."""
        return super().table() | {Opcode.FORGET: self.forget, Opcode.BATCH_FORGET: self.forget_many}

    def forget(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        """The kernel drops an inode from its memory."""
        (count,) = FORGET.unpack_from(body)
        inodes, told = self.volume.inodes, self._told
        if len(told) < TOLD_MAX and (ino in inodes.limbo.files or ino in inodes.nameless):  # what follows an unlink
            told.append((ino, count))
            return b""
        left = self._let_go([(ino, count)])
        return self._finish(left) if left else b""

    def forget_many(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        """The kernel drops several inodes from its memory, up to some ten thousand."""
        (count, _) = BATCH_FORGET.unpack_from(body)
        dropped = list(FORGET_ONE.iter_unpack(body[BATCH_FORGET.size : BATCH_FORGET.size + count * FORGET_ONE.size]))
        if count > FORGOTTEN_AT_ONCE:
            return self._forget_in_turns(dropped)
        left = self._let_go(dropped)
        return self._finish(left) if left else b""

    def tidy(self, at_least: int) -> Callable[[], Awaitable[object]] | None:
        """Delete files that were put off, if there are *at_least* so many; return what takes longer, for a task of its own."""
        if self._told:
            self._count_down()
        if not self._put_off or len(self._put_off) < at_least:
            return None
        with self.fetcher.residence.in_place():
            left = self._delete_together()
        return partial(self._finish, left) if left else None

    async def may_have_room_soon(self) -> bool:
        """See Handlers."""
        left = self.tidy(1)
        if left is not None:
            await left()
        return await super().may_have_room_soon()

    async def _forget_in_turns(self, dropped: list[tuple[InodeNo, int]]) -> bytes:
        """Let go of many inodes; others are served in between."""
        for first in range(0, len(dropped), FORGOTTEN_AT_ONCE):
            await self._finish(self._let_go(dropped[first : first + FORGOTTEN_AT_ONCE]))
            await trio.lowlevel.checkpoint()
        return b""

    def _let_go(self, dropped: list[tuple[InodeNo, int]]) -> list[InodeNo]:
        """Count the kernel's look-ups down; return the unlinked files that are still to be deleted and cannot be put off."""
        left = []
        nameless, in_place = self.volume.inodes.nameless, self.fetcher.residence.in_place
        for ino, count in dropped:
            try:
                # Counting is no operation: it must not be run again because something is not in memory.
                with in_place():
                    is_unlinked = orphans.release(self.volume, ino, count, finish_now=False)
                    if is_unlinked and ino in nameless:
                        self._put_off.append(ino)
                        if len(self._put_off) > PUT_OFF_MAX:
                            left += self._delete_together()
                        continue
                if is_unlinked and orphans.finish_step(self.volume, ino):
                    left.append(ino)
            except NotResident:
                left.append(ino)
            except Exception as failure:  # nobody waits for an answer
                with in_place():  # it looks for a path, and that must not run the counting again either
                    self.refusal(failure, "forget", ino)
        return left

    def _delete_together(self) -> list[InodeNo]:
        """Delete what was put off; return what is left of it, large or damaged."""
        is_held, left = self.volume.inodes.is_held, list[InodeNo]()
        waiting = [ino for ino in self._put_off if not is_held(ino)]
        self._put_off.clear()
        for first in range(0, len(waiting), TOGETHER_MAX):
            some = waiting[first : first + TOGETHER_MAX]
            try:
                left += orphans.finish_together(self.volume, some)
            except Exception:  # which of them it was for is told when each is tried by itself
                left += some
        return left

    def _count_down(self) -> None:
        """Count down what was told of files without a name. A commit may have made them orphans meanwhile."""
        told, self._told = self._told, []
        inodes = self.volume.inodes
        limbo = inodes.limbo
        for ino, count in told:
            if not inodes.release(ino, count):
                continue
            if ino in limbo.files:
                limbo.drop(ino)
            elif not self.volume.read_only:
                self._put_off.append(ino)

    async def _finish(self, orphaned: list[InodeNo]) -> bytes:
        """Delete what is left of unlinked files, step by step; others are served in between."""
        for ino in orphaned:
            try:
                while await self.fetcher.run(orphans.finish_step, self.volume, ino):
                    await trio.lowlevel.checkpoint()
            except Exception as failure:
                self.refusal(failure, "forget", ino)
        return b""
