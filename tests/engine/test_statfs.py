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
    assert dirty.free_blocks <= before.free_blocks - 240  # 256 blocks; the room kept for the tree changes by a few
    volume.commit()
    flushed = namespace.statfs(volume)
    assert flushed.free_blocks <= before.free_blocks - 240
    assert flushed.inode_count == 2
