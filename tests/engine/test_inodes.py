"""The inode table shows what the tree holds, and counts who holds an inode."""

import errno
import stat

import pytest

from razortools.engine.inodes import InodeTable
from razortools.errors import PosixError
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.journal import Operation
from razortools.format.keys import inode_key
from razortools.units import InodeNo
from tests.engine.volumes import new_volume


def test_an_absent_inode_is_enoent() -> None:
    with pytest.raises(PosixError) as refused:
        new_volume().inodes.get(InodeNo(99))
    assert refused.value.mount_errno == errno.ENOENT


def test_put_writes_into_the_tree_and_get_returns_the_same_object() -> None:
    volume = new_volume()
    inode = volume.inodes.get(ROOT_INODE)
    with volume.operation(Operation.SETATTR, ROOT_INODE):
        inode.uid = 77
        volume.inodes.put(ROOT_INODE, inode)
    assert volume.inodes.get(ROOT_INODE) is inode
    value = volume.store.get(inode_key(ROOT_INODE))
    assert value is not None
    assert Inode.decode(value).uid == 77


def test_an_operation_that_is_taken_back_leaves_no_change_in_memory() -> None:
    volume = new_volume()
    counters = volume.counters.encode()
    with pytest.raises(RuntimeError), volume.operation(Operation.MKDIR, ROOT_INODE) as now_ns:
        ino, inode = volume.inodes.new(stat.S_IFDIR | 0o755, 0, 0, 0, now_ns, None)
        volume.inodes.put(ino, inode)
        volume.inodes.get(ROOT_INODE).size += 1  # changed and not yet put
        raise RuntimeError
    assert volume.inodes.get(ROOT_INODE).size == 0
    assert volume.counters.encode() == counters
    with pytest.raises(PosixError):
        volume.inodes.get(ino)


def test_numbers_are_never_used_twice_and_everything_is_counted() -> None:
    volume = new_volume()
    made = []
    for mode in (stat.S_IFREG, stat.S_IFDIR):
        with volume.operation(Operation.CREATE, ROOT_INODE) as now_ns:
            ino, inode = volume.inodes.new(mode, 1, 2, 0, now_ns, None)
            volume.inodes.put(ino, inode)
            made.append(ino)
    assert (volume.counters.inode_count, volume.counters.directory_count) == (3, 2)
    for ino in made:
        with volume.operation(Operation.UNLINK, ino):
            volume.inodes.remove(ino)
    assert (volume.counters.inode_count, volume.counters.directory_count) == (1, 1)
    with volume.operation(Operation.CREATE, ROOT_INODE) as now_ns:
        again, _ = volume.inodes.new(stat.S_IFREG, 1, 2, 0, now_ns, None)
    assert again > max(made)


def test_a_small_table_still_tells_the_truth() -> None:
    volume = new_volume()
    volume.inodes = InodeTable(volume, capacity=4)
    with volume.operation(Operation.CREATE, ROOT_INODE) as now_ns:
        for number in range(40):
            ino, inode = volume.inodes.new(stat.S_IFREG, number, 0, 0, now_ns, None)
            volume.inodes.put(ino, inode)
    assert [volume.inodes.get(InodeNo(ROOT_INODE + 1 + number)).uid for number in range(40)] == list(range(40))


def test_holds_are_counted_and_survive_forgetting() -> None:
    table = new_volume().inodes
    table.hold(InodeNo(5), 2)
    table.hold(InodeNo(5))
    table.forget_all()
    assert table.held_count == 1
    assert not table.release(InodeNo(5), 2)
    assert table.is_held(InodeNo(5))
    assert table.release(InodeNo(5))
    assert not table.is_held(InodeNo(5))
