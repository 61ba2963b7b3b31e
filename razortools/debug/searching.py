"""Searching and summing: find, du."""

import argparse
import fnmatch
import os
import stat
from collections.abc import Iterator
from typing import Any

from razortools.debug.answers import Answer, Lines, Several, Table
from razortools.debug.arguments import count, octal, size
from razortools.debug.session import Command, Session, Words
from razortools.debug.walking import Found, type_name, walk
from razortools.format.inode import FileType
from razortools.printable import printable_name
from razortools.units import format_size

TYPES = {
    "f": FileType.REGULAR,
    "d": FileType.DIRECTORY,
    "l": FileType.SYMLINK,
    "p": FileType.FIFO,
    "s": FileType.SOCKET,
    "c": FileType.CHARACTER,
    "b": FileType.BLOCK,
}


def find(session: Session, options: argparse.Namespace) -> Answer:
    """find: the paths below a directory that fit all conditions; what cannot be read is told behind them."""
    lines: list[str] = []
    data: list[dict[str, Any]] = []
    faults: list[Found] = []
    for found in walk(session, options.path, options.depth):
        if found.fault:
            faults.append(found)
        if not _fits(found, options):
            continue
        lines.append(printable_name(found.path))
        inode = found.inode
        facts = {"type": type_name(inode), "size": inode.size, "mode": inode.mode} if inode is not None else {}
        data.append({"path": found.path, "inode": found.ino} | facts)
    return _with_faults(Lines(lines), faults, {"found": data})


def _fits(found: Found, options: argparse.Namespace) -> bool:
    inode = found.inode
    if inode is None:
        return False
    name = os.fsdecode(found.path.rpartition(b"/")[2])
    return not (
        (options.name is not None and not fnmatch.fnmatchcase(name, options.name))
        or (options.type is not None and inode.file_type != TYPES[options.type])
        or (options.uid is not None and inode.uid != options.uid)
        or (options.mode is not None and stat.S_IMODE(inode.mode) & options.mode != options.mode)
        or (options.larger is not None and inode.size <= options.larger)
        or (options.smaller is not None and inode.size >= options.smaller)
        or (options.links is not None and inode.link_count < options.links)
    )


def disk_usage(session: Session, options: argparse.Namespace) -> Answer:
    """du: what each directory takes with all below it; a file with several names counts once."""
    sums: dict[bytes, list[int]] = {}  # directory: bytes stored, bytes of contents, files
    order: list[tuple[bytes, int]] = []
    faults: list[Found] = []
    seen: set[int] = set()
    top = session.absolute(options.path)
    for found in walk(session, options.path):
        if found.fault:
            faults.append(found)
        inode = found.inode
        if inode is None or found.ino in seen:
            continue
        if inode.is_directory or found.path == top:
            sums[found.path] = [0, 0, 0]
            order.append((found.path, found.depth))
        elif inode.link_count > 1:
            seen.add(found.ino)
        stored = inode.stored_blocks * session.volume.block_bytes
        for directory in _above(found.path, top):
            if directory in sums:
                total = sums[directory]
                total[0] += stored
                total[1] += inode.size if inode.is_regular else 0
                total[2] += not inode.is_directory
    levels = 0 if options.summary else options.depth
    rows, data = [], []
    for path, depth in order:
        if levels is None or depth <= levels:
            stored, contents, files = sums[path]
            ratio = f"{contents / stored:.2f}" if stored else ""
            rows.append((format_size(stored), format_size(contents), ratio, files, printable_name(path)))
            data.append({"path": path, "stored_bytes": stored, "size": contents, "files": files})
    columns = ("stored", "contents", "ratio", "files", "path")
    return _with_faults(Table(columns, rows, None, right=(0, 1, 2, 3)), faults, {"directories": data})


def _above(path: bytes, top: bytes) -> Iterator[bytes]:
    """Yield *path* and those above it, up to *top*."""
    while path != top:
        yield path
        path = path.rpartition(b"/")[0] or b"/"
    yield top


def _with_faults(answer: Answer, faults: list[Found], data: dict[str, Any]) -> Answer:
    """Return *answer*, and behind it what could not be read."""
    data["unreadable"] = [{"path": found.path, "inode": found.ino, "reason": found.fault} for found in faults]
    told = [f"UNREADABLE {printable_name(found.path)}: {found.fault}" for found in faults]
    return Several([answer, *([Lines(told)] if told else [])], data)


_FIND = Words("find")
_FIND.add_argument("path", nargs="?", default=".", metavar="PATH")
_FIND.add_argument("--name", metavar="PATTERN", help="whose name fits a pattern of the shell")
_FIND.add_argument("--type", choices=tuple(TYPES), help="of this type")
_FIND.add_argument("--larger", type=size, metavar="SIZE", help="with more bytes than this")
_FIND.add_argument("--smaller", type=size, metavar="SIZE", help="with fewer bytes than this")
_FIND.add_argument("--uid", type=count, metavar="UID", help="that belong to this user")
_FIND.add_argument("--mode", type=octal, metavar="MODE", help="whose mode has all of these bits")
_FIND.add_argument("--links", type=count, metavar="COUNT", help="with at least so many names")
_FIND.add_argument("--depth", type=count, metavar="LEVELS", help="not deeper than so many levels")
_DU = Words("du")
_DU.add_argument("-s", dest="summary", action="store_true", help="only the sum")
_DU.add_argument("-d", dest="depth", type=count, metavar="LEVELS", help="only so many levels")
_DU.add_argument("path", nargs="?", default=".", metavar="PATH")

COMMANDS = (
    Command("find", "list what fits, below a directory", _FIND, find, ("find / --name '*.log' --larger 1M", "find --mode 4000")),
    Command("du", "show what directories take, compressed and not", _DU, disk_usage, ("du -d 1 /home",)),
)
