"""The kernel's FUSE protocol: how requests and replies are laid out.

Every request begins with HEAD and every reply with REPLY_HEAD; what follows is native to the machine, as both ends run on it.
The layouts are those of Linux's <linux/fuse.h>, protocol 7.31 and later; fields that nobody here uses are skipped, not named.
There is no record declaration as for the disk: these bytes are never kept. A test compares them with the header itself.
"""

from enum import IntEnum, IntFlag
from struct import Struct

HEAD = Struct("=IIQQIIIHH")  # length, opcode, unique, node, uid, gid, pid, length of extensions, padding
REPLY_HEAD = Struct("=IiQ")  # length, negative errno, unique
REQUEST_BYTES_MAX = (1 << 20) + 8192  # a write of the most that a reply to INIT allows, and its head


class Opcode(IntEnum):
    """What a request asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    BATCH_FORGET = 42
    READDIRPLUS = 44
    RENAME2 = 45


class InitFlag(IntFlag):
    """What the two ends agree on in INIT."""

    ATOMIC_O_TRUNC = 1 << 3  # opening truncates
    EXPORT_SUPPORT = 1 << 4  # "." and ".." are looked up
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6  # the umask is left to us
    AUTO_INVAL_DATA = 1 << 12  # another time of change empties the page cache
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14  # only where the caller seems to want attributes
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17  # ENOSYS to OPEN means: never ask again
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    HANDLE_KILLPRIV_V2 = 1 << 28  # the kernel tells when set-id bits must go


class OpenFlag(IntFlag):
    """What the kernel is to do with an open file or directory."""

    KEEP_CACHE = 1 << 1  # not drop what it has cached of it
    CACHE_DIR = 1 << 3  # keep the listing, and use what it keeps


class SetattrField(IntFlag):
    """What a SETATTR names."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    CTIME = 1 << 10


WRITE_KILL_SUIDGID = 1 << 2  # of WRITE: the writer has no privilege to leave set-id bits as they are

# What follows the head of a request.
FORGET = Struct("=Q")  # look-ups
BATCH_FORGET = Struct("=II")  # count, padding
FORGET_ONE = Struct("=QQ")  # node, look-ups
SETATTR = Struct("=I4x8xQ8xqqqIIIIIII4x")  # fields, size, times (s), their nanoseconds, mode, unused, uid, gid
MKNOD = Struct("=III4x")  # mode, rdev, umask
MKDIR = Struct("=II")  # mode, umask
RENAME = Struct("=Q")  # new parent
RENAME2 = Struct("=QI4x")  # new parent, flags
LINK = Struct("=Q")  # node
READ = Struct("=8xQI4x8xI4x")  # offset, bytes, flags of the open file
READDIR = Struct("=QQI")  # handle, cookie, bytes: of the same structure
OPENDIR = Struct("=I")  # flags of the open directory
RELEASEDIR = Struct("=Q")  # handle
WRITE = Struct("=8xQII8xI4x")  # offset, bytes, write flags, flags of the open file
SETXATTR = Struct("=II")  # bytes of the value, flags
GETXATTR = Struct("=I4x")  # bytes of the buffer, 0: asks for the size; also for LISTXATTR
INIT_IN = Struct("=IIII")  # major, minor, read-ahead, flags

# What follows the head of a reply.
_ATTRIBUTES = "QQQqqqIIIIIIIII4x"  # inode, bytes, sectors, times (s), their nanoseconds, mode, links, uid, gid, rdev, block size
ENTRY_OUT = Struct("=QQQQII" + _ATTRIBUTES)  # node, generation, seconds the name and the attributes stay true, their nanoseconds
ATTRIBUTES_OUT = Struct("=QII" + _ATTRIBUTES)  # seconds they stay true, nanoseconds, padding
OPEN_OUT = Struct("=QII")  # handle, flags, padding
WRITE_OUT = Struct("=II")  # bytes, padding
STATFS_OUT = Struct("=QQQQQIII4x24x")  # blocks, free, available, inodes, free, block size, longest name, fragment size
GETXATTR_OUT = Struct("=II")  # bytes, padding
INIT_OUT = Struct("=IIIIHHI")  # major, minor, read-ahead, flags, background requests, congestion threshold, longest write
INIT_PAGES = Struct("=H")  # the most pages of a request
INIT_PAGES_AT = INIT_OUT.size + 4  # behind the granularity of times
DIRENT = Struct("=QQII")  # inode, cookie, bytes of the name, type; then the name, padded to DIRENT_ALIGN

DIRENT_ALIGN = 8
_PADDING = [bytes(-length % DIRENT_ALIGN) for length in range(DIRENT_ALIGN)]

NOTIFY_INVAL_INODE = Struct("=Qqq")  # node, offset (negative: attributes only), length
NOTIFY_INVAL_INODE_CODE = 2


def dirent(ino: int, cookie: int, name: bytes, file_type: int) -> bytes:
    """Return one entry of a directory as READDIR carries it."""
    return DIRENT.pack(ino, cookie, len(name), file_type) + name + _PADDING[len(name) % DIRENT_ALIGN]
