"""Where things lie in an image, and how to damage them: by the format, with the volume closed."""

import random
from collections.abc import Iterator
from pathlib import Path

from razortools.engine import namespace
from razortools.engine.store.device import Device, open_image
from razortools.engine.store.nodes import Ref
from razortools.engine.volume import Volume
from razortools.format.data import DataRecord
from razortools.format.geometry import geometry_of
from razortools.format.keys import HIGHEST_KEY, LOWEST_KEY, Kind, kind_range
from razortools.units import BlockNo
from tests.workload import opened


def flip(image: Path, offset: int, mask: int = 0x40) -> None:
    """Change bits of one byte of the image file."""
    with open(image, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def flip_in(device: Device, block: int, chance: random.Random) -> None:
    """Change one bit somewhere in a block of 4096 bytes."""
    at = block * 4096 + chance.randrange(4096)
    device.write(at, bytes([device.read(at, 1)[0] ^ 1 << chance.randrange(8)]))


def records_of(volume: Volume, path: bytes) -> dict[int, DataRecord]:
    """Return the data records of the file at *path*, by number."""
    ino = namespace.resolve(volume, path)
    items = volume.store.items(*kind_range(ino, Kind.DATA_RECORD))
    return {int.from_bytes(key[10:], "big"): DataRecord.decode(value) for key, value in items}


def first_data_byte(image: Path, path: bytes, record_no: int = 0) -> int:
    """Return the offset in the image of the first stored byte of a file's record."""
    with opened(open_image(image, writable=False), read_only=True) as volume:
        return records_of(volume, path)[record_no].runs(volume.block_bytes)[0][0] * volume.block_bytes


def node_places(image: Path) -> list[tuple[BlockNo, BlockNo]]:
    """Return (first copy, mirror) of each node of the tree."""
    with opened(open_image(image, writable=False), read_only=True) as volume:
        return nodes_of(volume)


def nodes_of(volume: Volume) -> list[tuple[BlockNo, BlockNo]]:
    """Return (first copy, mirror) of each node of an open volume that has no changes."""
    list(volume.store.items(LOWEST_KEY, HIGHEST_KEY))  # every node is in memory now

    def walk(ref: Ref) -> Iterator[tuple[BlockNo, BlockNo]]:
        yield BlockNo(ref.address), BlockNo(ref.mirror)
        if ref.node is not None:
            for child in ref.node.children:
                yield from walk(child)

    return list(walk(volume.store.tree.root))


def superblock_places(image: Path) -> list[int]:
    """Return the offsets of all copies of the superblock."""
    with opened(open_image(image, writable=False), read_only=True) as volume:
        block_bytes = volume.block_bytes
        return [0, block_bytes, *(place * block_bytes for place in geometry_of(volume.store.superblock).backups)]
