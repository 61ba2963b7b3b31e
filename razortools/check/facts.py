"""Facts: what the passes hand on. Each is filled by one pass and only read by the later ones.

What exists once per inode or per name is kept in arrays, about 50 bytes each, so that a million inodes fit into any machine.
"""

from array import array
from bisect import bisect_left
from dataclasses import dataclass

from razortools.check.image import Image
from razortools.check.tree import TreeIndex
from razortools.format.superblock import Superblock
from razortools.format.volume import Counters
from razortools.units import InodeNo


@dataclass(frozen=True, slots=True)
class SuperblockFacts:
    """The superblock that was chosen, and the valid one in the other slot, which the next crash may need."""

    image: Image
    other: Superblock | None


@dataclass(frozen=True, slots=True)
class JournalFacts:
    """The image as the next mount will see it."""

    image: Image
    on_device: Image  # as it lies on the device, before the replay
    entry_count: int

    @property
    def is_replayed(self) -> bool:
        """Whether the view differs from what lies on the device."""
        return self.image is not self.on_device


def find_number(numbers: "array[int]", number: int) -> int:
    """Return the index of *number* in the rising *numbers*, or -1. Numbers without gaps are found at once."""
    if not numbers:
        return -1
    guess = number - numbers[0]
    if 0 <= guess < len(numbers) and numbers[guess] == number:
        return guess
    place = bisect_left(numbers, number)
    return place if place < len(numbers) and numbers[place] == number else -1


@dataclass(frozen=True, slots=True)
class InodeFacts:
    """The inodes that exist, in rising order, one entry each in parallel arrays."""

    tree: TreeIndex
    numbers: "array[int]"
    types: "array[int]"  # FileType, 0 for a senseless mode
    link_counts: "array[int]"
    sizes: "array[int]"
    orphans: dict[int, int]  # inode -> OrphanReason
    counters: Counters | None

    def find(self, inode: int) -> int:
        """Return the index of *inode*, or -1."""
        return find_number(self.numbers, inode)


@dataclass(frozen=True, slots=True)
class DirectoryFacts:
    """How the names lead to the inodes."""

    inodes: InodeFacts
    parents: "array[int]"  # of each inode: the directory of its first name, 0: none
    name_ids: "array[int]"  # the strings that exist, rising
    name_uses: "array[int]"  # how many entries use each
    file_count: int
    directory_count: int

    def below(self, top: InodeNo) -> bytearray:
        """Return a flag for each inode: 1 if it is *top* or lies in it (by its first name)."""
        unknown, outside, inside = 0, 1, 2
        verdict = bytearray(len(self.inodes.numbers))
        start = self.inodes.find(top)
        if start >= 0:
            verdict[start] = inside
        for place in range(len(verdict)):
            trail: list[int] = []
            at = place
            while at >= 0 and verdict[at] == unknown:
                verdict[at] = outside  # also ends the walk in a cycle
                trail.append(at)
                at = self.inodes.find(self.parents[at])
            if at >= 0 and verdict[at] == inside:
                for passed in trail:
                    verdict[passed] = inside
        return bytearray(flag == inside for flag in verdict)


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What the files hold, by their records' own numbers."""

    record_count: int
    raw_bytes: int  # of all contents, inline data included
    stored_bytes: int
    file_bytes: int  # sizes of all regular files
    breaks: int  # places at which a file goes on somewhere else in the image


@dataclass(frozen=True, slots=True)
class DamagedRecord:
    """A data record whose stored bytes do not verify, or that says something wrong of stored bytes that do."""

    inode: InodeNo
    key: bytes
    reason: str  # of the device; empty: the checksum is wrong
    found: int
    expected: int
    is_readable: bool = False  # only the second checksum is wrong
    is_cut_out: bool = False  # for no reason


@dataclass(frozen=True, slots=True)
class ContentFacts:
    """What reading all data found that the checksum pass is to report."""

    damaged: tuple[DamagedRecord, ...]
    record_count: int
    more_damaged: int  # counted only: there were too many to hand on
