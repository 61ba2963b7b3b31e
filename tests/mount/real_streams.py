"""Streams over a directory of a mount, entry by entry: getdents64(2) with buffers of a few entries, and readers that go back."""

import ctypes
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from tests.mount.posix_streams import Entry, History, Judge

SYS_GETDENTS64 = 217  # of x86-64
DIRENT = Struct("=QqHB")  # inode, position behind it, length, type; then the name and zeros
NAMES = [f"{number:02}".ljust(200 + number, "x") for number in range(40)]  # a page of the kernel's holds some seventeen
READERS_MAX = 3
HOMES = ("here", "there")

_libc = ctypes.CDLL(None, use_errno=True)


def entries(descriptor: int, buffer_bytes: int = 32_768) -> list[tuple[str, int, int]]:
    """Return (name, inode, position behind it) of what one getdents64() gives; nothing at the end."""
    buffer = ctypes.create_string_buffer(buffer_bytes)
    length = _libc.syscall(SYS_GETDENTS64, descriptor, buffer, buffer_bytes)
    if length < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    given, at = [], 0
    while at < length:
        ino, position, size, _ = DIRENT.unpack_from(buffer, at)
        name = buffer.raw[at + DIRENT.size : at + size].split(b"\0")[0]
        given.append((os.fsdecode(name), ino, position))
        at += size
    return given


@dataclass
class Reader:
    """An open directory and its judge."""

    descriptor: int
    judge: Judge


class WatchedDirectory:
    """A directory in which names come and go, which moves, and which some readers read. Every step is judged."""

    def __init__(self, home: Path) -> None:
        """Make it below *home*, empty."""
        self._homes = [home / name for name in HOMES]
        for place in self._homes:
            place.mkdir(parents=True)
        self.path = self._homes[0] / "directory"
        self.path.mkdir()
        self._cookies = self._learn_cookies()
        self._history = History()
        self._there: dict[str, Entry] = {}
        self._put(".", self.path.stat().st_ino)
        self._put("..", self._homes[0].stat().st_ino)
        self._readers: list[Reader] = []
        self.ends = 0

    def _learn_cookies(self) -> dict[str, int]:
        """Return the position behind each name: it belongs to the name, and is the same whenever the name is there."""
        for name in NAMES:
            (self.path / name).touch()
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            cookies = dict[str, int]()
            while given := entries(descriptor):
                cookies |= {name: position for name, _, position in given}
        finally:
            os.close(descriptor)
        for name in NAMES:
            (self.path / name).unlink()
        return cookies

    def close(self) -> None:
        """Close what is open."""
        for reader in self._readers:
            os.close(reader.descriptor)
        self._readers.clear()

    def step(self, source: random.Random) -> None:
        """Do something."""
        self._history.now += 1
        doing = source.choices((self._change, self._move, self._open), (12, 1, 2))[0] if source.random() < 0.4 else self._use
        doing(source)

    def _put(self, name: str, ino: int) -> None:
        self._there[name] = Entry(self._cookies[name], ino)
        self._history.make(self._there[name])
        self._history.know()

    def _take(self, name: str) -> None:
        self._history.remove(self._there.pop(name))
        self._history.know()

    def _change(self, source: random.Random) -> None:
        name = source.choice(NAMES)
        if name in self._there:
            (self.path / name).unlink()
            self._take(name)
        else:
            (self.path / name).touch()
            self._put(name, (self.path / name).stat().st_ino)

    def _move(self, source: random.Random) -> None:
        target = next(home for home in self._homes if home != self.path.parent)
        self.path = self.path.rename(target / self.path.name)
        self._take("..")
        self._put("..", target.stat().st_ino)

    def _open(self, source: random.Random) -> None:
        if len(self._readers) == READERS_MAX:
            os.close(self._readers.pop(source.randrange(READERS_MAX)).descriptor)
        how = os.O_RDONLY | (os.O_DIRECTORY if source.random() < 0.7 else 0)
        self._readers.append(Reader(os.open(self.path, how), Judge(self._history)))

    def _use(self, source: random.Random) -> None:
        if not self._readers:
            self._open(source)
        reader = source.choice(self._readers)
        doing: Callable[[Reader, random.Random], None] = source.choices((self._read, self._rewind, self._go_back), (8, 1, 1))[0]
        doing(reader, source)

    def _read(self, reader: Reader, source: random.Random) -> None:
        given = entries(reader.descriptor, source.choice((300, 1000, 3000, 32_768)))
        for name, ino, position in given:
            assert position == self._cookies[name]
            reader.judge.give(Entry(position, ino))
        if not given:
            reader.judge.end()
            self.ends += 1

    def _rewind(self, reader: Reader, source: random.Random) -> None:
        os.lseek(reader.descriptor, 0, os.SEEK_SET)
        reader.judge.begin()

    def _go_back(self, reader: Reader, source: random.Random) -> None:
        position = reader.judge.go_back(source.randrange(1000))
        if position is not None:
            os.lseek(reader.descriptor, position, os.SEEK_SET)
