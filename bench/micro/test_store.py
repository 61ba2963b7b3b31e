"""The cellar: tree, space, journal, checkpoint."""

import itertools
import random

from bench.micro.conftest import Measure
from razortools.engine import namespace
from razortools.engine.volume import Volume
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import inode_key
from razortools.units import InodeNo

COUNT = 2000


def filled(volume: Volume) -> list[InodeNo]:
    """Make files in a directory, and return their inodes in an order that follows from nothing."""
    inodes = [namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 0, 0) for number in range(COUNT)]
    volume.checkpoint()
    random.Random(1).shuffle(inodes)
    return inodes


def test_get(measure: Measure, volume: Volume) -> None:
    """Find an item in the tree."""
    keys = [inode_key(ino) for ino in filled(volume)]
    tree = volume.store.tree
    measure(lambda: [tree.get(key) for key in keys], each=COUNT)


def test_put(measure: Measure, volume: Volume) -> None:
    """Put an item into a dirty leaf of the tree."""
    tree = volume.store.tree
    items = [(key, tree.get(key)) for key in map(inode_key, filled(volume))]
    measure(lambda: [tree.put(key, value) for key, value in items if value], each=COUNT)


def test_allocate(measure: Measure, volume: Volume) -> None:
    """Allocate a run of 8 blocks and give it back."""
    maps = volume.store.maps

    def both() -> None:
        for start, count in maps.allocate(8):
            maps.free_now(start, count)

    measure(both)


def test_commit(measure: Measure, volume: Volume) -> None:
    """Commit the making of 100 files, by file."""
    numbers = itertools.count()

    def make() -> None:
        for number in itertools.islice(numbers, 100):
            namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 0, 0)

    measure(lambda _: volume.commit(), each=100, fresh=make)


def test_checkpoint(measure: Measure, volume: Volume) -> None:
    """Checkpoint after changes of 100 files of 2,000, by file."""
    inodes = filled(volume)

    def change() -> None:
        for ino in inodes[:100]:
            namespace.link(volume, ino, ROOT_INODE, b"another %d %d" % (ino, volume.store.generation))
        volume.commit()

    measure(lambda _: volume.checkpoint(), each=100, fresh=change)
