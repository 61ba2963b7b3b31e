"""A session: one open volume, and the commands that can be run on it, each a line of words as a shell would split it.

Invariants: a command that writes is committed when it succeeds and aborted when it fails; without the right to write, none runs.
"""

import argparse
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from razortools.debug.answers import Answer
from razortools.engine import namespace
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.volume import Volume
from razortools.errors import PosixError, ReadOnly, UsageError
from razortools.format.inode import Inode
from razortools.units import InodeNo


class Words(argparse.ArgumentParser):
    """The words of one command. What it does not understand raises UsageError instead of ending the process."""

    def __init__(self, name: str) -> None:
        super().__init__(prog=name, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """See argparse: called for words that do not fit."""
        raise UsageError(f"{self.prog}: {message}. {self.usage_line()}")

    def usage_line(self) -> str:
        """Return how the command is written, on one line."""
        return " ".join(self.format_usage().split())


@dataclass(frozen=True, slots=True)
class Session:
    """What a command works on."""

    volume: Volume
    writable: bool

    def find(self, path: str) -> InodeNo:
        """Return the inode at *path* in the image; without a slash in front it counts from the root. Raises PosixError."""
        try:
            return namespace.resolve(self.volume, image_path(path))
        except PosixError as refused:
            raise PosixError(refused.mount_errno, f"{path}: {refused}") from None

    def inode(self, path: str) -> tuple[InodeNo, Inode]:
        """Return (number, attributes) of what is at *path*. Raises PosixError."""
        ino = self.find(path)
        return ino, self.volume.inodes.get(ino)

    @property
    def device(self) -> Device:
        """The device as it is, without what recovery would write to it."""
        device = self.volume.store.device
        return device.base if isinstance(device, OverlayDevice) else device


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its words, what it does, what to try."""

    name: str
    summary: str
    words: Words
    action: Callable[[Session, argparse.Namespace], Answer]
    examples: tuple[str, ...] = ()
    writes: bool = False


def image_path(path: str) -> bytes:
    """Return *path* as bytes, from the root."""
    raw = os.fsencode(path)
    return raw if raw.startswith(b"/") else b"/" + raw


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
    try:
        answer = command.action(session, options)
    except BaseException:
        session.volume.abort()
        raise
    session.volume.commit()
    return answer
