"""Which listings of directories the kernel may keep, and which reader may use what it keeps.

A listing that the kernel keeps (FOPEN_CACHE_DIR) costs no message and no look into the tree. But the kernel compares it with the
directory only where a reader begins, and puts it together, entry by entry, from what any reader of it is given; a part that is
there it never compares. A reader in the middle of a directory that changes may then be given the end of a listing that never was
as a whole; and that ".." is another the kernel does not notice.

Invariants, which make a directory's stream what POSIX wants: one reader of a directory at a time may use what is kept, so nobody
else takes it away or puts another in its place; every other reader asks the daemon. Where such a reader opens a directory, what
the kernel has of it as a whole is as the directory is now, or is dropped. And what was put together while the directory changed
is dropped before the kernel may take it for a whole listing, which is when it is told that there are no more entries. Then it is
put together anew by who lists the directory next.

Directories are changed by requests alone, and each of them says so here.

Source: fs/fuse/readdir.c and dir.c of Linux, as of 6.18; tests/mount/kernel_listings.py is a model of it.
"""

import os
from collections.abc import Callable

from razortools.service.wire import OpenFlag
from razortools.units import InodeNo

KNOWN_MAX = 16_384  # directories that are remembered; the kernel keeps fewer

MAY_USE_KEPT = 1  # the handle of a reader that may use what the kernel keeps
ASKS = 0  # and of any other
_FRESH = MAY_USE_KEPT, int(OpenFlag.CACHE_DIR)
_KEPT = MAY_USE_KEPT, int(OpenFlag.CACHE_DIR | OpenFlag.KEEP_CACHE)
_ASKS = ASKS, int(OpenFlag.KEEP_CACHE)  # of what another one reads


# What the kernel has of a listing: all of it, as it is, or nothing; unless a flag tells otherwise.
_AS_IT_IS = 0
_IN_PART = 1  # it has asked for the first entries, and has not been told since that there are no more
_CHANGED = 2  # the directory has, since it was as the kernel has it


def _unmounted(directory: InodeNo) -> None:
    """Nothing is kept by a kernel that is not there."""


class Listings:
    """What the kernel has of the listings of one mount."""

    def __init__(self) -> None:
        """Begin with a kernel that has none.

        `drop` has it drop what it has of a directory. That waits for who is being given it just now, who may wait for a request:
        so it is called in a thread that serves none, and that nobody waits for when the mount ends.
        """
        self.drop: Callable[[InodeNo], None] = _unmounted
        self._reading: set[InodeNo] = set()  # directories with a reader that may use what the kernel keeps
        self._kept: dict[InodeNo, int] = {}  # flags; of any other directory the kernel may have anything

    def open(self, directory: InodeNo, flags: int) -> tuple[int, int]:
        """A reader opens *directory* with *flags*: return its handle, and what the kernel is to do (OpenFlag).

        Programs that list directories open them as such. Whoever does not may be in the kernel (NFS's server opens a directory
        for each few entries), and goes on where he was told another time, which may be nowhere in what is kept.
        """
        if directory in self._reading or not flags & os.O_DIRECTORY:
            return _ASKS
        self._reading.add(directory)
        kept = self._kept.get(directory)
        if kept is None or kept == _CHANGED:
            self._note(directory, _AS_IT_IS)
            return _FRESH
        return _KEPT  # a part, too, even if there were changes: without it the kernel would never have the whole again

    def close(self, directory: InodeNo, handle: int) -> None:
        """The reader with *handle* is gone."""
        if handle == MAY_USE_KEPT:
            self._reading.discard(directory)

    def change(self, directory: InodeNo) -> None:
        """An entry of *directory* is about to change."""
        kept = self._kept.get(directory)
        if kept is not None:
            self._kept[directory] = kept | _CHANGED

    def move(self, directory: InodeNo) -> bool:
        """*directory* is about to move: return whether it is to be dropped when it has, before anybody is told."""
        kept = self._kept.get(directory)
        self.change(directory)
        return directory in self._reading and kept is not None and not kept & _IN_PART

    def begin(self, directory: InodeNo, handle: int) -> None:
        """A reader asks for the first entries."""
        if handle == MAY_USE_KEPT:
            self._note(directory, self._kept.get(directory, _CHANGED) | _IN_PART)

    def end(self, directory: InodeNo, handle: int) -> bool:
        """A reader is about to be told that there are no more entries: return whether *directory* is to be dropped before."""
        if handle != MAY_USE_KEPT:
            return False
        has_changed = bool(self._kept.get(directory, _CHANGED) & _CHANGED)
        self._note(directory, _AS_IT_IS)
        return has_changed

    def _note(self, directory: InodeNo, kept: int) -> None:
        if len(self._kept) >= KNOWN_MAX and directory not in self._kept:
            self._kept = {read: self._kept[read] for read in self._reading & self._kept.keys()}
        self._kept[directory] = kept
