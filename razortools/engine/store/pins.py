"""Pins: somebody looks at a checkpoint from outside while the store goes on, so what that checkpoint names must stay as it is.

While a pin is set, blocks that a later checkpoint lets go are kept here instead of becoming free. Invariants: what is kept is
named by no checkpoint that is the truth, so letting it go needs no write and no waiting, and may happen at any moment: a pin is
a favour, never a reason to refuse work; it takes a bitmap for each group that has such blocks, however often that happens.
"""


class Pins:
    """Who looks, and which blocks are kept for them. Filled and emptied by the space maps."""

    def __init__(self) -> None:
        """Nobody looks."""
        self._holders: set[object] = set()
        self._kept: dict[int, int] = {}  # group of the space map -> blocks
        self.block_count = 0

    @property
    def is_set(self) -> bool:
        """Whether anybody looks."""
        return bool(self._holders)

    def add(self, holder: object) -> None:
        """From now on *holder* looks, at the checkpoint that is the truth now."""
        self._holders.add(holder)

    def has(self, holder: object) -> bool:
        """Return whether nothing that *holder* looks at was let go."""
        return holder in self._holders

    def bits(self, group: int) -> int:
        """Return the blocks of *group* that are kept."""
        return self._kept.get(group, 0)

    def keep(self, group: int, offset: int, length: int) -> None:
        """Keep blocks that became free."""
        self._kept[group] = self._kept.get(group, 0) | ((1 << length) - 1) << offset
        self.block_count += length

    def remove(self, holder: object = None) -> dict[int, int]:
        """*holder* looks no more, or nobody may any more. Return what is kept for nobody now, by group."""
        if holder is None:
            self._holders.clear()
        self._holders.discard(holder)
        if self._holders:
            return {}
        kept, self._kept, self.block_count = self._kept, {}, 0
        return kept
