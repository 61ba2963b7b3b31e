"""The kernel forgets tens of thousands of inodes in one message; others must not wait until all of them are gone."""

import errno
import random

import pytest
import trio
import trio.testing

from razortools.engine import directories, files, flush, namespace, orphans, xattrs
from razortools.engine.limits import Limits
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage
from razortools.format.inode import ROOT_INODE
from razortools.service.committer import Committer
from razortools.service.forgetting import PUT_OFF_MAX, TOLD_MAX
from razortools.service.operations import Operations
from razortools.service.options import MountOptions
from razortools.service.settled import Settled
from razortools.service.wire import BATCH_FORGET, FORGET, FORGET_ONE
from razortools.units import InodeNo
from tests.cold import ColdDisk, forget_all
from tests.engine import data_volumes
from tests.engine.volumes import new_volume
from tests.workload import formatted

FORGOTTEN = 4000
AT_ONCE_MAX = 500  # some milliseconds


def test_other_requests_have_their_turns_while_many_inodes_are_forgotten() -> None:
    volume = new_volume(32 << 20)
    inodes = [namespace.create(volume, ROOT_INODE, b"%d" % number, 0o644, 0, 0) for number in range(FORGOTTEN)]
    for ino in inodes:
        volume.inodes.hold(ino)
    options = MountOptions()
    operations = Operations(volume, Committer(volume, options), Settled(volume, lambda ino: None), options)
    message = BATCH_FORGET.pack(len(inodes), 0) + b"".join(FORGET_ONE.pack(ino, 1) for ino in inodes)
    held_at_turns: list[int] = []

    async def others() -> None:
        while volume.inodes.held_count:
            held_at_turns.append(volume.inodes.held_count)
            await trio.lowlevel.checkpoint()

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            answer = operations.forget_many(ROOT_INODE, memoryview(message), (0, 0, 0))
            assert not isinstance(answer, bytes)
            await answer

    trio.run(serve)
    steps = [before - after for before, after in zip(held_at_turns, [*held_at_turns[1:], 0], strict=True)]
    assert max(steps) <= AT_ONCE_MAX


def test_the_kernel_asks_again_how_much_a_file_takes_whose_pages_waited_for_a_commit() -> None:
    volume = data_volumes.new_volume(32 << 20, Limits(loose_from=0, record_cache_bytes=0))
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    files.write(volume, ino, 0, b"a line that shrinks\n" * 20_000)
    volume.checkpoint()
    forgotten: list[InodeNo] = []
    settled, options = Settled(volume, forgotten.append), MountOptions()
    operations = Operations(volume, Committer(volume, options), settled, options)

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(settled.run)
            files.write(volume, ino, 4096, random.Random(1).randbytes(32 << 10))
            assert len(volume.records.loose) == 1
            operations.attributes_of(ino, volume.inodes.get(ino))
            settled.note_commit()  # of a commit that had begun before
            await trio.testing.wait_all_tasks_blocked()
            assert not forgotten
            before = volume.inodes.get(ino).stored_blocks
            volume.commit()
            assert volume.inodes.get(ino).stored_blocks > before
            settled.note_commit()
            await trio.testing.wait_all_tasks_blocked()
            assert forgotten == [ino]
            nursery.cancel_scope.cancel()

    trio.run(scenario)


def test_a_look_up_is_counted_down_once_however_cold_the_caches_are() -> None:
    disk = ColdDisk(32 << 20)
    volume = open_volume(formatted(disk))
    ino = namespace.create(volume, ROOT_INODE, b"large", 0o644, 0, 0)
    files.write(volume, ino, 0, bytes(range(256)) * 4096)
    volume.inodes.hold(ino, 2)
    namespace.unlink(volume, ROOT_INODE, b"large")
    volume.checkpoint()
    options = MountOptions()
    operations = Operations(volume, Committer(volume, options), Settled(volume, lambda ino: None), options)

    async def forget(count: int) -> None:
        forget_all(volume)
        message = memoryview(FORGET.pack(count))
        answer = await operations.fetcher.run(operations.forget, ino, message, (0, 0, 0))
        if not isinstance(answer, bytes):
            await answer

    trio.run(forget, 1)
    assert volume.inodes.is_held(ino)
    trio.run(forget, 1)
    assert not volume.inodes.is_held(ino)
    assert volume.statistics().inode_count == 1, "the file is gone"
    volume.close()


def test_a_look_up_is_counted_down_once_although_deleting_meets_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = ColdDisk(32 << 20)
    volume = open_volume(formatted(disk))
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    volume.inodes.hold(ino)
    namespace.unlink(volume, ROOT_INODE, b"file")
    volume.checkpoint()
    options = MountOptions()
    operations = Operations(volume, Committer(volume, options), Settled(volume, lambda ino: None), options)
    released = []
    true_release = orphans.release

    def release(volume: Volume, ino: InodeNo, count: int, *, finish_now: bool) -> bool:
        released.append(ino)
        return true_release(volume, ino, count, finish_now=finish_now)

    def damaged(volume: Volume, ino: InodeNo) -> bool:
        forget_all(volume)  # the path that the log tells is cold, too
        raise CorruptImage("a leaf is damaged")

    monkeypatch.setattr(orphans, "release", release)
    monkeypatch.setattr(orphans, "finish_step", damaged)

    async def forget_damaged() -> None:
        await operations.fetcher.run(operations.forget, ino, memoryview(FORGET.pack(1)), (0, 0, 0))

    trio.run(forget_damaged)
    assert released == [ino]


def test_a_path_for_the_log_is_never_a_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    options = MountOptions()
    operations = Operations(volume, Committer(volume, options), Settled(volume, lambda ino: None), options)
    monkeypatch.setattr(directories, "paths", lambda volume, ino: [next(iter(()))])  # a directory without a back link
    assert operations.refusal(CorruptImage("damaged"), "read", InodeNo(7)) == errno.EIO


def serving(volume: Volume) -> Operations:
    options = MountOptions()
    return Operations(volume, Committer(volume, options), Settled(volume, lambda ino: None), options)


def unlinked(volume: Volume, count: int, contents: bytes = b"", *, limbo: bool = False) -> list[InodeNo]:
    """Make files that the kernel knows and that have no name any more. Those with an attribute do not go to limbo."""
    made = [namespace.create(volume, ROOT_INODE, b"%d" % number, 0o644, 0, 0) for number in range(count)]
    for number, ino in enumerate(made):
        volume.inodes.hold(ino)
        files.write(volume, ino, 0, contents)
        if limbo:
            flush.flush_all(volume)
        else:
            xattrs.set(volume, ino, b"user.mark", b"1")
        namespace.unlink(volume, ROOT_INODE, b"%d" % number)
    return made


def forget(operations: Operations, ino: InodeNo) -> None:
    assert operations.forget(ino, memoryview(FORGET.pack(1)), (0, 0, 0)) == b""


def test_unlinked_files_are_deleted_together_when_there_is_nothing_else_to_do() -> None:
    volume = new_volume()
    operations = serving(volume)
    for ino in unlinked(volume, 7):
        forget(operations, ino)
    assert operations.tidy(8) is None
    assert volume.counters.inode_count == 8, "not yet"
    assert operations.tidy(7) is None
    assert volume.counters.inode_count == 1
    assert operations.tidy(0) is None


def test_no_more_than_a_few_wait_however_busy_the_mount_is() -> None:
    volume = new_volume()
    operations, standing = serving(volume), []
    for ino in unlinked(volume, TOLD_MAX + PUT_OFF_MAX + 8):
        forget(operations, ino)
        standing.append(sum(not volume.inodes.is_held(ino) for ino in orphans.standing(volume)))
    assert max(standing) == PUT_OFF_MAX
    assert standing[-1] < 8


@pytest.mark.parametrize("limbo", [False, True])
def test_a_file_that_the_kernel_has_looked_up_twice_is_forgotten_twice(limbo: bool) -> None:
    volume = new_volume()
    operations = serving(volume)
    (ino,) = unlinked(volume, 1, b"still here", limbo=limbo)
    volume.inodes.hold(ino)
    forget(operations, ino)
    assert operations.tidy(1) is None
    assert files.read(volume, ino, 0, 100) == b"still here"
    forget(operations, ino)
    assert operations.tidy(1) is None
    assert volume.counters.inode_count == 1


def test_a_large_file_that_was_put_off_goes_in_steps() -> None:
    volume = data_volumes.new_volume(32 << 20)
    operations = serving(volume)
    ino = namespace.create(volume, ROOT_INODE, b"large", 0o644, 0, 0)
    volume.inodes.hold(ino)
    for number in range(1200):
        files.write(volume, ino, number << 17, b"a piece")
    volume.commit()
    namespace.unlink(volume, ROOT_INODE, b"large")
    forget(operations, ino)
    rest = operations.tidy(1)
    assert rest is not None
    assert list(orphans.standing(volume)) == [ino]
    trio.run(rest)
    assert list(orphans.standing(volume)) == []
    assert volume.counters.inode_count == 1


@pytest.mark.parametrize("limbo", [False, True])
def test_a_file_that_somebody_has_got_hold_of_again_is_left_alone(limbo: bool) -> None:
    """By a handle: no name leads to it, but open_by_handle_at(2) asks for it by its number."""
    volume = new_volume()
    operations = serving(volume)
    (ino,) = unlinked(volume, 1, b"still here", limbo=limbo)
    forget(operations, ino)
    operations.lookup(ino, memoryview(b".\0"), (0, 0, 0))
    assert operations.tidy(1) is None
    assert files.read(volume, ino, 0, 100) == b"still here"
    forget(operations, ino)
    assert operations.tidy(1) is None
    assert volume.counters.inode_count == 1


def test_what_is_told_of_a_file_in_limbo_is_counted_in_the_next_pause() -> None:
    volume = new_volume()
    operations = serving(volume)
    made = unlinked(volume, 3, b"text", limbo=True)
    done = volume.store.transaction.operation_count
    for ino in made:
        forget(operations, ino)
    assert list(volume.inodes.limbo.files) == made, "not yet"
    assert operations.tidy(8) is None
    assert (volume.inodes.limbo.files, volume.inodes.held_count, list(orphans.standing(volume))) == ({}, 0, [])
    assert volume.store.transaction.operation_count == done
    assert volume.counters.inode_count == 1


def test_a_mount_that_never_pauses_counts_them_all_the_same() -> None:
    volume = new_volume(64 << 20)
    operations = serving(volume)
    made = unlinked(volume, TOLD_MAX + 5, limbo=True)
    for ino in made:
        forget(operations, ino)
    assert (list(volume.inodes.limbo.files), volume.inodes.held_count) == (made[:TOLD_MAX], TOLD_MAX)


@pytest.mark.parametrize("limbo", [False, True])
def test_a_commit_between_being_told_and_counting_takes_nothing_away(limbo: bool) -> None:
    volume = new_volume()
    operations = serving(volume)
    (ino,) = unlinked(volume, 1, b"text", limbo=limbo)
    forget(operations, ino)
    volume.commit()
    assert list(orphans.standing(volume)) == [ino]
    rest = operations.tidy(1)
    assert rest is not None
    trio.run(rest)
    assert (volume.counters.inode_count, list(orphans.standing(volume))) == (1, [])


@pytest.mark.parametrize("limbo", [False, True])
def test_a_mount_that_turns_read_only_in_between_does_not_try_to_delete(limbo: bool) -> None:
    volume = new_volume()
    operations = serving(volume)
    (ino,) = unlinked(volume, 1, b"text", limbo=limbo)
    forget(operations, ino)
    volume.store.fail("the disk is gone")
    assert operations.tidy(1) is None
    assert volume.inodes.held_count == 0


@pytest.mark.parametrize("limbo", [False, True])
def test_who_finds_no_room_has_what_was_put_off_deleted_first(limbo: bool) -> None:
    volume = new_volume()
    operations = serving(volume)
    for ino in unlinked(volume, 3, limbo=limbo):
        forget(operations, ino)
    trio.run(operations.may_have_room_soon)
    assert volume.counters.inode_count == 1


def test_what_cannot_be_deleted_together_is_tried_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    operations = serving(volume)
    made = unlinked(volume, 3)
    true_step, told = orphans.finish_step, []

    def together(volume: Volume, inodes: list[InodeNo]) -> list[InodeNo]:
        raise CorruptImage("one of them is damaged")

    def step(volume: Volume, ino: InodeNo) -> bool:
        if ino == made[1]:
            raise CorruptImage("this one")
        return true_step(volume, ino)

    monkeypatch.setattr(orphans, "finish_together", together)
    monkeypatch.setattr(orphans, "finish_step", step)
    monkeypatch.setattr(operations, "refusal", lambda failure, what, ino: told.append((str(failure), what, ino)))
    for ino in made:
        forget(operations, ino)
    rest = operations.tidy(1)
    assert rest is not None
    trio.run(rest)
    assert told == [("this one", "forget", made[1])]
    assert list(orphans.standing(volume)) == [made[1]]
