"""Targets of symbolic links: the contents of the link's inode, in the tree unless they are long.

A target is written once, with its link, and never changes; so it needs neither the dirty data nor the cache of files.py.
"""

import errno
from typing import TYPE_CHECKING

from razortools.engine.outside import Outside
from razortools.engine.stored import read_stored
from razortools.errors import CorruptImage, PosixError
from razortools.format.compression import Algorithm
from razortools.format.data import DataRecord, InlineData
from razortools.format.inode import Inode
from razortools.format.keys import inline_key, record_key
from razortools.format.node import inline_bytes_max
from razortools.units import InodeNo, divide_up

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

TARGET_BYTES_MAX = 4095  # PATH_MAX of Linux without the NUL


def check_target(target: bytes) -> None:
    """Raise PosixError unless *target* can be a link's target.

    ENOENT if it is empty, ENAMETOOLONG above 4095 bytes, EINVAL with a NUL.
    """
    if not target:
        raise PosixError(errno.ENOENT, "the target of a symbolic link cannot be empty")
    if len(target) > TARGET_BYTES_MAX:
        raise PosixError(errno.ENAMETOOLONG, f"the target of a symbolic link takes up to {TARGET_BYTES_MAX} bytes")
    if b"\0" in target:
        raise PosixError(errno.EINVAL, "the target of a symbolic link cannot contain a NUL byte")


def block_count(volume: "Volume", target: bytes) -> int:
    """Return how many blocks *target* needs; 0 if it goes into the tree."""
    if len(target) <= inline_bytes_max(volume.store.geometry.node_bytes):
        return 0
    return divide_up(len(target), volume.block_bytes)


def write_target(volume: "Volume", ino: InodeNo, inode: Inode, target: bytes, outside: Outside) -> None:
    """Store *target* as the contents of a new link, and its size in *inode*, which the caller puts.

    Part of the operation that makes the link.
    """
    size = inode.size = len(target)
    if block_count(volume, target) == 0:
        volume.store.put(inline_key(ino), InlineData(Algorithm.NONE, size, target).encode())
        return
    record = outside.store(target, size, Algorithm.NONE)
    volume.store.put(record_key(ino, 0), record.encode())
    inode.stored_blocks = record.block_count(volume.block_bytes)
    volume.counters.raw_bytes += size
    volume.counters.data_blocks += inode.stored_blocks


def read_target(volume: "Volume", ino: InodeNo) -> bytes:
    """Return a link's target.

    Raises PosixError(EINVAL) if the inode is no symbolic link, CorruptImage if the target is damaged.
    """
    inode = volume.inodes.get(ino)
    if not inode.is_symlink:
        raise PosixError(errno.EINVAL, f"inode {ino} is not a symbolic link")
    value = volume.store.get(inline_key(ino))
    item: InlineData | DataRecord
    if value is not None:
        item = InlineData.decode(value)
    else:
        value = volume.store.get(record_key(ino, 0))
        if value is None:
            raise CorruptImage(f"symbolic link {ino} has no target; unmount and run razorfsck")
        item = DataRecord.decode(value)
    if item.raw_bytes != inode.size or item.raw_bytes > TARGET_BYTES_MAX:
        raise CorruptImage(
            f"symbolic link {ino}: target of {item.raw_bytes} bytes, {inode.size} expected; unmount and run razorfsck"
        )
    return read_stored(volume.store, item, TARGET_BYTES_MAX)
