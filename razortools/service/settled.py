"""How much space files take, told again once it is known.

While a file's data wait for a commit, stat(2) is told an estimate of its blocks. The kernel believes attributes for a day, so
after the commit it is told to ask again. Invariant: whatever was told as an estimate is in `estimated` until the kernel has been
told so.
"""

from collections.abc import Callable

import trio

from razortools.engine.volume import Volume
from razortools.units import InodeNo

NOTICES_AT_ONCE = 64  # 2 us each; requests are served in between


class Settled:
    """Owner of the estimates that the kernel has."""

    def __init__(self, volume: Volume, forget_attributes: Callable[[InodeNo], None]) -> None:
        """Tell the kernel through *forget_attributes*."""
        self._volume = volume
        self._forget_attributes = forget_attributes
        self.estimated: set[InodeNo] = set()
        self._committed = trio.Event()

    def note_commit(self) -> None:
        """A commit has come about: what it placed is known now."""
        self._committed.set()

    async def run(self) -> None:
        """Tell the kernel after each commit, until cancelled."""
        while True:
            await self._committed.wait()
            self._committed = trio.Event()
            is_dirty = self._volume.records.is_dirty
            settled = [ino for ino in self.estimated if not is_dirty(ino)]
            self.estimated.difference_update(settled)
            for number, ino in enumerate(settled):
                self._forget_attributes(ino)
                if number % NOTICES_AT_ONCE == NOTICES_AT_ONCE - 1:
                    await trio.lowlevel.checkpoint()
