"""Disks in memory for the explorer: one that records what is written, one that was cut off and tells what is read of it.

All states of one exploration are told by the sectors in which they differ from one image, the base. Contents of sectors are
numbered, so that a state is a small dictionary and two states are compared without their bytes.
"""

import random
from collections.abc import Sequence

from razortools.engine.store.device import Device
from razortools.engine.store.pages import PAGE_BYTES, PagedDevice
from razortools.engine.store.powercut import SECTOR_BYTES, Write

State = dict[int, int]  # sector -> number of its contents; sectors like the base's are left out
Step = tuple[range, tuple[tuple[int, int], ...]]  # sectors that were read, and which of them differed from the base, how


class Base:
    """The image that states are told against, and the numbers of all contents that sectors had."""

    def __init__(self, image: bytes) -> None:
        """Take *image*, a whole number of pages."""
        self.image = image
        self._numbers: dict[bytes, int] = {}
        self.contents: list[bytes] = []
        self._marks: dict[tuple[int, int], int] = {}

    def number(self, contents: bytes) -> int:
        """Return the number of a sector's *contents*."""
        number = self._numbers.get(contents)
        if number is None:
            number = self._numbers[contents] = len(self.contents)
            self.contents.append(contents)
        return number

    def put(self, state: State, sector: int, contents: bytes) -> None:
        """Change one sector of *state*."""
        start = sector * SECTOR_BYTES
        if self.image[start : start + SECTOR_BYTES] == contents:
            state.pop(sector, None)
        else:
            state[sector] = self.number(contents)

    def mark(self, state: State) -> int:
        """Return a number of 64 bits that names *state*: equal for equal states, in every process and every run."""
        mark = 0
        for pair in state.items():
            known = self._marks.get(pair)
            if known is None:
                sector, number = pair
                chance = random.Random(self.contents[number] + sector.to_bytes(8, "little"))
                known = self._marks[pair] = chance.getrandbits(64)
            mark ^= known
        return mark

    def forget(self) -> None:
        """Forget all numbers: no state that was made before may be used afterwards."""
        self._numbers.clear()
        self.contents.clear()
        self._marks.clear()

    def bytes_of(self, state: State) -> bytearray:
        """Return the whole image in *state*."""
        image = bytearray(self.image)
        for sector, number in state.items():
            image[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES] = self.contents[number]
        return image


class RecordingDisk(Device):
    """A disk that keeps a log: a Write for each write, None for each flush."""

    def __init__(self, image: bytearray) -> None:
        """Take *image* as what is stable."""
        self.name = "recorded disk"
        self.size_bytes = len(image)
        self.read_only = False
        self.image = image
        self.log: list[Write | None] = []

    def read(self, offset: int, length: int) -> bytes:
        """See Device."""
        assert 0 <= offset <= offset + length <= self.size_bytes
        return bytes(self.image[offset : offset + length])

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """See Device. Only whole sectors: that is all that the store ever writes."""
        after = bytes(data)
        assert offset % SECTOR_BYTES == len(after) % SECTOR_BYTES == 0 and offset + len(after) <= self.size_bytes
        self.log.append(Write(offset, bytes(self.image[offset : offset + len(after)]), after))
        self.image[offset : offset + len(after)] = after

    def flush(self) -> None:
        """See Device."""
        self.log.append(None)


class CrashedDisk(PagedDevice):
    """A disk as a power cut left it. It logs which sectors below its own writes were read, in *steps*."""

    def __init__(self, base: Base, state: State) -> None:
        """Show *base* in *state*."""
        super().__init__("crashed disk", len(base.image))
        self.steps: list[Step] = []
        self._base = base
        self._state = state
        self._known: set[int] = set()

    def read_strided(self, offset: int, length: int, stride: int, head_bytes: int) -> list[bytes]:
        """See Device: only what is looked at counts as read."""
        return [self.read(at, head_bytes) for at in range(offset, offset + length, stride)]

    def after(self) -> State:
        """Return the state that the disk is in now, with what was written to it."""
        state = dict(self._state)
        for page, raw in self._pages.items():
            first = page * (PAGE_BYTES // SECTOR_BYTES)
            for at in range(PAGE_BYTES // SECTOR_BYTES):
                self._base.put(state, first + at, bytes(raw[at * SECTOR_BYTES : (at + 1) * SECTOR_BYTES]))
        return state

    def written(self) -> list[int]:
        """Return the numbers of the sectors that were written."""
        per_page = PAGE_BYTES // SECTOR_BYTES
        return [page * per_page + at for page in self._pages for at in range(per_page)]

    def _below(self, offset: int, length: int) -> bytes:
        sectors = range(offset // SECTOR_BYTES, -(-(offset + length) // SECTOR_BYTES))
        differing = different(self._state, sectors)
        if not self._known.issuperset(sectors):
            self._known.update(sectors)
            self.steps.append((sectors, differing))
        image = self._base.image
        if not differing:
            return image[offset : offset + length]
        contents = self._base.contents
        start = sectors.start * SECTOR_BYTES
        patched = bytearray(image[start : sectors.stop * SECTOR_BYTES])
        for sector, number in differing:
            at = sector * SECTOR_BYTES - start
            patched[at : at + SECTOR_BYTES] = contents[number]
        return bytes(patched[offset - start : offset - start + length])


def different(state: State, sectors: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return which of *sectors* differ from the base in *state*, and how."""
    return tuple([(sector, state[sector]) for sector in sectors if sector in state])
