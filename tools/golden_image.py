"""Make the golden images of the disk format: what every later version must still open.

Run it once for a format version, never to mend a test: `python tools/golden_image.py`. It refuses to overwrite what is there.
The images hold every kind of item that the format knows; the manifest beside them tells what a reader must find.
"""

import argparse
import hashlib
import json
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard

from razortools.engine import directories, files, namespace, xattrs
from razortools.engine.create import create, plan_create
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume, open_volume
from razortools.format.inode import ROOT_INODE
from razortools.format.superblock import VERSION_MAJOR, VERSION_MINOR
from razortools.units import KIB, MIB, InodeNo

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
MADE_AT_NS = 1_767_225_600_123_456_789
TEXT = b"".join(b"line %d of a text that compresses well\n" % number for number in range(9000))


def noise(count: int) -> bytes:
    """Return *count* bytes that do not compress, the same ones each time."""
    pieces = (hashlib.blake2b(number.to_bytes(8, "little")).digest() for number in range(count // 64 + 1))
    return b"".join(pieces)[:count]


def fill(volume: Volume) -> None:
    """Put one of everything in."""
    folder = namespace.mkdir(volume, ROOT_INODE, b"folder", 0o2750, 1000, 1001)
    deep = folder
    for number in range(12):
        deep = namespace.mkdir(volume, deep, b"level%d" % number, 0o755, 0, 0)
    for policy in (b"none", b"zstd:3", b"lz4", b"zlib", b"auto"):
        ino = namespace.create(volume, folder, b"text " + policy, 0o640, 1000, 1001)
        xattrs.set(volume, ino, b"user.razorfs.compression", policy)
        files.write(volume, ino, 0, TEXT)
    small = namespace.create(volume, ROOT_INODE, b"small", 0o4755, 0, 0)
    files.write(volume, small, 0, b"kept in the tree\n")
    namespace.create(volume, ROOT_INODE, b"empty", 0o600, 0, 0)
    hard = namespace.create(volume, ROOT_INODE, b"noise", 0o600, 7, 8)
    files.write(volume, hard, 0, noise(70_000))
    namespace.link(volume, hard, deep, b"another name of noise")
    sparse = namespace.create(volume, ROOT_INODE, b"sparse", 0o600, 0, 0)
    files.write(volume, sparse, 5 * MIB + 17, b"behind a hole")
    files.truncate(volume, sparse, 40 * MIB)
    namespace.symlink(volume, ROOT_INODE, b"short link", b"folder/level0", 0, 0)
    namespace.symlink(volume, ROOT_INODE, b"long link", b"x/" * 2000, 0, 0)
    namespace.mknod(volume, ROOT_INODE, b"fifo", stat.S_IFIFO | 0o600, 0, 0, 0)
    namespace.mknod(volume, ROOT_INODE, b"socket", stat.S_IFSOCK | 0o600, 0, 0, 0)
    namespace.mknod(volume, ROOT_INODE, b"device", stat.S_IFCHR | 0o600, 0x0103, 0, 0)
    namespace.create(volume, folder, bytes(range(1, 47)) + bytes(range(48, 256)), 0o600, 0, 0)
    xattrs.set(volume, small, b"user.small", b"value")
    xattrs.set(volume, small, b"user.large", noise(20 * KIB))
    xattrs.set(volume, folder, b"trusted.empty", b"")
    many = namespace.mkdir(volume, ROOT_INODE, b"many", 0o1777, 0, 0)
    for number in range(200):
        namespace.create(volume, many, b"entry %d" % number, 0o600, number, number)


def change(volume: Volume) -> None:
    """Change things, for the image that is left with a journal to replay."""
    namespace.rename(volume, ROOT_INODE, b"small", namespace.lookup(volume, ROOT_INODE, b"many"), b"moved")
    namespace.unlink(volume, ROOT_INODE, b"empty")
    files.write(volume, namespace.lookup(volume, ROOT_INODE, b"noise"), 1000, b"overwritten")
    files.truncate(volume, namespace.lookup(volume, ROOT_INODE, b"sparse"), 6 * MIB)


def describe(volume: Volume) -> dict[str, Any]:
    """Return what a reader must find, by path (bytes as latin-1)."""
    found: dict[str, Any] = {}
    todo: list[tuple[bytes, InodeNo]] = [(b"", ROOT_INODE)]
    while todo:
        path, ino = todo.pop()
        inode = volume.inodes.get(ino)
        if inode.is_directory:
            todo += [(path + b"/" + name, InodeNo(entry.inode)) for _, name, entry in directories.entries(volume, ino)]
        contents = files.read(volume, ino, 0, inode.size) if inode.is_regular else b""
        if inode.is_symlink:
            contents = namespace.readlink(volume, ino)
        found[(path or b"/").decode("latin-1")] = {
            "inode": ino,
            "mode": inode.mode,
            "uid": inode.uid,
            "gid": inode.gid,
            "links": inode.link_count,
            "size": inode.size,
            "times_ns": [inode.atime_ns, inode.mtime_ns, inode.ctime_ns, inode.btime_ns],
            "rdev": inode.rdev,
            "blake2b": hashlib.blake2b(contents, digest_size=16).hexdigest(),
            "xattrs": {
                name.decode(): hashlib.blake2b(xattrs.get(volume, ino, name), digest_size=16).hexdigest()
                for name in sorted(xattrs.names(volume, ino))
            },
        }
    return dict(sorted(found.items()))


def image_of(device: MemoryDevice) -> bytes:
    """Return the whole device."""
    return b"".join(device.read(offset, MIB) for offset in range(0, device.size_bytes, MIB))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the images and the manifests of this format version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    name = f"version-{VERSION_MAJOR}.{VERSION_MINOR}"
    if list(FIXTURES.glob(f"{name}-*")):
        sys.exit(f"{FIXTURES}/{name}-* exist already; a golden image is made once")
    FIXTURES.mkdir(exist_ok=True)
    device = MemoryDevice(4 * MIB)
    uuid, seed = bytes(range(16)), bytes(range(16, 32))
    create(device, plan_create(device.size_bytes, label="golden", made_at_ns=MADE_AT_NS, uuid=uuid, hash_seed=seed))
    ticks = iter(range(MADE_AT_NS, MADE_AT_NS + 10**12, 1001))
    volume = open_volume(device, clock=lambda: next(ticks))
    fill(volume)
    write(f"{name}-clean", volume, device, after_closing=True)
    volume = open_volume(device, clock=lambda: next(ticks))
    change(volume)
    volume.commit()
    write(f"{name}-dirty", volume, device, after_closing=False)


def write(name: str, volume: Volume, device: MemoryDevice, *, after_closing: bool) -> None:
    """Write one image, compressed, and its manifest."""
    manifest = describe(volume)
    if after_closing:
        volume.close()
    (FIXTURES / f"{name}.img.zst").write_bytes(zstandard.ZstdCompressor(level=19).compress(image_of(device)))
    (FIXTURES / f"{name}.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
