"""Random work on a volume, and a picture of everything in it, for tests that compare two moments."""

import random
from dataclasses import dataclass

from razortools.engine import directories, files, namespace, xattrs
from razortools.engine.create import create, plan_create
from razortools.engine.store.device import Device
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.simulated import Faults, SimulatedDevice
from razortools.engine.volume import Volume, open_volume
from razortools.errors import OutOfSpace, PosixError
from razortools.format.inode import ROOT_INODE
from razortools.units import InodeNo


@dataclass(frozen=True, slots=True)
class Seen:
    """One file as a user sees it; hard links of one file share its number."""

    ino: int
    attributes: tuple[int, ...]
    data: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]


def formatted(device: Device, **wishes: object) -> Device:
    """Put an empty filesystem on *device*, the same one each time."""
    wishes = {"uuid": bytes(range(16)), "hash_seed": bytes(16), "made_at_ns": 1} | wishes
    create(device, plan_create(device.size_bytes, **wishes))  # type: ignore[arg-type]
    return device


class Clock:
    """A clock that ticks by one millisecond at each look."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        self.now += 1_000_000
        return self.now


def opened(device: Device, clock: Clock | None = None, **options: object) -> Volume:
    """Open the volume on *device* with a clock of the test's own."""
    return open_volume(device, clock=clock or Clock(), **options)  # type: ignore[arg-type]


def everything(volume: Volume) -> dict[bytes, Seen]:
    """Return all files of *volume* by path."""
    found: dict[bytes, Seen] = {}
    todo = [(b"/", ROOT_INODE)]
    while todo:
        path, ino = todo.pop()
        found[path] = _see(volume, ino)
        if volume.inodes.get(ino).is_directory:
            prefix = path.rstrip(b"/") + b"/"
            todo += [(prefix + name, InodeNo(entry.inode)) for _, name, entry in directories.entries(volume, ino)]
    return found


def _see(volume: Volume, ino: InodeNo) -> Seen:
    inode = volume.inodes.get(ino)
    attributes = (
        inode.mode, inode.uid, inode.gid, inode.link_count, inode.size,
        inode.atime_ns, inode.mtime_ns, inode.ctime_ns, inode.btime_ns, inode.rdev,
    )
    data = b""
    if inode.is_regular:
        data = files.read(volume, ino, 0, inode.size)
        assert len(data) == inode.size
    elif inode.is_symlink:
        data = namespace.readlink(volume, ino)
    pairs = tuple(sorted((name, xattrs.get(volume, ino, name)) for name in xattrs.names(volume, ino)))
    return Seen(ino, attributes, data, pairs)


def crash_at_flush(disk: SimulatedDevice, number: int, seed: int) -> list[MemoryDevice]:
    """Let flush *number* of *disk* fail; return the list that then holds four disks as a power cut may leave it."""
    survivors: list[MemoryDevice] = []
    real_flush = disk.flush

    def flush() -> None:
        if disk.flush_count == number:
            survivors.extend(disk.crash(seed * 100 + state) for state in range(4))
            disk.faults = Faults(fail_flush_at=disk.flush_count)
        real_flush()

    disk.flush = flush  # type: ignore[method-assign]
    return survivors


class Workload:
    """Random operations with a few names, so that they meet. Refusals are part of the game; anything else is a failure."""

    def __init__(self, volume: Volume, seed: int, *, file_bytes_max: int = 300_000, scale: int = 1) -> None:
        self.volume = volume
        self.chance = random.Random(seed)
        self.file_bytes_max = file_bytes_max
        self.scale = scale  # factor for the size of each write
        self.refused = 0
        self.full = 0

    def step(self) -> None:
        """Do one operation."""
        action = self.chance.choice(
            (
                self._create, self._create, self._mkdir, self._fill_file, self._write, self._write, self._write, self._append,
                self._truncate,
                self._unlink, self._rmdir, self._rename, self._rename, self._link, self._symlink, self._setxattr, self._chmod,
            )
        )  # fmt: skip
        try:
            action()
        except PosixError:
            self.refused += 1
        except OutOfSpace:
            self.full += 1

    def fill(self) -> None:
        """Write files that do not compress, ever smaller ones, until not even an empty one can be made."""
        length = self.file_bytes_max
        number = 0
        while length:
            try:
                ino = namespace.create(self.volume, ROOT_INODE, b"fill%d" % number, 0o600, 0, 0)
                number += 1
                files.write(self.volume, ino, 0, self.chance.randbytes(length))
            except OutOfSpace:
                self.full += 1
                length //= 2

    def delete_everything(self) -> None:
        """Empty the volume; this must work however full it is."""
        volume = self.volume
        for path, seen in sorted(everything(volume).items(), key=lambda item: -item[0].count(b"/")):
            if path == b"/":
                continue
            parent, name = self._split(path)
            if seen.attributes[0] & 0o170000 == 0o040000:
                namespace.rmdir(volume, parent, name)
            else:
                namespace.unlink(volume, parent, name)

    def _split(self, path: bytes) -> tuple[InodeNo, bytes]:
        head, _, name = path.rpartition(b"/")
        return namespace.resolve(self.volume, head or b"/"), name

    def _directory(self) -> InodeNo:
        ino = ROOT_INODE
        for _ in range(self.chance.randrange(3)):
            try:
                below = namespace.lookup(self.volume, ino, self._name())
            except PosixError:
                break
            if not self.volume.inodes.get(below).is_directory:
                break
            ino = below
        return ino

    def _name(self) -> bytes:
        name = b"n%d" % self.chance.randrange(8)
        return name if self.chance.random() < 0.9 else name * 60

    def _file(self) -> InodeNo:
        return namespace.lookup(self.volume, self._directory(), self._name())

    def _create(self) -> None:
        namespace.create(self.volume, self._directory(), self._name(), 0o644, 1, 2)

    def _fill_file(self) -> None:
        files.write(self.volume, self._file(), 0, self._bytes(self.chance.choice((10, 1000, 5000, 20000))))

    def _mkdir(self) -> None:
        namespace.mkdir(self.volume, self._directory(), self._name(), 0o755, 1, 2)

    def _write(self) -> None:
        ino = self._file()
        data = self._bytes(self.chance.choice((1, 100, 5000, 50000)))
        files.write(self.volume, ino, self.chance.randrange(self.file_bytes_max), data)

    def _append(self) -> None:
        ino = self._file()
        files.write(self.volume, ino, self.volume.inodes.get(ino).size, self._bytes(300))

    def _truncate(self) -> None:
        files.truncate(self.volume, self._file(), self.chance.randrange(self.file_bytes_max))

    def _unlink(self) -> None:
        namespace.unlink(self.volume, self._directory(), self._name())

    def _rmdir(self) -> None:
        namespace.rmdir(self.volume, self._directory(), self._name())

    def _rename(self) -> None:
        flags = self.chance.choice((0, 0, 0, namespace.RENAME_NOREPLACE, namespace.RENAME_EXCHANGE))
        namespace.rename(self.volume, self._directory(), self._name(), self._directory(), self._name(), flags)

    def _link(self) -> None:
        namespace.link(self.volume, self._file(), self._directory(), self._name())

    def _symlink(self) -> None:
        target = b"/".join(self._name() for _ in range(self.chance.choice((1, 3, 40))))
        namespace.symlink(self.volume, self._directory(), self._name(), target[:4000], 1, 2)

    def _setxattr(self) -> None:
        value = self.chance.randbytes(self.chance.choice((0, 20, 900, 9000)))
        xattrs.set(self.volume, self._file(), b"user.%d" % self.chance.randrange(3), value)

    def _chmod(self) -> None:
        namespace.setattr(self.volume, self._file(), namespace.AttributeChange(mode=0o600 + self.chance.randrange(8)))

    def _bytes(self, length: int) -> bytes:
        kind = self.chance.random()
        length *= self.scale
        if kind < 0.2:
            return bytes(length)
        if kind < 0.5:
            return (b"text %d " % self.chance.randrange(1000) * length)[:length]
        return self.chance.randbytes(length)
