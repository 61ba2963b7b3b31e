"""The directory that is measured, and what the rows find in it.

Each row can run alone: what it needs and does not find is made before its clock starts. Everything follows from the sizes and a
fixed seed, so every peer is asked for the same work and every byte that comes back can be compared.
"""

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.mounts.contents import Sizes, big, pages

FOLDER_COUNT = 10
NAMES, PAGES = 2, 3  # what the kernel is asked to forget: names and inodes; pages of files too
START = 0  # what a row yields when the clock starts
LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Taken:
    """How much was done, in what time, and how much of a processor the daemon took meanwhile; None: nobody looked."""

    count: int
    wall_s: float
    daemon_s: float | None = None

    @property
    def rate(self) -> float:
        """How much is done in a second."""
        return self.count / self.wall_s


class WrongResult(Exception):
    """The filesystem did not do what it was asked for, so its time means nothing."""


def expect(found: object, wanted: object, what: str) -> None:
    """Raise WrongResult if *found* is not what was wanted. Says no more than fits on a line."""
    if found != wanted:
        raise WrongResult(f"{what}: {str(wanted)[:60]} expected, {str(found)[:60]} found")


def drop_caches(level: int) -> None:
    """Ask the kernel to forget: NAMES or PAGES."""
    Path("/proc/sys/vm/drop_caches").write_text(f"{level}\n")


def processor_s(pid: int) -> float:
    """Return the processor time of all threads of a process so far, those that have ended included, in seconds."""
    return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) gives


def settle(root: bytes | Path) -> None:
    """Return when the filesystem at *root* has written out everything, as far as it lets us ask."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        LIBC.syncfs(descriptor)  # for filesystems of the kernel; FUSE does not pass it on
        try:
            os.fsync(descriptor)
        except OSError:  # some have no fsync for directories
            pass
    finally:
        os.close(descriptor)


class Place:
    """A directory on the filesystem under test. Paths are bytes, so that the client does not encode them while the clock runs."""

    def __init__(
        self, root: Path, tarball: Path, sizes: Sizes, drop: Callable[[int], None] = drop_caches, daemon: int | None = None
    ) -> None:
        """*tarball*: from write_tarball, somewhere else. *drop*: what makes the kernel's caches cold. *daemon*: whom to watch."""
        self.daemon = daemon
        self.root = os.fsencode(root)
        self.tarball = os.fsencode(tarball)
        self.sizes = sizes
        self._drop = drop

    def path(self, name: str) -> bytes:
        """Return the path of *name* in this place."""
        return os.path.join(self.root, os.fsencode(name))

    def settle(self) -> None:
        """Wait for what earlier rows left to be written, so that no row pays for another as far as a filesystem lets us ask."""
        settle(self.root)

    def cold(self, level: int) -> None:
        """Settle and let the kernel forget. A FUSE daemon goes on running and keeps what it has in its own memory."""
        self.settle()
        self._drop(level)

    def folders(self, name: str) -> list[bytes]:
        """Return the directories in which 5,000 things of one kind live; missing ones are made."""
        paths = [self.path(f"{name}/{number}") for number in range(FOLDER_COUNT)]
        if not os.path.exists(paths[-1]):
            for path in paths:
                os.makedirs(path)
        return paths

    def spread(self, name: str, prefix: str) -> list[bytes]:
        """Return the paths of sizes.files things, in turns in the directories of *name*."""
        homes = self.folders(name)
        return [b"%s/%s%05d" % (homes[number % FOLDER_COUNT], prefix.encode(), number) for number in range(self.sizes.files)]

    def files(self) -> list[bytes]:
        """Return the paths of the small files; missing ones are made."""
        paths = self.spread("files", "file")
        if not os.path.exists(paths[0]):
            for path, data in zip(paths, self.pages, strict=True):
                write_file(path, data)
        return paths

    @cached_property
    def pages(self) -> list[bytes]:
        """What the small files hold, in the order of their paths."""
        return pages(self.sizes.files)

    def directories(self) -> list[bytes]:
        """Return the paths of the empty directories; missing ones are made."""
        paths = self.spread("directories", "directory")
        if not os.path.exists(paths[0]):
            for path in paths:
                os.mkdir(path)
        return paths

    def unpacked(self) -> bytes:
        """Return the path of the unpacked tree; it is unpacked if it is missing."""
        path = self.path("tree")
        if not os.path.exists(path):
            os.mkdir(path)
            run(b"tar", b"-xf", self.tarball, b"-C", path)
        return path

    def big_file(self, kind: str) -> tuple[bytes, bytes]:
        """Return the path of a big file and what is in it; it is written if it is missing."""
        path, data = self.path(kind), big(kind, self.sizes.big_bytes)
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.write(data)
        return path, data

    def empty(self, name: str) -> bytes:
        """Return the path of *name*, with nothing there any more."""
        path = self.path(name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
        return path


def write_file(path: bytes, data: bytes) -> None:
    """Create a file with one write."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.write(descriptor, data)
    os.close(descriptor)


def content(path: bytes, size_bytes: int) -> bytes:
    """Read a file of at most *size_bytes* as simply as it can be done."""
    descriptor = os.open(path, os.O_RDONLY)
    data = os.read(descriptor, size_bytes)
    os.close(descriptor)
    return data


def run(*command: bytes) -> bytes:
    """Run a program and return what it printed. Raises WrongResult if it fails."""
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[:200]
        raise WrongResult(f"{os.fsdecode(command[0])} exits {done.returncode}: {said}")
    return done.stdout


Row = Callable[[Place], Iterator[int | Taken]]
