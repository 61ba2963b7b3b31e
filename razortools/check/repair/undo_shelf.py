"""The shelf: where undo files stand on the host, under which names, and what may be put in whose place.

Invariants: a file under its name is whole, because it gets its name when all of it is on stable storage; the only means to take a
repair back is never overwritten: one that was not taken back yet moves to a name with a number, the higher the later.
"""

import os
import stat
from itertools import count, takewhile
from pathlib import Path
from typing import Protocol

from razortools.check.repair.undo_file import UndoReader
from razortools.engine.store.device import Device, open_image
from razortools.engine.store.mounts import mounts
from razortools.engine.store.undo_place import UNDO_DIRECTORY
from razortools.errors import CannotUndo, DeviceFailed, UsageError
from razortools.format.undo import UNDO_MAGIC, Fate
from razortools.units import format_size

NEW = ".new"  # behind the name of a file that is being written
_HEAD_BYTES = len(UNDO_MAGIC)
NOTHING_WAS_CHANGED = "The repair did not start, nothing was changed"


class Shelf(Protocol):
    """What a repair needs of the place for its undo file."""

    name: str

    def create(self, size_bytes: int) -> Device:
        """Return a new file of *size_bytes* without a name that counts. Raises a RazorError that says why not."""

    def publish(self) -> None:
        """Give the file its name, stable; one that stood there and is still needed gets a number."""

    def drop(self) -> None:
        """Forget a file that was not published."""

    def open(self, *, writable: bool) -> Device:
        """Open the file that has the name. Raises a RazorError."""


class HostShelf:
    """A path on the host, and its neighbours."""

    def __init__(self, path: str | os.PathLike[str], image_path: str) -> None:
        """Look at *path*, for the undo file of the image at *image_path*."""
        self.name = os.fspath(path)
        self._image_path = image_path
        self._new = self.name + NEW

    def create(self, size_bytes: int) -> Device:
        """See Shelf. All its room on the host is taken now, so that a full disk stops the repair before it starts."""
        try:
            self.judge()
            self.drop()  # what is left of an attempt that never came to change the image
            if self._may_be_made(directory := os.path.dirname(os.path.abspath(self.name))):
                os.makedirs(directory, 0o700, exist_ok=True)
            descriptor = os.open(self._new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size_bytes)
            except BaseException:
                self.drop()
                raise
            finally:
                os.close(descriptor)
        except OSError as failed:
            raise DeviceFailed(
                f"{self.name}: no undo file of {format_size(size_bytes)} can be made: {failed.strerror}. {NOTHING_WAS_CHANGED}; "
                f"name another place for it with --undo-file"
            ) from None
        return open_image(self._new, writable=True)

    def publish(self) -> None:
        """See Shelf."""
        try:
            if Path(self.name).exists() and self.is_needed():
                self._move_away()
            os.rename(self._new, self.name)
            self._flush_directory()
        except OSError as failed:
            raise DeviceFailed(
                f"{self.name}: the undo file cannot be given its name: {failed.strerror}. {NOTHING_WAS_CHANGED}"
            ) from None

    def drop(self) -> None:
        """See Shelf."""
        Path(self._new).unlink(missing_ok=True)

    def open(self, *, writable: bool) -> Device:
        """See Shelf."""
        if not Path(self.name).exists():
            raise CannotUndo(f"{self.name}: there is no such undo file; name the one of the repair with --undo-file")
        return open_image(self.name, writable=writable)

    def is_needed(self) -> bool:
        """Return whether the file under the name is the only means to take a repair back."""
        with open_image(self.name, writable=False) as file:
            try:
                return UndoReader(file).fate is not Fate.TAKEN_BACK
            except CannotUndo:
                return True

    def older(self) -> list[str]:
        """Return the names of the files that were moved away from here, the latest first; of a numbered one also those before it.

        Whether they are undo files, and still of use, is not looked at.
        """
        moved = takewhile(_exists, (f"{self.name}.{number}" for number in count(1)))
        stem, _, number = self.name.rpartition(".")
        last = int(number) if number.isdecimal() else 0
        before = takewhile(_exists, (f"{stem}.{earlier}" for earlier in range(last - 1, 0, -1)))
        return [*reversed(list(moved)), *before]

    def judge(self) -> None:
        """Find out, changing nothing, whether an undo file can stand there: before all the work that it is for.

        Raises UsageError if something stands in the way that is no undo file, or if the place would not keep it; DeviceFailed
        if the host does not let us write there.
        """
        for path in (self.name, self._new):
            if Path(path).exists() and not _is_undo_file(path, unfinished=path == self._new):
                raise UsageError(
                    f"{path}: exists, and is no undo file; name another place with --undo-file. {NOTHING_WAS_CHANGED}"
                )
        directory = os.path.dirname(os.path.abspath(self.name))
        ancestor = directory
        while not os.path.lexists(ancestor) and self._may_be_made(directory):
            ancestor = os.path.dirname(ancestor)
        if not os.path.isdir(ancestor) or not os.access(ancestor, os.W_OK | os.X_OK):
            raise DeviceFailed(
                f"{self.name}: no undo file can be made in {directory}; name another place for it with --undo-file. "
                f"{NOTHING_WAS_CHANGED}"
            )
        self._expect_to_last(ancestor)

    def _may_be_made(self, directory: str) -> bool:
        """Return whether a missing *directory* is one of ours, rather than a slip of the operator's."""
        return directory == UNDO_DIRECTORY

    def _expect_to_last(self, directory: str) -> None:
        """Raise UsageError if the directory lies in memory while the image does not: the first power cut would take it."""
        try:
            image = os.stat(self._image_path)
        except OSError:
            return  # no image of the host's
        is_beside = stat.S_ISREG(image.st_mode) and image.st_dev == os.stat(directory).st_dev
        if not is_beside and _file_system_type(directory) in ("tmpfs", "devtmpfs", "ramfs"):
            raise UsageError(
                f"{self.name}: lies in memory, and would be gone after a power cut; name a place on a disk with --undo-file. "
                f"{NOTHING_WAS_CHANGED}"
            )

    def _move_away(self) -> None:
        """Give the file under the name a number too. It never loses one name before it has the other."""
        older = next(path for path in (f"{self.name}.{number}" for number in count(1)) if not Path(path).exists())
        try:
            os.link(self.name, older)
        except OSError:  # the host's filesystem has no hard links
            os.rename(self.name, older)
        self._flush_directory()

    def _flush_directory(self) -> None:
        descriptor = os.open(os.path.dirname(os.path.abspath(self.name)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exists(path: str) -> bool:
    return Path(path).exists()


def _is_undo_file(path: str, *, unfinished: bool) -> bool:
    """Return whether the file at *path* is one, or if *unfinished* may have been going to be one."""
    if not Path(path).is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    return head == UNDO_MAGIC or (unfinished and not any(head))


def _file_system_type(directory: str) -> str:
    """Return the type of the host's filesystem that *directory* lies on; empty if the host does not tell."""
    place = os.stat(directory).st_dev
    wanted = (os.major(place), os.minor(place))
    try:
        return next((mount.filesystem for mount in mounts() if mount.device == wanted), "")
    except OSError:
        return ""
