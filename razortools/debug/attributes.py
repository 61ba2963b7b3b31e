"""What else is known of files: xattr, acl; with the right to write setxattr, rmxattr."""

import argparse
import os
from typing import Any

from razortools.debug.answers import Answer, Lines, Pairs, Stream
from razortools.debug.session import Command, Session, Words
from razortools.debug.shown import show_value
from razortools.engine import acls, xattrs
from razortools.errors import CorruptImage, UsageError
from razortools.format.acl import Acl, AclEntry, Tag, decode_acl
from razortools.units import InodeNo

_LISTS = {"access": xattrs.ACCESS_ACL, "default": xattrs.DEFAULT_ACL}
_WORDS = {
    Tag.OWNER: "user",
    Tag.USER: "user",
    Tag.OWNING_GROUP: "group",
    Tag.GROUP: "group",
    Tag.MASK: "mask",
    Tag.OTHERS: "other",
}


def show_xattrs(session: Session, options: argparse.Namespace) -> Answer:
    """xattr: all extended attributes of a file, or the bytes of one."""
    ino = session.find(options.path)
    if options.name is not None:
        return Stream(iter([xattrs.get(session.volume, ino, os.fsencode(options.name))]))
    found = {name: xattrs.get(session.volume, ino, name) for name in xattrs.names(session.volume, ino)}
    data = [{"name": name, "bytes": len(value), "value": value, "hex": value.hex()} for name, value in found.items()]
    return Pairs([(os.fsdecode(name), show_value(value)) for name, value in found.items()], data)


def set_xattr(session: Session, options: argparse.Namespace) -> Answer:
    """setxattr: give a file an attribute, or another value of it."""
    value = bytes.fromhex(options.value[2:]) if options.value.startswith("0x") else os.fsencode(options.value)
    name = os.fsencode(options.name)
    ino = session.find(options.path)
    if name in _LISTS.values():
        acls.set(session.volume, ino, name, value)
    else:
        xattrs.set(session.volume, ino, name, value)
    return Lines([], {"path": options.path, "name": options.name, "bytes": len(value)})


def remove_xattr(session: Session, options: argparse.Namespace) -> Answer:
    """rmxattr: take an attribute from a file."""
    xattrs.remove(session.volume, session.find(options.path), os.fsencode(options.name))
    return Lines([], {"path": options.path, "name": options.name})


def show_acl(session: Session, options: argparse.Namespace) -> Answer:
    """acl: the access control lists of a file, as getfacl(1) writes them; without one, what the mode says."""
    ino, inode = session.inode(options.path)
    lines = [f"# file: {options.path}", f"# owner: {inode.uid}", f"# group: {inode.gid}"]
    data: dict[str, Any] = {}
    for kind, name in _LISTS.items():
        acl = _stored(session, ino, name)
        if acl is None and kind == "access":
            acl = (
                AclEntry(Tag.OWNER, inode.mode >> 6 & 7),
                AclEntry(Tag.OWNING_GROUP, inode.mode >> 3 & 7),
                AclEntry(Tag.OTHERS, inode.mode & 7),
            )
        if acl is None:
            continue
        told = [_entry(entry) for entry in acl]
        lines += [f"{'default:' if kind == 'default' else ''}{entry}" for entry in told]
        data[kind] = told
    return Lines(lines, data)


def _stored(session: Session, ino: InodeNo, name: bytes) -> Acl | None:
    value = xattrs.find(session.volume, ino, name)
    if value is None:
        return None
    try:
        return decode_acl(value)
    except ValueError as broken:
        raise CorruptImage(f"inode {ino}: {os.fsdecode(name)} is no access control list: {broken}") from None


def _entry(entry: AclEntry) -> str:
    who = str(entry.who) if entry.tag in (Tag.USER, Tag.GROUP) else ""
    bits = "".join(letter if entry.permissions & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
    return f"{_WORDS[entry.tag]}:{who}:{bits}"


def _hex_or_text(text: str) -> str:
    """Check a value for argparse: 0x and an even number of hexadecimal digits, or text."""
    if text.startswith("0x"):
        try:
            bytes.fromhex(text[2:])
        except ValueError:
            raise UsageError(f"setxattr: {text} is not hexadecimal; write 0x and two digits for each byte") from None
    return text


_XATTR = Words("xattr")
_XATTR.add_argument("path", metavar="PATH")
_XATTR.add_argument("name", nargs="?", metavar="NAME")
_SET = Words("setxattr")
_SET.add_argument("path", metavar="PATH")
_SET.add_argument("name", metavar="NAME")
_SET.add_argument("value", type=_hex_or_text, metavar="VALUE", help="text, or bytes as 0x00ff")
_REMOVE = Words("rmxattr")
_REMOVE.add_argument("path", metavar="PATH")
_REMOVE.add_argument("name", metavar="NAME")
_ACL = Words("acl")
_ACL.add_argument("path", metavar="PATH")

COMMANDS = (
    Command("xattr", "show the extended attributes of a file, or the bytes of one", _XATTR, show_xattrs,
            ("xattr /etc/passwd", "xattr /bin/ping security.capability | hexdump -C")),
    Command("setxattr", "give a file an extended attribute", _SET, set_xattr, ("setxattr /f user.comment 'said'",), writes=True),
    Command("rmxattr", "take an extended attribute from a file", _REMOVE, remove_xattr, ("rmxattr /f user.a",), writes=True),
    Command("acl", "show the access control lists of a file, as getfacl does", _ACL, show_acl, ("acl /home/shared",)),
)  # fmt: skip
