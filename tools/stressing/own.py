"""What a client does in a directory of its own, where nobody else changes anything: every answer is known beforehand.

The model holds all names and contents. Invariants: after each step the directory is what the model says; two names of one file
share one object of the model.
"""

import errno
import hashlib
import mmap
import os
import random
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

FILES_MAX = 120
DIRECTORIES_MAX = 40
FILE_BYTES_MAX = 256 << 10
BIG_BYTES = (2 << 20, 6 << 20)
MANY = (100, 600)  # entries of a large directory
DEPTH = (20, 100)
KEPT_OPEN_MAX = 8
PIECE_BYTES = 128 << 10

may_be_short = False  # whether the image may be full


class Wrong(Exception):
    """The mount did not do what it should."""


class File:
    """What a file should be."""

    def __init__(self, data: bytes) -> None:
        """One name, these contents."""
        self.data = bytearray(data)
        self.names = 1
        self.xattrs: dict[str, bytes] = {}
        self.mode = 0o644


@contextmanager
def refused_with(*numbers: int) -> Iterator[None]:
    """What is in here must fail with one of these errors."""
    try:
        yield
    except OSError as refused:
        if refused.errno not in numbers:
            raise
        return
    raise Wrong(f"succeeded, expected {[errno.errorcode[number] for number in numbers]}")


@contextmanager
def opened(path: str, flags: int, mode: int = 0o644) -> Iterator[int]:
    """Open a descriptor for a while."""
    descriptor = os.open(path, flags, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write at a place, in pieces. Raises OSError; Wrong if a write is short without a reason."""
    for start in range(0, len(data), PIECE_BYTES):
        piece = data[start : start + PIECE_BYTES]
        expect_whole(os.pwrite(descriptor, piece, offset + start), len(piece))


def expect_whole(written: int, wanted: int) -> None:
    """Raise unless all was written that was *wanted*.

    The kernel sends a write that does not begin with a page in two requests; when the image is full, the second may be refused.
    """
    if written < wanted and may_be_short:
        raise OSError(errno.ENOSPC, "a short write")
    if written != wanted:
        raise Wrong(f"a write of {wanted} bytes wrote {written}")


def read_all(descriptor: int) -> bytes:
    """Read from the start to the end."""
    pieces, offset = [], 0
    while piece := os.pread(descriptor, PIECE_BYTES, offset):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


class Own:
    """The directory of one client, and its model."""

    def __init__(
        self, root: str, source: random.Random, *, is_dense: bool = False, pulse: Callable[[], None] = lambda: None
    ) -> None:
        """Work in *root*, which exists and is empty.

        *is_dense*: with data that cannot be compressed. *pulse* is called within long steps: they make progress.
        """
        self._root = root
        self._random = source
        self._pulse = pulse
        self._files: dict[str, File] = {}
        self._directories: list[str] = [root]
        self._symlinks: dict[str, str] = {}
        self._kept: list[tuple[int, File]] = []  # open files without a name
        self._number = 0
        self._noise = source.randbytes(1 << 20) + (b"" if is_dense else b"all work and no play " * 50_000)
        self.steps = [
            *[self.create] * 14, *[self.read] * 16, *[self.write] * 10, *[self.append] * 6, *[self.truncate] * 5,
            *[self.rename] * 6, *[self.unlink] * 8, *[self.link] * 3, *[self.symlink] * 2, *[self.mkdir] * 4, *[self.rmdir] * 3,
            *[self.read_directory] * 4, *[self.look] * 10, *[self.xattrs] * 5, *[self.fsync] * 2, *[self.map] * 5,
            *[self.unlink_open] * 2, *[self.kept] * 2, *[self.replace] * 3, *[self.move_directory] * 2, *[self.refused] * 3,
            *[self.chmod] * 2, self.big,
        ]  # fmt: skip
        self.rare_steps = [self.many, self.deep, self.killed]

    # Choosing

    def _name(self, kind: str) -> str:
        self._number += 1
        tail = "x" * self._random.choice((0, 0, 0, 20, 200))
        return f"{self._random.choice(self._directories)}/{kind}{self._number}{tail}"

    def _file(self) -> tuple[str, File] | None:
        if not self._files:
            return None
        path = self._random.choice(list(self._files))
        return path, self._files[path]

    def _data(self, bytes_max: int) -> bytes:
        length = self._random.randrange(1 + self._random.choice((0, 100, 4096, 20_000, bytes_max)))
        start = self._random.randrange(len(self._noise) - length)
        return self._noise[start : start + length]

    # Steps

    def create(self) -> None:
        """Make a file with contents, and read it back."""
        if len(self._files) >= FILES_MAX:
            self.unlink()
        path, data = self._name("f"), self._data(FILE_BYTES_MAX)
        with opened(path, os.O_CREAT | os.O_EXCL | os.O_RDWR) as descriptor:
            write_all(descriptor, data, 0)
            self._files[path] = File(data)
            self._same(path, read_all(descriptor), data)

    def read(self) -> None:
        """Read a whole file, or a part."""
        if (found := self._file()) is None:
            return
        path, file = found
        with opened(path, os.O_RDONLY) as descriptor:
            if self._random.random() < 0.5:
                self._same(path, read_all(descriptor), file.data)
            else:
                offset = self._random.randrange(len(file.data) + 1)
                self._same(path, os.pread(descriptor, 9000, offset), file.data[offset : offset + 9000])

    def write(self) -> None:
        """Overwrite, or write behind the end."""
        if (found := self._file()) is None:
            return
        path, file = found
        data, offset = self._data(30_000), self._random.randrange(len(file.data) + 5000)
        offset = min(offset, FILE_BYTES_MAX)
        with opened(path, os.O_RDWR | self._random.choice((0, 0, 0, 0, os.O_DSYNC))) as descriptor:
            write_all(descriptor, data, offset)
            self._put(file, offset, data)
            start = max(offset - 5000, 0)
            length = len(data) + 10_000
            self._same(path, os.pread(descriptor, length, start), file.data[start : start + length])

    def append(self) -> None:
        """Write at the end."""
        if (found := self._file()) is None or len(found[1].data) > FILE_BYTES_MAX:
            return
        path, file = found
        data = self._data(10_000)
        with opened(path, os.O_WRONLY | os.O_APPEND) as descriptor:
            expect_whole(os.write(descriptor, data), len(data))
        file.data += data

    def truncate(self) -> None:
        """Cut or extend."""
        if (found := self._file()) is None:
            return
        path, file = found
        size = self._random.randrange(self._random.choice((1, len(file.data) + 1, FILE_BYTES_MAX)))
        os.truncate(path, size)
        del file.data[size:]
        file.data.extend(bytes(size - len(file.data)))

    def rename(self) -> None:
        """Give a file another name."""
        if (found := self._file()) is None:
            return
        target = self._name("r")
        os.rename(found[0], target)
        self._files[target] = self._files.pop(found[0])

    def replace(self) -> None:
        """Rename a file over another one."""
        one, other = self._file(), self._file()
        if one is None or other is None or one[1] is other[1]:
            return
        os.rename(one[0], other[0])
        other[1].names -= 1
        self._files[other[0]] = self._files.pop(one[0])

    def unlink(self) -> None:
        """Remove a name."""
        if (found := self._file()) is None:
            return
        os.unlink(found[0])
        found[1].names -= 1
        del self._files[found[0]]

    def link(self) -> None:
        """Give a file one more name."""
        if (found := self._file()) is None:
            return
        path = self._name("l")
        os.link(found[0], path)
        found[1].names += 1
        self._files[path] = found[1]

    def symlink(self) -> None:
        """Make a symbolic link, or read or remove an old one."""
        if len(self._symlinks) < 20:
            path = self._name("s")
            self._symlinks[path] = "t" * self._random.randrange(1, 2000)
            os.symlink(self._symlinks[path], path)
            return
        path = self._random.choice(list(self._symlinks))
        if os.readlink(path) != self._symlinks[path]:
            raise Wrong(f"{path}: the link leads elsewhere")
        os.unlink(path)
        del self._symlinks[path]

    def mkdir(self) -> None:
        """Make a directory."""
        if len(self._directories) < DIRECTORIES_MAX:
            path = self._name("d")
            if len(path) < 3000:
                os.mkdir(path)
                self._directories.append(path)

    def rmdir(self) -> None:
        """Remove a directory; one that is not empty must stay."""
        path = self._random.choice(self._directories)
        if path == self._root:
            return
        if self._entries(path):
            with refused_with(errno.ENOTEMPTY):
                os.rmdir(path)
        else:
            os.rmdir(path)
            self._directories.remove(path)

    def move_directory(self) -> None:
        """Give a directory another name, and everything below it another path."""
        path, target = self._random.choice(self._directories), self._name("m")
        if path == self._root:
            return
        if target.startswith(path + "/"):
            with refused_with(errno.EINVAL):
                os.rename(path, target)
            return
        if len(target) > 2000:
            return
        os.rename(path, target)

        def moved(old: str) -> str:
            return target + old[len(path) :] if old == path or old.startswith(path + "/") else old

        self._directories = [moved(old) for old in self._directories]
        self._files = {moved(old): file for old, file in self._files.items()}
        self._symlinks = {moved(old): to for old, to in self._symlinks.items()}

    def read_directory(self) -> None:
        """Read a directory."""
        path = self._random.choice(self._directories)
        found = sorted(os.listdir(path))
        if found != sorted(self._entries(path)):
            raise Wrong(f"{path}: has {found}, expected {sorted(self._entries(path))}")

    def look(self) -> None:
        """Ask for a file's attributes."""
        if (found := self._file()) is None:
            return
        path, file = found
        status = os.stat(path)
        seen = (status.st_size, status.st_nlink, stat.S_IMODE(status.st_mode))
        if seen != (len(file.data), file.names, file.mode):
            raise Wrong(f"{path}: size, links, mode {seen}, expected {(len(file.data), file.names, file.mode)}")

    def xattrs(self) -> None:
        """Set, read, list and remove extended attributes."""
        if (found := self._file()) is None:
            return
        path, file = found
        name = f"user.{self._random.randrange(5)}"
        if name in file.xattrs and self._random.random() < 0.4:
            os.removexattr(path, name)
            del file.xattrs[name]
        else:
            file.xattrs[name] = self._data(self._random.choice((50, 3000)))[:3000]
            os.setxattr(path, name, file.xattrs[name])
        if {name: os.getxattr(path, name) for name in os.listxattr(path)} != file.xattrs:
            raise Wrong(f"{path}: extended attributes differ")

    def fsync(self) -> None:
        """Make a file or a directory durable."""
        found = self._file()
        path = found[0] if found and self._random.random() < 0.7 else self._random.choice(self._directories)
        with opened(path, os.O_RDONLY) as descriptor:
            os.fsync(descriptor)

    def map(self) -> None:
        """Change a file through a shared mapping."""
        if (found := self._file()) is None or not found[1].data:
            return
        path, file = found
        offset = self._random.randrange(len(file.data))
        data = self._data(9000)[: len(file.data) - offset]
        with opened(path, os.O_RDWR) as descriptor, mmap.mmap(descriptor, len(file.data)) as mapping:
            self._same(path, mapping[offset : offset + 9000], file.data[offset : offset + 9000])
            mapping[offset : offset + len(data)] = data
            file.data[offset : offset + len(data)] = data
            if self._random.random() < 0.3:
                mapping.flush()
            if self._random.random() < 0.2:  # a file that goes while its pages are dirty
                os.unlink(path)
                file.names -= 1
                del self._files[path]

    def chmod(self) -> None:
        """Change mode and times."""
        if (found := self._file()) is None:
            return
        path, file = found
        file.mode = self._random.choice((0o600, 0o644, 0o755))
        os.chmod(path, file.mode)
        os.utime(path, ns=(self._random.randrange(1 << 60), 1_000_000_007))
        if os.stat(path).st_mtime_ns != 1_000_000_007:
            raise Wrong(f"{path}: its time was not set")

    def unlink_open(self) -> None:
        """Remove a file's last name and keep it open."""
        if (found := self._file()) is None or found[1].names > 1 or len(self._kept) >= KEPT_OPEN_MAX:
            return
        descriptor = os.open(found[0], os.O_RDWR)
        self._kept.append((descriptor, found[1]))
        self.unlink_path(found[0])

    def unlink_path(self, path: str) -> None:
        """Remove this name."""
        os.unlink(path)
        self._files.pop(path).names -= 1

    def kept(self) -> None:
        """Use an open file without a name; then let it go, or not."""
        if not self._kept:
            return
        descriptor, file = self._random.choice(self._kept)
        data = self._data(5000)
        offset = self._random.randrange(min(len(file.data), FILE_BYTES_MAX) + 1)
        write_all(descriptor, data, offset)
        self._put(file, offset, data)
        self._same("a file without a name", read_all(descriptor), file.data)
        if self._random.random() < 0.5:
            self._kept.remove((descriptor, file))
            os.close(descriptor)

    def refused(self) -> None:
        """Ask for what must be refused."""
        directory = self._random.choice(self._directories)
        with refused_with(errno.ENOENT):
            os.stat(f"{directory}/there-is-none-{self._random.randrange(1000)}")
        with refused_with(errno.ENAMETOOLONG):
            os.mkdir(f"{self._root}/" + "n" * 256)
        with refused_with(errno.EEXIST):
            os.mkdir(directory)
        with refused_with(errno.EISDIR, errno.EPERM):
            os.unlink(directory)
        if (found := self._file()) is not None:
            with refused_with(errno.ENOTDIR):
                os.stat(f"{found[0]}/below")

    def big(self) -> None:
        """Write a big file, read it, remove it."""
        path, length = self._name("b"), self._random.randrange(*BIG_BYTES)
        digest, left = hashlib.sha256(), length
        with opened(path, os.O_CREAT | os.O_EXCL | os.O_RDWR) as descriptor:
            while left:
                piece = (self._data(1 << 20) or b"z")[:left]
                self._pulse()
                write_all(descriptor, piece, length - left)
                digest.update(piece)
                left -= len(piece)
            if hashlib.sha256(read_all(descriptor)).digest() != digest.digest():
                raise Wrong(f"{path}: reads otherwise than it was written")
        os.unlink(path)

    def many(self) -> None:
        """Fill a directory with many entries, list it while it shrinks, empty it."""
        path, count = self._name("n"), self._random.randrange(*MANY)
        os.mkdir(path)
        names = {f"entry-{number:05}" for number in range(count)}
        for name in sorted(names):
            self._pulse()
            with opened(f"{path}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY) as descriptor:
                os.write(descriptor, name.encode())
        if sorted(os.listdir(path)) != sorted(names):
            raise Wrong(f"{path}: {len(os.listdir(path))} entries, expected {count}")
        seen = []
        with os.scandir(path) as entries:
            for entry in entries:
                self._pulse()
                seen.append(entry.name)
                os.unlink(entry.path)
        if sorted(seen) != sorted(names):
            raise Wrong(f"{path}: {len(seen)} entries seen while they were removed, {len(set(seen))} different, expected {count}")
        os.rmdir(path)

    def deep(self) -> None:
        """Go down many directories, and back."""
        path, paths = self._root, []
        for level in range(self._random.randrange(*DEPTH)):
            self._pulse()
            path += f"/deep-{level}"
            os.mkdir(path)
            paths.append(path)
        with opened(path + "/file", os.O_CREAT | os.O_EXCL | os.O_WRONLY) as descriptor:
            os.write(descriptor, b"at the bottom")
        os.unlink(path + "/file")
        for path in reversed(paths):
            self._pulse()
            os.rmdir(path)

    def killed(self) -> None:
        """Kill a process in the middle of its calls: what it wrote may end early, and that is all."""
        path = self._name("k")
        os.mkdir(path)
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            _work_until_killed(path, writer)
        os.close(writer)
        try:
            for _ in range(self._random.randrange(1, 60)):
                self._pulse()
                os.read(reader, 1)
            os.kill(pid, signal.SIGKILL)
        finally:
            os.close(reader)
            _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            raise Wrong(f"{path}: what was to be killed had ended by itself: a call of it failed")
        for name in os.listdir(path):
            with opened(f"{path}/{name}", os.O_RDONLY) as descriptor:
                found = read_all(descriptor)
            self._same(f"{path}/{name}", found, _letter(name)[: len(found)])
            os.unlink(f"{path}/{name}")
        os.rmdir(path)

    # Comparing

    def _put(self, file: File, offset: int, data: bytes) -> None:
        if data:
            file.data.extend(bytes(max(0, offset - len(file.data))))
            file.data[offset : offset + len(data)] = data

    def _entries(self, path: str) -> list[str]:
        start = len(path) + 1
        paths = (*self._files, *self._symlinks, *self._directories)
        return [other[start:] for other in paths if other.rpartition("/")[0] == path and other != self._root]

    def _same(self, path: str, found: bytes, wanted: bytes | bytearray) -> None:
        if found != wanted:
            first = next((at for at, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), -1)
            raise Wrong(f"{path}: {len(found)} bytes, expected {len(wanted)}; the first that differs: {first}")

    def start_over(self) -> None:
        """The image is full: delete everything, which always works, and begin anew."""
        self.close()
        for folder, directories, files in os.walk(self._root, topdown=False):
            self._pulse()
            for name in files:
                os.unlink(f"{folder}/{name}")
            for name in directories:
                path = f"{folder}/{name}"
                (os.unlink if os.path.islink(path) else os.rmdir)(path)
        self._files.clear()
        self._symlinks.clear()
        self._directories = [self._root]

    def close(self) -> None:
        """Let go of what is open."""
        for descriptor, _ in self._kept:
            with suppress(OSError):
                os.close(descriptor)
        self._kept.clear()

    def summary(self) -> dict[str, object]:
        """Return what there should be, for comparing after a remount: as found_in() returns it."""
        return {
            **dict.fromkeys(self._directories, "directory"),
            **{path: f"link {target}" for path, target in self._symlinks.items()},
            **{
                path: _words(bytes(file.data), file.names, file.mode, file.xattrs)
                for path, file in self._files.items()
            },
        }


def _letter(name: str) -> bytes:
    """Return what a process that is going to be killed writes to a file."""
    return name[-5:].encode() * 3000


def _work_until_killed(path: str, writer: int) -> None:
    """Use a directory until a signal comes; say when a round is done. Never returns."""
    number = 0
    try:
        while True:
            name = f"{path}/{number:05}"
            with opened(name, os.O_CREAT | os.O_EXCL | os.O_RDWR) as descriptor:
                write_all(descriptor, _letter(name), 0)
                read_all(descriptor)
            os.link(name, f"{path}/link-{number:05}")
            os.rename(name, f"{path}/renamed-{number:05}")
            os.listdir(path)
            if number % 3 == 0:
                os.unlink(f"{path}/renamed-{number:05}")
                os.unlink(f"{path}/link-{number:05}")
            number += 1
            os.write(writer, b".")
    finally:
        os._exit(1)


def _words(data: bytes, names: int, mode: int, xattrs: dict[str, bytes]) -> str:
    digest = hashlib.sha256(data)
    for name in sorted(xattrs):
        digest.update(name.encode() + xattrs[name])
    return f"file {len(data)} {names} {mode:o} {digest.hexdigest()}"


def found_in(root: str, pulse: Callable[[], None] = lambda: None) -> dict[str, object]:
    """Return what there is."""
    found: dict[str, object] = {root: "directory"}
    for folder, directories, files in os.walk(root):
        for name in directories + files:
            pulse()
            path = f"{folder}/{name}"
            if os.path.islink(path):
                found[path] = f"link {os.readlink(path)}"
            elif name in directories:
                found[path] = "directory"
            else:
                status = os.stat(path)
                xattrs = {name: os.getxattr(path, name) for name in os.listxattr(path)}
                with opened(path, os.O_RDONLY) as descriptor:
                    found[path] = _words(read_all(descriptor), status.st_nlink, stat.S_IMODE(status.st_mode), xattrs)
    return found
