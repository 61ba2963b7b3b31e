"""The living filesystem: operations without a transport. bench.engine_share has them as programs mix them."""

import random
from itertools import count

from bench.material import text
from bench.micro.conftest import Measure
from razortools.engine import files, namespace
from razortools.engine.volume import Volume
from razortools.format.inode import ROOT_INODE
from razortools.units import KIB, MIB, InodeNo

HUNDRED = range(100)


def new_file(volume: Volume, size_bytes: int) -> InodeNo:
    """Return a file of text that is stored."""
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    files.write(volume, ino, 0, text()[:size_bytes])
    volume.checkpoint()
    return ino


def test_lookup(measure: Measure, volume: Volume) -> None:
    """Look a name up, one of 2,000 in a directory."""
    names = [b"file %d" % number for number in range(2000)]
    for name in names:
        namespace.create(volume, ROOT_INODE, name, 0o644, 0, 0)
    volume.checkpoint()
    random.Random(1).shuffle(names)
    measure(lambda: [namespace.lookup(volume, ROOT_INODE, name) for name in names], each=len(names))


def test_create(measure: Measure, volume: Volume) -> None:
    """Create a file."""
    numbers = count()

    def create(_: object) -> None:
        for _ in HUNDRED:
            namespace.create(volume, ROOT_INODE, b"file %d" % next(numbers), 0o644, 0, 0)

    measure(create, each=100, fresh=volume.commit)


def test_rename(measure: Measure, volume: Volume) -> None:
    """Rename a file."""
    new_file(volume, 0)
    names = b"file", b"another"

    def rename(_: object) -> None:
        for number in HUNDRED:
            namespace.rename(volume, ROOT_INODE, names[number % 2], ROOT_INODE, names[1 - number % 2])

    measure(rename, each=100, fresh=volume.commit)


def test_read(measure: Measure, volume: Volume) -> None:
    """Read 4 KiB that are in memory."""
    ino = new_file(volume, 128 * KIB)
    measure(lambda: [files.read(volume, ino, 4 * KIB, 4 * KIB) for _ in HUNDRED], each=100)


def test_write_and_store(measure: Measure, volume: Volume) -> None:
    """Write 4 MiB of sources and store them, by 128 KiB."""
    ino, data = new_file(volume, 0), text()[: 4 * MIB]

    def write(_: object) -> None:
        for offset in range(0, len(data), 128 * KIB):
            files.write(volume, ino, offset, data[offset : offset + 128 * KIB])
        volume.commit()

    measure(write, each=32, size_bytes=len(data), fresh=volume.checkpoint)
