"""Inodes in memory: a bounded table of decoded inodes, and who holds them open.

Invariants: between operations an inode in the table equals its item in the tree; an operation changes something in the tree
before it changes an inode in memory, or puts the inode right after, so that a failed operation leaves no change behind. Holds
are not on disk: they are what the kernel, or an open file, still wants of an inode; they survive everything but the end of the
process.
"""

import errno
from stat import S_IFDIR, S_ISGID
from typing import TYPE_CHECKING

from razortools.engine.holds import Holds
from razortools.engine.recent import RecentTable
from razortools.errors import PosixError
from razortools.format.inode import Inode
from razortools.format.keys import inode_key
from razortools.units import InodeNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

S_IFMT = 0o170000
INODES_KEPT = 1 << 15  # about 30 MiB when full

_pack = Inode.STRUCT.pack
_unpack = Inode.STRUCT.unpack
_flatten = Inode._FLATTEN


class InodeTable:
    """Owner of the volume's inodes."""

    def __init__(self, volume: "Volume", capacity: int = INODES_KEPT) -> None:
        self._volume = volume
        self._recent: RecentTable[InodeNo, Inode] = RecentTable(capacity)
        self._holds = Holds()

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
        """Write *inode* into the tree, as part of the running operation."""
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
        """Write an inode that `peek` gave into the tree, as part of the running operation."""
        try:
            self._volume.store.put(inode_key(ino), _pack(*_flatten(inode)))
        except BaseException:
            self._recent.drop(ino)  # changed in memory only: the next reader shall get it from the tree
            raise

    def _load(self, ino: InodeNo) -> Inode:
        value = self._volume.store.get(inode_key(ino))
        if value is None:
            raise PosixError(errno.ENOENT, f"there is no inode {ino}")
        if len(value) != Inode.FIXED_BYTES:
            return Inode.decode(value)  # which tells what is wrong with it
        return Inode(*_unpack(value))

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
        counters.inode_count += 1
        if is_directory:
            counters.directory_count += 1
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
        return InodeNo(number), inode

    def remove(self, ino: InodeNo) -> None:
        """Delete an inode's item, as part of the running operation. Its other items must be gone."""
        inode = self.get(ino)
        self._volume.store.delete(inode_key(ino))
        self._recent.drop(ino)
        counters = self._volume.counters
        counters.inode_count -= 1
        if inode.is_directory:
            counters.directory_count -= 1

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

    def forget_key(self, key: bytes) -> None:
        """An operation that changed the item *key* was taken back: drop every copy, for some may be changed and not put."""
        self._recent.clear()

    def forget_all(self) -> None:
        """Drop everything that is kept; holds stay."""
        self._recent.clear()
