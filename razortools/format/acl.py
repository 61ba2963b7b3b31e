"""POSIX access control lists as Linux keeps them in extended attributes (uapi/linux/posix_acl_xattr.h): a version, then entries.

This is the kernel's format, not ours: an image holds the bytes that the kernel sent.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_VERSION_NOW = 2
NOBODY = (1 << 32) - 1  # the id of an entry that names nobody
PERMISSIONS_MAX = 0o7


class Tag(IntEnum):
    """Whom an entry is about. A list has its entries in this order."""

    OWNER = 0x01
    USER = 0x02
    OWNING_GROUP = 0x04
    GROUP = 0x08
    MASK = 0x10  # the most that users, groups and the owning group get
    OTHERS = 0x20


_NAMED = frozenset((Tag.USER, Tag.GROUP))


@dataclass(frozen=True, slots=True)
class AclEntry:
    """One line of a list: what *tag* (and *who*, a uid or gid, or NOBODY) may do, as three bits."""

    tag: Tag
    permissions: int
    who: int = NOBODY


Acl = tuple[AclEntry, ...]


def encode_acl(acl: Acl) -> bytes:
    """Return the value of the extended attribute that holds *acl*."""
    return _VERSION.pack(_VERSION_NOW) + b"".join(_ENTRY.pack(entry.tag, entry.permissions, entry.who) for entry in acl)


def decode_acl(value: bytes) -> Acl:
    """Return the list in an extended attribute; it is empty if the attribute says that there is none. Raises ValueError."""
    if len(value) < _VERSION.size or (len(value) - _VERSION.size) % _ENTRY.size:
        raise ValueError(f"an access control list cannot have {len(value)} bytes")
    if _VERSION.unpack_from(value)[0] != _VERSION_NOW:
        raise ValueError(f"access control lists of version {_VERSION.unpack_from(value)[0]} are unknown")
    acl = tuple(
        AclEntry(Tag(tag), permissions, who if tag in _NAMED else NOBODY)
        for tag, permissions, who in _ENTRY.iter_unpack(value[_VERSION.size :])
    )
    if acl:
        _check(acl)
    return acl


def _check(acl: Acl) -> None:
    """Raise ValueError unless *acl* has what a list must have, in the right order."""
    tags = [entry.tag for entry in acl]
    if tags != sorted(tags):
        raise ValueError("the entries of an access control list are out of order")
    needed = {Tag.OWNER, Tag.OWNING_GROUP, Tag.OTHERS} | ({Tag.MASK} if _NAMED.intersection(tags) else set())
    if not needed.issubset(tags) or any(tags.count(tag) > 1 for tag in set(tags) - _NAMED):
        raise ValueError("a list has one entry each for owner, owning group and others, and a mask if it names anybody")
    for entry in acl:
        if entry.permissions > PERMISSIONS_MAX or (entry.tag in _NAMED and entry.who == NOBODY):
            raise ValueError(f"{entry} cannot be in an access control list")
