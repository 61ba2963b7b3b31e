"""Which listings of directories the kernel may keep, and which reader may use what it keeps.

A listing that the kernel keeps (FOPEN_CACHE_DIR) costs no message and no look into the tree. But the kernel compares it with the
directory only where a reader begins, and puts it together from what any reader of it gets. A reader in the middle of a directory
that changes may then be given the end of a listing that never was as a whole; and that ".." is another it never notices.

Invariants, which make a directory's stream what POSIX wants: where a reader that may use it begins, by opening or by going back
to the start, the kernel has a listing of the directory as it is now, or the beginning of one, or none; and there is one such
reader of a directory at a time, so nobody else takes it away or puts another in its place. Every other reader asks the daemon.
Directories are changed by requests alone, and each of them says so here.

A directory that moves has another "..". If it has such a reader, the kernel drops what it has once the directory has moved, and
again when that reader asks next: a reply that was on its way may have been kept in between, but not as a whole listing.

Source: fs/fuse/readdir.c and dir.c of Linux, as of 6.18; tests/mount/kernel_listings.py is a model of it.
"""

from collections.abc import Callable

from razortools.service.wire import OpenFlag
from razortools.units import InodeNo

KEPT_MAX = 16_384  # directories that are remembered; the kernel keeps fewer

MAY_USE_KEPT = 1  # the handle of a reader that may use what the kernel keeps
ASKS = 0  # and of any other
_FRESH = MAY_USE_KEPT, int(OpenFlag.CACHE_DIR)
_KEPT = MAY_USE_KEPT, int(OpenFlag.CACHE_DIR | OpenFlag.KEEP_CACHE)
_ASKS = ASKS, int(OpenFlag.KEEP_CACHE)  # of what another one reads


def _unmounted(directory: InodeNo) -> None:
    """Nothing is kept by a kernel that is not there."""


class Listings:
    """What the kernel has of the listings of one mount."""

    def __init__(self) -> None:
        """Begin with a kernel that has none.

        `drop` has it drop what it has of a directory. That waits for who is being given it just now, who may wait for a request:
        so it is called in a thread that serves none.
        """
        self.drop: Callable[[InodeNo], None] = _unmounted
        self._reading: set[InodeNo] = set()  # directories with a reader that may use what the kernel keeps
        self._kept: set[InodeNo] = set()  # directories of which the kernel has nothing that is not so
        self._moved: set[InodeNo] = set()  # directories that have moved since such a reader asked

    def open(self, directory: InodeNo) -> tuple[int, int]:
        """A reader opens *directory*: return its handle, and what the kernel is to do (OpenFlag)."""
        if directory in self._reading:
            return _ASKS
        self._reading.add(directory)
        if directory in self._kept:
            return _KEPT
        self._keep(directory)
        return _FRESH

    def close(self, directory: InodeNo, handle: int) -> None:
        """The reader with *handle* is gone."""
        if handle == MAY_USE_KEPT:
            self._reading.discard(directory)
            self._moved.discard(directory)

    def change(self, directory: InodeNo) -> None:
        """An entry of *directory* is about to change."""
        self._kept.discard(directory)

    def move(self, directory: InodeNo) -> bool:
        """*directory* is about to move: return whether it is to be dropped when it has, before anybody is told."""
        self._kept.discard(directory)
        if directory not in self._reading:
            return False
        self._moved.add(directory)
        return True

    def is_stale(self, directory: InodeNo, handle: int, after_cookie: int) -> bool:
        """Tell whether a reader asks for what is behind a cookie while the kernel has what is to be dropped first."""
        if handle != MAY_USE_KEPT:
            return False
        return directory in self._moved or (not after_cookie and directory not in self._kept)

    def renew(self, directory: InodeNo) -> None:
        """Have the kernel drop what it has of *directory*, as its reader asks. Waits, see `drop`."""
        self._moved.discard(directory)
        self._keep(directory)  # first: what changes meanwhile counts
        self.drop(directory)

    def _keep(self, directory: InodeNo) -> None:
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept.add(directory)
