"""export: a tree as a tar archive, piece by piece, with everything that one can hold.

Owners, modes, times to the nanosecond, extended attributes (``SCHILY.xattr.``, as GNU tar, bsdtar and star read them), hard
links, symlinks, devices; of the directory that is named as well, as the member ``./``. Holes are written as zeros. Sockets are
left out: an archive has no place for them.
"""

import argparse
import os
import stat
import tarfile
from collections.abc import Iterator

from razortools.debug.answers import Answer, Stream
from razortools.debug.session import Command, Session, Words
from razortools.debug.walking import Found, walk
from razortools.engine import files, namespace, xattrs
from razortools.errors import CorruptImage
from razortools.format.inode import Inode
from razortools.units import MIB, NANOSECONDS, InodeNo

PIECE_BYTES = 1 * MIB
_TYPES = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


class _Keyword(str):
    """A keyword of a PAX header, with bytes in it that need not be UTF-8.

    tarfile keeps such bytes in values (``hdrcharset=BINARY``) and has no way to keep them in keywords, which it encodes as they
    are. Raw bytes are what GNU tar writes there, too; whoever reads with surrogateescape gets them back.
    """

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Return the bytes that were decoded with surrogateescape, whatever *errors* says."""
        return super().encode(encoding, "surrogateescape")


def export(session: Session, options: argparse.Namespace) -> Answer:
    """export: a tree as a tar archive on stdout, its paths counted from the directory that is named."""
    session.find(options.path)
    return Stream(_archive(session, options.path))


def _archive(session: Session, path: str) -> Iterator[bytes]:
    """Yield the bytes of the archive. Raises CorruptImage where something cannot be read: it is never silently shorter."""
    top = session.absolute(path)
    seen: dict[InodeNo, str] = {}
    for found in walk(session, path):
        if found.fault or found.inode is None:
            raise CorruptImage(f"{os.fsdecode(found.path)} cannot be read, so the archive would not be whole: {found.fault}")
        name = _member_name(found, top)
        if stat.S_IFMT(found.inode.mode) not in _TYPES:
            continue
        member = _member(session, found, name)
        if found.ino in seen:
            member.type, member.linkname, member.size = tarfile.LNKTYPE, seen[found.ino], 0
        elif not found.inode.is_directory and found.inode.link_count > 1:
            seen[found.ino] = name
        yield member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if member.type == tarfile.REGTYPE:
            yield from _contents(session, found.ino, found.inode)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member_name(found: Found, top: bytes) -> str:
    """Return the path in the archive: relative to what was named, which is "." itself, or the name of a single file."""
    assert found.inode is not None
    if found.path == top:
        return "." if found.inode.is_directory else os.fsdecode(top.rpartition(b"/")[2])
    return os.fsdecode(found.path[len(top.rstrip(b"/")) + 1 :])


def _member(session: Session, found: Found, name: str) -> tarfile.TarInfo:
    inode = found.inode
    assert inode is not None
    member = tarfile.TarInfo(name)
    member.type = _TYPES[stat.S_IFMT(inode.mode)]
    member.mode, member.uid, member.gid = stat.S_IMODE(inode.mode), inode.uid, inode.gid
    member.size = inode.size if inode.is_regular else 0
    if inode.is_symlink:
        member.linkname = os.fsdecode(namespace.readlink(session.volume, found.ino))
    member.devmajor, member.devminor = os.major(inode.rdev), os.minor(inode.rdev)
    member.mtime = max(inode.mtime_ns // NANOSECONDS, 0)
    member.pax_headers = {"mtime": _seconds(inode.mtime_ns), "atime": _seconds(inode.atime_ns)}
    for attribute in xattrs.names(session.volume, found.ino):
        # GNU tar's way with what would end the keyword.
        keyword = os.fsdecode(attribute).replace("%", "%25").replace("=", "%3D")
        member.pax_headers[_Keyword(f"SCHILY.xattr.{keyword}")] = os.fsdecode(xattrs.get(session.volume, found.ino, attribute))
    return member


def _seconds(time_ns: int) -> str:
    """Return a time as PAX writes it."""
    seconds, rest = divmod(abs(time_ns), NANOSECONDS)
    return f"{'-' if time_ns < 0 else ''}{seconds}.{rest:09}"


def _contents(session: Session, ino: InodeNo, inode: Inode) -> Iterator[bytes]:
    for offset in range(0, inode.size, PIECE_BYTES):
        yield files.read(session.volume, ino, offset, PIECE_BYTES)
    yield bytes(-inode.size % tarfile.BLOCKSIZE)


_EXPORT = Words("export")
_EXPORT.add_argument("path", nargs="?", default=".", metavar="PATH")

COMMANDS = (
    Command(
        "export",
        "write a tree to stdout as a tar archive; sockets are left out, as tar does",
        _EXPORT,
        export,
        ("export /home | tar -xf - -C /tmp/rescued", "export / | zstd > everything.tar.zst"),
    ),
)
