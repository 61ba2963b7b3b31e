"""Programs under power cuts: what may be left of the files that a program wrote on a mounted image, whenever the power failed.

The device of the mount was recorded (engine/store/recording.py), and the program told now and then what it had promised: its
marks. Each state that a power cut may leave is recovered and read, and the program's own check says whether it will do. Two cuts
that leave the same files after the same promises are judged once.

A mount that is recorded commits after every operation (service/recorded.py), so that the recording holds every state that a
commit at any moment would leave. None of these commits was asked for, so until the next sync that a program waited for, the disk
might as well have stayed as it was: a state is judged with every promise that was made before that sync.
"""

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from razortools.debug.crashtest.disks import Base, State
from razortools.debug.crashtest.explorer import Epoch, apply, states
from razortools.debug.crashtest.memory import Memory
from razortools.debug.crashtest.oracle import opened
from razortools.debug.crashtest.story import tell_writes
from razortools.engine import directories, files, namespace
from razortools.engine.store.powercut import Choice, Unflushed, Write, whole_sectors
from razortools.engine.store.recording import Event, Kind
from razortools.engine.volume import Volume
from razortools.errors import RazorError
from razortools.format.inode import ROOT_INODE
from razortools.units import InodeNo


@dataclass(frozen=True, slots=True)
class Mark:
    """A promise that the program made, and how long the recording was then, in bytes."""

    text: str
    position: int


class Tree(Mapping[str, bytes]):
    """The files of a recovered image, by their path without a leading slash. Nothing in it can be changed."""

    def __init__(self, contents: dict[str, bytes], symlinks: dict[str, str], folders: set[str]) -> None:
        """Take over what was read."""
        self._contents = contents
        self.symlinks: Mapping[str, str] = MappingProxyType(symlinks)  # path -> target
        self.directories = frozenset(folders)

    def __getitem__(self, path: str) -> bytes:
        return self._contents[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._contents)

    def __len__(self) -> int:
        return len(self._contents)

    def __repr__(self) -> str:
        told = {path: data if len(data) <= 40 else data[:40] + b"..." for path, data in self._contents.items()}
        return f"Tree({told})"


Verify = Callable[[Tree, tuple[str, ...]], object]


@dataclass(frozen=True, slots=True)
class Cut:
    """A moment at which the power may fail: what may be left, and what had been promised."""

    epoch: Epoch  # its position counts the events of the recording before it
    marks: tuple[str, ...]  # all that were made before the next sync
    made: int  # how many of them before the cut


@dataclass(frozen=True, slots=True)
class Checked:
    """How much was checked."""

    states: int  # distinct disks
    verified: int  # calls of the program's check: distinct trees after distinct promises


def tree_of(volume: Volume) -> Tree:
    """Return all files of *volume*. Raises what reading raises."""
    contents: dict[str, bytes] = {}
    symlinks: dict[str, str] = {}
    folders: set[str] = set()
    todo = [("", ROOT_INODE)]
    while todo:
        path, ino = todo.pop()
        inode = volume.inodes.get(ino)
        if inode.is_regular:
            contents[path] = files.read(volume, ino, 0, inode.size)
        elif inode.is_symlink:
            symlinks[path] = os.fsdecode(namespace.readlink(volume, ino))
        elif inode.is_directory:
            folders.update([path] if path else [])
            below = f"{path}/" if path else ""
            found = directories.entries(volume, ino)
            todo += [(below + os.fsdecode(name), InodeNo(entry.inode)) for _, name, entry in found]
    return Tree(contents, symlinks, folders)


def cuts(base: Base, events: Sequence[Event], marks: Sequence[Mark]) -> Iterator[Cut]:
    """Yield the moments that matter: before each flush and each mark, and at the end. The others are among their choices."""
    stable: State = {}
    disk = bytearray(base.image)
    pending: list[Write] = []
    texts = tuple(mark.text for mark in marks)
    made = 0
    until = _marks_until_sync(events, marks)
    for count, event in enumerate(events):
        while made < len(marks) and marks[made].position < event.end:
            yield Cut(Epoch(dict(stable), Unflushed(pending), count), texts[: until[count]], made)
            made += 1
        if event.kind is Kind.WRITE:
            pending.append(_put(disk, event.offset, event.data))
        elif event.kind is Kind.FLUSH:
            unflushed = Unflushed(pending)
            yield Cut(Epoch(dict(stable), unflushed, count), texts[: until[count]], made)
            apply(base, stable, unflushed, unflushed.everything())
            pending = []
    yield Cut(Epoch(stable, Unflushed(pending), len(events)), texts, made)


def _marks_until_sync(events: Sequence[Event], marks: Sequence[Mark]) -> list[int]:
    """Return for each event how many marks were made before the first sync at or after it."""
    counts = []
    count = len(marks)
    for event in reversed(events):
        if event.kind is Kind.SYNC:
            count = sum(mark.position < event.end for mark in marks)
        counts.append(count)
    return counts[::-1]


def _put(disk: bytearray, offset: int, data: bytes) -> Write:
    """Change *disk*; return the write in whole sectors."""
    start, length = whole_sectors(offset, len(data))
    before = bytes(disk[start : start + length])
    disk[offset : offset + len(data)] = data
    return Write(start, before, bytes(disk[start : start + length]))


def check_program(
    image: bytes, events: Sequence[Event], marks: Sequence[Mark], verify: Verify, *, states_per_flush: int, seed: int = 1
) -> Checked:
    """Call *verify* for everything that a power cut may leave of *image* under *events*.

    Raises AssertionError with a story if *verify* does, or if an image does not recover.
    """
    __tracebackhide__ = True  # pytest shows the program's own lines, not ours
    base = Base(image)
    chance = random.Random(seed)
    memory: Memory[Tree] = Memory()
    disks: set[int] = set()
    verified: set[tuple[int, int]] = set()
    for cut in cuts(base, events, marks):
        for state, choice in states(base, cut.epoch, states_per_flush, chance):
            disks.add(base.mark(state))
            tree = _recovered(base, state, memory, cut, choice)
            for made in range(cut.made, len(cut.marks) + 1):
                if (id(tree), made) not in verified:
                    verified.add((id(tree), made))
                    _verify(verify, tree, base, replace(cut, marks=cut.marks[:made]), choice)
    return Checked(len(disks), len(verified))


def _recovered(base: Base, state: State, memory: Memory[Tree], cut: Cut, choice: Choice) -> Tree:
    try:
        return memory.verdict_on(base, state, lambda disk: tree_of(opened(disk)))
    except RazorError as failed:
        raise AssertionError("\n".join((f"the image does not recover: {failed}", *tell(base, cut, choice)))) from failed


def _verify(verify: Verify, tree: Tree, base: Base, cut: Cut, choice: Choice) -> None:
    __tracebackhide__ = True
    try:
        verify(tree, cut.marks)
    except AssertionError as failed:
        found = [f"  {path}: {_brief(data)}" for path, data in sorted(tree.items())] or ["  no file"]
        story = [*tell(base, cut, choice), "files after recovery:", *found]
        raise AssertionError("\n".join((str(failed) or "the check of the program failed", *story))) from failed


def tell(base: Base, cut: Cut, choice: Choice) -> list[str]:
    """Return the story of a power cut, a line each."""
    promised = f"after the mark {cut.marks[-1]!r} ({len(cut.marks)} made)" if cut.marks else "before any mark"
    lines = [f"power cut {promised}, at event {cut.epoch.position} of the device's recording:"]
    lines += tell_writes(base, cut.epoch.unflushed, choice)
    return lines if len(lines) > 1 else [*lines, "  nothing was being written: all that the device had been given is there"]


def _brief(data: bytes) -> str:
    return repr(data) if len(data) <= 60 else f"{data[:60]!r}... ({len(data)} bytes)"
