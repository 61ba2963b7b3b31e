"""A session: one image, as much of it as can be opened, and the commands that can be run on it, each a line of words.

Invariants: a command that writes is committed when it succeeds and aborted when it fails; without the right to write, none runs.
What needs only the device or a superblock works on an image whose tree cannot be opened. A word like ``<12>`` is inode 12
wherever a path may stand and never a name; ``./<12>`` is one.
"""

import argparse
import os
import posixpath
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

from razortools.debug.answers import Answer
from razortools.debug.surgery import CommitOrder, StagedDevice, Surgery, newest_superblock, note_commit
from razortools.engine import directories, namespace
from razortools.engine.store.device import Device
from razortools.engine.store.undo_place import default_undo_file
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage, PosixError, RazorError, ReadOnly, UsageError
from razortools.format import admin
from razortools.format.geometry import Geometry, geometry_of
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.superblock import Superblock
from razortools.printable import printable_name
from razortools.units import InodeNo, NameId

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

    def short_line(self) -> str:
        """Return how the command is written without its options by name: what an overview has room for."""
        words = {None: "{}", "?": "[{}]", "+": "{}...", "*": "[{}]..."}
        parts = [words[action.nargs].format(action.metavar) for action in self._actions if not action.option_strings]  # type: ignore[index]
        options = ["[OPTION]..."] if len(parts) < len(self._actions) else []
        return " ".join([self.prog, *options, *parts])

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
        """Work on *device*, what lies on the disk, and *volume*; None: it cannot be opened, *fault* says why."""
        self.writable = writable
        self.surgery: Surgery | None = None
        self._device = device
        self.fault = fault
        self.directory = b"/"  # where paths without a slash in front start
        self._volume = volume

    @property
    def device(self) -> Device:
        """The image as it lies on the disk, with what surgery has staged over it."""
        return self.surgery.device if self.surgery is not None else self._device

    @property
    def volume(self) -> Volume:
        """The filesystem. Raises CorruptImage if it cannot be opened."""
        if self._volume is None:
            works = "what needs no tree works: super, journal, btree, node, item, block, whois, verify"
            raise CorruptImage(f"{self.fault or f'{self.device.name}: the filesystem cannot be opened'}; {works}")
        return self._volume

    @property
    def has_volume(self) -> bool:
        """Whether the filesystem could be opened."""
        return self._volume is not None

    def superblock(self) -> Superblock:
        """Return the newest superblock that verifies, even if the image is cut off. Raises CorruptImage if there is none."""
        return newest_superblock(self.device)

    def geometry(self) -> Geometry:
        """Return where the fixed parts lie. Raises as superblock() does."""
        return geometry_of(self.superblock())

    def absolute(self, path: str) -> bytes:
        """Return *path* from the root, without "." and "..": symbolic links are not followed, so that is the same place.

        Of a number it is the first path that leads to the inode, or the number as it is if none does.
        """
        if _NUMBERED.fullmatch(path):
            with suppress(RazorError):
                return next(iter(directories.paths(self.volume, self.find(path))), os.fsencode(path))
            return os.fsencode(path)
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
        """Return (directory, name) of a path whose last part need not exist; of a number, of the only name that the inode has.

        Raises PosixError; UsageError for the root, and for a number that does not tell one name.
        """
        if _NUMBERED.fullmatch(path):
            return self._only_name(path)
        directory, name = posixpath.split(self.absolute(path))
        if not name:
            raise UsageError(f"{path}: the root has no name that could be changed")
        return self.find(os.fsdecode(directory)), name

    def _only_name(self, path: str) -> tuple[InodeNo, bytes]:
        """Return (directory, name) of the inode that the number *path* stands for. Raises as parent_of() does."""
        ino = self.find(path)
        if ino == ROOT_INODE:
            raise UsageError(f"{path}: the root has no name that could be changed")
        with suppress(PosixError):
            if namespace.resolve(self.volume, posixpath.join(self.directory, os.fsencode(path))) != ino:
                here = printable_name(self.directory)
                raise UsageError(f"{path}: is inode {ino}, and a name in {here} as well; ./{path} is the name, a path the inode")
        links = list(directories.links(self.volume, ino))
        if len(links) != 1:
            paths = ", ".join(map(printable_name, directories.paths(self.volume, ino)))
            told = f"{len(links)} names, and the number does not say which: {paths}" if links else "no name any more"
            raise UsageError(f"{path}: inode {ino} has {told}")
        return InodeNo(links[0].parent), self.volume.names.text(NameId(links[0].name_id))

    def begin_surgery(self) -> Surgery:
        """Return the surgery under way, or begin one: the filesystem is finished, and looked at with what is staged from now on.

        Raises ReadOnly without the right to write, DeviceFailed.
        """
        if not self.writable:
            raise ReadOnly("this changes the image; start razorfs-debug with -w to allow that")
        if self.surgery is None:
            if self._volume is not None:
                self._volume.set_read_only()
            self.surgery = Surgery(StagedDevice(self._device))
        return self.surgery

    def commit_surgery(self, undo_path: str | None = None) -> tuple[int, str]:
        """Write what is staged; return (how many bytes that were, the undo file that takes it back).

        *undo_path*: where the undo file is kept; None: in the usual place. Raises a RazorError; then it stays staged, and the
        image is as it was.
        """
        from razortools.check.repair.undo_shelf import HostShelf  # late: the check loads slowly
        from razortools.check.repair.write_out import write_out

        if self.surgery is None:
            return 0, ""
        staged = self.surgery.device
        path = undo_path or default_undo_file(self._device.name)
        HostShelf(path, self._device.name).judge()
        if self._device.read_only:
            self._device.set_read_only(False)
        with suppress(CorruptImage):  # nobody will ask an image without a superblock
            note_commit(staged, time.time_ns(), len(self.surgery.changes))
        written_bytes = sum(len(page) for _, page in staged.written_pages())
        written = write_out(staged, self._device, path, is_sound=True, order=CommitOrder(staged))
        self.discard_surgery()
        return written_bytes, written.undo_path

    def discard_surgery(self) -> None:
        """Drop what is staged."""
        if self.surgery is not None:
            self.surgery = None
            self.reopen()

    def reopen(self) -> None:
        """Look at the filesystem anew, without the right to change it: what lies below it has changed."""
        try:
            self._volume, self.fault = open_volume(StagedDevice(self.device), read_only=True), ""
        except Exception as damaged:  # surgery may have made anything of it
            self._volume, self.fault = None, " ".join(str(damaged).split()) or type(damaged).__name__

    def for_writing(self) -> Volume:
        """Return the filesystem, opened for writing. Raises UsageError while something is staged, and what opening raises."""
        if self.surgery is not None:
            raise UsageError("changes of structures are staged; 'commit' or 'discard' them before files are changed")
        if self.volume.read_only:  # since a surgery
            if self._device.read_only:
                self._device.set_read_only(False)
            self._volume = open_volume(self._device, opening=admin.Action.DEBUG)
        return self.volume

    def at_rest(self) -> Device:
        """Finish the filesystem, and return the device for what changes the image as a whole; reopen() when that is done.

        Raises ReadOnly without the right to write, UsageError while something is staged, CorruptImage, DeviceFailed.
        """
        if not self.writable:
            raise ReadOnly("this changes the image; start razorfs-debug with -w to allow that")
        if self.surgery is not None:
            raise UsageError("changes of structures are staged; 'commit' or 'discard' them first")
        self.volume.set_read_only()
        if self._device.read_only:
            self._device.set_read_only(False)
        return self._device

    def close(self) -> None:
        """Finish the filesystem, if it was opened for writing, and release the image. What is staged is dropped."""
        if self._volume is not None:
            self._volume.close()
        self._device.close()

    def abandon(self) -> None:
        """Drop what was not committed, and close."""
        if self._volume is not None and not self._volume.read_only:
            self._volume.abort()
        self.close()


Action = Callable[[Session, argparse.Namespace], Answer]


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its words, what it does, what to try."""

    name: str
    summary: str
    words: Words
    action: Action
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
    with _told_of(line):
        return _run(session, command, options)


@contextmanager
def _told_of(line: str) -> Iterator[None]:
    """Let a refusal that says no more than "File exists" say of what."""
    try:
        yield
    except PosixError as refused:
        if str(refused) != os.strerror(refused.mount_errno):
            raise
        raise PosixError(refused.mount_errno, f"{line.strip()}: {refused}") from None


def _run(session: Session, command: Command, options: argparse.Namespace) -> Answer:
    """Run a command; one that changes files is committed, or aborted if it fails."""
    return change(session, options, command.action, command.name) if command.writes else command.action(session, options)


def change(session: Session, options: argparse.Namespace, action: Action, name: str) -> Answer:
    """Do what changes files: commit it, or abort it if it fails. *name*: of the command. Raises ReadOnly without the right to."""
    if not session.writable:
        raise ReadOnly(f"{name} changes the image; start razorfs-debug with -w to allow that")
    volume = session.for_writing()
    try:
        answer = action(session, options)
    except BaseException:
        volume.abort()
        raise
    volume.commit()
    return answer


def reason_of(failure: RazorError) -> str:
    """Return what *failure* says, on one line."""
    return " ".join(str(failure).split())
