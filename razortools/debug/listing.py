"""Names and attributes: ls, stat, tree."""

import argparse
import os
import stat
from collections.abc import Iterator
from typing import Any

from razortools.debug.answers import Answer, Lines, Pairs, Several, Table
from razortools.debug.arguments import count
from razortools.debug.session import Command, Session, Words
from razortools.debug.shown import show_time, show_value
from razortools.engine import directories, namespace, xattrs
from razortools.format.compression import Algorithm, Policy
from razortools.format.data import DataRecord
from razortools.format.inode import FileType, Inode
from razortools.format.keys import Kind, kind_range
from razortools.printable import printable_name
from razortools.units import InodeNo, format_size, plural


def list_directory(session: Session, options: argparse.Namespace) -> Answer:
    """ls: the names in a directory, in the order of their bytes; -R everything below too."""
    ino, inode = session.inode(options.path)
    if not inode.is_directory:
        row = _facts(session, os.fsencode(options.path), ino)
        return _listing([row], long=options.long, data=[row])
    if not options.recursive:
        rows = _children(session, ino)
        return _listing(rows, long=options.long, data=rows)
    parts: list[Answer] = []
    found: list[dict[str, Any]] = []
    for path, directory in _walk_directories(session, session.absolute(options.path), ino):
        rows = _children(session, directory)
        found.append({"directory": path, "entries": rows})
        parts += [Lines([f"{printable_name(path)}:"]), _listing(rows, long=options.long, data=rows), Lines([""])]
    return Several(parts, found)


def show_stat(session: Session, options: argparse.Namespace) -> Answer:
    """stat: everything that is known of one file."""
    ino, inode = session.inode(options.path)
    volume = session.volume
    data = _facts(session, os.fsencode(options.path), ino) | {
        "paths": directories.paths(volume, ino),
        "record_bytes": inode.record_bytes,
        "record_count": sum(1 for _ in volume.store.items(*kind_range(ino, Kind.DATA_RECORD))),
        "run_count": run_count(session, ino),
        "compression": str(Policy(Algorithm(inode.compression), inode.compression_level)),
        "xattrs": {os.fsdecode(name): xattrs.get(volume, ino, name) for name in xattrs.names(volume, ino)},
    }
    stored = inode.stored_blocks * volume.block_bytes
    entries: list[tuple[str, object]] = [
        ("path", ", ".join(map(printable_name, data["paths"]))),
        ("inode", ino),
        ("type", data["type"]),
        ("mode", f"{stat.filemode(inode.mode)} ({stat.S_IMODE(inode.mode):04o})"),
        ("owner", f"uid {inode.uid}, gid {inode.gid}"),
        ("links", inode.link_count),
        ("size", plural(inode.size, 'entry') if inode.is_directory else f"{inode.size} ({format_size(inode.size)})"),
        ("stored", _shown_place(inode, stored, data["record_count"], data["run_count"])),
        ("compression", f"{data['compression']}, records of {format_size(inode.record_bytes)}"),
        *((name, show_time(getattr(inode, f"{name}_ns"))) for name in ("atime", "mtime", "ctime", "btime")),
    ]
    if "target" in data:
        entries.append(("target", printable_name(data["target"])))
    if "device" in data:
        entries.append(("device", ", ".join(map(str, data["device"]))))
    entries += [(f"xattr {name}", show_value(value)) for name, value in data["xattrs"].items()]
    return Pairs(entries, data)


def show_tree(session: Session, options: argparse.Namespace) -> Answer:
    """tree: names below a directory, drawn as a tree."""
    ino, inode = session.inode(options.path)
    lines = [options.path]
    totals = {"directories": 0, "files": 0}

    def draw(directory: InodeNo, margin: str, depth: int) -> list[dict[str, Any]]:
        rows = _children(session, directory)
        for number, row in enumerate(rows):
            last = number == len(rows) - 1
            is_directory = row["type"] == "directory"
            totals["directories" if is_directory else "files"] += 1
            arrow = f" -> {printable_name(row['target'])}" if "target" in row else ""
            lines.append(f"{margin}{'└── ' if last else '├── '}{printable_name(row['name'])}{arrow}")
            if is_directory and (options.level is None or depth < options.level):
                row["entries"] = draw(InodeNo(row["inode"]), margin + ("    " if last else "│   "), depth + 1)
        return rows

    data = {"path": options.path, "entries": draw(ino, "", 1) if inode.is_directory else []} | totals
    lines += ["", f"{totals['directories']} directories, {totals['files']} files"]
    return Lines(lines, data)


def _children(session: Session, directory: InodeNo) -> list[dict[str, Any]]:
    """Return the facts of the entries of a directory, sorted by name."""
    rows = [_facts(session, name, InodeNo(entry.inode)) for _, name, entry in directories.entries(session.volume, directory)]
    return sorted(rows, key=lambda row: bytes(row["name"]))


def _walk_directories(session: Session, path: bytes, ino: InodeNo) -> Iterator[tuple[bytes, InodeNo]]:
    """Yield (path, inode) of a directory and of all below it, each before what it holds."""
    waiting = [(path, ino)]
    while waiting:
        path, ino = waiting.pop()
        yield path, ino
        below = [(name, entry) for _, name, entry in directories.entries(session.volume, ino)]
        for name, entry in sorted(below, key=lambda one: one[0], reverse=True):
            if entry.file_type == FileType.DIRECTORY:
                waiting.append((path.rstrip(b"/") + b"/" + name, InodeNo(entry.inode)))


def _facts(session: Session, name: bytes, ino: InodeNo) -> dict[str, Any]:
    """Return what ls tells of one file."""
    inode = session.volume.inodes.get(ino)
    facts: dict[str, Any] = {
        "name": name,
        "inode": ino,
        "type": FileType(inode.file_type).name.lower(),
        "mode": inode.mode,
        "links": inode.link_count,
        "uid": inode.uid,
        "gid": inode.gid,
        "size": inode.size,
        "stored_bytes": inode.stored_blocks * session.volume.block_bytes,
        "atime_ns": inode.atime_ns,
        "mtime_ns": inode.mtime_ns,
        "ctime_ns": inode.ctime_ns,
        "btime_ns": inode.btime_ns,
    }
    if inode.is_symlink:
        facts["target"] = namespace.readlink(session.volume, ino)
    if inode.file_type in (FileType.CHARACTER, FileType.BLOCK):
        facts["device"] = [os.major(inode.rdev), os.minor(inode.rdev)]
    return facts


def _listing(rows: list[dict[str, Any]], *, long: bool, data: Any) -> Answer:
    if not long:
        return Lines([printable_name(row["name"]) for row in rows], data)
    columns = ("inode", "mode", "links", "uid", "gid", "size", "modified", "name")
    return Table(columns, [_long_row(row) for row in rows], data, right=(0, 2, 3, 4, 5))


def _long_row(row: dict[str, Any]) -> tuple[object, ...]:
    name = printable_name(row["name"])
    if "target" in row:
        name += f" -> {printable_name(row['target'])}"
    size = "{}, {}".format(*row["device"]) if "device" in row else row["size"]
    modified = show_time(row["mtime_ns"]).partition(".")[0]
    return row["inode"], stat.filemode(row["mode"]), row["links"], row["uid"], row["gid"], size, modified, name


def _shown_place(inode: Inode, stored_bytes: int, record_count: int, run_count: int) -> str:
    """Return where the contents of a file are, for people."""
    if stored_bytes:
        return f"{stored_bytes} ({format_size(stored_bytes)}) in {record_count} records, {run_count} runs"
    return "in the tree" if inode.size and not inode.is_directory else "nothing"


def run_count(session: Session, ino: InodeNo) -> int:
    """Return in how many pieces the data of a file lies: runs that do not follow on from the one before."""
    count, end = 0, -1
    for _, value in session.volume.store.items(*kind_range(ino, Kind.DATA_RECORD)):
        for start, blocks in DataRecord.decode(value).runs(session.volume.block_bytes):
            count += start != end
            end = start + blocks
    return count


_LS = Words("ls")
_LS.add_argument("-l", dest="long", action="store_true", help="with attributes")
_LS.add_argument("-R", dest="recursive", action="store_true", help="and everything below")
_LS.add_argument("path", nargs="?", default=".", metavar="PATH")
_STAT = Words("stat")
_STAT.add_argument("path", metavar="PATH")
_TREE = Words("tree")
_TREE.add_argument("-L", dest="level", type=count, metavar="LEVELS", help="only so many levels")
_TREE.add_argument("path", nargs="?", default=".", metavar="PATH")

COMMANDS = (
    Command("ls", "list a directory", _LS, list_directory, ("ls -l /home", "ls -R /")),
    Command("stat", "show everything that is known of a file", _STAT, show_stat, ("stat /etc/passwd",)),
    Command("tree", "draw what lies below a directory", _TREE, show_tree, ("tree -L 2 /",)),
)
