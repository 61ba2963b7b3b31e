"""Files without a name live while they are held, and go in many small operations, whatever interrupts them."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.engine import files, namespace, orphans, xattrs
from razortools.engine.inodes import NAMELESS_MAX
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage, OutOfSpace, PosixError
from razortools.format.data import DataRecord
from razortools.format.inode import ROOT_INODE
from razortools.format.journal import Operation
from razortools.format.keys import Kind, kind_range, orphan_key, record_key
from razortools.units import InodeNo
from tests.engine.tree_rules import check_promise, check_rules
from tests.engine.volumes import items, new_device, new_volume, open_again

R = ROOT_INODE
BLOCKS_EACH = 1
NOISE = random.Random(1).randbytes(350)  # what does not shrink


def file_of_records(volume: Volume, name: bytes, count: int) -> InodeNo:
    """Make a sparse file of *count* records, without the work of compressing them."""
    ino = namespace.create(volume, R, name, 0o644, 0, 0)
    inode = volume.inodes.get(ino)
    for first in range(0, count, 200):
        step = range(first, min(first + 200, count))
        with volume.operation(Operation.FLUSH_DATA, ino):
            for number in step:
                runs = volume.store.place(BLOCKS_EACH)
                record = DataRecord(runs[0][0], 10, 10, 0, 0, 0, volume.store.generation)
                volume.store.put(record_key(ino, number), record.encode())
            volume.counters.raw_bytes += 10 * len(step)
            volume.counters.data_blocks += BLOCKS_EACH * len(step)
            inode.size = (step[-1] + 1) * inode.record_bytes
            inode.stored_blocks += BLOCKS_EACH * len(step)
            volume.inodes.put(ino, inode)
        volume.checkpoint()
    return ino


def record_count(volume: Volume, ino: InodeNo) -> int:
    return sum(1 for _ in volume.store.items(*kind_range(ino, Kind.DATA_RECORD)))


def exists(volume: Volume, ino: InodeNo) -> bool:
    try:
        volume.inodes.get(ino)
    except PosixError:
        return False
    return True


def test_an_unlinked_file_can_be_read_and_written_until_it_is_released() -> None:
    volume = new_volume()
    ino = namespace.create(volume, R, b"f", 0o644, 0, 0)
    namespace.hold(volume, ino, 2)
    namespace.unlink(volume, R, b"f")
    files.write(volume, ino, 0, b"still here")
    volume.commit()
    assert files.read(volume, ino, 0, 100) == b"still here"
    assert volume.inodes.get(ino).link_count == 0
    namespace.release(volume, ino)
    assert exists(volume, ino)
    namespace.release(volume, ino)
    assert not exists(volume, ino)
    assert volume.store.get(orphan_key(ino)) is None
    check_rules(volume)


def test_a_small_file_that_nobody_holds_goes_with_its_name_in_one_operation() -> None:
    volume = new_volume()
    ino = namespace.create(volume, R, b"f", 0o644, 0, 0)
    files.write(volume, ino, 0, bytes(range(256)) * 1000)
    xattrs.set(volume, ino, b"user.large", bytes(range(256)) * 100)
    volume.commit()
    before = volume.store.transaction.operation_count
    namespace.unlink(volume, R, b"f")
    assert volume.store.transaction.operation_count == before + 1
    assert not exists(volume, ino)
    assert volume.counters.data_blocks == volume.counters.raw_bytes == 0
    check_rules(volume)


def test_data_that_was_never_flushed_is_forgotten_with_the_file() -> None:
    volume = new_volume()
    ino = namespace.create(volume, R, b"f", 0o644, 0, 0)
    files.write(volume, ino, 0, b"x" * 500_000)
    namespace.unlink(volume, R, b"f")
    assert volume.records.dirty_bytes == volume.records.reserved_blocks == 0
    volume.commit()
    check_rules(volume)


def test_a_large_file_goes_in_many_small_operations() -> None:
    volume = new_volume(64 << 20)
    ino = file_of_records(volume, b"large", 3000)
    deleted: list[int] = []
    true_delete = volume.store.delete
    true_cut = volume.store.cut
    true_finish = volume.store.finish
    in_this_operation = 0

    def delete(key: bytes) -> None:
        nonlocal in_this_operation
        in_this_operation += 1
        true_delete(key)

    def cut(low: bytes, high: bytes, *rest: Any) -> list[tuple[bytes, bytes]] | None:
        nonlocal in_this_operation
        gone = true_cut(low, high, *rest)
        in_this_operation += len(gone or ())
        return gone

    def finish() -> None:
        nonlocal in_this_operation
        deleted.append(in_this_operation)
        in_this_operation = 0
        true_finish()

    volume.store.delete, volume.store.cut, volume.store.finish = delete, cut, finish  # type: ignore[method-assign]
    namespace.unlink(volume, R, b"large")
    assert not exists(volume, ino)
    assert sum(deleted) > 3000
    assert max(deleted) <= orphans.ITEMS_AT_ONCE + 8
    assert volume.counters.data_blocks == volume.counters.raw_bytes == 0
    check_rules(volume)


def test_who_must_not_wait_releases_first_and_finishes_step_by_step() -> None:
    volume = new_volume(64 << 20)
    ino = file_of_records(volume, b"large", 1000)
    namespace.hold(volume, ino)
    namespace.unlink(volume, R, b"large")
    assert namespace.release(volume, ino, finish_now=False)
    assert record_count(volume, ino) == 1000
    steps = 1
    while orphans.finish_step(volume, ino):
        check_rules(volume)
        steps += 1
    assert steps >= 4
    assert not exists(volume, ino)


def test_the_next_mount_finishes_what_was_open_when_the_power_went() -> None:
    device = new_device()
    volume = open_again(device)
    ino = namespace.create(volume, R, b"f", 0o644, 0, 0)
    files.write(volume, ino, 0, b"data" * 100_000)
    directory = namespace.mkdir(volume, R, b"d", 0o755, 0, 0)
    for held in (ino, directory):
        namespace.hold(volume, held)
    namespace.unlink(volume, R, b"f")
    namespace.rmdir(volume, R, b"d")
    volume.commit()
    after = open_again(OverlayDevice(device))
    assert not exists(after, ino)
    assert not exists(after, directory)
    assert (after.counters.inode_count, after.counters.data_blocks) == (1, 0)
    check_rules(after)


def held_files(volume: Volume, count: int, *, plain: bool = False) -> list[InodeNo]:
    """Make files that somebody holds, /0 and so on. Unless they are *plain* they do not go to limbo: they have an attribute."""
    made = []
    for number in range(count):
        made.append(namespace.create(volume, R, b"%d" % number, 0o644, 0, 0))
        namespace.hold(volume, made[-1])
        if not plain:
            xattrs.set(volume, made[-1], b"user.mark", b"1")
    return made


def test_a_file_that_is_forgotten_before_the_next_commit_never_stands_in_the_orphan_table() -> None:
    volume = new_volume()
    (ino,) = held_files(volume, 1)
    volume.commit()
    namespace.unlink(volume, R, b"0")
    assert list(orphans.standing(volume)) == [ino]
    namespace.release(volume, ino)
    assert list(orphans.standing(volume)) == []
    assert not exists(volume, ino)
    assert orphan_key(ino) not in volume.store.transaction.redo
    check_rules(volume)


@pytest.mark.parametrize("way", ["commit", "checkpoint", "begin_commit", "begin_checkpoint"])
@pytest.mark.parametrize("count", [1, NAMELESS_MAX, NAMELESS_MAX + 2])
def test_a_commit_puts_all_that_are_still_held_into_the_orphan_table(way: str, count: int) -> None:
    volume = new_volume()
    made = held_files(volume, count)
    for number, ino in enumerate(made):
        namespace.unlink(volume, R, b"%d" % number)
        files.write(volume, ino, 0, b"somebody has it open")
    assert len(volume.inodes.nameless) == min(count, NAMELESS_MAX)
    assert sorted(orphans.standing(volume)) == made
    getattr(volume, way)()
    volume.settle()
    assert volume.inodes.nameless == set()
    assert list(orphans.standing(volume)) == made
    assert all(volume.store.get(orphan_key(ino)) is not None for ino in made)
    after = open_again(OverlayDevice(volume.store.device))
    assert (after.counters.inode_count, list(orphans.standing(after))) == (1, [])
    for ino in made:
        assert files.read(volume, ino, 0, 100) == b"somebody has it open"
        namespace.release(volume, ino)
    assert (volume.counters.inode_count, list(orphans.standing(volume))) == (1, [])
    check_rules(volume)


def test_a_checkpoint_that_makes_room_for_the_deletion_leaves_no_orphan_item(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    (ino,) = held_files(volume, 1)
    namespace.unlink(volume, R, b"0")
    room = iter([False])
    true_has_room = volume._has_room
    monkeypatch.setattr(
        volume, "_has_room", lambda blocks, *, deleting: next(room, None) is None and true_has_room(blocks, deleting=deleting)
    )
    generation = volume.store.generation
    namespace.release(volume, ino)
    assert volume.store.generation == generation + 1, "there was a checkpoint between the decision and the deletion"
    assert (exists(volume, ino), list(orphans.standing(volume))) == (False, [])
    check_rules(volume)


def test_a_commit_reads_nothing_to_put_them_there() -> None:
    volume = new_volume()
    held_files(volume, 2500)  # many leaves: the one of the orphan table is not that of a name
    volume.checkpoint()
    namespace.unlink(volume, R, b"0")
    dirty = volume.store.tree.dirty_count
    volume.inodes.put_behind()
    assert volume.store.tree.dirty_count == dirty, "a leaf that is clean may not be in memory"


# What a file may own when it goes, and whether a commit comes in between; none of them goes to limbo.
BELONGINGS: dict[str, Callable[[Volume, InodeNo], object]] = {
    "a line": lambda volume, ino: (xattrs.set(volume, ino, b"user.mark", b"1"), files.write(volume, ino, 0, b"text")),
    "a record": lambda volume, ino: (files.write(volume, ino, 0, random.Random(2).randbytes(3000)), volume.commit()),
    "records": lambda volume, ino: (files.write(volume, ino, 0, bytes(range(256)) * 2000), volume.commit()),
    "attributes": lambda volume, ino: [xattrs.set(volume, ino, b"user.%d" % number, NOISE) for number in range(3)],
    "a large attribute": lambda volume, ino: xattrs.set(volume, ino, b"user.large", bytes(range(256)) * 100),
    "another name": lambda volume, ino: (
        namespace.link(volume, ino, R, b"%d more" % ino),
        xattrs.set(volume, ino, b"user.mark", b"1"),
    ),
}


def unlinked_files(belongings: list[str]) -> tuple[Volume, list[InodeNo]]:
    """Return a volume with files whose name or names are gone and whose holds are, too, and which are still to be deleted."""
    volume = new_volume(2 << 20)
    made = held_files(volume, len(belongings), plain=True)
    for ino, owned in zip(made, belongings, strict=True):
        BELONGINGS[owned](volume, ino)
    for number, ino in enumerate(made):
        namespace.unlink(volume, R, b"%d" % number)
        if belongings[number] == "another name":
            namespace.unlink(volume, R, b"%d more" % ino)
        assert namespace.release(volume, ino, finish_now=False)
    return volume, made


@settings(deadline=None, max_examples=25)
@given(belongings=st.lists(st.sampled_from(sorted(BELONGINGS)), min_size=1, max_size=orphans.TOGETHER_MAX))
def test_files_that_go_together_leave_what_they_leave_one_by_one(belongings: list[str]) -> None:
    together, made = unlinked_files(belongings)
    left = orphans.finish_together(together, made)
    assert set(left) <= set(made)
    check_rules(together)
    for ino in left:
        orphans.finish(together, ino)
    one_by_one, made = unlinked_files(belongings)
    for ino in made:
        orphans.finish(one_by_one, ino)
    assert items(together) == items(one_by_one)
    assert together.counters == one_by_one.counters
    assert list(orphans.standing(together)) == []
    check_rules(together)


def test_small_files_go_together_in_one_operation() -> None:
    volume, made = unlinked_files(["a record"] * orphans.TOGETHER_MAX)
    before = volume.store.transaction.operation_count
    assert orphans.finish_together(volume, made) == []
    assert volume.store.transaction.operation_count == before + 1
    assert volume.counters.inode_count == 1


def test_no_more_goes_together_than_one_operation_has_room_for() -> None:
    volume, made = unlinked_files(["attributes"] * orphans.TOGETHER_MAX)
    left = orphans.finish_together(volume, made)
    assert len(made) // 2 <= len(left) < len(made), "the attributes of four files fill a node"
    for ino in left:
        orphans.finish(volume, ino)
    assert volume.counters.inode_count == 1
    check_rules(volume)


def test_what_a_checkpoint_has_put_into_the_orphan_table_is_left_to_be_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    volume, made = unlinked_files(["a record", "a line"])
    room = iter([False])
    true_has_room = volume._has_room
    monkeypatch.setattr(
        volume, "_has_room", lambda blocks, *, deleting: next(room, None) is None and true_has_room(blocks, deleting=deleting)
    )
    assert orphans.finish_together(volume, made) == made
    assert orphans.finish_together(volume, made) == made
    for ino in made:
        orphans.finish(volume, ino)
    assert list(orphans.standing(volume)) == []
    check_rules(volume)


def test_if_one_of_them_is_damaged_all_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    volume, made = unlinked_files(["a record", "a record"])
    true_cut, cuts = volume.store.cut, []

    def cut(low: bytes, high: bytes, *rest: Any) -> list[tuple[bytes, bytes]] | None:
        cuts.append(low)
        if len(cuts) == 2:
            raise CorruptImage("a record's item makes no sense")
        return true_cut(low, high, *rest)

    monkeypatch.setattr(volume.store, "cut", cut)
    with pytest.raises(CorruptImage):
        orphans.finish_together(volume, made)
    monkeypatch.undo()
    assert sorted(orphans.standing(volume)) == made
    assert orphans.finish_together(volume, made) == []
    check_rules(volume)


def test_an_abort_gives_a_file_its_name_back() -> None:
    volume = new_volume()
    (ino,) = held_files(volume, 1)
    volume.commit()
    namespace.unlink(volume, R, b"0")
    volume.abort()
    assert (namespace.lookup(volume, R, b"0"), volume.inodes.get(ino).link_count) == (ino, 1)
    volume.commit()
    assert list(orphans.standing(volume)) == []
    check_rules(volume)


def test_a_commit_on_a_full_image_finds_room_for_all_orphans() -> None:
    volume = new_volume(2 << 20)
    made = held_files(volume, NAMELESS_MAX)
    volume.checkpoint()
    with pytest.raises(OutOfSpace):
        for number in range(10_000):
            files.write(volume, made[0], number << 17, bytes(range(256)) * 16)
    for number in range(NAMELESS_MAX):
        namespace.unlink(volume, R, b"%d" % number)
        assert volume.inodes.nameless, "they wait for the commit on a full image too"
    volume.commit()
    assert list(orphans.standing(volume)) == made
    for ino in made:
        namespace.release(volume, ino)
    assert volume.counters.inode_count == 1
    check_rules(volume)


def test_what_is_promised_for_orphans_is_never_less_than_what_the_commit_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    held_files(volume, NAMELESS_MAX)
    volume.checkpoint()
    for number in range(NAMELESS_MAX):
        namespace.unlink(volume, R, b"%d" % number)
    check_promise(volume, monkeypatch)


def test_a_truncation_of_an_unlinked_file_leaves_no_note_in_the_orphan_table(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume(64 << 20)
    ino = file_of_records(volume, b"large", 600)
    namespace.hold(volume, ino)
    namespace.unlink(volume, R, b"large")
    monkeypatch.setattr("razortools.engine.truncation.finish", lambda *_: None)
    files.truncate(volume, ino, 5)
    monkeypatch.undo()
    assert volume.store.get(orphan_key(ino)) is None, "it is nameless, which says all"
    namespace.release(volume, ino)
    assert (exists(volume, ino), list(orphans.standing(volume))) == (False, [])
    check_rules(volume)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_the_next_mount_goes_on_where_deleting_was_interrupted(steps: int) -> None:
    device = new_device(64 << 20)
    volume = open_again(device)
    ino = file_of_records(volume, b"large", 1000)
    namespace.hold(volume, ino)
    namespace.unlink(volume, R, b"large")
    namespace.release(volume, ino, finish_now=False)
    for _ in range(steps):
        orphans.finish_step(volume, ino)
    volume.commit()
    left = record_count(volume, ino)
    assert left == 1000 if steps == 0 else 0 < left < 1000
    after = open_again(OverlayDevice(device))
    assert not exists(after, ino)
    assert after.counters.data_blocks == after.counters.raw_bytes == 0
    check_rules(after)


def test_a_truncation_that_was_interrupted_is_finished_too(monkeypatch: pytest.MonkeyPatch) -> None:
    device = new_device(64 << 20)
    volume = open_again(device)
    ino = file_of_records(volume, b"large", 1000)
    monkeypatch.setattr("razortools.engine.truncation.finish", lambda *_: None)
    files.truncate(volume, ino, 0)
    volume.commit()
    assert record_count(volume, ino) > 0
    monkeypatch.undo()
    after = open_again(OverlayDevice(device))
    assert record_count(after, ino) == 0
    assert after.store.get(orphan_key(ino)) is None
    check_rules(after)


def test_unlinking_a_file_that_is_being_truncated_leaves_no_orphan_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume(64 << 20)
    ino = file_of_records(volume, b"large", 300)
    monkeypatch.setattr("razortools.engine.truncation.finish", lambda *_: None)
    files.truncate(volume, ino, 0)
    monkeypatch.undo()
    namespace.unlink(volume, R, b"large")
    assert not exists(volume, ino)
    assert volume.store.get(orphan_key(ino)) is None
    check_rules(volume)


def test_an_orphan_without_an_inode_does_not_keep_a_volume_from_opening() -> None:
    device = new_device()
    volume = open_again(device)
    with volume.operation(Operation.REPAIR, InodeNo(77)):
        volume.store.put(orphan_key(InodeNo(77)), b"\x01")
    volume.commit()
    after = open_again(OverlayDevice(device))
    assert orphans.finish_orphans(after) == [77]


def test_a_file_whose_contents_are_damaged_can_be_unlinked_and_is_left_to_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume(64 << 20)
    ino = file_of_records(volume, b"large", 600)

    def damaged(*_: object) -> bool:
        raise CorruptImage("a node does not verify")

    monkeypatch.setattr(orphans, "finish_step", damaged)
    namespace.unlink(volume, R, b"large")
    monkeypatch.undo()
    assert volume.inodes.get(ino).link_count == 0
    check_rules(volume)
    orphans.finish_orphans(volume)
    assert not exists(volume, ino)
