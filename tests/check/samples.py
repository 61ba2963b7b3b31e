"""A small healthy filesystem with everything in it that the format knows, for tests that damage it."""

import functools
import os
import random
import stat

from razortools.engine import files, namespace, xattrs
from razortools.engine.create import create, plan_create
from razortools.engine.limits import Limits
from razortools.engine.store.device import Device
from razortools.engine.store.pages import MemoryDevice, OverlayDevice
from razortools.engine.volume import Volume, open_volume
from razortools.format.inode import ROOT_INODE
from razortools.units import KIB, MIB, InodeNo

SIZE_BYTES = 2 * MIB
CROWD = 40  # small files: each leaf has some of them


class Clock:
    """Ticks by a microsecond at each look."""

    def __init__(self) -> None:
        self.now_ns = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        self.now_ns += 1000
        return self.now_ns


class KeptDevice(MemoryDevice):
    """Memory that stays readable after the volume on it was closed."""

    def close(self) -> None:
        """Do nothing."""


class Copy(OverlayDevice):
    """A copy that may be damaged without hurting what it is a copy of."""

    def close(self) -> None:
        """Do nothing."""


def new_device(size_bytes: int = SIZE_BYTES, **wishes: object) -> Device:
    """Return a device with an empty filesystem, the same one each time."""
    device = KeptDevice(size_bytes)
    fixed = {"uuid": bytes(range(16)), "hash_seed": bytes(range(16)), "made_at_ns": Clock().now_ns, "record_bytes": 8 * KIB}
    create(device, plan_create(size_bytes, **(fixed | wishes)))  # type: ignore[arg-type]
    return device


def opened(device: Device) -> Volume:
    """Open the volume on *device* with a clock that always tells the same."""
    return open_volume(device, clock=Clock())


@functools.cache
def _healthy(copies: int, block_bytes: int) -> Device:
    size = max(SIZE_BYTES, 512 * block_bytes)
    return filled(size, metadata_copies=copies, block_bytes=block_bytes, record_bytes=max(8 * KIB, block_bytes))


def filled(size_bytes: int, *, crowd: int = CROWD, **wishes: object) -> Device:
    """Return a device with a filesystem in which there is one of everything, closed cleanly."""
    device = new_device(size_bytes, **wishes)
    with opened(device) as volume:
        fill(volume, crowd)
    return device


def healthy(copies: int = 2, block_bytes: int = 4096) -> Copy:
    """Return a copy of the filled, cleanly closed filesystem."""
    return Copy(_healthy(copies, block_bytes))


@functools.cache
def _unclean(transactions: int, copies: int) -> Device:
    device = Copy(_healthy(copies, 4096))
    volume = opened(device)
    for number in range(transactions):
        ino = namespace.create(volume, ROOT_INODE, b"late%d" % number, 0o644, 0, 0)
        files.write(volume, ino, 0, random.Random(number).randbytes(6000))
        volume.commit()
    return device


def unclean(transactions: int = 1, copies: int = 2) -> Copy:
    """Return a copy of the filesystem as a crash leaves it after so many commits."""
    return Copy(_unclean(transactions, copies))


@functools.cache
def _late_paged() -> Device:
    device = healthy(1)
    with open_volume(device, clock=Clock(), limits=Limits(loose_from=0, late_share=1, record_cache_bytes=0)) as volume:
        many = namespace.lookup(volume, namespace.lookup(volume, ROOT_INODE, b"docs"), b"many")
        for place, page in ((12288, b"a late page "), (12288, b"and a later "), (32768, b"another one ")):
            files.write(volume, many, place, (page * 400)[:4096])
            volume.commit()
    return device


def late_paged() -> Copy:
    """Return a copy of the filesystem in which two records of /docs/many have late pages, one of them the same page twice."""
    return Copy(_late_paged())


def ambiguous() -> tuple[Device, InodeNo]:
    """Return an image and a file in it of 1 MiB, mostly a hole, with two records.

    Whether the first record is a full one or a short one before a hole, nothing tells but the inode.
    """
    device = new_device(record_bytes=32 * KIB)
    with opened(device) as volume:
        sparse = namespace.create(volume, ROOT_INODE, b"sparse", 0o644, 1, 2)
        files.write(volume, sparse, 0, random.Random(1).randbytes(32 * KIB))
        files.write(volume, sparse, 32 * KIB, random.Random(2).randbytes(100))
        files.truncate(volume, sparse, MIB)
    return device, sparse


def fill(volume: Volume, crowd_count: int = CROWD) -> None:
    """Put one of everything into *volume*, and with the *crowd_count* files of a crowd enough for a tree of several nodes."""
    chance = random.Random(4711)
    docs = namespace.mkdir(volume, ROOT_INODE, b"docs", 0o755, 1, 2)
    deep = namespace.mkdir(volume, docs, b"deep", 0o755, 1, 2)
    small = _file(volume, ROOT_INODE, b"small", b"hello world")
    namespace.link(volume, small, docs, b"small too")
    _file(volume, docs, b"one", chance.randbytes(5000))
    _file(volume, docs, b"many", chance.randbytes(60_000))
    for policy in ("zstd:3", "lz4", "zlib:6", "none"):
        ino = namespace.create(volume, deep, b"by " + policy.encode(), 0o644, 1, 2)
        xattrs.set(volume, ino, b"user.razorfs.compression", policy.encode())
        files.write(volume, ino, 0, (b"%s says so; " % policy.encode()) * 3000 + chance.randbytes(4000))
    holes = namespace.create(volume, deep, b"holes", 0o600, 1, 2)
    files.write(volume, holes, 100_000, b"behind the hole")
    files.write(volume, holes, 40_000, chance.randbytes(5000))
    xattrs.set(volume, small, b"user.note", b"short")
    xattrs.set(volume, small, b"user.large", chance.randbytes(9000))
    namespace.symlink(volume, ROOT_INODE, b"link", b"docs/one", 1, 2)
    namespace.symlink(volume, ROOT_INODE, b"long link", b"x" * 3000, 1, 2)
    namespace.mknod(volume, deep, b"pipe", stat.S_IFIFO | 0o644, 0, 1, 2)
    namespace.mknod(volume, deep, b"disk", stat.S_IFBLK | 0o600, os.makedev(8, 1), 1, 2)
    crowd = namespace.mkdir(volume, ROOT_INODE, b"crowd", 0o755, 1, 2)
    for number in range(crowd_count):
        _file(volume, crowd, b"member %d" % number, b"I am number %d. " % number * chance.choice((1, 30)))


def _file(volume: Volume, directory: InodeNo, name: bytes, data: bytes) -> InodeNo:
    ino = namespace.create(volume, directory, name, 0o644, 1, 2)
    files.write(volume, ino, 0, data)
    return ino
