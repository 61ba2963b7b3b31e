"""A directory of the host as a source of entries, in the order of the names' bytes. Needs no root.

Every step goes through descriptors of directories, so paths may be longer than the host allows in one call, and a directory that
is exchanged for a symlink meanwhile leads nowhere. One descriptor is open for each level.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from razortools.engine.populate.entry import Chunks, Entry, SourceFailed, data_chunks, show_path

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NO_XATTRS = (errno.ENOTSUP, errno.ENODATA, errno.ENOENT, errno.EPERM, errno.EACCES)
_STAT_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the filesystem's block

Xattrs = tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True)
class _Level:
    """A directory being walked: its descriptor, its path, and the names still to come, last first."""

    descriptor: int
    path: bytes
    names: list[bytes]


class DirectorySource:
    """Entries of the directory *path*, its own attributes first.

    What *skipped* tells (device, inode) of is left out: the image itself, for one. It is asked when reading begins, because a
    new image is not there before.
    """

    def __init__(self, path: str, skipped: Callable[[], tuple[int, int] | None] = lambda: None) -> None:
        """Look only; the directory is read when entries are asked for. Raises SourceFailed if it is none."""
        self.name = path
        self._skipped = skipped
        if not os.path.isdir(path):
            raise SourceFailed(f"{path}: no such directory; name a directory, a tarball or - for a tar on stdin")

    def entries(self) -> Iterator[Entry]:
        """Yield the root, then everything below it depth first. Raises SourceFailed naming what cannot be read."""
        seen: dict[tuple[int, int], bytes] = {}  # files with several names: (device, inode) -> first path
        levels: list[_Level] = []
        skipped = self._skipped()
        try:
            yield self._enter(levels, None, os.fsencode(self.name), b"")
            while levels:
                level = levels[-1]
                if not level.names:
                    os.close(levels.pop().descriptor)
                    continue
                name = level.names.pop()
                path = level.path + b"/" + name if level.path else name
                with self._telling(path):
                    facts = os.stat(name, dir_fd=level.descriptor, follow_symlinks=False)
                if (facts.st_dev, facts.st_ino) == skipped:
                    continue
                if stat.S_ISDIR(facts.st_mode):
                    yield self._enter(levels, level.descriptor, name, path)
                else:
                    yield self._file(level.descriptor, name, path, facts, seen)
        finally:
            for level in levels:
                os.close(level.descriptor)

    def _enter(self, levels: list[_Level], parent: int | None, name: bytes, path: bytes) -> Entry:
        """Open a directory, push it on *levels* and return its entry."""
        with self._telling(path):
            flags = _DIRECTORY_FLAGS if parent is not None else _DIRECTORY_FLAGS & ~os.O_NOFOLLOW
            descriptor = os.open(name, flags, dir_fd=parent)
            level = _Level(descriptor, path, [])
            levels.append(level)
            facts = os.fstat(descriptor)
            level.names = sorted(map(os.fsencode, os.listdir(descriptor)), reverse=True)
            return _entry(path, facts, _xattrs(b"/proc/self/fd/%d/." % descriptor))

    def _file(self, parent: int, name: bytes, path: bytes, facts: os.stat_result, seen: dict[tuple[int, int], bytes]) -> Entry:
        """Return the entry of anything but a directory."""
        if facts.st_nlink > 1:
            first = seen.setdefault((facts.st_dev, facts.st_ino), path)
            if first is not path:
                return Entry(path=path, mode=facts.st_mode, link_to=first)
        with self._telling(path):
            entry = _entry(path, facts, _xattrs(b"/proc/self/fd/%d/%b" % (parent, name)))
            if stat.S_ISLNK(facts.st_mode):
                return replace(entry, target=os.readlink(name, dir_fd=parent))
        if stat.S_ISREG(facts.st_mode) and facts.st_size:
            return replace(entry, size=facts.st_size, chunks=lambda: self._contents(parent, name, path, facts))
        return entry

    def _contents(self, parent: int, name: bytes, path: bytes, facts: os.stat_result) -> Chunks:
        """Yield the chunks of a regular file. What it gained since *facts* is left out, what it lost is zeros."""
        with self._telling(path):
            descriptor = os.open(name, _FILE_FLAGS, dir_fd=parent)
        try:
            read_at = self._reader(descriptor, path)
            yield from data_chunks(facts.st_size, _data_ranges(descriptor, facts), read_at)
        finally:
            os.close(descriptor)

    def _reader(self, descriptor: int, path: bytes) -> Callable[[int, int], bytes]:
        def read_at(offset: int, size: int) -> bytes:
            with self._telling(path):
                data = os.pread(descriptor, size, offset)
                while len(data) < size:
                    more = os.pread(descriptor, size - len(data), offset + len(data))
                    if not more:
                        return data + bytes(size - len(data))
                    data += more
                return data

        return read_at

    @contextmanager
    def _telling(self, path: bytes) -> Iterator[None]:
        """Turn an error of the host into SourceFailed that names the file."""
        try:
            yield
        except OSError as error:
            where = f"{self.name.rstrip('/')}/{show_path(path)}" if path else self.name
            raise SourceFailed(f"{where}: cannot be read: {error.strerror}") from error


def _entry(path: bytes, facts: os.stat_result, xattrs: Xattrs) -> Entry:
    is_device = stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode)
    return Entry(
        path=path,
        mode=facts.st_mode,
        uid=facts.st_uid,
        gid=facts.st_gid,
        mtime_ns=facts.st_mtime_ns,
        atime_ns=facts.st_atime_ns,
        rdev=facts.st_rdev if is_device else 0,
        xattrs=xattrs,
    )


def _xattrs(path: bytes) -> Xattrs:
    """Return (name, value) of all attributes that may be read, sorted. A host without attributes has none."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return ()
        raise
    found = []
    for name in names:
        with suppress(OSError):  # some attributes are listed for everybody and readable for root only
            found.append((os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)))
    return tuple(sorted(found))


def _data_ranges(descriptor: int, facts: os.stat_result) -> Iterator[tuple[int, int]]:
    """Yield the (start, length) parts of a file that are not holes."""
    at = 0
    if facts.st_blocks * _STAT_BLOCK_BYTES >= facts.st_size:
        yield 0, facts.st_size  # nothing can be missing: save the calls
        return
    while at < facts.st_size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: only a hole is left; else the host cannot tell holes
                yield at, facts.st_size - at
            return
        yield start, end - start
        at = end
