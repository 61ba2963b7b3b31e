"""statfs tells the truth about space, data on their way included."""

import random

from razortools.engine import files, namespace
from razortools.format.inode import ROOT_INODE
from tests.engine.volumes import new_volume


def test_a_new_volume_is_almost_empty() -> None:
    volume = new_volume()
    seen = namespace.statfs(volume)
    assert seen.block_bytes == 4096
    assert 0 < seen.available_blocks <= seen.free_blocks < seen.block_count < volume.store.geometry.block_count
    assert (seen.inode_count, seen.name_bytes_max) == (1, 255)
    assert seen.free_inodes > 0


def test_data_counts_before_and_after_it_is_flushed() -> None:
    volume = new_volume()
    before = namespace.statfs(volume)
    ino = namespace.create(volume, ROOT_INODE, b"f", 0o644, 0, 0)
    files.write(volume, ino, 0, random.Random(4711).randbytes(1 << 20))
    dirty = namespace.statfs(volume)
    assert dirty.free_blocks <= before.free_blocks - 256
    volume.commit()
    flushed = namespace.statfs(volume)
    assert flushed.free_blocks <= before.free_blocks - 256
    assert flushed.inode_count == 2


def test_what_is_not_free_is_what_files_and_tree_take_and_some_of_the_rest_is_kept() -> None:
    """What is kept for deleting grows with the tree; it is free all the same, and was told as if it were used."""
    volume = new_volume()
    geometry = volume.store.geometry
    for number in range(300):
        ino = namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 0, 0)
        files.write(volume, ino, 0, random.Random(number).randbytes(5000))
    volume.checkpoint()
    seen = namespace.statfs(volume)
    nodes = volume.store.tree.node_count * geometry.node_blocks * volume.store.superblock.metadata_copies
    assert seen.block_count - seen.free_blocks == 300 * 2 + nodes
    kept = 2 * volume.store.room.operation_nodes_max() * geometry.node_blocks * volume.store.superblock.metadata_copies
    assert seen.free_blocks - seen.available_blocks == kept > 0
