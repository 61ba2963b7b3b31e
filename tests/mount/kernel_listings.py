"""A model of how Linux keeps the listing of a directory for FUSE.

It follows fs/fuse/readdir.c of Linux 6.18, with pages that hold few entries so that their borders matter. Time passes in steps: a
reply is taken some steps after it was given, and a change is known to the kernel some steps after the daemon has made it.

Source: Linux, fs/fuse/readdir.c and dir.c.
"""

import os
from bisect import bisect_right
from dataclasses import dataclass

from razortools.service.listings import Listings
from razortools.service.wire import OpenFlag
from razortools.units import InodeNo
from tests.mount.posix_streams import Entry, History, Judge

DIRECTORY = InodeNo(1)
PAGE_BYTES = 4  # an entry takes 1 to 3 of it
PARENT_COOKIE = 2


@dataclass
class Reader:
    """An open directory."""

    handle: int
    flags: OpenFlag
    judge: Judge
    position: int = 0
    stream_position: int = 0  # in what the kernel keeps
    stream_offset: int = 0
    stream_version: int = -1
    reply: list[Entry] | None = None  # given by the daemon and not taken yet
    has_ended: bool = False  # it was told so at least once


class Kernel:
    """One directory, its readers, and what the kernel keeps of its listing."""

    def __init__(self, listings: Listings) -> None:
        self.listings = listings
        listings.drop = self._drop
        self.history = History()
        self.directory = {PARENT_COOKIE: Entry(PARENT_COOKIE, 0)}  # as the daemon has it
        self.history.make(self.directory[PARENT_COOKIE])
        self.history.know()
        self.readers: list[Reader] = []
        self.asked = 0  # times
        self._tells = self._drops = False  # of changes that are under way: the kernel sees one; it is to drop what it has
        self.pages: dict[int, list[tuple[int, Entry]]] = {}  # (offset, entry)
        self.cached, self.size, self.last, self.version, self.changes, self.changes_kept = False, 0, 0, 0, 0, 0

    # Changes

    def change(self, cookie: int) -> None:
        """Make the name with *cookie*, or remove it if it is there; ".." becomes another, as the directory moves."""
        is_moved = cookie == PARENT_COOKIE
        self._drops |= is_moved and self.listings.move(DIRECTORY)
        if not is_moved:
            self.listings.change(DIRECTORY)
            self._tells = True
        there = self.directory.pop(cookie, None)
        if there is not None:
            self.history.remove(there)
        if there is None or is_moved:
            self.directory[cookie] = Entry(cookie, self.history.now)
            self.history.make(self.directory[cookie])

    def learn(self) -> None:
        """The changes so far are known to the kernel; who made them goes on."""
        if self._drops:
            self._drop(DIRECTORY)
        self.changes += self._tells
        self._drops = self._tells = False
        self.history.know()

    def reclaim(self, which: int) -> None:
        """Memory is short: a page goes."""
        if self.pages:
            del self.pages[sorted(self.pages)[which % len(self.pages)]]

    def _drop(self, directory: InodeNo) -> None:
        assert directory == DIRECTORY
        self.pages.clear()

    # Readers

    def open(self, position: int = 0) -> None:
        """One more reader; one that does not begin at the start is in the kernel."""
        handle, flags = self.listings.open(DIRECTORY, 0 if position else os.O_DIRECTORY)
        if not flags & OpenFlag.KEEP_CACHE:
            self.pages.clear()
        self.readers.append(Reader(handle, OpenFlag(flags), Judge(self.history), position))
        self.readers[-1].judge.go_on_from(position)

    def close(self, reader: Reader) -> None:
        self.readers.remove(reader)
        self.listings.close(DIRECTORY, reader.handle)

    def rewind(self, reader: Reader) -> None:
        reader.judge.begin()
        reader.position, reader.reply = 0, None

    def go_back(self, reader: Reader, which: int) -> None:
        """Go to a position that the reader has been told since it began."""
        position = reader.judge.go_back(which)
        if position is not None:
            reader.position, reader.reply = position, None

    def read(self, reader: Reader, room: int) -> None:
        """One getdents() for up to *room* entries, or the beginning or the end of one that has to ask the daemon."""
        if reader.reply is not None:
            self._take(reader, room)
            return
        if reader.flags & OpenFlag.CACHE_DIR and self._give_kept(reader, room):
            return
        if not reader.position:
            self.listings.begin(DIRECTORY, reader.handle)
        behind = sorted(self.directory)[bisect_right(sorted(self.directory), reader.position) :]
        reader.reply = [self.directory[cookie] for cookie in behind[:3]]
        self.asked += 1
        if not reader.reply and self.listings.end(DIRECTORY, reader.handle):
            self._drop(DIRECTORY)

    def _take(self, reader: Reader, room: int) -> None:
        """The reply to a reader's READDIR has come."""
        reply, reader.reply = reader.reply, None
        assert reply is not None
        if not reply:
            if reader.flags & OpenFlag.CACHE_DIR and self.last == reader.position:
                self.cached = True
                self._truncate(-(-self.size // PAGE_BYTES))
            self._end(reader)
        for entry in reply:
            if reader.flags & OpenFlag.CACHE_DIR:
                self._add(entry, reader.position)
            if not room:
                break
            room -= 1
            self._give(reader, entry)

    def _truncate(self, count: int) -> None:
        self.pages = {index: page for index, page in self.pages.items() if index < count}

    def _add(self, entry: Entry, position: int) -> None:
        """Keep an entry that follows what is kept already."""
        if self.cached or position != self.last:
            return
        index, offset = divmod(self.size, PAGE_BYTES)
        if offset + _length(entry) > PAGE_BYTES:
            index, offset = index + 1, 0
        if not offset:
            self.pages[index] = []
        elif index not in self.pages:
            return
        self.pages[index].append((offset, entry))
        self.size, self.last = index * PAGE_BYTES + offset + _length(entry), entry.cookie

    def _give_kept(self, reader: Reader, room: int) -> bool:
        """Give entries from what is kept; whether that was an answer."""
        if reader.stream_position != reader.position:
            reader.stream_position = reader.stream_offset = 0
        found = False
        while True:
            if self.cached and not reader.position and self.changes_kept != self.changes:
                self._forget()
            if not self.cached:
                if not reader.position and not self.size:
                    self.changes_kept = self.changes
                return False
            if reader.stream_version != self.version:
                reader.stream_position = reader.stream_offset = 0
            if not reader.stream_position:
                reader.stream_version = self.version
            index, offset = divmod(reader.stream_offset, PAGE_BYTES)
            is_last = index == self.size // PAGE_BYTES
            length = self.size % PAGE_BYTES if is_last else PAGE_BYTES
            if offset == length:
                self._end(reader)
                return True
            if index not in self.pages:
                self._forget()
                continue
            for at, entry in self.pages[index]:
                if at < offset or at >= length:
                    continue
                if reader.stream_position == reader.position:
                    found = True
                    if not room:
                        return True
                    room -= 1
                    self._give(reader, entry)
                reader.stream_position = entry.cookie
                reader.stream_offset = index * PAGE_BYTES + at + _length(entry)
            if is_last:
                return found
            reader.stream_offset = (index + 1) * PAGE_BYTES

    def _forget(self) -> None:
        self.cached, self.size, self.last = False, 0, 0
        self.version += 1

    def list(self) -> int:
        """Open the directory, read it to its end, close it; return how often that asked the daemon."""
        before = self.asked
        self.open()
        reader = self.readers[-1]
        while not reader.has_ended:
            self.read(reader, 5)
        self.close(reader)
        return self.asked - before

    def _end(self, reader: Reader) -> None:
        reader.judge.end()
        reader.has_ended = True

    def _give(self, reader: Reader, entry: Entry) -> None:
        reader.judge.give(entry)
        reader.position = entry.cookie


def _length(entry: Entry) -> int:
    """Return how much of a page an entry takes."""
    return 1 + entry.cookie % 3


Step = tuple[int, int, int]  # what, of whom, how much
KINDS = 20


def play(listings: Listings, steps: list[Step]) -> Kernel:
    """Take *steps*. Raises AssertionError where a stream is not what POSIX wants."""
    kernel = Kernel(listings)
    for kernel.history.now, (kind, whom, much) in enumerate(steps, start=1):
        reader = kernel.readers[whom % len(kernel.readers)] if kernel.readers else None
        if kind == 0:
            kernel.change(PARENT_COOKIE + whom % 12)
        elif kind == 1:
            kernel.change(PARENT_COOKIE + whom % 12)
            kernel.learn()
        elif kind == 2:
            kernel.learn()
        elif kind == 3:
            kernel.reclaim(whom)
        elif reader is None or (kind == 4 and len(kernel.readers) < 3):
            kernel.open(PARENT_COOKIE + whom % 12 if much % 4 == 3 else 0)
        elif kind == 5:
            kernel.close(reader)
        elif kind == 6:
            kernel.rewind(reader)
        elif kind == 7:
            kernel.go_back(reader, much)
        else:
            kernel.read(reader, 1 + much % 5)
    return kernel
