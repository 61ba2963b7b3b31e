"""The log of a repair: what it wrote to the image and to its undo file, in one order, and what a power cut may leave of both.

The undo file lies on a disk of its own: what was written to it since its last flush may be lost, reordered and torn as on the
image, independently of that. Its name is there as soon as it was given, for the directory is flushed with it.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from razortools.check.repair.undo_file import UndoReader
from razortools.debug.crashtest.disks import Base, RecordingDisk, State
from razortools.debug.crashtest.explorer import apply
from razortools.engine.store.device import Device
from razortools.engine.store.powercut import SECTOR_BYTES, Unflushed, Write
from razortools.errors import CannotUndo
from razortools.format.undo import Fate

UNDO_STATES = 6  # of the undo file, tried with each state of the image


class Side(Enum):
    """What an event happened to."""

    IMAGE = 1
    UNDO = 2
    NAME = 3  # the undo file got its name


@dataclass(frozen=True, slots=True)
class Event:
    """A write, or a flush (*write* None)."""

    side: Side
    write: Write | None = None
    file: "LoggedDisk | None" = None  # the undo file that got its name


class LoggedDisk(RecordingDisk):
    """A disk whose writes and flushes go into a log that it shares."""

    def __init__(self, image: bytearray, name: str, side: Side, log: list[Event]) -> None:
        """Take *image* as what is stable."""
        super().__init__(image)
        self.name = name
        self.first = bytes(image)
        self._side = side
        self._shared = log

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """See Device."""
        super().write(offset, data)
        self._shared.append(Event(self._side, self.log[-1], self))

    def flush(self) -> None:
        """See Device."""
        self._shared.append(Event(self._side, None, self))


class LoggedShelf:
    """A shelf in memory (see check/repair/undo_shelf.py), whose files share a log."""

    def __init__(self, log: list[Event], standing: tuple[bytes, ...] = ()) -> None:
        """*standing*: the undo files that are there already, the one with the name last."""
        self.name = "undo file"
        self.older = list(standing[:-1])
        self._log = log
        self._new: LoggedDisk | None = None
        self.named = LoggedDisk(bytearray(standing[-1]), self.name, Side.UNDO, log) if standing else None

    def create(self, size_bytes: int) -> Device:
        """See Shelf."""
        self._new = LoggedDisk(bytearray(size_bytes), self.name, Side.UNDO, self._log)
        return self._new

    def publish(self) -> None:
        """See Shelf."""
        if self.named is not None and self._fate() is not Fate.TAKEN_BACK:
            self.older.append(bytes(self.named.image))
        self.named = self._new
        self._log.append(Event(Side.NAME, None, self._new))

    def drop(self) -> None:
        """See Shelf."""
        self._new = None

    def open(self, *, writable: bool) -> Device:
        """See Shelf."""
        if self.named is None:
            raise CannotUndo("there is no undo file")
        return self.named

    def standing(self) -> tuple[bytes, ...]:
        """Return the undo files that are there, the one with the name last."""
        return (*self.older, *([bytes(self.named.image)] if self.named is not None else []))

    def _fate(self) -> Fate:
        assert self.named is not None
        return UndoReader(self.named).fate


@dataclass(frozen=True, slots=True)
class Left:
    """What a power cut left: the image, and the undo file that has the name (None: none has it)."""

    image: State
    undo_file: bytes | None
    position: int  # events that had happened
    image_choice: tuple[tuple[int, int], ...]


class _File:
    """An undo file while the events go by."""

    def __init__(self, disk: LoggedDisk) -> None:
        self.pending: list[Write] = []
        self._stable = bytearray(disk.first)

    def flush(self) -> None:
        """What was written is stable."""
        for write in self.pending:
            self._stable[write.offset : write.offset + len(write.after)] = write.after
        self.pending = []

    def contents(self, chance: random.Random) -> Iterator[bytes]:
        """Yield what a power cut may leave of it."""
        unflushed = Unflushed(self.pending)
        for choice in unflushed.choices(UNDO_STATES, chance):
            found = bytearray(self._stable)
            for offset, sector in unflushed.contents(choice):
                found[offset : offset + SECTOR_BYTES] = sector
            yield bytes(found)


def lefts(
    base: Base, start: State, log: list[Event], named: LoggedDisk | None, limit: int, chance: random.Random
) -> Iterator[Left]:
    """Yield what a power cut at any moment of *log* may leave, at most *limit* states of the image between two flushes.

    The image was in state *start*, and the undo file *named* had the name. Each once.
    """
    stable, pending = dict(start), list[Write]()
    files: dict[int, _File] = {}
    seen: set[tuple[int, int]] = set()
    for position, event in enumerate([*log, None]):
        if event is not None and event.file is not None and id(event.file) not in files and event.side is not Side.IMAGE:
            files[id(event.file)] = _File(event.file)
        if event is not None and event.write is not None:
            (pending if event.side is Side.IMAGE else files[id(event.file)].pending).append(event.write)
            continue
        # Right before a flush, or at the end: everything since the flush before it is open.
        unflushed = Unflushed(pending)
        for choice in unflushed.choices(limit, chance):
            state = dict(stable)
            apply(base, state, unflushed, choice)
            mark = base.mark(state)
            for left in _contents(files, named, chance):
                if (mark, hash(left)) not in seen:
                    seen.add((mark, hash(left)))
                    yield Left(state, left, position, tuple(choice.items()))
        if event is None:
            return
        if event.side is Side.IMAGE:
            apply(base, stable, unflushed, unflushed.everything())
            pending = []
        elif event.side is Side.UNDO:
            files[id(event.file)].flush()
        else:
            named = event.file


def _contents(files: dict[int, _File], named: LoggedDisk | None, chance: random.Random) -> Iterator[bytes | None]:
    """Yield what may be left of the file that has the name."""
    if named is None:
        yield None
    elif id(named) in files:
        yield from files[id(named)].contents(chance)
    else:
        yield named.first
