"""The inode table shows what the tree holds, and counts who holds an inode."""

import errno
import stat
from collections import Counter

import pytest

from razortools.engine import files, namespace
from razortools.engine.attributes import AttributeChange
from razortools.engine.inodes import InodeTable
from razortools.engine.store.transaction import PART_KEYS
from razortools.engine.volume import Volume
from razortools.errors import PosixError
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.journal import Operation
from razortools.format.keys import inode_key
from razortools.units import InodeNo
from tests.engine.volumes import new_volume, open_again


def test_an_absent_inode_is_enoent() -> None:
    with pytest.raises(PosixError) as refused:
        new_volume().inodes.get(InodeNo(99))
    assert refused.value.mount_errno == errno.ENOENT


def set_uid(volume: Volume, uid: int) -> None:
    with volume.operation(Operation.SETATTR, ROOT_INODE):
        inode = volume.inodes.get(ROOT_INODE)
        inode.uid = uid
        volume.inodes.put(ROOT_INODE, inode)


def set_size(volume: Volume, ino: InodeNo, size: int) -> None:
    inode = volume.inodes.get(ino)
    with volume.operation(Operation.SETATTR, ino):
        inode.size = size
        volume.inodes.put(ino, inode)


def stored_uid(volume: Volume) -> int:
    """Return what the tree says of the root's owner."""
    value = volume.store.get(inode_key(ROOT_INODE))
    assert value is not None
    return Inode.decode(value).uid


def test_put_writes_into_the_tree_and_get_returns_the_same_object() -> None:
    volume = new_volume()
    inode = volume.inodes.get(ROOT_INODE)
    set_uid(volume, 77)
    assert volume.inodes.get(ROOT_INODE) is inode
    assert stored_uid(volume) == 77


def test_what_changes_again_and_again_is_written_into_the_tree_by_the_commit() -> None:
    volume = new_volume()
    volume.inodes = InodeTable(volume, capacity=2)
    for uid in (77, 78, 79):
        set_uid(volume, uid)
    assert (stored_uid(volume), volume.inodes.behind_count) == (77, 1)
    namespace.create(volume, ROOT_INODE, b"pushes the root out of the table", 0o644, 0, 0)
    assert volume.inodes.get(ROOT_INODE).uid == 79
    volume.commit()
    assert (stored_uid(volume), volume.inodes.behind_count) == (79, 0)
    set_uid(volume, 80)  # the first one of the next transaction
    assert stored_uid(volume) == 80


def test_a_new_file_that_is_written_at_once_has_one_entry_in_the_journal() -> None:
    """Its inode had two: one in the part in which it was made, and one at the commit."""
    volume = new_volume()
    made = []
    for number in range(400):  # in several parts
        ino = namespace.create(volume, ROOT_INODE, b"%d" % number, 0o644, 0, 0)
        files.write(volume, ino, 0, b"short")
        made.append(ino)
    volume.commit()
    (transaction,) = volume.store.journal.verify().transactions
    keys = Counter(entry.head.key for entry in transaction.entries)
    twice = [ino for ino in made if keys[inode_key(ino)] > 1]
    assert len(twice) <= 8, "only those that the end of a part comes between"
    assert {volume.inodes.get(ino).size for ino in made} == {5}


def test_a_commit_in_which_a_part_ends_puts_every_inode_that_was_newer() -> None:
    volume = new_volume()
    made = [namespace.create(volume, ROOT_INODE, b"%d" % number, 0o644, 0, 0) for number in range(300)]
    volume.commit()
    for ino in made:
        set_size(volume, ino, 1)
        set_size(volume, ino, 2)  # newer than its item
    fresh: list[InodeNo] = []
    while not volume.store.transaction.parts or len(volume.store.transaction.redo) < PART_KEYS // 2 + 10:
        fresh.append(namespace.create(volume, ROOT_INODE, b"fresh %d" % len(fresh), 0o644, 0, 0))
        set_size(volume, fresh[-1], 3)
    volume.commit()
    again = open_again(volume.store.device)
    assert {again.inodes.get(ino).size for ino in made} == {2}
    assert {again.inodes.get(ino).size for ino in fresh} == {3}


@pytest.mark.parametrize("way", ["commit", "checkpoint", "begin_commit", "begin_checkpoint"])
def test_a_crash_after_a_commit_or_checkpoint_finds_the_last_change(way: str) -> None:
    volume = new_volume()
    for uid in (77, 78):
        set_uid(volume, uid)
    getattr(volume, way)()
    volume.settle()
    assert open_again(volume.store.device).inodes.get(ROOT_INODE).uid == 78


def test_an_abort_drops_what_was_not_written_into_the_tree_either() -> None:
    volume = new_volume()
    set_uid(volume, 76)
    volume.commit()
    for uid in (77, 78):
        set_uid(volume, uid)
    volume.abort()
    assert volume.inodes.get(ROOT_INODE).uid == 76
    volume.commit()
    assert (stored_uid(volume), volume.inodes.behind_count) == (76, 0)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_change_that_is_taken_back_leaves_what_was_put_before_it(before: int) -> None:
    """Whether that was nothing in this transaction, stands in the tree, or is newer than the tree."""
    volume = new_volume()
    for uid in range(1, before + 1):
        set_uid(volume, uid)
    with pytest.raises(RuntimeError), volume.operation(Operation.SETATTR, ROOT_INODE):
        for uid in (88, 89):
            inode = volume.inodes.get(ROOT_INODE)
            inode.uid = uid
            volume.inodes.put(ROOT_INODE, inode)
        raise RuntimeError
    assert volume.inodes.get(ROOT_INODE).uid == before
    set_uid(volume, 99)
    assert (stored_uid(volume) == 99) == (before == 0), "the first change that stands goes into the tree"
    volume.commit()
    assert stored_uid(volume) == 99


def test_a_removal_that_is_taken_back_leaves_what_was_newer_than_the_tree() -> None:
    volume = new_volume()
    ino = namespace.create(volume, ROOT_INODE, b"a", 0o644, 0, 0)
    namespace.setattr(volume, ino, AttributeChange(uid=5))
    with pytest.raises(RuntimeError), volume.operation(Operation.UNLINK, ino):
        volume.inodes.remove(ino)
        raise RuntimeError
    assert volume.inodes.get(ino).uid == 5
    namespace.unlink(volume, ROOT_INODE, b"a")
    volume.commit()
    with pytest.raises(PosixError):
        volume.inodes.get(ino)


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
