"""Changing files: mkdir, rm, mv, ln, chmod, chown, touch, truncate. All through the engine, so its rules hold."""

import argparse
import os
import re
import stat

from razortools.debug.answers import Answer, Lines
from razortools.debug.arguments import octal, seconds, size
from razortools.debug.session import Command, Session, Words
from razortools.engine import directories, files, namespace
from razortools.engine.namespace import AttributeChange
from razortools.errors import PosixError, UsageError
from razortools.format.inode import FileType
from razortools.units import InodeNo

_CLAUSE = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)")
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}


def make_directories(session: Session, options: argparse.Namespace) -> Answer:
    """mkdir: make directories; with -p those above too, and those that exist are no error."""
    made = 0
    for path in options.paths:
        whole = session.absolute(path)
        parts = [whole[:at] for at in range(1, len(whole)) if whole[at : at + 1] == b"/"] if options.parents else []
        for one in map(os.fsdecode, [*parts, whole]):
            if options.parents and _is_directory(session, one):
                continue
            parent, name = session.parent_of(one)
            namespace.mkdir(session.volume, parent, name, options.mode, os.geteuid(), os.getegid())
            made += 1
    return Lines([], {"made": made})


def _is_directory(session: Session, path: str) -> bool:
    try:
        return session.inode(path)[1].is_directory
    except PosixError:
        return False


def remove(session: Session, options: argparse.Namespace) -> Answer:
    """rm: remove names, with -r directories and all in them."""
    removed = 0
    for path in options.paths:
        parent, name = session.parent_of(path)
        ino, inode = session.inode(path)
        if not inode.is_directory:
            namespace.unlink(session.volume, parent, name)
            removed += 1
        elif not options.recursive:
            raise UsageError(f"rm: {path} is a directory; rm -r removes it with all that is in it")
        else:
            removed += _remove_tree(session, parent, name, ino)
    return Lines([f"{removed} removed"], {"removed": removed})


def _remove_tree(session: Session, parent: InodeNo, name: bytes, ino: InodeNo) -> int:
    """Remove a directory with all below it, which has no bound in depth; return how many names went."""
    volume, removed = session.volume, 0
    waiting = [(parent, name, ino)]
    emptied: list[tuple[InodeNo, bytes]] = []
    while waiting:
        parent, name, ino = waiting.pop()
        emptied.append((parent, name))
        for _, child, entry in list(directories.entries(volume, ino)):
            if entry.file_type == FileType.DIRECTORY:
                waiting.append((ino, child, InodeNo(entry.inode)))
            else:
                namespace.unlink(volume, ino, child)
                removed += 1
    for parent, name in reversed(emptied):
        namespace.rmdir(volume, parent, name)
    return removed + len(emptied)


def move(session: Session, options: argparse.Namespace) -> Answer:
    """mv: give something another name or directory; a file that has that name is replaced."""
    parent, name = session.parent_of(options.source)
    session.find(options.source)
    if _is_directory(session, options.target):
        new_parent, new_name = session.find(options.target), name
    else:
        new_parent, new_name = session.parent_of(options.target)
    namespace.rename(session.volume, parent, name, new_parent, new_name)
    return Lines([], {"source": options.source, "target": options.target})


def link(session: Session, options: argparse.Namespace) -> Answer:
    """ln: a further name for a file, or with -s a symbolic link."""
    target = options.target
    if _is_directory(session, target):
        name = os.fsencode(os.path.basename(options.source.rstrip("/")))
        parent, name = session.find(target), name if options.symbolic else session.parent_of(options.source)[1]
        target = os.path.join(target, os.fsdecode(name))
    else:
        parent, name = session.parent_of(target)
    if options.symbolic:
        uid, gid = os.geteuid(), os.getegid()
        namespace.symlink(session.volume, parent, name, os.fsencode(options.source), uid, gid)
    else:
        namespace.link(session.volume, session.find(options.source), parent, name)
    return Lines([], {"source": options.source, "target": target})


def change_mode(session: Session, options: argparse.Namespace) -> Answer:
    """chmod: set permissions, in octal digits or as u+x,go-w."""
    found = {}
    for path in options.paths:
        ino, inode = session.inode(path)
        mode = new_mode(options.mode, inode.mode)
        namespace.setattr(session.volume, ino, AttributeChange(mode=mode))
        found[path] = mode
    return Lines([], {"modes": found})


def new_mode(text: str, mode: int) -> int:
    """Return the permission bits that *text* makes of *mode*, as chmod(1) reads it. Raises UsageError."""
    if re.fullmatch("[0-7]{1,4}", text):
        return int(text, 8)
    permissions = stat.S_IMODE(mode)
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise UsageError(f"chmod: {text} is not a mode; write it as 0644 or as u+x,go-w")
        who, sign, letters = match.groups()
        runs = stat.S_ISDIR(mode) or permissions & 0o111
        bits = 0
        for letter in letters:
            bits |= _BITS.get(letter, 0) | {"s": 0o6000, "t": 0o1000, "X": 0o111 if runs else 0}.get(letter, 0)
        reach = sum(_WHO[one] for one in set(who) - {"a"}) if who and "a" not in who else 0o7777
        bits &= reach
        if sign == "=":
            kept = 0o6000 if stat.S_ISDIR(mode) else 0  # a directory keeps what it hands down
            permissions = permissions & ~(reach & ~kept) | bits
        else:
            permissions = permissions | bits if sign == "+" else permissions & ~bits
    return permissions


def change_owner(session: Session, options: argparse.Namespace) -> Answer:
    """chown: set owner and group, by number: UID, UID:GID or :GID."""
    match = re.fullmatch(r"(\d*)(?::(\d+))?", options.owner)
    if match is None or not options.owner.strip(":"):
        raise UsageError(f"chown: {options.owner} is not an owner; write it as UID, UID:GID or :GID, in numbers")
    uid, gid = (int(part) if part else None for part in match.groups())
    for path in options.paths:
        namespace.setattr(session.volume, session.find(path), AttributeChange(uid=uid, gid=gid))
    return Lines([], {"uid": uid, "gid": gid, "paths": options.paths})


def touch(session: Session, options: argparse.Namespace) -> Answer:
    """touch: set the times to now, or to what -t says; what does not exist is made, empty."""
    time_ns = session.volume.now_ns() if options.time is None else options.time
    made = 0
    for path in options.paths:
        try:
            ino = session.find(path)
        except PosixError:
            parent, name = session.parent_of(path)
            ino = namespace.create(session.volume, parent, name, 0o644, os.geteuid(), os.getegid())
            made += 1
        namespace.setattr(session.volume, ino, AttributeChange(atime_ns=time_ns, mtime_ns=time_ns))
    return Lines([], {"made": made, "time_ns": time_ns})


def truncate(session: Session, options: argparse.Namespace) -> Answer:
    """truncate: cut a file, or let it grow by zeros that take no space."""
    for path in options.paths:
        files.truncate(session.volume, session.find(path), options.size)
    return Lines([], {"size": options.size, "paths": options.paths})


_MKDIR = Words("mkdir")
_MKDIR.add_argument("-p", dest="parents", action="store_true", help="make those above too; what exists is no error")
_MKDIR.add_argument("-m", dest="mode", type=octal, default=0o755, metavar="MODE", help="permissions in octal digits")
_MKDIR.add_argument("paths", nargs="+", metavar="PATH")
_RM = Words("rm")
_RM.add_argument("-r", dest="recursive", action="store_true", help="directories and all in them")
_RM.add_argument("paths", nargs="+", metavar="PATH")
_MV = Words("mv")
_MV.add_argument("source", metavar="PATH")
_MV.add_argument("target", metavar="PATH")
_LN = Words("ln")
_LN.add_argument("-s", dest="symbolic", action="store_true", help="a symbolic link, which may lead anywhere")
_LN.add_argument("source", metavar="PATH")
_LN.add_argument("target", metavar="PATH")
_CHMOD = Words("chmod")
_CHMOD.add_argument("mode", metavar="MODE", help="0644, or u+x,go-w")
_CHMOD.add_argument("paths", nargs="+", metavar="PATH")
_CHOWN = Words("chown")
_CHOWN.add_argument("owner", metavar="OWNER", help="UID, UID:GID or :GID, in numbers")
_CHOWN.add_argument("paths", nargs="+", metavar="PATH")
_TOUCH = Words("touch")
_TOUCH.add_argument("-t", dest="time", type=seconds, metavar="SECONDS", help="this time, in seconds since 1970; otherwise now")
_TOUCH.add_argument("paths", nargs="+", metavar="PATH")
_TRUNCATE = Words("truncate")
_TRUNCATE.add_argument("-s", dest="size", type=size, required=True, metavar="SIZE", help="the new size")
_TRUNCATE.add_argument("paths", nargs="+", metavar="PATH")

COMMANDS = (
    Command("mkdir", "make directories", _MKDIR, make_directories, ("mkdir -p /a/b/c",), writes=True),
    Command("rm", "remove files, or trees with -r", _RM, remove, ("rm /tmp/old", "rm -r /tmp"), writes=True),
    Command("mv", "give something another name or directory", _MV, move, ("mv /a /b",), writes=True),
    Command("ln", "give a file a further name, or with -s make a symbolic link", _LN, link, ("ln -s ../b /a/link",), writes=True),
    Command("chmod", "change permissions", _CHMOD, change_mode, ("chmod 0600 /etc/shadow", "chmod u+x /run"), writes=True),
    Command("chown", "change owner and group", _CHOWN, change_owner, ("chown 1000:1000 /home/me",), writes=True),
    Command("touch", "set times, and make what is missing", _TOUCH, touch, ("touch -t 1700000000 /f",), writes=True),
    Command("truncate", "cut files, or let them grow by zeros", _TRUNCATE, truncate, ("truncate -s 1M /f",), writes=True),
)
