"""Walking: everything below a path, in the order of its names, with what cannot be read told instead of ending the walk.

Invariants: a directory comes before what it holds; nothing recurses, because the depth of a tree has no bound.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from razortools.debug.session import Session, reason_of
from razortools.engine import directories
from razortools.errors import CorruptImage, PosixError, RazorError
from razortools.format.inode import FileType, Inode
from razortools.units import InodeNo


@dataclass(frozen=True, slots=True)
class Found:
    """One name. *inode* None: it cannot be read; *fault* says why, or why what a directory holds cannot be read."""

    path: bytes
    ino: InodeNo
    depth: int
    inode: Inode | None
    fault: str = ""


def walk(session: Session, path: str, depth_max: int | None = None) -> Iterator[Found]:
    """Yield what is at *path* and all below it, down to *depth_max* levels. Raises PosixError if there is no such path."""
    waiting = [(session.absolute(path), session.find(path), 0)]
    while waiting:
        name, ino, depth = waiting.pop()
        try:
            inode = session.volume.inodes.get(ino)
        except (CorruptImage, PosixError) as broken:
            yield Found(name, ino, depth, None, reason_of(broken))
            continue
        if not inode.is_directory or (depth_max is not None and depth >= depth_max):
            yield Found(name, ino, depth, inode)
            continue
        below: list[tuple[bytes, InodeNo, int]] = []
        fault = ""
        try:
            for _, child, entry in directories.entries(session.volume, ino):
                below.append((name.rstrip(b"/") + b"/" + child, InodeNo(entry.inode), depth + 1))
        except RazorError as broken:
            fault = reason_of(broken)
        yield Found(name, ino, depth, inode, fault)
        waiting += sorted(below, reverse=True)


def type_name(inode: Inode) -> str:
    """Return what kind of file this is: ``regular``, ``directory``."""
    kind = inode.file_type
    return FileType(kind).name.lower() if kind in list(FileType) else f"type {kind}"
