"""What the fields of an inode, of an extended attribute and of a patch may hold. Pure: one record in, faults out."""

from collections.abc import Iterator

from razortools.errors import CorruptImage
from razortools.format.compression import LEVELS, Algorithm
from razortools.format.data import FILE_BYTES_MAX, RECORD_BYTES_MAX, RECORD_LOG2, Patch
from razortools.format.inode import FileType, Inode, InodeFlag
from razortools.format.keys import PROBE_WINDOW
from razortools.format.name import hash_name
from razortools.format.xattr import XATTR_VALUE_BYTES_MAX, Xattr, XattrFlag

Fault = tuple[str, object, object]  # field, found, expected

_TYPES = frozenset(FileType)
_FLAGS = sum(InodeFlag)
_ALGORITHMS = frozenset(Algorithm)
SIZED = frozenset((FileType.REGULAR, FileType.DIRECTORY, FileType.SYMLINK))
DEVICES = frozenset((FileType.CHARACTER, FileType.BLOCK))
SYMLINK_BYTES_MAX = 4095  # PATH_MAX of Linux without the NUL


def inode_faults(inode: Inode) -> Iterator[Fault]:
    """Yield (field, found, expected) for each field with an impossible value."""
    kind = inode.mode >> 12
    if kind not in _TYPES:
        yield "mode", f"{inode.mode:#o}", "a known type of file"
        return
    if inode.record_log2 not in RECORD_LOG2:
        yield "record size", f"2^{inode.record_log2}", f"2^{RECORD_LOG2[0]} to 2^{RECORD_LOG2[-1]}"
    if inode.compression not in _ALGORITHMS:
        yield "compression", inode.compression, "a known algorithm"
    elif inode.compression_level and inode.compression_level not in LEVELS.get(Algorithm(inode.compression), ()):
        yield "compression level", inode.compression_level, "a level of its algorithm"
    if inode.flags & ~_FLAGS:
        yield "flags", f"{inode.flags:#x}", f"none but {_FLAGS:#x}"
    if inode.reserved:
        yield "reserved byte", inode.reserved, 0
    if inode.rdev and kind not in DEVICES:
        yield "device number", inode.rdev, "0, as it is no device"
    yield from _size_faults(inode, kind)


def _size_faults(inode: Inode, kind: int) -> Iterator[Fault]:
    if inode.size > FILE_BYTES_MAX:
        yield "size", inode.size, f"at most {FILE_BYTES_MAX}"
    elif kind not in SIZED and inode.size:
        yield "size", inode.size, "0, as files of its type have no contents"
    elif kind == FileType.SYMLINK and not 1 <= inode.size <= SYMLINK_BYTES_MAX:
        yield "size", inode.size, f"1 to {SYMLINK_BYTES_MAX}, as it is a symbolic link"


def xattr_fault(xattr: Xattr, offset: int, hash_seed: bytes) -> str:
    """Return what is wrong with an extended attribute that is filed under *offset*, or an empty string."""
    fault = xattr_head_fault(xattr, offset, hash_seed)
    if fault:
        return fault
    outside = xattr.out_of_line
    size = outside.raw_bytes if outside is not None else len(xattr.value)
    if size > XATTR_VALUE_BYTES_MAX:
        return f"its value has {size} bytes, more than {XATTR_VALUE_BYTES_MAX}"
    return ""


def xattr_head_fault(xattr: Xattr, offset: int, hash_seed: bytes) -> str:
    """Return what is wrong with the name and the flags of an extended attribute, or an empty string."""
    if not xattr.name or len(xattr.name) != xattr.name_bytes:
        return "its name is cut off"
    if b"\0" in xattr.name:
        return "its name contains NUL"
    if xattr.flags & ~int(XattrFlag.OUT_OF_LINE):
        return f"flags {xattr.flags:#x} are unknown"
    expected = hash_name(xattr.name, hash_seed)
    if not expected <= offset < expected + PROBE_WINDOW:
        return f"it is filed under {offset:#x}, but its hash is {expected:#x}"
    return ""


def patch_fault(offset: int, value: bytes, patch_bytes: int, file_type: int | None, size: int) -> str:
    """Return what is wrong with the patch *value* at *offset* of a file of *size* bytes, or an empty string.

    *file_type* None: there is no such inode. A patch may lie beyond the size, for a tail that could not be cut, but not beyond
    the record that the size lies in.
    """
    try:
        patch = Patch.decode(value)
    except CorruptImage as broken:
        return str(broken)
    if patch.reserved:
        return f"its reserved byte is {patch.reserved}"
    if offset % patch_bytes or not 0 < len(patch.data) <= patch_bytes:
        return f"{len(patch.data)} bytes at {offset}: patches have up to {patch_bytes}, and begin at multiples of that"
    if file_type is None:
        return "there is no such inode"
    if file_type != FileType.REGULAR:
        return "it is no regular file"
    if offset >= size + RECORD_BYTES_MAX:
        return f"it lies behind the end of the file ({size} bytes)"
    return ""
