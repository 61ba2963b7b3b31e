"""A tar archive as a source of entries: a file in any compression that tarfile knows, or a stream.

Kept: owners, modes, times to the nanosecond (PAX), extended attributes (``SCHILY.xattr.``, as GNU tar, bsdtar and star write
them, and ``LIBARCHIVE.xattr.``), access control lists (as attributes, or as the text in ``SCHILY.acl.``), hard links, symlinks,
devices, fifos, holes. The archive is read from front to back, once for each call of ``entries``. A damaged or cut off archive is
an error, never a shorter tree: it ends with its mark, a block of zeros, and behind that nothing comes but zeros.
"""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from razortools.engine.populate.entry import Chunks, Entry, SourceFailed, data_chunks, no_contents, show_path
from razortools.engine.populate.pax import pax_acls, pax_time_ns, pax_xattrs, raw_bytes
from razortools.units import KIB, MIB

_READ_BYTES = 1 << 20
_HEAD_BYTES = 512
_BAD_HEADERS = tuple(getattr(tarfile, name) for name in ("TruncatedHeaderError", "InvalidHeaderError", "SubsequentHeaderError"))
_NO_HEADER = cast(Any, tarfile).EmptyHeaderError  # no bytes are left where one should be; typeshed does not know it either
_KINDS = {
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
    b"D": stat.S_IFDIR,  # a directory in an incremental archive of GNU tar
    **dict.fromkeys(tarfile.REGULAR_TYPES, stat.S_IFREG),
}
_VOLUME_LABEL = b"V"
_MAJOR_MAX, _MINOR_MAX = 0xFFF, 0xF_FFFF  # Linux's device numbers
_ABOUT_NEXT = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_ABOUT_BYTES_MAX = 64 * MIB  # of what is said about a member, mostly its attributes
_PATH_BYTES_MAX = 16 * KIB  # four times what a program can name at once
_ID_MAX = 0xFFFF_FFFE  # the number above means "unchanged" to chown(2)


class _Damaged(Exception):
    """What tarfile would silently take for the end of the archive."""


class _StrictInfo(tarfile.TarInfo):
    """Header reader that tells a damaged or cut off archive from one that ends: tarfile itself stops quietly at all of them."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        """Return the next member. Raises _Damaged, or EOFError, instead of what TarFile.next would swallow."""
        try:
            return super().fromtarfile(archive)
        except _NO_HEADER as error:
            raise EOFError("the mark at the end of the archive is missing") from error
        except _BAD_HEADERS as error:
            raise _Damaged(str(error)) from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        """Return what a header tells. Raises _Damaged before tarfile reads more into memory than anybody has to say."""
        told = super().frombuf(buf, encoding, errors)
        if told.type in _ABOUT_NEXT and told.size > _ABOUT_BYTES_MAX:
            raise _Damaged(f"{told.size} bytes are said about one member")
        return told


class TarSource:
    """Entries of the tar archive in *file*, which stays the caller's."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Read from where *file* stands. Only a file that can seek gives its entries more than once."""
        self.name = name
        self._file = file
        self._start = file.tell() if file.seekable() else None
        self._is_fresh = True

    def entries(self) -> Iterator[Entry]:
        """Yield the members in the order of the archive. Raises SourceFailed if it is damaged or names what cannot be kept."""
        if not self._is_fresh:
            assert self._start is not None, "a stream cannot be read twice"
            self._file.seek(self._start)
        self._is_fresh = False
        return _members(self._file, self.name)


def _members(file: IO[bytes], name: str) -> Iterator[Entry]:
    with _telling(name):
        plain = _decompressed(file)
        archive = tarfile.open(  # noqa: SIM115  (closed below)
            mode="r|", fileobj=plain, bufsize=_READ_BYTES, tarinfo=_StrictInfo, encoding="utf-8", errors="surrogateescape"
        )
    is_empty = True
    with archive:
        while True:
            with _telling(name):
                member = archive.next()
                archive.members = []  # type: ignore[attr-defined]  # tarfile would keep every member in memory
            if member is None:
                break
            is_empty = False
            if member.type != _VOLUME_LABEL:
                yield _entry(archive, member, name)
        with _telling(name):
            _read_end(archive.fileobj, is_empty=is_empty)


def _read_end(stream: Any, *, is_empty: bool) -> None:
    """Read *stream* on from the first block of zeros to its end: only there do compressed streams tell that they are whole.

    Raises _Damaged if anything but zeros comes. GNU tar does not look at it, and with -i reads on; but zeros where a disk lost
    some members look like the mark, so that both can leave something out without a word. One block of zeros is mark enough:
    where an archive was cut off behind it nothing is missing.
    """
    while data := stream.read(_READ_BYTES):
        rest = data.lstrip(b"\0")
        if rest and is_empty:
            raise _Damaged("it begins with zeros, as an empty archive does, and goes on with something else")
        if rest:
            raise _Damaged(
                f"more follows behind its end, at byte {stream.tell() - len(rest)}; join two archives with tar -A, "
                "cut off what does not belong to it, or get another copy"
            )


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    """Return *file* as it was before compression, told by its first bytes."""
    buffered = io.BufferedReader(_Unclosed(file), _READ_BYTES)
    head = buffered.peek(_HEAD_BYTES)[:_HEAD_BYTES]
    if not head:
        raise EOFError("it is empty")
    made: Any = buffered
    if head[257:262] == b"ustar":
        pass  # whatever its first name looks like
    elif head[:2] == b"\x1f\x8b":
        made = gzip.GzipFile(fileobj=buffered)
    elif head[:3] == b"BZh":
        made = bz2.BZ2File(buffered)
    elif head[:6] == b"\xfd7zXZ\0" or head[:3] == b"\x5d\0\0":
        made = lzma.LZMAFile(buffered)  # noqa: SIM115  (a view of the stream)
    elif head[:4] == b"\x28\xb5\x2f\xfd":
        raise ValueError("it is compressed with zstd; pipe it in: zstd -dc FILE | mkfs.razorfs --populate - IMAGE SIZE")
    return cast(IO[bytes], made)


class _Unclosed(io.RawIOBase):
    """A view of a stream; closing the view leaves the stream open."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> Entry:
    """Return the entry of a member."""
    path = _path(member.name, name)
    permissions = member.mode & 0o7777
    if member.type == tarfile.LNKTYPE:
        return Entry(path=path, mode=stat.S_IFREG | permissions, link_to=_path(member.linkname, name))
    kind = _KINDS.get(member.type)
    if kind is None:
        raise SourceFailed(f"{name}: {show_path(path)} is of the unknown type {member.type!r}; leave it out of the archive")
    if not (0 <= member.uid <= _ID_MAX and 0 <= member.gid <= _ID_MAX):
        raise SourceFailed(f"{name}: {show_path(path)} belongs to {member.uid}:{member.gid}; owners go up to {_ID_MAX}")
    with _telling(name):
        mtime_ns = pax_time_ns(member.pax_headers.get("mtime", str(member.mtime)))
        atime_ns = pax_time_ns(member.pax_headers["atime"]) if "atime" in member.pax_headers else mtime_ns
    is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
    if is_device and not (0 <= member.devmajor <= _MAJOR_MAX and 0 <= member.devminor <= _MINOR_MAX):
        numbers = f"{member.devmajor}:{member.devminor}; they go up to {_MAJOR_MAX}:{_MINOR_MAX}"
        raise SourceFailed(f"{name}: {show_path(path)} is the device {numbers}")
    is_regular = kind == stat.S_IFREG
    return Entry(
        path=path,
        mode=kind | (0o777 if kind == stat.S_IFLNK else permissions),
        uid=member.uid,
        gid=member.gid,
        mtime_ns=mtime_ns,
        atime_ns=atime_ns,
        rdev=os.makedev(member.devmajor, member.devminor) if is_device else 0,
        size=member.size if is_regular else 0,
        target=raw_bytes(member.linkname) if kind == stat.S_IFLNK else b"",
        xattrs=_attributes(member, path, name),
        chunks=(lambda: _contents(archive, member, name)) if is_regular else no_contents,
    )


def _attributes(member: tarfile.TarInfo, path: bytes, name: str) -> tuple[tuple[bytes, bytes], ...]:
    """Return the extended attributes of a member, its access control lists among them, sorted by name."""
    with _telling(name):
        found = dict(pax_xattrs(member.pax_headers))
    try:
        found |= pax_acls(member.pax_headers)
    except ValueError as refused:
        raise SourceFailed(f"{name}: {show_path(path)} cannot be kept: {refused}") from refused
    return tuple(sorted(found.items()))


def _contents(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> Chunks:
    """Yield the chunks of a regular member."""
    sparse: list[tuple[int, int]] | None = getattr(member, "sparse", None)
    file = archive.extractfile(member)
    assert file is not None, "a regular member has contents"
    # The buffer above it refuses to seek in a stream, in any direction; below, going forward over holes is possible.
    raw: Any = getattr(file, "raw", file)

    def read_at(offset: int, size: int) -> bytes:
        with _telling(name):
            raw.seek(offset)
            data: bytes = raw.read(size)
            if len(data) != size:
                raise EOFError(f"{member.name} is cut off")
            return data

    return data_chunks(member.size, [(0, member.size)] if sparse is None else sparse, read_at)


def _path(text: str, name: str) -> bytes:
    """Return a member's path in our form. Raises SourceFailed if it leads out of the tree."""
    parts = [part for part in raw_bytes(text).split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise SourceFailed(f"{name}: '{show_path(raw_bytes(text))}' leads out of the tree; such an archive is not unpacked")
    path = b"/".join(parts)
    if len(path) > _PATH_BYTES_MAX:
        raise SourceFailed(f"{name}: has a path of {len(path)} bytes; they may have {_PATH_BYTES_MAX}")
    return path


@contextmanager
def _telling(name: str) -> Iterator[None]:
    """Turn whatever the archive's readers raise into SourceFailed."""
    try:
        yield
    except _Damaged as error:
        raise SourceFailed(f"{name}: is damaged or not a tar archive: {error}") from error
    except gzip.BadGzipFile as error:
        raise SourceFailed(f"{name}: is damaged: {error}") from error
    except OSError as error:
        raise SourceFailed(f"{name}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # each decompressor has its own errors, and what broken headers make tarfile raise is open
        raise SourceFailed(f"{name}: is damaged or cut off: {error}") from error
