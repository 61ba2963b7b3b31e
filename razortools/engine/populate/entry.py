"""Entries: what a source offers to be put into a volume, one file at a time, wherever it comes from.

Invariants: a path is relative, its components joined by ``/``, none of them empty, ``.`` or ``..``; the root's path is empty.
An entry comes after the directory it lies in (or that directory never comes: a tarball may leave it out). The contents of an
entry are read before the next entry is asked for, because a stream cannot go back.
"""

import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from razortools.errors import RazorError
from razortools.format.inode import TIME_MAX_NS, TIME_MIN_NS
from razortools.units import MIB

CHUNK_BYTES = 1 * MIB  # the largest record, so that a skipped chunk is a hole whatever the record size
_ZEROS = bytes(CHUNK_BYTES)

Chunks = Iterator[tuple[int, bytes]]  # (offset, bytes) in ascending order; what is not told is zeros


class SourceFailed(RazorError):
    """What should be put in cannot be read: look at the source."""

    exit_code = 1


def no_contents() -> Chunks:
    """Return the chunks of a file that has none."""
    return iter(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in the source, with everything that is kept of it. Times in nanoseconds since 1970."""

    path: bytes
    mode: int  # type and permission bits, as in stat(2)
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    atime_ns: int = 0
    rdev: int = 0
    size: int = 0  # bytes of a regular file
    target: bytes = b""  # of a symlink
    link_to: bytes | None = None  # path of an earlier entry: this is another name of that file, all else here is void
    xattrs: tuple[tuple[bytes, bytes], ...] = ()  # sorted by name
    chunks: Callable[[], Chunks] = no_contents  # contents of a regular file, zeros left out

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return self.link_to is None and stat.S_ISDIR(self.mode)


class Source(Protocol):
    """Where entries come from."""

    name: str  # for messages

    def entries(self) -> Iterator[Entry]:
        """Return the entries in their order, the same each time. Raises SourceFailed while iterating if they cannot be read."""
        ...


def data_chunks(size: int, ranges: Iterable[tuple[int, int]], read_at: Callable[[int, int], bytes]) -> Chunks:
    """Yield the aligned chunks of a file of *size* bytes that hold anything but zeros.

    *ranges* are the (start, length) parts that may hold data, ascending; *read_at* (offset, size) returns that many bytes, with
    zeros in holes. What comes out does not depend on where the holes are, only on the contents: a copy without holes gives the
    same.
    """
    next_chunk = 0
    for start, length in ranges:
        if length <= 0:
            continue
        last_chunk = (min(start + length, size) - 1) // CHUNK_BYTES
        for number in range(max(next_chunk, start // CHUNK_BYTES), last_chunk + 1):
            offset = number * CHUNK_BYTES
            data = read_at(offset, min(CHUNK_BYTES, size - offset))
            if data != (_ZEROS if len(data) == CHUNK_BYTES else bytes(len(data))):
                yield offset, data
            next_chunk = number + 1


def clamped(entries: Iterable[Entry], epoch_ns: int | None) -> Iterator[Entry]:
    """Yield *entries* with times that the format holds; with *epoch_ns* none is later, and none depends on reading."""
    for entry in entries:
        mtime_ns = max(TIME_MIN_NS, min(entry.mtime_ns, TIME_MAX_NS if epoch_ns is None else epoch_ns))
        atime_ns = max(TIME_MIN_NS, min(entry.atime_ns, TIME_MAX_NS)) if epoch_ns is None else mtime_ns
        yield replace(entry, mtime_ns=mtime_ns, atime_ns=atime_ns)


def split_path(path: bytes) -> tuple[bytes, bytes]:
    """Return (path of the directory, last component) of an entry's *path*."""
    parent, _, name = path.rpartition(b"/")
    return parent, name


def show_path(path: bytes) -> str:
    """Return *path* for a message: bytes that are no text come out as escapes."""
    return path.decode("utf-8", "backslashreplace") or "/"
