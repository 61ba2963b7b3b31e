"""Limbo: small files that have lost their last name and are still held, kept out of the tree until it shows who wants them.

The kernel holds every file that it unlinks, and forgets nearly all of them a moment later: only a file that somebody has open
lives on. To leave its items where they are until then takes a second operation, which costs as much as the first. So the
operation that takes the last name cuts the items out as well, and they stand here: to forget the file is to drop them. Whoever
asks for it all the same (inodes.py does that in one place) has them put back first; so does a commit, which finds it among the
orphans then.

Invariants: what stands here is held, owns no blocks, has no attributes and nothing dirty; no commit begins with anything in here,
so the image knows nothing of it. To put a file back can neither fail nor wait: the room for it is promised (InodeTable.promised),
and the leaves in which its items go are dirty, for they were cut out of them.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from razortools.format.inode import Inode, Orphan, OrphanReason
from razortools.format.journal import ENTRY_HEAD_BYTES, Operation
from razortools.format.keys import inode_key, orphan_key
from razortools.units import InodeNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

LIMBO_MAX = 64  # the kernel forgets what it has unlinked within some ten requests; what is held for longer need not wait here
JOURNAL_SHARE = 16  # of a small journal they may be promised no more than such a part

UNLINKED = Orphan(OrphanReason.UNLINKED).encode()
_FIXED_JOURNAL_BYTES = 2 * ENTRY_HEAD_BYTES + Inode.FIXED_BYTES + len(UNLINKED)  # of the inode and its orphan item

Item = tuple[bytes, bytes]


class Gone(NamedTuple):
    """A file that nobody else knows of."""

    inode: Inode
    contents: Sequence[Item]  # what else it has
    journal_bytes: int  # what the journal takes at the most when it is put back


class Limbo:
    """Owner of these files. One owner: the table of inodes."""

    def __init__(self, volume: "Volume") -> None:
        self._volume = volume
        self.files: dict[InodeNo, Gone] = {}
        self.journal_bytes = 0  # what putting all of them back takes
        self._journal_bytes_max = volume.store.journal.ring_bytes // JOURNAL_SHARE
        self.changed: list[tuple[InodeNo, Gone | None]] = []  # by the running operation: what it found

    @property
    def has_room(self) -> bool:
        """Whether one more may be taken in."""
        return len(self.files) < LIMBO_MAX and self.journal_bytes < self._journal_bytes_max

    def take_in(self, ino: InodeNo, inode: Inode, contents: Sequence[Item]) -> None:
        """Keep a file that has just lost its last name, which the running operation has cut out of the tree."""
        self._volume.store.tree.make_dirty(orphan_key(ino))  # or a commit might have to read that leaf
        journal_bytes = _FIXED_JOURNAL_BYTES
        for _, value in contents:
            journal_bytes += ENTRY_HEAD_BYTES + len(value)
        self.changed.append((ino, None))
        self.files[ino] = Gone(inode, contents, journal_bytes)
        self.journal_bytes += journal_bytes

    def drop(self, ino: InodeNo) -> Gone:
        """Forget a file. If nobody holds it any more that is all there is to do.

        What was read of it goes from memory as all that nobody reads does: no other file ever gets its number.
        """
        gone = self.files.pop(ino)
        self.journal_bytes -= gone.journal_bytes
        return gone

    def put_back(self, ino: InodeNo) -> Inode:
        """Put a file that somebody asks for back into the tree; return its inode, which has no name.

        A part of the running operation, if there is one.
        """
        volume = self._volume
        if volume.read_only:  # nothing is written any more: this is for readers alone
            gone = self.drop(ino)
            for key, value in ((inode_key(ino), gone.inode.encode()), *gone.contents):
                volume.store.tree.put(key, value)
            return gone.inode
        with nullcontext() if volume.store.running.active else volume.operation(Operation.COUNTERS, ino):
            inode = self._restore(ino)
            volume.inodes.put_unlinked(ino, inode)
        return inode

    def put_all_back(self) -> None:
        """Put all of them into the tree and the orphan table, before a commit."""
        for ino in sorted(self.files):
            with self._volume.operation(Operation.COUNTERS, ino):
                self._restore(ino)
                self._volume.store.put(orphan_key(ino), UNLINKED)

    def take_back(self) -> None:
        """The running operation has failed: what stood here before it stands here again."""
        for ino, gone in reversed(self.changed):
            if gone is None:
                self.drop(ino)
            else:
                self.files[ino] = gone
                self.journal_bytes += gone.journal_bytes
        self.changed.clear()

    def clear(self) -> None:
        """Forget everything: the tree is again as it was before they lost their names."""
        self.files.clear()
        self.changed.clear()
        self.journal_bytes = 0

    def _restore(self, ino: InodeNo) -> Inode:
        """Put the items back, as part of the running operation."""
        gone = self.drop(ino)
        self.changed.append((ino, gone))
        put = self._volume.store.put
        put(inode_key(ino), gone.inode.encode())
        for key, value in gone.contents:
            put(key, value)
        self._volume.inodes.note_added(gone.inode)
        return gone.inode
