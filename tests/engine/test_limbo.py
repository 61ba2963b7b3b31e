"""Small files that lose their last name while they are held: gone from the tree, and back as they were if anybody asks."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.engine import directories, files, limbo, namespace, orphans, xattrs
from razortools.engine.attributes import AttributeChange
from razortools.engine.limbo import LIMBO_MAX
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.volume import Volume
from razortools.errors import OutOfSpace, PosixError
from razortools.format.directory import BackLink
from razortools.format.inode import ROOT_INODE
from razortools.format.journal import Operation
from razortools.format.keys import back_link_key, inode_key, object_of, orphan_key
from razortools.units import KIB, MIB, InodeNo
from tests.engine.tree_rules import check_promise, check_rules
from tests.engine.volumes import clock_of, items, new_device, new_volume, open_again

R = ROOT_INODE
LINE = b"a line that somebody may still want to read"
NOISE = random.Random(7).randbytes(3000)  # what needs a block


def held_file(volume: Volume, name: bytes, contents: bytes = LINE) -> InodeNo:
    """Make a file that somebody holds, stored with all before it."""
    ino = namespace.create(volume, R, name, 0o644, 0, 0)
    files.write(volume, ino, 0, contents)
    namespace.hold(volume, ino)
    volume.commit()
    return ino


def unlinked(volume: Volume, name: bytes = b"f", contents: bytes = LINE) -> InodeNo:
    """Make a file that is in limbo."""
    ino = held_file(volume, name, contents)
    namespace.unlink(volume, R, name)
    assert ino in volume.inodes.limbo.files
    return ino


def in_tree(volume: Volume, ino: InodeNo) -> bool:
    return any(object_of(key) == ino for key, _ in volume.store.items(inode_key(ino), inode_key(InodeNo(ino + 1))))


def test_nothing_of_it_is_left_in_the_tree_and_forgetting_it_is_no_operation() -> None:
    volume = new_volume()
    before, counters = items(volume), volume.counters.inode_count
    ino = unlinked(volume)
    assert not in_tree(volume, ino)
    assert list(orphans.standing(volume)) == [ino]
    done = volume.store.transaction.operation_count
    assert namespace.release(volume, ino, finish_now=False) is False, "nothing is left to the caller"
    assert (volume.store.transaction.operation_count, volume.inodes.limbo.files) == (done, {})
    assert (volume.counters.inode_count, list(orphans.standing(volume))) == (counters, [])
    assert items(volume).keys() == before.keys()
    check_rules(volume)


def test_it_counts_as_a_file_until_it_is_forgotten() -> None:
    """As it does on other filesystems. The counters, which a commit stores, do not count what stands in no tree."""
    volume = new_volume()
    ino = unlinked(volume)
    assert namespace.statfs(volume).inode_count == volume.counters.inode_count + 1 == 2
    volume.inodes.get(ino)
    assert namespace.statfs(volume).inode_count == volume.counters.inode_count == 2
    namespace.release(volume, ino)
    assert namespace.statfs(volume).inode_count == 1


# What a file may have, and whether it goes to limbo with it. It is stored, but for what is said to be dirty.
STATES: dict[str, tuple[Callable[[Volume, InodeNo], object], bool]] = {
    "nothing": (lambda volume, ino: None, True),
    "a line": (lambda volume, ino: (files.write(volume, ino, 0, LINE), volume.commit()), True),
    "a dirty line": (lambda volume, ino: files.write(volume, ino, 0, LINE), False),
    "a record": (lambda volume, ino: (files.write(volume, ino, 0, NOISE), volume.commit()), False),
    "a hole": (lambda volume, ino: files.truncate(volume, ino, 1 << 30), True),
    "an attribute": (lambda volume, ino: xattrs.set(volume, ino, b"user.mark", b"1"), False),
    "another name": (lambda volume, ino: namespace.link(volume, ino, R, b"other"), False),
}


@pytest.mark.parametrize("state", STATES)
def test_what_owns_blocks_or_attributes_or_has_dirty_data_waits_in_the_tree(state: str) -> None:
    volume = new_volume()
    make, goes = STATES[state]
    ino = namespace.create(volume, R, b"f", 0o644, 0, 0)
    namespace.hold(volume, ino)
    make(volume, ino)
    size = volume.inodes.get(ino).size
    namespace.unlink(volume, R, b"f")
    assert (ino in volume.inodes.limbo.files) == goes
    assert volume.inodes.get(ino).size == size
    check_rules(volume)
    namespace.release(volume, ino)
    if state != "another name":
        assert (volume.counters.inode_count, list(orphans.standing(volume))) == (1, [])
    check_rules(volume)


def refused(request: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(PosixError):
        request(*arguments)


# What somebody who has it open may ask for.
ASKING: dict[str, Callable[[Volume, InodeNo], object]] = {
    "stat": lambda volume, ino: volume.inodes.get(ino),
    "look": lambda volume, ino: volume.inodes.peek(ino),
    "read": lambda volume, ino: files.read(volume, ino, 0, 1000),
    "write": lambda volume, ino: files.write(volume, ino, len(LINE), b", and more"),
    "chmod": lambda volume, ino: namespace.setattr(volume, ino, AttributeChange(mode=0o600)),
    "truncate": lambda volume, ino: files.truncate(volume, ino, 6),
    "setxattr": lambda volume, ino: xattrs.set(volume, ino, b"user.mark", b"1"),
    "link": lambda volume, ino: refused(namespace.link, volume, ino, R, b"new"),
}


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("asking", ASKING)
def test_who_asks_for_it_finds_it_as_it_was(asking: str, commits: bool) -> None:
    volume = new_volume()
    ino = held_file(volume, b"f")
    clock_of(volume).now += 5
    namespace.unlink(volume, R, b"f")
    assert ino in volume.inodes.limbo.files
    if commits:
        volume.commit()
    ASKING[asking](volume, ino)
    assert ino not in volume.inodes.limbo.files
    inode = volume.inodes.get(ino)
    mode = 0o600 if asking == "chmod" else 0o644
    assert (inode.link_count, inode.ctime_ns, inode.mode & 0o777) == (0, clock_of(volume).now, mode)
    expected = {"write": LINE + b", and more", "truncate": LINE[:6]}.get(asking, LINE)
    assert files.read(volume, ino, 0, 1000) == expected
    check_rules(volume)
    volume.commit()
    volume.records.clean.clear()
    volume.inodes.forget_copies()
    assert files.read(volume, ino, 0, 1000) == expected
    namespace.release(volume, ino)
    assert (volume.counters.inode_count, list(orphans.standing(volume))) == (1, [])
    check_rules(volume)


@pytest.mark.parametrize("way", ["commit", "checkpoint", "begin_commit", "begin_checkpoint"])
@pytest.mark.parametrize("count", [1, LIMBO_MAX, LIMBO_MAX + 2])
def test_a_commit_puts_all_of_them_among_the_orphans(way: str, count: int) -> None:
    volume = new_volume(64 * MIB)
    made = [held_file(volume, b"%d" % number, LINE + b"%d" % number) for number in range(count)]
    for number in range(count):
        namespace.unlink(volume, R, b"%d" % number)
    assert len(volume.inodes.limbo.files) == min(count, LIMBO_MAX)
    getattr(volume, way)()
    volume.settle()
    assert (volume.inodes.limbo.files, volume.inodes.limbo.journal_bytes) == ({}, 0)
    assert all(in_tree(volume, ino) and volume.store.get(orphan_key(ino)) is not None for ino in made)
    after = open_again(OverlayDevice(volume.store.device))
    assert (after.counters.inode_count, list(orphans.standing(after))) == (1, []), "the next mount deletes them"
    for number, ino in enumerate(made):
        assert files.read(volume, ino, 0, 1000) == LINE + b"%d" % number
        namespace.release(volume, ino)
    assert (volume.counters.inode_count, list(orphans.standing(volume))) == (1, [])
    check_rules(volume)


def test_one_that_was_forgotten_before_the_commit_leaves_no_trace_in_the_journal_but_its_end() -> None:
    volume = new_volume()
    ino = unlinked(volume)
    namespace.release(volume, ino)
    assert orphan_key(ino) not in volume.store.transaction.redo
    volume.commit()
    after = open_again(OverlayDevice(volume.store.device))
    assert (after.counters.inode_count, list(orphans.standing(after))) == (1, [])
    check_rules(after)


def test_one_that_came_and_went_within_a_transaction_is_no_change_at_all() -> None:
    volume = new_volume()
    volume.commit()
    ino = namespace.create(volume, R, b"f", 0o644, 0, 0)
    namespace.hold(volume, ino)
    namespace.unlink(volume, R, b"f")
    namespace.release(volume, ino)
    assert {key for key, value in volume.store.transaction.redo.items() if value is not None} <= {inode_key(R)}
    volume.commit()
    check_rules(open_again(OverlayDevice(volume.store.device)))


def test_a_directory_goes_there_too() -> None:
    volume = new_volume()
    ino = namespace.mkdir(volume, R, b"d", 0o755, 0, 0)
    namespace.hold(volume, ino)
    namespace.rmdir(volume, R, b"d")
    assert ino in volume.inodes.limbo.files
    assert (volume.counters.inode_count, volume.counters.directory_count) == (1, 1)
    assert list(directories.entries(volume, ino)) == []
    with pytest.raises(PosixError):
        namespace.create(volume, ino, b"new", 0o644, 0, 0)
    with pytest.raises(PosixError):
        namespace.lookup(volume, ino, b"..")
    assert (volume.counters.inode_count, volume.counters.directory_count) == (2, 2), "somebody has asked"
    check_rules(volume)
    namespace.release(volume, ino)
    assert (volume.counters.inode_count, volume.counters.directory_count) == (1, 1)
    check_rules(volume)


@pytest.mark.parametrize("is_directory", [False, True])
def test_what_a_rename_replaces_goes_there_too(is_directory: bool) -> None:
    volume = new_volume()
    make = namespace.mkdir if is_directory else namespace.create
    moved, replaced = make(volume, R, b"moved", 0o755, 0, 0), make(volume, R, b"replaced", 0o755, 0, 0)
    namespace.hold(volume, replaced)
    volume.commit()
    namespace.rename(volume, R, b"moved", R, b"replaced")
    assert list(volume.inodes.limbo.files) == [replaced]
    assert namespace.lookup(volume, R, b"replaced") == moved
    check_rules(volume)
    namespace.release(volume, replaced)
    check_rules(volume)


def test_a_failed_unlink_leaves_the_file_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    ino = held_file(volume, b"f")
    before = items(volume)
    true_take_in = limbo.Limbo.take_in

    def take_in(self: limbo.Limbo, *file: object) -> None:
        true_take_in(self, *file)  # type: ignore[arg-type]
        raise RuntimeError

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(limbo.Limbo, "take_in", take_in)
        namespace.unlink(volume, R, b"f")
    assert (volume.inodes.limbo.files, volume.inodes.limbo.journal_bytes) == ({}, 0)
    assert (items(volume), volume.inodes.get(ino).link_count) == (before, 1)
    check_rules(volume)


def test_what_a_failed_operation_had_put_back_stands_there_again() -> None:
    volume = new_volume()
    ino = unlinked(volume)
    journal_bytes = volume.inodes.limbo.journal_bytes
    with pytest.raises(RuntimeError), volume.operation(Operation.SETATTR, ino):
        volume.inodes.get(ino)
        assert in_tree(volume, ino)
        raise RuntimeError
    assert not in_tree(volume, ino)
    assert (list(volume.inodes.limbo.files), volume.inodes.limbo.journal_bytes) == ([ino], journal_bytes)
    assert files.read(volume, ino, 0, 1000) == LINE
    check_rules(volume)


def test_an_abort_gives_it_its_name_back() -> None:
    volume = new_volume()
    ino = unlinked(volume)
    volume.abort()
    assert (namespace.lookup(volume, R, b"f"), volume.inodes.get(ino).link_count) == (ino, 1)
    assert (volume.inodes.limbo.files, files.read(volume, ino, 0, 1000)) == ({}, LINE)
    check_rules(volume)


def test_it_can_be_read_after_the_device_has_failed() -> None:
    volume = new_volume()
    ino = unlinked(volume)
    volume.records.clean.clear()
    volume.store.fail("the disk is gone")
    assert (volume.inodes.get(ino).link_count, files.read(volume, ino, 0, 1000)) == (0, LINE)
    namespace.release(volume, ino)


@pytest.mark.parametrize("step", [50, 1000])
def test_a_commit_reads_nothing_to_put_them_back(step: int) -> None:
    volume = new_volume()
    made = [held_file(volume, b"%d" % number) for number in range(1000)]
    volume.checkpoint()
    for number in range(0, 1000, step):
        namespace.unlink(volume, R, b"%d" % number)
    nodes, dirty = volume.store.tree.node_count, volume.store.tree.dirty_count
    volume.inodes.put_behind()
    assert volume.store.tree.dirty_count - dirty == volume.store.tree.node_count - nodes, "a clean leaf may not be in memory"
    assert list(orphans.standing(volume)) == made[::step]


def test_the_end_of_the_mount_lets_them_go() -> None:
    volume = new_volume()
    ino = unlinked(volume)
    volume.inodes.release(ino)
    assert namespace.finish_orphans(volume) == []
    assert (volume.inodes.limbo.files, volume.counters.inode_count, list(orphans.standing(volume))) == ({}, 1, [])
    check_rules(volume)


@pytest.mark.parametrize("spread", [1, 7])
def test_what_is_promised_is_never_less_than_what_putting_them_back_needs(monkeypatch: pytest.MonkeyPatch, spread: int) -> None:
    volume = new_volume(512 * MIB)
    for number in range(LIMBO_MAX * spread):
        held_file(volume, b"%d" % number, random.Random(number).randbytes(1900))
    volume.checkpoint()
    for number in range(0, LIMBO_MAX * spread, spread):
        namespace.unlink(volume, R, b"%d" % number)
    assert len(volume.inodes.limbo.files) > LIMBO_MAX * 3 // 4, "all but those that lie in two leaves"
    check_promise(volume, monkeypatch)


def test_a_commit_on_a_full_image_finds_room_for_all_of_them() -> None:
    volume = new_volume(2 * MIB)
    made = [held_file(volume, b"%d" % number, LINE * 20) for number in range(LIMBO_MAX)]
    full = namespace.create(volume, R, b"full", 0o644, 0, 0)
    with pytest.raises(OutOfSpace):
        for number in range(10_000):
            files.write(volume, full, number << 17, random.Random(number).randbytes(4096))
    for number in range(LIMBO_MAX):
        namespace.unlink(volume, R, b"%d" % number)
    assert volume.inodes.limbo.files
    volume.commit()
    assert list(orphans.standing(volume)) == made
    for ino in made:
        assert files.read(volume, ino, 0, 2000) == LINE * 20
        namespace.release(volume, ino)
    assert volume.counters.inode_count == 2
    check_rules(volume)


def test_a_small_journal_takes_few_promises() -> None:
    volume = new_volume(2 * MIB)
    ring_bytes = volume.store.journal.ring_bytes
    for number in range(LIMBO_MAX):
        held_file(volume, b"%d" % number, random.Random(number).randbytes(300))
    promised = []
    for number in range(LIMBO_MAX):
        namespace.unlink(volume, R, b"%d" % number)
        promised.append(volume.inodes.limbo.journal_bytes)
    assert 0 < max(promised) < ring_bytes // limbo.JOURNAL_SHARE + KIB
    volume.commit()
    check_rules(volume)


def test_a_link_that_the_inode_does_not_count_is_left_where_it_is() -> None:
    """Damage: the inode counts one name and has two. The one that is left still leads back to its directory, for razorfsck."""
    volume = new_volume()
    ino = held_file(volume, b"f")
    namespace.link(volume, ino, R, b"second")
    inode = volume.inodes.get(ino)
    inode.link_count = 1
    with volume.operation(Operation.SETATTR, ino):
        volume.inodes.put(ino, inode)
    left = volume.store.get(back_link_key(ino, 1))
    assert left is not None
    namespace.unlink(volume, R, b"f")
    assert (volume.store.get(back_link_key(ino, 0)), volume.store.get(back_link_key(ino, 1))) == (None, left)
    assert BackLink.decode(left).parent == R
    assert files.read(volume, ino, 0, 1000) == LINE


STEPS = ["unlink", "release", "ask", "write", "commit", "create", "fail", "rename"]


def test_a_back_link_with_another_number_is_left_too() -> None:
    """Damage: the one that the entry names is missing."""
    volume = new_volume()
    ino = held_file(volume, b"f")
    left = volume.store.get(back_link_key(ino, 0))
    assert left is not None
    with volume.operation(Operation.SETATTR, ino):
        volume.store.delete(back_link_key(ino, 0))
        volume.store.put(back_link_key(ino, 9), left)
    namespace.unlink(volume, R, b"f")
    assert volume.store.get(back_link_key(ino, 9)) == left
    assert files.read(volume, ino, 0, 1000) == LINE


def test_a_file_whose_inode_does_not_count_its_blocks_keeps_them() -> None:
    """Damage: what it owns must not be given to others while somebody reads it."""
    volume = new_volume()
    ino = held_file(volume, b"f", NOISE)
    inode = volume.inodes.get(ino)
    inode.stored_blocks = 0
    with volume.operation(Operation.SETATTR, ino):
        volume.inodes.put(ino, inode)
    namespace.unlink(volume, R, b"f")
    assert not volume.inodes.limbo.files
    volume.checkpoint()
    files.write(volume, namespace.create(volume, R, b"other", 0o644, 0, 0), 0, random.Random(8).randbytes(MIB))
    volume.checkpoint()
    volume.records.clean.clear()
    assert files.read(volume, ino, 0, 10_000) == NOISE


@settings(deadline=None, max_examples=40)
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 5)), max_size=40))
def test_whatever_happens_meanwhile_each_file_is_there_until_it_is_released(steps: list[tuple[str, int]]) -> None:
    device = new_device()
    volume = open_again(device)
    named: dict[int, InodeNo] = {}
    nameless: dict[int, tuple[InodeNo, bytes]] = {}
    contents: dict[InodeNo, bytes] = {}
    for turn, (step, number) in enumerate(steps):
        name = b"%d" % number
        if step == "create" and number not in named:
            ino = named[number] = namespace.create(volume, R, name, 0o644, 0, 0)
            contents[ino] = LINE + b"%d" % turn
            files.write(volume, ino, 0, contents[ino])
        elif step == "unlink" and number in named and number not in nameless:
            ino = named.pop(number)
            namespace.hold(volume, ino)
            namespace.unlink(volume, R, name)
            nameless[number] = ino, contents[ino]
        elif step == "rename" and number in named and number - 1 in named and number not in nameless:
            ino = named[number]
            namespace.hold(volume, ino)
            namespace.rename(volume, R, b"%d" % (number - 1), R, name)
            named[number] = named.pop(number - 1)
            nameless[number] = ino, contents[ino]
        elif step == "release" and number in nameless:
            namespace.release(volume, nameless.pop(number)[0])
        elif step == "ask" and number in nameless:
            ino, text = nameless[number]
            assert (files.read(volume, ino, 0, 1000), volume.inodes.get(ino).link_count) == (text, 0)
        elif step == "write" and number in nameless:
            ino, _ = nameless[number]
            nameless[number] = ino, b"written anew %d" % turn
            files.truncate(volume, ino, 0)
            files.write(volume, ino, 0, nameless[number][1])
        elif step == "commit":
            volume.commit()
        elif step == "fail" and number in nameless:
            with pytest.raises(RuntimeError), volume.operation(Operation.SETATTR, nameless[number][0]):
                volume.inodes.get(nameless[number][0])
                raise RuntimeError
        promised = sum(gone.journal_bytes for gone in volume.inodes.limbo.files.values())
        assert volume.inodes.limbo.journal_bytes == promised
    assert set(orphans.standing(volume)) == {ino for ino, _ in nameless.values()}
    for ino, text in nameless.values():
        assert files.read(volume, ino, 0, 1000) == text
    check_rules(volume)
    volume.commit()
    after = open_again(OverlayDevice(device))
    assert after.counters.inode_count == 1 + len(named)
    check_rules(after)
    for ino, _ in nameless.values():
        namespace.release(volume, ino)
    assert volume.counters.inode_count == 1 + len(named)
    check_rules(volume)
