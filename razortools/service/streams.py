"""Requests about directories as streams: opening, listing, closing.

A position is a cookie that says all by itself: it belongs to a name, not to a place (engine/directories.py), so nothing is kept
for an open directory. What is given before something is missing or damaged is an answer: the kernel asks for the rest. Which
listings it may keep, and who may use them, is decided in service/listings.py.
"""

from collections.abc import Callable, Iterator

import trio

from razortools.engine import directories
from razortools.engine.store.residence import NotResident
from razortools.errors import CorruptImage, PosixError, RazorError
from razortools.format.inode import FileType
from razortools.format.keys import HASH_MIN
from razortools.printable import printable_name
from razortools.service.callers import Caller
from razortools.service.handlers import TIMEOUT_S, Answer, Handler, Handlers
from razortools.service.wire import DIRENT, DIRENT_ALIGN, ENTRY_OUT, OPEN_OUT, OPENDIR, READDIR, RELEASEDIR, Opcode, dirent
from razortools.units import InodeNo

SELF_COOKIE = 1  # cookies below HASH_MIN are ours
PARENT_COOKIE = 2
assert PARENT_COOKIE < HASH_MIN

_UNKNOWN = ENTRY_OUT.pack(0, 0, TIMEOUT_S, TIMEOUT_S, 0, 0, *[0] * 15)  # the kernel does not count "." and ".."
_DIRENT_BYTES = DIRENT.size
_DIRENTPLUS_BYTES = ENTRY_OUT.size + DIRENT.size

Given = Callable[[InodeNo, int, int], bytes]  # (directory, cookie, bytes) -> entries from behind the cookie


class StreamHandlers(Handlers):
    """Handlers whose node is an open directory."""

    def table(self) -> dict[int, Handler]:
        """Return the handlers of this family by opcode."""
        return super().table() | {
            Opcode.OPENDIR: self.opendir,
            Opcode.READDIR: self.readdir,
            Opcode.READDIRPLUS: self.readdirplus,
            Opcode.RELEASEDIR: self.releasedir,
        }

    def opendir(self, ino: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Open a directory for reading."""
        return OPEN_OUT.pack(*self.listings.open(ino, *OPENDIR.unpack_from(body)), 0)

    def releasedir(self, ino: InodeNo, body: memoryview, caller: Caller) -> bytes:
        """Close a directory."""
        self.listings.close(ino, *RELEASEDIR.unpack_from(body))
        return b""

    def readdir(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        """Give entries from behind a cookie until the kernel's buffer is full."""
        return self._read(self._names, ino, body)

    def readdirplus(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        """Give entries with their attributes, as if each had been looked up."""
        return self._read(self._attributes, ino, body)

    def _read(self, give: Given, ino: InodeNo, body: memoryview) -> Answer:
        """Give entries; nothing is said when there are no more, once the kernel has nothing that is not so."""
        handle, after, room = READDIR.unpack_from(body)
        if not after:
            self.listings.begin(ino, handle)
        given = give(ino, after, room)
        if not after:
            self.note_access(ino)
        return given if given or not self.listings.end(ino, handle) else self._end_anew(ino)

    async def _end_anew(self, ino: InodeNo) -> bytes:
        """Tell that there are no more entries when the kernel has dropped what it has of them."""
        await trio.to_thread.run_sync(self.listings.drop, ino, abandon_on_cancel=True)
        return b""

    def _names(self, ino: InodeNo, after: int, room: int) -> bytes:
        """Return entries from behind a cookie, as many as there is *room* for."""
        given = [dirent(child, cookie, name, FileType.DIRECTORY) for child, cookie, name in self._dots(ino, after)]
        room -= sum(map(len, given))
        try:
            for cookie, name, found in directories.entries(self.volume, ino, max(after, HASH_MIN - 1)):
                room -= _padded(_DIRENT_BYTES + len(name))
                if room < 0:
                    break
                given.append(dirent(found.inode, cookie, name, found.file_type))
        except (NotResident, RazorError):
            if not given:
                raise
        return b"".join(given)

    def _attributes(self, ino: InodeNo, after: int, room: int) -> bytes:
        """Return entries with their attributes from behind a cookie; each is held as if it had been looked up."""
        given = [_UNKNOWN + dirent(child, cookie, name, FileType.DIRECTORY) for child, cookie, name in self._dots(ino, after)]
        room -= sum(map(len, given))
        get, hold = self.volume.inodes.get, self.volume.inodes.hold
        try:
            for cookie, name, found in directories.entries(self.volume, ino, max(after, HASH_MIN - 1)):
                child, takes = InodeNo(found.inode), _padded(_DIRENTPLUS_BYTES + len(name))
                if room < takes:
                    break
                try:
                    attributes = self.entry_of(child, get(child))
                except PosixError:  # an entry that leads nowhere is damage: the others are still to be seen
                    told = f"entry {printable_name(name)} leads to inode {child}, which is not there"
                    self.failures.meet(CorruptImage(told), "readdirplus", ino)
                    continue
                room -= takes
                given.append(attributes + dirent(child, cookie, name, found.file_type))
                hold(child)
        except (NotResident, RazorError):
            if not given:
                raise
        return b"".join(given)

    def _dots(self, ino: InodeNo, after: int) -> Iterator[tuple[InodeNo, int, bytes]]:
        """Yield (inode, cookie, name) of "." and ".." if they come behind *after*; there is always room for them."""
        if after < SELF_COOKIE:
            yield ino, SELF_COOKIE, b"."
        if after < PARENT_COOKIE:
            try:
                yield directories.parent_of(self.volume, ino), PARENT_COOKIE, b".."
            except PosixError:
                return  # removed while open: nothing is in it, not even ".."


def _padded(length: int) -> int:
    """Return *length* rounded up to where the next entry begins."""
    return -(-length // DIRENT_ALIGN) * DIRENT_ALIGN
