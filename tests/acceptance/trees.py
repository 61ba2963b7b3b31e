"""Trees with everything that must survive, planned as values; made on a host or in a volume, and looked at again.

A plan is made by seed. What must come back is computed from the plan alone, never from what was made.
"""

import os
import random
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from razortools.engine import directories, files, namespace, xattrs
from razortools.engine.volume import Volume
from razortools.format.inode import ROOT_INODE
from razortools.units import KIB, NANOSECONDS, InodeNo

RECORD_BYTES = 128 * KIB  # what mkfs gives new files
EVERY_BYTE = bytes(number for number in range(1, 256) if number != ord("/"))
LARGE_AMONG_FIRST = 1000  # so many files of a tree may be larger than a few blocks; the rest is about number
YEAR_NS = 365 * 86_400 * NANOSECONDS
_WORDS = b"the quick brown fox jumps over the lazy dog and reads the specification once more before it goes to bed ".split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A file to be made. Paths are relative to the top of the tree."""

    path: bytes
    mode: int  # with the type
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    size: int = 0
    pieces: tuple[tuple[int, bytes], ...] = ()  # (offset, bytes) to write; all between them are holes
    target: bytes = b""
    rdev: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    further_names: tuple[bytes, ...] = ()

    @property
    def contents(self) -> bytes:
        """What a reader of the file gets."""
        data = bytearray(self.size)
        for offset, piece in self.pieces:
            data[offset : offset + len(piece)] = piece
        return bytes(data)

    @property
    def stored_bytes_max(self) -> int:
        """The most that the file may take in the image: the records that were written to, and its large attributes."""
        records = {at // RECORD_BYTES for offset, piece in self.pieces for at in range(offset, offset + len(piece), 4096)}
        records |= {(offset + len(piece) - 1) // RECORD_BYTES for offset, piece in self.pieces}
        return len(records) * RECORD_BYTES + sum(8 * KIB + len(value) for _, value in self.xattrs)


@dataclass(frozen=True, slots=True)
class Seen:
    """A name as a user sees it."""

    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    link_count: int
    first_name: bytes  # of the names of this file, the first in the order of bytes
    size: int  # 0 for a directory
    rdev: int
    contents: bytes  # a symbolic link: its target
    xattrs: tuple[tuple[bytes, bytes], ...]


def plan_tree(seed: int, file_count: int) -> list[Planned]:
    """Return *file_count* files of all types in a few directories, each directory before what lies in it."""
    chance = random.Random(seed)
    tree: list[Planned] = []
    folders = [b""]
    taken: set[bytes] = set()
    for number in range(file_count):
        if number % 37 == 0:
            parent = chance.choice([folder for folder in folders if folder.count(b"/") < 5])
            path = _new_path(chance, parent, taken)
            tree.append(_planned(chance, path, stat.S_IFDIR, xattrs=_attributes(chance, b"user.")))
            folders.append(path + b"/")
        else:
            tree.append(_plan_file(chance, number, chance.choice(folders), folders, taken))
    return tree


def expected(tree: list[Planned]) -> dict[bytes, Seen]:
    """Return what a look at the finished tree must show, by path."""
    below = Counter(planned.path.rpartition(b"/")[0] for planned in tree if stat.S_ISDIR(planned.mode))
    found = {}
    for planned in tree:
        names = sorted((planned.path, *planned.further_names))
        links = len(names)
        if stat.S_ISDIR(planned.mode):
            links = 2 + below[planned.path]
        size = len(planned.target) if stat.S_ISLNK(planned.mode) else planned.size
        contents = planned.target or planned.contents
        for name in names:
            found[name] = Seen(
                planned.mode, planned.uid, planned.gid, planned.atime_ns, planned.mtime_ns, links, names[0], size,
                planned.rdev, contents, tuple(sorted(planned.xattrs)),
            )  # fmt: skip
    return found


def differences(found: dict[bytes, Seen], wanted: dict[bytes, Seen]) -> list[str]:
    """Return in words what differs, the first few."""
    told = [f"{path!r} is missing" for path in sorted(wanted.keys() - found.keys())]
    told += [f"{path!r} should not be there" for path in sorted(found.keys() - wanted.keys())]
    for path in sorted(found.keys() & wanted.keys()):
        for field in Seen.__slots__:
            is_value, want_value = getattr(found[path], field), getattr(wanted[path], field)
            if is_value != want_value:
                told.append(f"{path[:60]!r}: {field} is {_short(is_value)}, should be {_short(want_value)}")
    return told[:20]


def make_on_host(top: bytes, tree: list[Planned]) -> None:
    """Make the planned files under *top*, as cp -a would."""
    for planned in tree:
        path = os.path.join(top, planned.path)
        _make_on_host(path, planned)
        for name in planned.further_names:
            os.link(path, os.path.join(top, name), follow_symlinks=False)
        os.chown(path, planned.uid, planned.gid, follow_symlinks=False)
        if not stat.S_ISLNK(planned.mode):
            os.chmod(path, stat.S_IMODE(planned.mode))
        for name, value in planned.xattrs:
            os.setxattr(path, name, value, follow_symlinks=False)
    for planned in reversed(tree):  # a file that comes into a directory moves the directory's time
        os.utime(os.path.join(top, planned.path), ns=(planned.atime_ns, planned.mtime_ns), follow_symlinks=False)


def seen_on_host(top: bytes) -> dict[bytes, Seen]:
    """Return everything under *top*. Each file's attributes are read before its contents, which may move its access time."""
    states = dict(_states_on_host(top, b""))
    first_names: dict[int, bytes] = {}
    for path in sorted(states):
        first_names.setdefault(states[path].st_ino, path)
    found = {}
    for path, state in states.items():
        whole = os.path.join(top, path)
        pairs = tuple(sorted((os.fsencode(name), os.getxattr(whole, name, follow_symlinks=False)) for name in _names(whole)))
        found[path] = Seen(
            state.st_mode, state.st_uid, state.st_gid, state.st_atime_ns, state.st_mtime_ns, state.st_nlink,
            first_names[state.st_ino], 0 if stat.S_ISDIR(state.st_mode) else state.st_size, state.st_rdev,
            _contents_on_host(whole, state.st_mode), pairs,
        )  # fmt: skip
    return found


def make_in_volume(volume: Volume, tree: list[Planned]) -> None:
    """Make the planned files in an empty volume."""
    folders = {b"": ROOT_INODE}
    numbers = []
    for planned in tree:
        parent, _, name = planned.path.rpartition(b"/")
        ino = _make_in_volume(volume, folders[parent], name, planned)
        numbers.append(ino)
        if stat.S_ISDIR(planned.mode):
            folders[planned.path] = ino
        for further in planned.further_names:
            parent, _, name = further.rpartition(b"/")
            namespace.link(volume, ino, folders[parent], name)
        for name, value in planned.xattrs:
            xattrs.set(volume, ino, name, value)
    for planned, ino in zip(reversed(tree), reversed(numbers), strict=True):
        mode = None if stat.S_ISLNK(planned.mode) else planned.mode
        change = namespace.AttributeChange(mode=mode, atime_ns=planned.atime_ns, mtime_ns=planned.mtime_ns)
        namespace.setattr(volume, ino, change)


def seen_in_volume(volume: Volume) -> dict[bytes, Seen]:
    """Return everything in *volume* but its root."""
    numbers: dict[bytes, InodeNo] = {}
    todo = [(b"", ROOT_INODE)]
    while todo:
        folder, ino = todo.pop()
        for _, name, entry in directories.entries(volume, ino):
            numbers[folder + name] = below = InodeNo(entry.inode)
            if volume.inodes.get(below).is_directory:
                todo.append((folder + name + b"/", below))
    first_names: dict[InodeNo, bytes] = {}
    for path in sorted(numbers):
        first_names.setdefault(numbers[path], path)
    return {path: _seen_in_volume(volume, ino, first_names[ino]) for path, ino in numbers.items()}


def _plan_file(chance: random.Random, number: int, folder: bytes, folders: list[bytes], taken: set[bytes]) -> Planned:
    path = _new_path(chance, folder, taken)
    kind = chance.random()
    if kind < 0.06:
        length = chance.choice((1, 20, 300, 4095))
        return _planned(chance, path, stat.S_IFLNK, target=bytes(chance.choices(EVERY_BYTE + b"/", k=length)))
    if kind < 0.08:
        file_type = chance.choice((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))
        is_device = file_type in (stat.S_IFCHR, stat.S_IFBLK)
        return _planned(chance, path, file_type, rdev=os.makedev(chance.randrange(4096), number) if is_device else 0)
    further = tuple(_new_path(chance, chance.choice(folders), taken) for _ in range(chance.choice((0,) * 15 + (1, 4))))
    size, pieces = _plan_contents(chance, large=number < LARGE_AMONG_FIRST)
    pairs = _attributes(chance, b"user.", b"trusted.", b"security.")
    return _planned(chance, path, stat.S_IFREG, size=size, pieces=pieces, xattrs=pairs, further_names=further)


def _planned(chance: random.Random, path: bytes, file_type: int, **rest: object) -> Planned:
    mode = file_type | (0o777 if file_type == stat.S_IFLNK else chance.randrange(0o10000))
    if file_type == stat.S_IFDIR:
        mode &= ~stat.S_ISGID  # it would hand its group down, which is another rule's test
    owner = chance.choice((0, 1, 1000, 65_534, 70_000, (1 << 32) - 2))
    times = [chance.randrange(-100 * YEAR_NS, 200 * YEAR_NS) for _ in range(2)]
    return Planned(
        path=path, mode=mode, uid=owner, gid=chance.randrange(1 << 31), atime_ns=times[0], mtime_ns=times[1], **rest  # type: ignore[arg-type]
    )  # fmt: skip


def _new_path(chance: random.Random, folder: bytes, taken: set[bytes]) -> bytes:
    while True:
        kind = chance.random()
        if kind < 0.02:
            name = bytes(chance.sample(EVERY_BYTE, len(EVERY_BYTE))) + b"x"
        elif kind < 0.3:
            name = bytes(chance.choices(EVERY_BYTE, k=chance.choice((1, 2, 8, 40, 254, 255))))
        else:
            name = b"_".join(chance.choices(_WORDS, k=3)) + b".%d" % chance.randrange(1_000_000)
        path = folder + name
        if path not in taken and name not in (b".", b".."):
            taken.add(path)
            return path


def _plan_contents(chance: random.Random, *, large: bool) -> tuple[int, tuple[tuple[int, bytes], ...]]:
    """Return (size, pieces) of a file: most are small, as most files are."""
    if not large:
        data = _bytes(chance, chance.choice((0, 1, 80, 700, 2049)))
        return len(data), ((0, data),) if data else ()
    kind = chance.random()
    if kind < 0.05:
        return 0, ()
    if kind < 0.9:
        data = _bytes(chance, chance.choice((1, 80, 700, 2048, 2049, 4095, 4096, 4097, 9000)))
    elif kind < 0.96:
        data = _bytes(chance, chance.choice((50_000, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, 300_000)))
    elif kind < 0.97:
        data = bytes(chance.choice((5000, RECORD_BYTES, 200_000)))
    else:
        first = (chance.randrange(3) * RECORD_BYTES + chance.randrange(RECORD_BYTES), _bytes(chance, 3000))
        second = (8 * RECORD_BYTES + chance.randrange(RECORD_BYTES), _bytes(chance, 100))
        return 16 * RECORD_BYTES + chance.randrange(5000), (first, second)
    return len(data), ((0, data),)


def _bytes(chance: random.Random, length: int) -> bytes:
    if chance.random() < 0.3:
        return chance.randbytes(length)
    text = b" ".join(chance.choices(_WORDS, k=50)) + b"%d" % chance.randrange(1000)
    return (text * (length // len(text) + 1))[:length]


def _attributes(chance: random.Random, *spaces: bytes) -> tuple[tuple[bytes, bytes], ...]:
    if chance.random() < 0.9:
        return ()
    count = chance.choice((1, 2, 5))
    lengths = (0, 1, 30, 500, 3000, 20_000)
    return tuple(
        (chance.choice(spaces) + b"attribute.%d" % number, chance.randbytes(chance.choice(lengths))) for number in range(count)
    )


def _make_on_host(path: bytes, planned: Planned) -> None:
    if stat.S_ISDIR(planned.mode):
        os.mkdir(path)
    elif stat.S_ISLNK(planned.mode):
        os.symlink(planned.target, path)
    elif stat.S_ISREG(planned.mode):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            for offset, piece in planned.pieces:
                os.pwrite(descriptor, piece, offset)
            if planned.pieces and sum(map(len, dict(planned.pieces).values())) < planned.size:
                os.ftruncate(descriptor, planned.size)
        finally:
            os.close(descriptor)
    else:
        os.mknod(path, planned.mode, planned.rdev)


def _make_in_volume(volume: Volume, parent: InodeNo, name: bytes, planned: Planned) -> InodeNo:
    mode, uid, gid = planned.mode, planned.uid, planned.gid
    if stat.S_ISDIR(mode):
        return namespace.mkdir(volume, parent, name, mode, uid, gid)
    if stat.S_ISLNK(mode):
        return namespace.symlink(volume, parent, name, planned.target, uid, gid)
    if not stat.S_ISREG(mode):
        return namespace.mknod(volume, parent, name, mode, planned.rdev, uid, gid)
    ino = namespace.create(volume, parent, name, mode, uid, gid)
    for offset, piece in planned.pieces:
        assert files.write(volume, ino, offset, piece) == len(piece)
    if volume.inodes.get(ino).size < planned.size:
        files.truncate(volume, ino, planned.size)
    return ino


def _seen_in_volume(volume: Volume, ino: InodeNo, first_name: bytes) -> Seen:
    inode = volume.inodes.get(ino)
    attributes = (inode.mode, inode.uid, inode.gid, inode.atime_ns, inode.mtime_ns, inode.link_count)
    contents = b""
    if inode.is_regular:
        contents = files.read(volume, ino, 0, inode.size)
    elif inode.is_symlink:
        contents = namespace.readlink(volume, ino)
    size = 0 if inode.is_directory else inode.size
    pairs = tuple(sorted((name, xattrs.get(volume, ino, name)) for name in xattrs.names(volume, ino)))
    return Seen(*attributes, first_name, size, inode.rdev, contents, pairs)


def _states_on_host(top: bytes, folder: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield everything below *folder*; a directory's attributes are read before its entries, which may move its access time."""
    for name in os.listdir(os.path.join(top, folder)):
        state = os.lstat(os.path.join(top, folder + name))
        yield folder + name, state
        if stat.S_ISDIR(state.st_mode):
            yield from _states_on_host(top, folder + name + b"/")


def _contents_on_host(path: bytes, mode: int) -> bytes:
    if stat.S_ISREG(mode):
        with open(path, "rb") as file:
            return file.read()
    return os.readlink(path) if stat.S_ISLNK(mode) else b""


def _names(path: bytes) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:60]}... ({len(text)} characters)"
