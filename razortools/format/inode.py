"""Inodes: everything about a file but its names and contents."""

import stat
from enum import IntEnum, IntFlag
from typing import Annotated

from construct import Int8sl, Int8ul, Int32ul, Int64sl, Int64ul

from razortools.format.record import Record, record
from razortools.units import InodeNo

ROOT_INODE = InodeNo(1)
LINK_MAX = 65_000  # as ext4; far below what link_count holds
TIME_MIN_NS = -(1 << 63)
TIME_MAX_NS = (1 << 63) - 1


class InodeFlag(IntFlag):
    """What must be known of an inode without looking further."""

    HAS_XATTRS = 1  # at least one extended attribute exists
    LATE_PAGES = 2  # records of it may have late pages: of an older version of such a record the blocks are still in use


class FileType(IntEnum):
    """Type of a file as directory entries carry it: the top four bits of the mode."""

    FIFO = stat.S_IFIFO >> 12
    CHARACTER = stat.S_IFCHR >> 12
    DIRECTORY = stat.S_IFDIR >> 12
    BLOCK = stat.S_IFBLK >> 12
    REGULAR = stat.S_IFREG >> 12
    SYMLINK = stat.S_IFLNK >> 12
    SOCKET = stat.S_IFSOCK >> 12


@record(frozen=False)
class Inode(Record):
    """Attributes of one file, as stat(2) shows them. The engine's inode table owns and edits these values."""

    mode: Annotated[int, Int32ul * "type and permission bits, as in stat(2)"]
    uid: Annotated[int, Int32ul * "owner"]
    gid: Annotated[int, Int32ul * "group"]
    link_count: Annotated[int, Int32ul * "names that lead here; a directory: 2 + its subdirectories; 0: an orphan"]
    size: Annotated[int, Int64ul * "bytes of a file or of a symlink's target; entries of a directory"]
    stored_blocks: Annotated[int, Int64ul * "blocks that its data records and its out-of-line xattrs take"]
    atime_ns: Annotated[int, Int64sl * "last access, nanoseconds since 1970"]
    mtime_ns: Annotated[int, Int64sl * "last change of the contents"]
    ctime_ns: Annotated[int, Int64sl * "last change of this inode"]
    btime_ns: Annotated[int, Int64sl * "birth"]
    rdev: Annotated[int, Int64ul * "device number of a device node, as os.makedev gives it"]
    generation: Annotated[int, Int32ul * "generation of the inode number, for exporters"]
    flags: Annotated[int, Int32ul * "bit 0: it has extended attributes"]
    next_link_no: Annotated[int, Int32ul * "the next back link's number"]
    record_log2: Annotated[int, Int8ul * "logarithm of its record size in bytes"]
    compression: Annotated[int, Int8ul * "policy for its data, see compression"]
    compression_level: Annotated[int, Int8sl * "level for zstd and zlib, 0 for the algorithm's usual one"]
    reserved: Annotated[int, Int8ul * "zero"]

    @property
    def record_bytes(self) -> int:
        """Size of a data record in bytes."""
        return 1 << self.record_log2

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return self.mode & 0o170000 == stat.S_IFDIR

    @property
    def is_regular(self) -> bool:
        """Whether this is a regular file."""
        return self.mode & 0o170000 == stat.S_IFREG

    @property
    def is_symlink(self) -> bool:
        """Whether this is a symbolic link."""
        return self.mode & 0o170000 == stat.S_IFLNK

    @property
    def file_type(self) -> int:
        """The type as directory entries carry it (FileType)."""
        return self.mode >> 12

    def copy(self) -> "Inode":
        """Return an independent copy."""
        return Inode(*Inode._FLATTEN(self))


class OrphanReason(IntEnum):
    """Why an inode stands in the orphan table."""

    UNLINKED = 1  # no name leads to it any more: delete it
    TRUNCATING = 2  # records beyond its size are still being deleted


@record()
class Orphan(Record):
    """An inode with work left: finished as soon as it is closed, at the latest by the next mount."""

    reason: Annotated[int, Int8ul * "1: unlinked, delete it; 2: delete the records beyond its size"]
