"""Make fixtures/damaged.img.zst: a small image after a bad day of its disk, for drills and for the rescue in docs/FSCK.md.

    python -m tools.damaged_image

The same bytes each time. What is wrong with it: the second superblock was overwritten; a node of the tree is lost, both copies; a
photograph has lost a sector; in a diary a single bit has flipped; and the link count of a letter is too high.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import zstandard

from razortools.check.tree import TreeIndex
from razortools.engine import files, namespace
from razortools.engine.create import Features, create, plan_create
from razortools.engine.store.device import Device
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume, open_volume
from razortools.format.data import DataRecord
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Kind
from razortools.format.superblock import Compat
from razortools.units import KIB, MIB, InodeNo
from tests.check.editing import edit_inode, find_inode, first_item, flip, indexed

IMAGE = Path(__file__).resolve().parent.parent / "fixtures" / "damaged.img.zst"
IMAGE_BYTES = 8 * MIB
MADE_AT_NS = 1_767_225_600_000_000_000
LETTERS = 240


def noise(name: str, count: int) -> bytes:
    """Return *count* bytes that do not compress, the same ones for the same name."""
    pieces = (hashlib.blake2b(f"{name} {number}".encode()).digest() for number in range(count // 64 + 1))
    return b"".join(pieces)[:count]


def fill(volume: Volume) -> None:
    """Put a home directory in."""
    home = namespace.mkdir(volume, ROOT_INODE, b"home", 0o755, 1000, 1000)
    letters = namespace.mkdir(volume, home, b"letters", 0o700, 1000, 1000)
    for number in range(LETTERS):
        text = b"Dear friend,\nthis is letter number %d of a long correspondence.\n" % number
        _file(volume, letters, b"letter %03d.txt" % number, text + noise(f"letter {number}", 40).hex().encode())
    days = (b"Day %d: " % number + noise(f"day {number}", 20).hex().encode() + b", and so on and on.\n" for number in range(900))
    _file(volume, home, b"diary.txt", b"".join(days))
    photos = namespace.mkdir(volume, home, b"photos", 0o755, 1000, 1000)
    for name in ("beach", "birthday", "mountains"):
        _file(volume, photos, name.encode() + b".jpg", noise(name, 48 * KIB))


def _file(volume: Volume, directory: InodeNo, name: bytes, data: bytes) -> None:
    files.write(volume, namespace.create(volume, directory, name, 0o644, 1000, 1000), 0, data)


def made() -> MemoryDevice:
    """Return the image as it was before."""
    device = MemoryDevice(IMAGE_BYTES)
    fixed = {"uuid": bytes(range(16)), "hash_seed": bytes(range(16)), "made_at_ns": MADE_AT_NS, "label": "archive"}
    features = Features(compat=Compat(0))  # an entry of the admin history tells the version, and the bytes are to stay the same
    create(device, plan_create(IMAGE_BYTES, record_bytes=16 * KIB, features=features, **fixed))  # type: ignore[arg-type]
    with open_volume(device, clock=lambda: MADE_AT_NS) as volume:
        fill(volume)
    return device


def damage(device: Device) -> None:
    """Do to the image what the disk did."""
    edit_inode(device, find_inode(device, "/home/letters/letter 001.txt"), link_count=7)
    tree = indexed(device)
    block_bytes = tree.image.block_bytes
    for address in _copies(tree, tree.leaf_count // 2 + 1):
        device.write(address * block_bytes + 900, noise("a bad sector", 512))
    device.write(_data(device, "/home/photos/beach.jpg") + 1024, noise("another one", 512))
    flip(device, _data(device, "/home/diary.txt") + 5000)
    device.write(block_bytes, bytes(512))


def _copies(tree: TreeIndex, leaf: int) -> list[int]:
    """Return the blocks at which the copies of a leaf begin."""
    at = list(tree.addresses).index(tree.leaf_addresses[leaf])
    return [tree.addresses[at], tree.mirrors[at]]


def _data(device: Device, path: str) -> int:
    """Return the byte at which the first record of a file begins."""
    value = first_item(device, find_inode(device, path), Kind.DATA_RECORD)[1]
    return DataRecord.decode(value).address * indexed(device).image.block_bytes


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the fixture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    device = made()
    damage(device)
    IMAGE.write_bytes(zstandard.ZstdCompressor(level=19).compress(device.read(0, device.size_bytes)))


if __name__ == "__main__":
    main()
