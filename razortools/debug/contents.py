"""Contents: cat, head, get, put."""

import argparse
import os
from collections.abc import Iterator

from razortools.debug import copy_in, copy_out
from razortools.debug.answers import Answer, Lines, Stream
from razortools.debug.arguments import count, size
from razortools.debug.session import Command, Session, Words
from razortools.engine import files
from razortools.errors import PosixError, UsageError
from razortools.units import MIB, InodeNo

PIECE_BYTES = 1 * MIB


def show_contents(session: Session, options: argparse.Namespace) -> Answer:
    """cat: the bytes of files, one after the other."""
    inodes = [_regular(session, path) for path in options.paths]
    return Stream(piece for ino in inodes for piece in pieces_of(session, ino))


def show_head(session: Session, options: argparse.Namespace) -> Answer:
    """head: the first lines, or bytes, of a file."""
    ino = _regular(session, options.path)
    if options.bytes is not None:
        return Stream(_first_bytes(session, ino, options.bytes))
    return Stream(_first_lines(session, ino, options.lines))


def _first_bytes(session: Session, ino: InodeNo, count: int) -> Iterator[bytes]:
    for piece in pieces_of(session, ino):
        yield piece[:count]
        count -= len(piece)
        if count <= 0:
            return


def _first_lines(session: Session, ino: InodeNo, count: int) -> Iterator[bytes]:
    for piece in pieces_of(session, ino) if count > 0 else ():
        lines = piece.split(b"\n", count)
        if len(lines) > count:
            yield b"\n".join(lines[:count]) + b"\n"
            return
        yield piece
        count -= len(lines) - 1


def pieces_of(session: Session, ino: InodeNo) -> Iterator[bytes]:
    """Yield the contents of a file in pieces."""
    size = session.volume.inodes.get(ino).size
    for offset in range(0, size, PIECE_BYTES):
        yield files.read(session.volume, ino, offset, PIECE_BYTES)


def get(session: Session, options: argparse.Namespace) -> Answer:
    """get: copy a file or a tree out of the image, with its attributes."""
    ino = session.find(options.source)
    name = os.path.basename(os.path.normpath(options.source)).strip("/") or "root"
    target = options.target or name
    if os.path.isdir(target) and not os.path.islink(target):
        target = os.path.join(target, name)
    copied = copy_out.copy(session.volume, ino, os.fsencode(target))
    lines = [f"{options.source} -> {target}: {copied.amount}"]
    if copied.not_kept:
        lines.append(f"not kept: {', '.join(sorted(copied.not_kept))}; root can keep more")
    return Lines(lines, copied)


def put(session: Session, options: argparse.Namespace) -> Answer:
    """put: copy a file or a tree of the host into the image, with its attributes."""
    source = options.source.rstrip("/") or "/"
    name = os.fsencode(os.path.basename(os.path.abspath(source)))
    if not name:
        raise UsageError("put: the host's root has no name; give the target, or put the directories below it one by one")
    target = options.target or "."
    parent, name = _place_for(session, target, name)
    copied = copy_in.copy(session.volume, source, parent, name)
    return Lines([f"{options.source} -> {options.target or os.fsdecode(name)}: {copied.amount}"], copied)


def _place_for(session: Session, target: str, name: bytes) -> tuple[InodeNo, bytes]:
    """Return (directory, name) that a copy gets: inside *target* if that is a directory, else as *target*. As cp(1) does it."""
    try:
        ino, inode = session.inode(target)
    except PosixError:
        return session.parent_of(target)
    return (ino, name) if inode.is_directory else session.parent_of(target)


def _regular(session: Session, path: str) -> InodeNo:
    ino, inode = session.inode(path)
    if not inode.is_regular:
        raise UsageError(f"{path}: is not a regular file; 'stat {path}' tells what it is")
    return ino


_CAT = Words("cat")
_CAT.add_argument("paths", nargs="+", metavar="PATH")
_HEAD = Words("head")
_HEAD.add_argument("-n", dest="lines", type=count, default=10, metavar="COUNT", help="so many lines; otherwise 10")
_HEAD.add_argument("-c", dest="bytes", type=size, metavar="SIZE", help="so many bytes")
_HEAD.add_argument("path", metavar="PATH")
_GET = Words("get")
_GET.add_argument("source", metavar="PATH")
_GET.add_argument("target", nargs="?", metavar="HOST_PATH")
_PUT = Words("put")
_PUT.add_argument("source", metavar="HOST_PATH")
_PUT.add_argument("target", nargs="?", metavar="PATH")

COMMANDS = (
    Command("cat", "write the contents of files to stdout", _CAT, show_contents, ("cat /etc/motd",)),
    Command("head", "write the first lines of a file to stdout", _HEAD, show_head, ("head -n 3 /etc/motd", "head -c 1K /f")),
    Command("get", "copy a file or a tree out of the image", _GET, get, ("get /home /tmp/rescued",)),
    Command("put", "copy a file or a tree of the host into the image", _PUT, put, ("put /etc /backup",), writes=True),
)
