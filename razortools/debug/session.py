"""A session: one image, as much of it as can be opened, and the commands that can be run on it, each a line of words.

Invariants: a command that writes is committed when it succeeds and aborted when it fails; without the right to write, none runs.
What needs only the device or a superblock works on an image whose tree cannot be opened.
"""

import argparse
import os
import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from razortools.debug.answers import Answer
from razortools.engine import namespace
from razortools.engine.store import superblocks
from razortools.engine.store.device import Device
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage, PosixError, RazorError, ReadOnly, UsageError
from razortools.format.geometry import Geometry, geometry_of
from razortools.format.inode import Inode
from razortools.format.superblock import Superblock
from razortools.units import InodeNo

_NUMBERED = re.compile("<[0-9]{1,19}>")


class Words(argparse.ArgumentParser):
    """The words of one command. What it does not understand raises UsageError instead of ending the process.

    Completion reads what a word is from its metavar: PATH in the image, HOST_PATH, COMMAND, FIELD.
    """

    def __init__(self, name: str) -> None:
        super().__init__(prog=name, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """See argparse: called for words that do not fit."""
        raise UsageError(f"{self.prog}: {message}. {self.usage_line()}")

    def usage_line(self) -> str:
        """Return how the command is written, on one line."""
        return " ".join(self.format_usage().split())

    def parameters(self) -> Iterator[argparse.Action]:
        """Yield the options and words that it takes, in their order."""
        yield from self._actions

    def told(self) -> Iterator[tuple[str, str]]:
        """Yield (how it is written, what it means) of the options and words that have something to say."""
        for action in self._actions:
            if action.help:
                value = f" {action.metavar}" if action.metavar and action.option_strings else ""
                name = ", ".join(action.option_strings) or str(action.metavar)
                yield name + value, action.help


class Session:
    """What a command works on. One owner: the front end."""

    def __init__(self, device: Device, volume: Volume | None, *, writable: bool, fault: str = "") -> None:
        """Work on *device*, which is what lies on the disk, and on *volume*; None: it cannot be opened, *fault* says why."""
        self.device = device
        self.writable = writable
        self.fault = fault
        self.directory = b"/"  # where paths without a slash in front start
        self._volume = volume

    @property
    def volume(self) -> Volume:
        """The filesystem. Raises CorruptImage if it cannot be opened."""
        if self._volume is None:
            raise CorruptImage(f"the filesystem cannot be opened ({self.fault}); what needs no tree still works: see 'help'")
        return self._volume

    @property
    def has_volume(self) -> bool:
        """Whether the filesystem could be opened."""
        return self._volume is not None

    def superblock(self) -> Superblock:
        """Return the newest superblock that verifies, even if the image is cut off. Raises CorruptImage if there is none."""
        found = [copy.superblock for copy in superblocks.find_copies(self.device) if copy.superblock]
        if not found:
            raise CorruptImage(f"{self.device.name}: no copy of its superblock verifies; run razorfsck --rebuild")
        return max(found, key=lambda one: (one.generation, -one.slot))

    def geometry(self) -> Geometry:
        """Return where the fixed parts lie. Raises as superblock() does."""
        return geometry_of(self.superblock())

    def absolute(self, path: str) -> bytes:
        """Return *path* from the root, without "." and "..": symbolic links are not followed, so that is the same place."""
        joined = posixpath.normpath(posixpath.join(self.directory, os.fsencode(path)))
        return joined[1:] if joined.startswith(b"//") else joined

    def find(self, path: str) -> InodeNo:
        """Return the inode at *path* in the image; ``<12>`` is inode 12, whatever leads to it. Raises PosixError."""
        if _NUMBERED.fullmatch(path):
            ino = InodeNo(int(path[1:-1]))
            self.volume.inodes.get(ino)
            return ino
        try:
            return namespace.resolve(self.volume, self.absolute(path))
        except PosixError as refused:
            raise PosixError(refused.mount_errno, f"{path}: {refused}") from None

    def inode(self, path: str) -> tuple[InodeNo, Inode]:
        """Return (number, attributes) of what is at *path*. Raises PosixError."""
        ino = self.find(path)
        return ino, self.volume.inodes.get(ino)

    def parent_of(self, path: str) -> tuple[InodeNo, bytes]:
        """Return (directory, name) of a path whose last part need not exist. Raises PosixError, UsageError for the root."""
        directory, name = posixpath.split(self.absolute(path))
        if not name:
            raise UsageError(f"{path}: the root has no name that could be changed")
        return self.find(os.fsdecode(directory)), name

    def close(self) -> None:
        """Finish the filesystem, if it was opened for writing, and release the image."""
        if self._volume is not None:
            self._volume.close()
        else:
            self.device.close()

    def abandon(self) -> None:
        """Drop what was not committed, and close."""
        if self._volume is not None and not self._volume.read_only:
            self._volume.abort()
        self.close()


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its words, what it does, what to try."""

    name: str
    summary: str
    words: Words
    action: Callable[[Session, argparse.Namespace], Answer]
    examples: tuple[str, ...] = ()
    writes: bool = False  # it changes files: it runs only with -w, and is committed


def split_pipe(line: str) -> tuple[str, str]:
    """Return (command, what its output goes to), cut at the first | that is not quoted; nothing behind it: no pipe."""
    quote, escaped = "", False
    for at, char in enumerate(line):
        if escaped:
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "|":
            return line[:at], line[at + 1 :].strip()
        elif char == "#" and (at == 0 or line[at - 1].isspace()):
            break
    return line, ""


def run_line(session: Session, commands: Mapping[str, Command], line: str) -> Answer | None:
    """Run one line; return its answer, None for an empty line or a comment.

    Raises UsageError for words that make no sense, ReadOnly for a command that needs the right to write, PosixError and all that
    the engine raises.
    """
    try:
        words = shlex.split(line, comments=True)
    except ValueError as broken:
        raise UsageError(f"{line}: {broken}") from None
    if not words:
        return None
    command = commands.get(words[0])
    if command is None:
        raise UsageError(f"{words[0]}: there is no such command; 'help' lists them")
    options = command.words.parse_args(words[1:])
    if not command.writes:
        return command.action(session, options)
    if not session.writable:
        raise ReadOnly(f"{command.name} changes the image; start razorfs-debug with -w to allow that")
    volume = session.volume
    try:
        answer = command.action(session, options)
    except BaseException:
        volume.abort()
        raise
    volume.commit()
    return answer


def reason_of(failure: RazorError) -> str:
    """Return what *failure* says, on one line."""
    return " ".join(str(failure).split())
