"""Pictures: everything that a user can see of a filesystem, as one value to compare. Taken of a volume and of the reference."""

import hashlib
from dataclasses import dataclass

from razortools.debug.crashtest.reference import File, Model
from razortools.engine import directories, files, namespace, xattrs
from razortools.engine.volume import Volume
from razortools.format.inode import ROOT_INODE
from razortools.units import InodeNo

SHOWN_BYTES = 512  # longer contents are kept as a digest


@dataclass(frozen=True, slots=True)
class Seen:
    """One file as its user sees it."""

    mode: int
    uid: int
    gid: int
    link_count: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    rdev: int
    contents: bytes  # data or target; a digest if they are long
    xattrs: tuple[tuple[bytes, bytes], ...]
    names: tuple[bytes, ...]  # all paths that lead to it


Picture = tuple[tuple[bytes, Seen], ...]  # by path, in order


def of_volume(volume: Volume) -> Picture:
    """Return the picture of an open volume. Raises what reading raises."""
    inodes: dict[InodeNo, list[bytes]] = {}
    todo = [(b"/", ROOT_INODE)]
    while todo:
        path, ino = todo.pop()
        inodes.setdefault(ino, []).append(path)
        if volume.inodes.get(ino).is_directory:
            prefix = path.rstrip(b"/") + b"/"
            todo += [(prefix + name, InodeNo(entry.inode)) for _, name, entry in directories.entries(volume, ino)]
    return _sorted({names[0]: _see_inode(volume, ino, tuple(sorted(names))) for ino, names in inodes.items()})


def of_reference(model: Model) -> Picture:
    """Return the picture of the reference."""
    found: dict[int, tuple[File, list[bytes]]] = {}
    todo = [(b"/", model.root)]
    while todo:
        path, file = todo.pop()
        found.setdefault(id(file), (file, []))[1].append(path)
        todo += [(path.rstrip(b"/") + b"/" + name, below) for name, below in file.entries.items()]
    return _sorted({names[0]: _see_file(file, tuple(sorted(names))) for file, names in found.values()})


def difference(found: Picture, expected: Picture) -> list[str]:
    """Return in words where two pictures differ, a line a path."""
    ours, theirs = dict(found), dict(expected)
    lines = []
    for path in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(path), theirs.get(path)
        if here == there:
            continue
        if here is None or there is None:
            lines.append(f"{_text(path)} {'is there, but should not be' if there is None else 'is missing'}")
            continue
        fields = [name for name in Seen.__slots__ if getattr(here, name) != getattr(there, name)]
        told = [f"{name} is {_short(getattr(here, name))}, should be {_short(getattr(there, name))}" for name in fields]
        lines.append(f"{_text(path)}: " + "; ".join(told))
    return lines


def _sorted(by_first_name: dict[bytes, Seen]) -> Picture:
    return tuple(sorted((seen.names[0], seen) for seen in by_first_name.values()))


def _see_inode(volume: Volume, ino: InodeNo, names: tuple[bytes, ...]) -> Seen:
    inode = volume.inodes.get(ino)
    contents = b""
    if inode.is_regular:
        contents = files.read(volume, ino, 0, inode.size)
    elif inode.is_symlink:
        contents = namespace.readlink(volume, ino)
    pairs = [(name, _brief(xattrs.get(volume, ino, name))) for name in xattrs.names(volume, ino)]
    times = (inode.atime_ns, inode.mtime_ns, inode.ctime_ns)
    return Seen(
        inode.mode, inode.uid, inode.gid, inode.link_count, inode.size, *times, inode.rdev,
        _brief(contents), tuple(sorted(pairs)), names,
    )  # fmt: skip


def _see_file(file: File, names: tuple[bytes, ...]) -> Seen:
    pairs = [(name, _brief(value)) for name, value in file.xattrs.items()]
    return Seen(
        file.mode, file.uid, file.gid, file.links, file.size, file.atime, file.mtime, file.ctime, file.rdev,
        _brief(file.data or file.target), tuple(sorted(pairs)), names,
    )  # fmt: skip


def _brief(contents: bytes) -> bytes:
    return contents if len(contents) <= SHOWN_BYTES else b"digest " + hashlib.blake2b(contents, digest_size=16).digest()


def _short(value: object) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes {value[:12].hex()}..." if len(value) > 12 else repr(value)
    return str(value)


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
