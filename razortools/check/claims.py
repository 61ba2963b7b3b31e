"""Claims: which blocks are named by something, as bitmaps of the same shape as the space map's pages.

Groups that nothing claims take no memory, so a sparse image of 16 TiB costs what is used of it.
"""

from collections.abc import Iterator

from razortools.format.spacemap import SpaceMapShape


class Claims:
    """Who is named at all, and what is named twice. Filled by the data pass, then only read."""

    def __init__(self, shape: SpaceMapShape) -> None:
        """Start with nothing claimed. Blocks must lie below shape.block_count."""
        self.page_bytes = shape.block_bytes
        self.group_blocks = shape.group_blocks
        self.groups: dict[int, bytearray] = {}
        self.twice: dict[int, bytearray] = {}

    def claim(self, first: int, count: int) -> bool:
        """Note that something names the blocks. Returns False if some of them were named already."""
        alone = True
        for group, offset, length in self._pieces(first, count):
            page = self._page(self.groups, group)
            low, high = offset >> 3, (offset + length + 7) >> 3
            mask = ((1 << length) - 1) << (offset & 7)
            before = int.from_bytes(page[low:high], "little")
            if before & mask:
                alone = False
                self._note_twice(group, low, high, before & mask)
            page[low:high] = (before | mask).to_bytes(high - low, "little")
        return alone

    def shared(self, first: int, count: int) -> list[tuple[int, int]]:
        """Return the (first, last) block of the parts of a run that were claimed more than once."""
        found: list[tuple[int, int]] = []
        for group, offset, length in self._pieces(first, count):
            page = self.twice.get(group)
            if page is None:
                continue
            bits = int.from_bytes(page, "little") >> offset & ((1 << length) - 1)
            start = group * self.group_blocks + offset
            found += [(start + a, start + b) for a, b in bit_runs(bits)]
        return found

    def holds(self, block: int) -> bool:
        """Return whether something names *block*."""
        group, offset = divmod(block, self.group_blocks)
        page = self.groups.get(group)
        return page is not None and bool(page[offset >> 3] >> (offset & 7) & 1)

    def page(self, group: int) -> bytes:
        """Return the bitmap of a group."""
        return bytes(self.groups.get(group, b"")) or bytes(self.page_bytes)

    @property
    def has_shared(self) -> bool:
        """Whether anything was claimed twice."""
        return bool(self.twice)

    def _page(self, pages: dict[int, bytearray], group: int) -> bytearray:
        page = pages.get(group)
        if page is None:
            page = pages[group] = bytearray(self.page_bytes)
        return page

    def _note_twice(self, group: int, low: int, high: int, bits: int) -> None:
        page = self._page(self.twice, group)
        page[low:high] = (int.from_bytes(page[low:high], "little") | bits).to_bytes(high - low, "little")

    def _pieces(self, first: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Yield (group, offset in it, length) for the parts of a run."""
        while count > 0:
            group, offset = divmod(first, self.group_blocks)
            length = min(count, self.group_blocks - offset)
            yield group, offset, length
            first += length
            count -= length


def bit_runs(bits: int) -> list[tuple[int, int]]:
    """Return the (first, last) positions of the runs of set bits, in order."""
    runs: list[tuple[int, int]] = []
    base = 0
    while bits:
        zeros = (bits & -bits).bit_length() - 1
        bits >>= zeros
        base += zeros
        ones = (~bits & (bits + 1)).bit_length() - 1
        runs.append((base, base + ones - 1))
        bits >>= ones
        base += ones
    return runs
