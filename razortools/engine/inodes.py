"""Inodes in memory: a bounded table of decoded inodes, and who holds them open.

Invariants: between operations an inode in the table equals what was put last; an operation changes something in the tree before
it changes an inode in memory, or puts the inode right after, so that a failed operation leaves no change behind. Holds are not on
disk: they are what the kernel, or an open file, still wants of an inode; they survive everything but the end of the process.

Some inodes change with every request: a directory in which files are made, a file that is being written. The first change of an
inode in a transaction goes into the tree; the next ones are kept here, encoded, until the commit puts the last of them (it is
*behind*). That needs no room of its own: the leaf is dirty since the first change, and stays so until a checkpoint, before which
everything is put; the key has its entry in the journal; the new value is as long as the old one. Nobody else may read inodes from
the tree. A new inode changes at once again (its file is written, its mode set): before the journal encodes the part of the
transaction in which it was made it is put, and has one entry instead of two.

Most files lose their last name while the kernel still knows them, and are forgotten a moment later. Small ones do not wait for
that in the tree at all (limbo.py). The others' items in the orphan table would be made and deleted within a transaction, so they
are not made: an inode that the running transaction has left *nameless* is behind as a whole, and the commit puts it and its
orphan item if it is still there then. No transaction holds a nameless inode without its orphan item, so no crash can show one.
The room for it is promised (`promised`), and the leaves in which the two items go are dirty from the beginning, so a commit has
to read nothing.
"""

import errno
import struct
from stat import S_IFDIR, S_ISGID
from typing import TYPE_CHECKING

from razortools.engine.holds import Holds
from razortools.engine.limbo import UNLINKED, Limbo
from razortools.engine.recent import RecentTable
from razortools.errors import CorruptImage, PosixError
from razortools.format.data import RECORD_LOG2
from razortools.format.inode import Inode
from razortools.format.journal import ENTRY_HEAD_BYTES, Operation
from razortools.format.keys import inode_key, orphan_key
from razortools.format.layout import COUNT_MAX
from razortools.units import InodeNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

S_IFMT = 0o170000
INODES_KEPT = 1 << 15  # about 30 MiB when full
PUT_TOGETHER = 256  # that are behind, in one operation: the journal encodes them while the processor's cache has them
NAMELESS_MAX = 64  # the kernel forgets what it has unlinked within some ten requests; what is held for longer need not wait here

NAMELESS_JOURNAL_BYTES = 2 * ENTRY_HEAD_BYTES + 2 * (Inode.FIXED_BYTES + len(UNLINKED))  # an inode and its orphan item

_pack = Inode.STRUCT.pack
_unpack = Inode.STRUCT.unpack
_flatten = Inode._FLATTEN


class InodeTable:
    """Owner of the volume's inodes."""

    def __init__(self, volume: "Volume", capacity: int = INODES_KEPT) -> None:
        self._volume = volume
        self._recent: RecentTable[InodeNo, Inode] = RecentTable(capacity)
        self.forgotten_count = 0  # how often all of these were dropped at once
        self._holds = Holds()
        self._changed: set[InodeNo] = set()  # whose item the running transaction has put
        self._behind: dict[InodeNo, bytes] = {}  # what is newer than the item, of some of these
        self._fresh: list[InodeNo] = []  # made since the last part of the running transaction
        self._firsts: list[InodeNo] = []  # what the running operation added to _changed
        self._before: list[tuple[InodeNo, bytes | None]] = []  # what it found in _behind
        self.nameless: set[InodeNo] = set()  # behind, and not in the orphan table yet
        self.limbo = Limbo(volume)
        self._named_before: list[tuple[InodeNo, bool]] = []  # whom the running operation added to it (True) or took from it

    def get(self, ino: InodeNo) -> Inode:
        """Return the table's own copy of an inode: who changes it must `put` it at once. Raises PosixError(ENOENT) if absent."""
        inode = self._recent.young.get(ino)
        if inode is None:
            inode = self._recent.get(ino)
            if inode is None:
                inode = self._load(ino)
                self._recent.put(ino, inode)
        return inode

    def put(self, ino: InodeNo, inode: Inode) -> None:
        """Note what *inode* is now, as part of the running operation."""
        self.write(ino, inode)
        if self._recent.young.get(ino) is not inode:
            self._recent.put(ino, inode)

    def peek(self, ino: InodeNo) -> Inode:
        """Return an inode as `get` does, but let it push no other one out: what an operation has just got stays the table's own.

        For a flush, which meets thousands of inodes while an operation waits for room. Who changes it must `write` it at once.
        """
        inode = self._recent.peek(ino)
        return self._load(ino) if inode is None else inode

    def write(self, ino: InodeNo, inode: Inode) -> None:
        """Note an inode that `peek` gave, as part of the running operation."""
        try:
            value = self._encoded(inode)
            if ino in self._changed:
                self._before.append((ino, self._behind.get(ino)))
                self._behind[ino] = value
                return
            self._volume.store.put(inode_key(ino), value)
        except BaseException:
            self._recent.drop(ino)  # changed in memory only: the next reader shall get it as it was
            raise
        self._changed.add(ino)
        self._firsts.append(ino)

    def put_unlinked(self, ino: InodeNo, inode: Inode) -> None:
        """Note an inode that has just lost its last name, as part of the running operation. It must not be an orphan yet."""
        if not self._put_nameless(ino, inode):
            self.put(ino, inode)
            self._volume.store.put(orphan_key(ino), UNLINKED)

    def _put_nameless(self, ino: InodeNo, inode: Inode) -> bool:
        """Note that it has no name; `put` and `remove` are as for any other afterwards. False: there are too many of them."""
        if len(self.nameless) >= NAMELESS_MAX:
            return False
        make_dirty = self._volume.store.tree.make_dirty
        make_dirty(inode_key(ino))
        make_dirty(orphan_key(ino))
        if ino not in self._changed:
            self._changed.add(ino)
            self._firsts.append(ino)
        self.nameless.add(ino)
        self._named_before.append((ino, True))
        self.put(ino, inode)
        return True

    def keep_changes(self) -> None:
        """The running operation has succeeded."""
        self._firsts.clear()
        self._before.clear()
        self._named_before.clear()
        if self.limbo.changed:
            self.limbo.changed.clear()

    def take_back(self) -> None:
        """The running operation has failed: what was put before it is valid again."""
        for ino, value in reversed(self._before):
            if value is None:
                self._behind.pop(ino, None)
            else:
                self._behind[ino] = value
        for ino, was_named in reversed(self._named_before):
            (self.nameless.discard if was_named else self.nameless.add)(ino)
        self._changed.difference_update(self._firsts)
        self.limbo.take_back()
        self.forget_copies()  # some may have been changed and not put
        self.keep_changes()

    def put_behind(self) -> None:
        """Bring the tree up to date, before a commit or a checkpoint. Cannot fail for lack of room."""
        behind, put = self._behind, self._volume.store.put
        self._fresh.clear()  # they are put here with all the others, also if a part ends meanwhile
        self.limbo.put_all_back()
        for ino in sorted(self.nameless):
            with self._volume.operation(Operation.COUNTERS, ino):
                put(inode_key(ino), behind[ino])
                put(orphan_key(ino), UNLINKED)
            del behind[ino]
            self.nameless.discard(ino)
        numbers = sorted(behind)  # side by side in the tree
        for start in range(0, len(numbers), PUT_TOGETHER):
            with self._volume.operation(Operation.COUNTERS, InodeNo(0)):
                for ino in numbers[start : start + PUT_TOGETHER]:
                    put(inode_key(ino), behind[ino])
        behind.clear()
        self._changed.clear()

    def put_fresh(self) -> None:
        """Bring the items of new inodes up to date, as the last of what the running operation does: their part ends with it."""
        behind, put = self._behind, self._volume.store.put
        for ino in self._fresh:
            if ino in behind and ino not in self.nameless:
                put(inode_key(ino), behind.pop(ino))
        self._fresh.clear()

    def promised(self) -> tuple[int, int]:
        """Return how many nodes and bytes of the journal it takes at the most to put what has no name."""
        if not self.nameless and not self.limbo.files:
            return 0, 0
        # The orphan items lie side by side, in one leaf or two. Each file from limbo may split a leaf, and a node above it.
        nodes = self._volume.store.tree.root_level + 3 + 2 * len(self.limbo.files)
        return nodes, len(self.nameless) * NAMELESS_JOURNAL_BYTES + self.limbo.journal_bytes

    @property
    def behind_count(self) -> int:
        """How many inodes are newer than their items."""
        return len(self._behind)

    def _load(self, ino: InodeNo) -> Inode:
        value = self._behind.get(ino) or self._volume.store.get(inode_key(ino))
        if value is None:
            if ino in self.limbo.files:
                return self.limbo.put_back(ino)
            raise PosixError(errno.ENOENT, f"there is no inode {ino}")
        if len(value) != Inode.FIXED_BYTES:
            return Inode.decode(value)  # which tells what is wrong with it
        inode = Inode(*_unpack(value))
        if inode.record_log2 not in RECORD_LOG2 and inode.is_regular:
            raise CorruptImage(f"inode {ino}: records of 2^{inode.record_log2} bytes are not possible; run razorfsck")
        return inode

    def new(self, mode: int, uid: int, gid: int, rdev: int, now_ns: int, parent: Inode | None) -> tuple[InodeNo, Inode]:
        """Return (number, inode) of a new file with one link (a directory: two). Not yet `put`; part of the running operation.

        In a set-gid directory the file gets the directory's group, and a directory the bit as well.
        """
        is_directory = mode & S_IFMT == S_IFDIR
        if parent is not None and parent.mode & S_ISGID:
            gid = parent.gid
            if is_directory:
                mode |= S_ISGID
        volume = self._volume
        policy, counters = volume.default_policy, volume.counters
        number = counters.next_inode
        counters.next_inode = number + 1
        self._fresh.append(InodeNo(number))
        # Arguments by position, in the order of the declaration, and the times of birth all the same.
        inode = Inode(
            mode,
            uid,
            gid,
            2 if is_directory else 1,  # link_count
            0,  # size
            0,  # stored_blocks
            now_ns,
            now_ns,
            now_ns,
            now_ns,
            rdev,
            0,  # generation
            0,  # flags
            0,  # next_link_no
            volume.record_log2,
            int(policy.algorithm),
            policy.level,
            0,  # reserved
        )
        self.note_added(inode)
        return InodeNo(number), inode

    def _encoded(self, inode: Inode) -> bytes:
        """Return an inode's item. Counts that were too low in the image, and would be below 0 now, are 0, in *inode* as well."""
        try:
            return _pack(*_flatten(inode))
        except struct.error:
            self._volume.note_failure()
            for name in ("link_count", "size", "stored_blocks"):
                setattr(inode, name, min(max(getattr(inode, name), 0), COUNT_MAX))
            return _pack(*_flatten(inode))

    def remove(self, ino: InodeNo) -> None:
        """Delete an inode's item, as part of the running operation. Its other items must be gone."""
        inode = self.get(ino)
        self._volume.store.delete(inode_key(ino))
        self.note_removed(ino, inode)

    def note_removed(self, ino: InodeNo, inode: Inode) -> None:
        """Forget *inode*, whose item the running operation has deleted."""
        if ino in self._behind:
            self._before.append((ino, self._behind.pop(ino)))
        if ino in self.nameless:
            self.nameless.discard(ino)
            self._named_before.append((ino, False))
        self._recent.drop(ino)
        counters = self._volume.counters
        counters.inode_count -= 1
        if inode.mode & S_IFMT == S_IFDIR:
            counters.directory_count -= 1

    def note_added(self, inode: Inode) -> None:
        """Count an inode that the running operation makes, or puts back."""
        counters = self._volume.counters
        counters.inode_count += 1
        if inode.mode & S_IFMT == S_IFDIR:
            counters.directory_count += 1

    def hold(self, ino: InodeNo, count: int = 1) -> None:
        """Keep an inode although its last name may go."""
        self._holds.add(ino, count)

    def release(self, ino: InodeNo, count: int = 1) -> bool:
        """Give *count* holds back. Return whether these were the last."""
        return self._holds.take(ino, count)

    def is_held(self, ino: InodeNo) -> bool:
        """Tell whether anybody holds the inode."""
        return self._holds.count(ino) > 0

    @property
    def held_count(self) -> int:
        """How many inodes are held."""
        return self._holds.inode_count

    def forget_copies(self) -> None:
        """Drop what is decoded; what is newer than the tree stays. Whoever holds one of these has an old one from now on."""
        self._recent.clear()
        self.forgotten_count += 1

    def forget_all(self) -> None:
        """Drop everything that is kept, and what the tree has not got yet with it; holds stay."""
        self.forget_copies()
        self._changed.clear()
        self._behind.clear()
        self._fresh.clear()
        self.nameless.clear()
        self.limbo.clear()
