"""Holds: who still wants an inode, counted. The kernel may know a million inodes, most of them once, so a count takes a byte.

Inode numbers are handed out one after the other and files that are used together were often made together, so counts lie side by
side: PAGE_INODES of them in a page, and a page is there while one of its counts is not zero. What a byte cannot hold stands in a
table of its own. Invariant: the count of an inode is its byte plus its entry in that table.
"""

from razortools.units import InodeNo

PAGE_LOG2 = 6  # 64 inodes: 2 to 3 bytes each where all are held; one alone takes about 200, twice what an entry in a dict does
PAGE_INODES = 1 << PAGE_LOG2
_MASK = PAGE_INODES - 1
_BYTE_MAX = 255


class Holds:
    """Counts by inode number; absent ones are 0."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._more: dict[InodeNo, int] = {}  # what is beyond a byte
        self.inode_count = 0  # inodes with a count

    def add(self, ino: InodeNo, count: int = 1) -> None:
        """Count *count* holds more."""
        page = self._pages.get(ino >> PAGE_LOG2)
        if page is None:
            page = self._pages[ino >> PAGE_LOG2] = bytearray(PAGE_INODES)
        at = ino & _MASK
        held = page[at]
        if not held:
            self.inode_count += 1
        held += count
        if held > _BYTE_MAX:
            self._more[ino] = self._more.get(ino, 0) + held - _BYTE_MAX
            held = _BYTE_MAX
        page[at] = held

    def take(self, ino: InodeNo, count: int = 1) -> bool:
        """Count *count* holds less. Return whether these were the last."""
        page = self._pages.get(ino >> PAGE_LOG2)
        left = (page[ino & _MASK] if page is not None else 0) - count
        if self._more:
            left += self._more.get(ino, 0)
        assert left >= 0, f"inode {ino} released more often than held"
        if left > _BYTE_MAX:
            self._more[ino] = left - _BYTE_MAX
            return False
        if self._more:
            self._more.pop(ino, None)
        if page is None:
            return True  # none were held, none were taken
        self.inode_count -= bool(page[ino & _MASK]) and not left
        page[ino & _MASK] = left
        if not left and page.count(0) == PAGE_INODES:
            del self._pages[ino >> PAGE_LOG2]
        return not left

    def count(self, ino: InodeNo) -> int:
        """Return how many holds an inode has."""
        page = self._pages.get(ino >> PAGE_LOG2)
        if page is None:
            return 0
        held = page[ino & _MASK]
        return held if held < _BYTE_MAX else held + self._more.get(ino, 0)
