"""undelete: deleted files listed, copied out to the host, or put back into the image."""

import argparse
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from razortools.check.host_copy import write_but_zeros
from razortools.debug.answers import Answer, Lines, Table
from razortools.debug.arguments import number
from razortools.debug.deleted import Deleted, contents, find_deleted
from razortools.debug.session import Command, Session, Words
from razortools.debug.shown import show_time
from razortools.debug.walking import type_name
from razortools.engine import acls, files, namespace, xattrs
from razortools.engine.namespace import AttributeChange
from razortools.errors import PosixError, ReadOnly, UsageError
from razortools.format.admin import Action
from razortools.format.data import Run
from razortools.printable import printable_name
from razortools.units import InodeNo, divide_up

ROOM_SHARE, ROOM_BLOCKS = 8, 32  # an eighth of a file's blocks, and so many at least, for what the tree takes


def undelete(session: Session, options: argparse.Namespace) -> Answer:
    """undelete: without a number the deleted files that were found; with one, that file comes back."""
    found = find_deleted(session)
    if options.inode is None:
        return _listed(found)
    chosen = next((one for one in found if one.ino == options.inode), None)
    if chosen is None:
        raise UsageError(f"undelete: no deleted file {options.inode} was found; 'undelete' lists those that were")
    if not chosen.is_whole and not options.partly:
        raise UsageError(f"undelete: {chosen.state}; --partly takes what is left, with zeros for the rest")
    if options.out is not None:
        _copy_out(session, chosen, options.out)
        return _told(chosen, f"{options.out} on the host")
    if not session.writable:
        raise ReadOnly("undelete puts a file back only with -w; --out copies it to the host, which changes nothing in the image")
    path = restore(session, chosen, options.path, kept=found if _fits_beside(session, chosen, found) else [chosen])
    return _told(chosen, path)


def _listed(found: list[Deleted]) -> Answer:
    rows = [
        (
            one.ino,
            one.inode.size,
            one.state,
            show_time(one.inode.mtime_ns).partition(".")[0],
            printable_name(one.path) or "(name lost)",
        )
        for one in found
    ]
    data = [
        {
            "inode": one.ino,
            "path": one.path,
            "type": type_name(one.inode),
            "size": one.inode.size,
            "mtime_ns": one.inode.mtime_ns,
            "generation": one.generation,
            "state": one.state,
        }
        for one in found
    ]
    return Table(("inode", "size", "state", "modified", "path"), rows, data, right=(0, 1))


def _told(chosen: Deleted, where: str) -> Answer:
    lost = "" if chosen.is_whole else f"; {chosen.state}"
    text = f"inode {chosen.ino} ({printable_name(chosen.path) or 'name lost'}) -> {where}: {chosen.inode.size} bytes{lost}"
    return Lines([text], {"inode": chosen.ino, "path": chosen.path, "to": where, "state": chosen.state})


def _copy_out(session: Session, chosen: Deleted, target: str) -> None:
    """Write a file's contents to the host. Raises UsageError if the target exists."""
    if os.path.lexists(target):
        raise UsageError(f"{target}: exists already on the host; choose another name or remove it")
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, chosen.inode.size)
        for offset, data in contents(session, chosen):
            write_but_zeros(descriptor, offset, data)
    finally:
        os.close(descriptor)


def restore(session: Session, chosen: Deleted, target: str | None, kept: Iterable[Deleted]) -> str:
    """Make the file anew in the image, with its attributes; return its path. All of it or nothing.

    Nothing of it comes to lie where the *kept* files lie, it among them: they may be brought back, too.
    """
    volume = session.for_writing()
    path = target or _default_path(session, chosen)
    parent, name = session.parent_of(path)
    try:
        with _kept_apart(session, kept):
            ino = _make(session, chosen, parent, name)
            for attribute, value in chosen.attributes.items():
                if attribute in (xattrs.ACCESS_ACL, xattrs.DEFAULT_ACL):
                    acls.set(volume, ino, attribute, value)
                else:
                    xattrs.set(volume, ino, attribute, value)
            old = chosen.inode
            mode = None if old.is_symlink else stat.S_IMODE(old.mode)
            namespace.setattr(volume, ino, AttributeChange(uid=old.uid, gid=old.gid))
            namespace.setattr(volume, ino, AttributeChange(mode=mode, atime_ns=old.atime_ns, mtime_ns=old.mtime_ns))
            volume.note(Action.UNDELETE, detail=chosen.ino)
            volume.checkpoint()
    except BaseException:
        volume.abort()
        raise
    return path


def _default_path(session: Session, chosen: Deleted) -> str:
    """Return where it was, if its directory is there and the name is free; otherwise a name in the root."""
    if chosen.path and not chosen.path.startswith(b"?"):
        where = os.fsdecode(chosen.path)
        try:
            session.find(os.fsdecode(posixpath.dirname(chosen.path)))
        except PosixError:
            return f"/undeleted-{chosen.ino}"
        try:
            session.find(where)
        except PosixError:
            return where
    return f"/undeleted-{chosen.ino}"


def _make(session: Session, chosen: Deleted, parent: InodeNo, name: bytes) -> InodeNo:
    volume, old = session.volume, chosen.inode
    if old.is_symlink:
        target = b"".join(data for _, data in contents(session, chosen))
        return namespace.symlink(volume, parent, name, target, old.uid, old.gid)
    ino = namespace.create(volume, parent, name, 0o600, old.uid, old.gid)
    for offset, data in contents(session, chosen):
        files.write(volume, ino, offset, data)
    files.truncate(volume, ino, old.size)
    return ino


def _fits_beside(session: Session, chosen: Deleted, others: Iterable[Deleted]) -> bool:
    """Whether there is room for a file where none of the *others* lies, even if it does not shrink. Nothing is changed."""
    volume = session.for_writing()
    sizes = [record.raw_bytes for record in chosen.records.values()] + list(map(len, chosen.attributes.values()))
    blocks = sum(divide_up(size, volume.block_bytes) for size in sizes) + ROOM_BLOCKS
    with _kept_apart(session, others):
        return volume.has_room_now(blocks + blocks // ROOM_SHARE)


@contextmanager
def _kept_apart(session: Session, kept: Iterable[Deleted]) -> Iterator[None]:
    """Keep the blocks of deleted files from being given to anybody, a copy of one of them above all."""
    maps, size = session.volume.store.maps, session.volume.block_bytes
    runs: list[Run] = []
    try:
        for record in (record for one in kept for record in (*one.records.values(), *one.outside)):
            for run in record.runs(size):
                for first, count in maps.free_parts(*run):
                    maps.mark_used(first, count)
                    maps.unclaimed[first] = count  # no checkpoint writes them as used
                    runs.append((first, count))
        yield
    finally:
        maps.unplace(runs)


_UNDELETE = Words("undelete")
_UNDELETE.add_argument("--list", action="store_true", help="list what was found, which is also what happens without a number")
_UNDELETE.add_argument("--out", metavar="HOST_PATH", help="copy it to this file of the host; the image stays as it is")
_UNDELETE.add_argument("--partly", action="store_true", help="take a file of which a part was overwritten")
_UNDELETE.add_argument("inode", nargs="?", type=number, metavar="INODE")
_UNDELETE.add_argument("path", nargs="?", metavar="PATH", help="where it goes; otherwise where it was")

COMMANDS = (
    Command("undelete", "find deleted files whose blocks are still there, and bring them back", _UNDELETE, undelete,
            ("undelete --list", "undelete 17 --out /tmp/rescued", "undelete 17 /home/back")),
)  # fmt: skip
