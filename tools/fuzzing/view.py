"""What a user sees of an image: every file by path, read by the mount's own engine, with what cannot be read told apart.

It is the second opinion on what razorfsck says. Reading changes nothing: the engine works on an overlay.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from razortools.engine import directories, files, namespace, xattrs
from razortools.engine.store.device import Device
from razortools.engine.volume import Volume, open_volume
from razortools.errors import RazorError
from razortools.format.inode import ROOT_INODE
from razortools.units import MIB, InodeNo
from tests.check.samples import Clock, Copy

READ_BYTES = MIB
BYTES_MAX = 64 * MIB  # of one file: more of a sparse one is not read

T = TypeVar("T")
Shown = int | bytes | tuple[tuple[bytes, bytes], ...] | str  # a str is the reason why it cannot be read


@dataclass(frozen=True, slots=True)
class Seen:
    """One file. Its parts by name: stat's attributes, "data", "xattrs"."""

    ino: int
    parts: dict[str, Shown]

    @property
    def is_readable(self) -> bool:
        """Whether everything of it can be read."""
        return not any(isinstance(part, str) for part in self.parts.values())

    def differences(self, other: "Seen") -> set[str]:
        """Return the names of the parts that differ."""
        return {name for name in self.parts | other.parts if self.parts.get(name) != other.parts.get(name)}


View = dict[bytes, Seen]

ATTRIBUTES = (
    "mode", "uid", "gid", "link_count", "size", "atime_ns", "mtime_ns", "ctime_ns", "btime_ns", "rdev", "generation",
    "record_log2", "compression", "compression_level",
)  # fmt: skip


def view(device: Device) -> View:
    """Return what is in the image on *device*. Raises RazorError if it cannot be opened at all."""
    looking = Copy(device)
    volume = open_volume(looking, read_only=True, clock=Clock())
    try:
        return dict(_walk(volume))
    finally:
        volume.close()


def _walk(volume: Volume) -> Iterator[tuple[bytes, Seen]]:
    todo = [(b"/", ROOT_INODE)]
    passed: set[int] = set()
    while todo:
        path, ino = todo.pop()
        seen = _see(volume, ino)
        yield path, seen
        mode = seen.parts["mode"]
        if not isinstance(mode, int) or mode >> 12 != 4 or ino in passed:
            continue
        passed.add(ino)
        prefix = path.rstrip(b"/") + b"/"
        found = _try(lambda ino=ino: list(directories.entries(volume, ino)))  # type: ignore[misc]
        if isinstance(found, str):
            seen.parts["data"] = found
            continue
        todo += [(prefix + name, InodeNo(entry.inode)) for _, name, entry in found]


def _see(volume: Volume, ino: InodeNo) -> Seen:
    inode = _try(lambda: volume.inodes.get(ino))
    if isinstance(inode, str):
        return Seen(ino, {"mode": inode})
    parts: dict[str, Shown] = {name: getattr(inode, name) for name in ATTRIBUTES}
    if inode.is_regular:
        parts["data"] = _try(lambda: _contents(volume, ino, min(inode.size, BYTES_MAX)))
    elif inode.is_symlink:
        parts["data"] = _try(lambda: namespace.readlink(volume, ino))
    parts["xattrs"] = _try(lambda: tuple(sorted((name, xattrs.get(volume, ino, name)) for name in xattrs.names(volume, ino))))
    return Seen(ino, parts)


def _contents(volume: Volume, ino: InodeNo, size: int) -> bytes:
    return b"".join(files.read(volume, ino, at, min(READ_BYTES, size - at)) for at in range(0, size, READ_BYTES))


def _try(read: Callable[[], T]) -> T | str:
    try:
        return read()
    except (RazorError, OSError) as refused:
        return f"{type(refused).__name__}: {refused}"
