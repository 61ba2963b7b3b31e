"""Extended attributes: small values stand in the tree, large ones (up to 64 KiB) in blocks of their own.

Invariants: an inode has the flag HAS_XATTRS exactly while it has attributes, so that most questions (the kernel asks for
`security.capability` at every write) are answered from the inode alone. `user.razorfs.compression` is an attribute like any
other, and the truth: the inode's compression fields mirror it. Files and directories made in a directory that has it inherit
it. Only what is copied into a volume with its own attributes may have the fields without the attribute (`keep_as`).
"""

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

from razortools.engine.outside import Outside
from razortools.engine.stored import read_stored
from razortools.errors import CorruptImage, PosixError, UsageError
from razortools.format.compression import Algorithm, Policy, pack, parse_policy
from razortools.format.inode import Inode, InodeFlag
from razortools.format.journal import Operation
from razortools.format.keys import PROBE_WINDOW, Kind, kind_range, xattr_key
from razortools.format.node import inline_bytes_max
from razortools.format.xattr import XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, Xattr
from razortools.units import InodeNo, divide_up

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

XATTR_CREATE = 1
XATTR_REPLACE = 2
LIST_BYTES_MAX = 65536  # XATTR_LIST_MAX of Linux: a longer list of names could never be read
COMPRESSION = b"user.razorfs.compression"
POLICY_BYTES_MAX = 64
ACCESS_ACL = b"system.posix_acl_access"
DEFAULT_ACL = b"system.posix_acl_default"

HAS_XATTRS = int(InodeFlag.HAS_XATTRS)  # a plain number: the arithmetic of flags is slow, and the kernel asks at every write
Attributes = Sequence[tuple[bytes, bytes]]  # names and values
_NAMESPACES = (b"user.", b"trusted.", b"security.")


def get(volume: "Volume", ino: InodeNo, name: bytes) -> bytes:
    """Return the value of an attribute. Raises PosixError(ENODATA) if it is absent, CorruptImage if its blocks are damaged."""
    if volume.inodes.get(ino).flags & HAS_XATTRS:
        found = _find(volume, ino, name)
        if found is not None:
            return _value(volume, found[1])
    raise PosixError(errno.ENODATA)


def find(volume: "Volume", ino: InodeNo, name: bytes) -> bytes | None:
    """Return the value of an attribute, None if it is absent. Raises CorruptImage if its blocks are damaged."""
    found = _find(volume, ino, name)
    return None if found is None else _value(volume, found[1])


def names(volume: "Volume", ino: InodeNo) -> list[bytes]:
    """Return the full names of an inode's attributes."""
    if not volume.inodes.get(ino).flags & HAS_XATTRS:
        return []
    return [Xattr.decode(value).name for _, value in volume.store.items(*kind_range(ino, Kind.XATTR))]


def set(  # noqa: A001  (read xattrs.set)
    volume: "Volume", ino: InodeNo, name: bytes, value: bytes, flags: int = 0, *, mode: int | None = None
) -> None:
    """Set an attribute in one operation, and with it the inode's *mode* if one is given.

    Raises PosixError: EEXIST (XATTR_CREATE, it is there), ENODATA (XATTR_REPLACE, it is absent), ERANGE (name), E2BIG (value),
    ENOSPC (too many names to list), EOPNOTSUPP (unknown namespace), EPERM (user.* on what is neither file nor directory),
    EINVAL (flags, no name behind the namespace, or not a compression).
    """
    inode = volume.inodes.get(ino)
    _check(inode, name, value, flags)
    found = _find(volume, ino, name) if inode.flags & HAS_XATTRS else None
    if found is not None and flags & XATTR_CREATE:
        raise PosixError(errno.EEXIST)
    if found is None and flags & XATTR_REPLACE:
        raise PosixError(errno.ENODATA)
    if found is None and sum(len(other) + 1 for other in names(volume, ino)) + len(name) + 1 > LIST_BYTES_MAX:
        raise PosixError(errno.ENOSPC, f"inode {ino} has too many extended attributes")
    policy = _policy(value) if name == COMPRESSION else None
    key = found[0] if found is not None else _free_key(volume, ino, name)
    blocks = divide_up(len(value), volume.block_bytes) if _is_large(volume, name, value) else 0
    with Outside(volume) as outside, volume.operation(Operation.SETXATTR, ino, blocks=blocks) as now_ns:
        taken = _write(volume, key, name, value, outside)
        freed = _blocks(volume, found[1]) if found is not None else 0
        volume.counters.data_blocks += taken - freed
        inode.stored_blocks += taken - freed
        inode.flags |= HAS_XATTRS
        inode.ctime_ns = now_ns
        if policy is not None:
            inode.compression, inode.compression_level = int(policy.algorithm), policy.level
        if mode is not None:
            inode.mode = mode
        volume.inodes.put(ino, inode)


def remove(volume: "Volume", ino: InodeNo, name: bytes, *, mode: int | None = None, missing_ok: bool = False) -> None:
    """Remove an attribute in one operation, and with it set the inode's *mode* if one is given.

    Raises PosixError(ENODATA) if it is absent, unless *missing_ok*.
    """
    inode = volume.inodes.get(ino)
    found = _find(volume, ino, name) if inode.flags & HAS_XATTRS else None
    if found is None:
        if not missing_ok:
            raise PosixError(errno.ENODATA)
        if mode is not None and mode != inode.mode:
            with volume.operation(Operation.SETATTR, ino) as now_ns:
                inode.mode, inode.ctime_ns = mode, now_ns
                volume.inodes.put(ino, inode)
        return
    with volume.operation(Operation.REMOVEXATTR, ino, deleting=True) as now_ns:
        volume.store.delete(found[0])
        is_last = next(iter(volume.store.items(*kind_range(ino, Kind.XATTR))), None) is None
        freed = _blocks(volume, found[1])
        volume.counters.data_blocks -= freed
        inode.stored_blocks -= freed
        if is_last:
            inode.flags &= ~HAS_XATTRS
        inode.ctime_ns = now_ns
        if name == COMPRESSION:
            policy = volume.default_policy
            inode.compression, inode.compression_level = int(policy.algorithm), policy.level
        if mode is not None:
            inode.mode = mode
        volume.inodes.put(ino, inode)


def inherit(volume: "Volume", parent_no: InodeNo, ino: InodeNo, inode: Inode) -> None:
    """Give a new file or directory what its directory hands down: the compression. Part of the operation that makes it.

    Changes *inode* in memory; the caller puts it.
    """
    found = _find(volume, parent_no, COMPRESSION)
    if found is None or not (inode.is_directory or inode.is_regular):
        return
    attribute = found[1]
    try:
        policy = _policy(attribute.value)
    except PosixError:  # a value in blocks, or none that names an algorithm: such ones were taken once, and damage makes them
        return
    volume.store.put(_free_key(volume, ino, COMPRESSION), attribute.encode())
    inode.flags |= HAS_XATTRS
    inode.compression, inode.compression_level = int(policy.algorithm), policy.level


def policy_of(volume: "Volume", ino: InodeNo) -> Policy | None:
    """Return the compression that an inode's attribute names; None if it has no such attribute, or one that names none."""
    value = find(volume, ino, COMPRESSION) if volume.inodes.get(ino).flags & HAS_XATTRS else None
    try:
        return None if value is None else _policy(value)
    except PosixError:  # as in inherit
        return None


def keep_as(volume: "Volume", ino: InodeNo, policy: Policy) -> None:
    """Let a file be stored as *policy* says, without an attribute that shows it."""
    inode = volume.inodes.get(ino)
    with volume.operation(Operation.SETATTR, ino) as now_ns:
        inode.compression, inode.compression_level = int(policy.algorithm), policy.level
        inode.ctime_ns = now_ns
        volume.inodes.put(ino, inode)


def check_namespace(name: bytes) -> None:
    """Raise PosixError if no attribute can have this name: EOPNOTSUPP (unknown namespace), EINVAL (a bare namespace)."""
    if name in (ACCESS_ACL, DEFAULT_ACL):
        return
    if not name.startswith(_NAMESPACES):
        raise PosixError(errno.EOPNOTSUPP, f"{name!r} is in no known namespace of extended attributes")
    if name in _NAMESPACES:
        raise PosixError(errno.EINVAL, f"{name!r} is a namespace; the name of an attribute goes on behind it")


def block_count(volume: "Volume", attributes: Attributes) -> int:
    """Return how many blocks *attributes* need at the most; 0 if all go into the tree."""
    return sum(divide_up(len(value), volume.block_bytes) for name, value in attributes if _is_large(volume, name, value))


def give(volume: "Volume", ino: InodeNo, inode: Inode, attributes: Attributes, outside: Outside) -> None:
    """Give a new file *attributes*, part of the operation that makes it. Changes *inode* in memory; the caller puts it."""
    for name, value in attributes:
        taken = _write(volume, _free_key(volume, ino, name), name, value, outside)
        volume.counters.data_blocks += taken
        inode.stored_blocks += taken
        inode.flags |= HAS_XATTRS


def _check(inode: Inode, name: bytes, value: bytes, flags: int) -> None:
    """Raise the PosixError that forbids this attribute on this inode, if any does."""
    if flags & ~(XATTR_CREATE | XATTR_REPLACE):
        raise PosixError(errno.EINVAL)
    if not 0 < len(name) <= XATTR_NAME_BYTES_MAX or b"\0" in name:
        raise PosixError(errno.ERANGE, f"the name of an extended attribute takes 1 to {XATTR_NAME_BYTES_MAX} bytes")
    if len(value) > XATTR_VALUE_BYTES_MAX:
        raise PosixError(errno.E2BIG, f"the value of an extended attribute takes up to {XATTR_VALUE_BYTES_MAX} bytes")
    if name == COMPRESSION and len(value) > POLICY_BYTES_MAX:  # it stands in the tree, and is handed down as it does there
        raise PosixError(errno.EINVAL, f"{name!r} names an algorithm and a level in {POLICY_BYTES_MAX} bytes at the most")
    check_namespace(name)
    if name.startswith(b"user.") and not (inode.is_regular or inode.is_directory):
        raise PosixError(errno.EPERM, "only files and directories have user.* attributes")


def _policy(value: bytes) -> Policy:
    """Return the compression that *value* names. Raises PosixError(EINVAL) if it names none."""
    try:
        return parse_policy(value.rstrip(b"\0").decode("ascii"))
    except (UnicodeDecodeError, UsageError) as refused:
        raise PosixError(errno.EINVAL, str(refused)) from None


def _find(volume: "Volume", ino: InodeNo, name: bytes) -> tuple[bytes, Xattr] | None:
    """Return (key, attribute) of *name*, or None."""
    name_hash = volume.names.hash(name)
    for key, value in volume.store.items(xattr_key(ino, name_hash), xattr_key(ino, name_hash + PROBE_WINDOW - 1)):
        attribute = Xattr.decode(value)
        if attribute.name == name:
            return key, attribute
    return None


def _free_key(volume: "Volume", ino: InodeNo, name: bytes) -> bytes:
    """Return the key of a new attribute.

    Raises PosixError(ENOSPC) if its probe window is full, which takes equal 63-bit hashes.
    """
    name_hash = volume.names.hash(name)
    for offset in range(name_hash, name_hash + PROBE_WINDOW):
        key = xattr_key(ino, offset)
        if volume.store.get(key) is None:
            return key
    raise PosixError(errno.ENOSPC, f"inode {ino} has {PROBE_WINDOW} extended attributes whose hash is that of {name!r}")


def _is_large(volume: "Volume", name: bytes, value: bytes) -> bool:
    return len(name) + len(value) > inline_bytes_max(volume.store.geometry.node_bytes)


def _write(volume: "Volume", key: bytes, name: bytes, value: bytes, outside: Outside) -> int:
    """Put an attribute into the tree, a large value into blocks. Return how many blocks it took."""
    if not _is_large(volume, name, value):
        volume.store.put(key, Xattr.inline(name, value).encode())
        return 0
    block_bytes = volume.block_bytes
    stored, algorithm = pack(value, Algorithm.ZSTD), Algorithm.ZSTD
    if divide_up(len(stored), block_bytes) >= divide_up(len(value), block_bytes):
        stored, algorithm = value, Algorithm.NONE
    record = outside.store(stored, len(value), algorithm)
    volume.store.put(key, Xattr.outside(name, record).encode())
    return record.block_count(block_bytes)


def _blocks(volume: "Volume", attribute: Xattr) -> int:
    """Return how many blocks of its own an attribute's value takes."""
    record = attribute.out_of_line
    return 0 if record is None else record.block_count(volume.block_bytes)


def _value(volume: "Volume", attribute: Xattr) -> bytes:
    record = attribute.out_of_line
    if record is None:
        return attribute.value
    if record.raw_bytes > XATTR_VALUE_BYTES_MAX:
        raise CorruptImage(f"extended attribute {attribute.name!r}: {record.raw_bytes} bytes are more than one can have")
    return read_stored(volume.store, record, XATTR_VALUE_BYTES_MAX)
