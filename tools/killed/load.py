"""One worker of the load: it does the steps that it is given, one system call each, and says when each begins and is done.

It runs as a process of its own (`python load.py FOLDER WORKER GO`) and needs nothing but the standard library. The steps come
through stdin. What it says goes to stdout, a pipe that all workers share: a line is written at once, so the order of the lines
is an order of the events, and whoever reads "done" before "begun" knows that the one call had returned before the other started.
The pipe is outside the filesystem under test. GO is a descriptor that is closed when all may start.
"""

import argparse
import ctypes
import errno
import json
import os
import random
import sys
from collections.abc import Callable
from typing import NamedTuple

RENAME_EXCHANGE = 2
AT_FDCWD = -100
_TEXT = b"the quick brown fox jumps over the lazy dog; "


class Step(NamedTuple):
    """One system call that changes something or makes it durable. Paths are relative to the mount."""

    kind: str
    path: str
    other: str = ""  # rename, exchange: the second path
    offset: int = 0  # write: first byte; truncate: the new size
    length: int = 0  # write: bytes
    seed: int = 0  # write: what the bytes are
    is_synced: bool = False  # write: with O_SYNC

    @property
    def is_sync(self) -> bool:
        """Whether it changes nothing itself."""
        return self.kind in ("fsync", "fsyncdir")

    @property
    def promises(self) -> bool:
        """Whether everything that was done before it began is durable when it is done."""
        return self.is_sync or self.is_synced


def contents(seed: int, length: int) -> bytes:
    """Return *length* bytes, other ones for each *seed*; every second seed gives bytes that compress well."""
    if seed % 2:
        line = b"%d " % seed + _TEXT
        return (line * (length // len(line) + 1))[:length]
    return random.Random(seed).randbytes(length)


class Hands:
    """Does steps."""

    def __init__(self, folder: str) -> None:
        """Work below *folder*."""
        self._folder = folder
        self._kept: list[int] = []  # unlinked files stay open, so that a kill leaves orphans behind
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._ways: dict[str, Callable[[str, Step], None]] = {
            "create": self._create,
            "write": self._write,
            "truncate": lambda path, step: os.truncate(path, step.offset),
            "rename": lambda path, step: os.rename(path, self._at(step.other)),
            "exchange": self._exchange,
            "unlink": lambda path, step: os.unlink(path),
            "unlink-open": self._unlink_open,
            "mkdir": lambda path, step: os.mkdir(path),
            "rmdir": lambda path, step: os.rmdir(path),
            "fsync": self._sync,
            "fsyncdir": self._sync,
        }

    def do(self, step: Step) -> None:
        """Do *step*. Raises OSError."""
        self._ways[step.kind](self._at(step.path), step)

    def _at(self, path: str) -> str:
        return os.path.join(self._folder, path)

    def _create(self, path: str, step: Step) -> None:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))

    def _write(self, path: str, step: Step) -> None:
        descriptor = os.open(path, os.O_WRONLY | (os.O_SYNC if step.is_synced else 0))
        try:
            data = contents(step.seed, step.length)
            written = os.pwrite(descriptor, data, step.offset)
            if written < step.length:  # the kernel had cut it in two and the second failed: ask for the reason
                os.pwrite(descriptor, data[written:], step.offset + written)
                raise OSError(errno.EIO, "a short write without a reason")
        finally:
            os.close(descriptor)

    def _exchange(self, path: str, step: Step) -> None:
        names = os.fsencode(path), os.fsencode(self._at(step.other))
        if self._libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE):
            raise OSError(ctypes.get_errno(), "renameat2")

    def _unlink_open(self, path: str, step: Step) -> None:
        self._kept.append(os.open(path, os.O_WRONLY))
        os.unlink(path)

    def _sync(self, path: str, step: Step) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def main() -> None:
    """Do the steps from stdin below the folder that the command line names, until one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("worker", type=int, help="its number, which it says with everything")
    parser.add_argument("go", type=int, help="a descriptor that is closed when all may start")
    chosen = parser.parse_args()
    folder, worker, go = chosen.folder, chosen.worker, chosen.go
    steps = [Step(*json.loads(line)) for line in sys.stdin]
    hands = Hands(folder)

    def say(what: str, number: int, error: int = 0) -> None:
        os.write(1, b"%s %d %d %d\n" % (what.encode(), worker, number, error))

    say("ready", 0)
    os.read(go, 1)
    for number, step in enumerate(steps):
        say("begun", number)
        try:
            hands.do(step)
        except OSError as failed:
            say("failed", number, failed.errno or 0)
            break
        say("done", number)
    os._exit(0)  # what is open stays so until the very end, and nobody waits for a daemon that is gone


if __name__ == "__main__":
    main()
