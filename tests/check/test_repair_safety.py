"""What a repair must never do to data: each of these did harm once.

The rules: an old superblock never rolls a filesystem back; what -p does costs nothing; a name or a hole is never given away for a
number that is wrong; what is lost all the same is told.
"""

import stat
from collections.abc import Callable
from dataclasses import replace

import pytest

from razortools.check import problems
from razortools.check.findings import Finding
from razortools.check.inventory import Inventory
from razortools.check.keylist import KeyList
from razortools.check.loss import Loss
from razortools.check.repair import planning
from razortools.check.repair.draft import Draft
from razortools.check.repair.repair import Repaired, Wishes, repair
from razortools.check.repair.surveying import believed, finished
from razortools.check.repair.verdict import objection
from razortools.check.report import Report, Summary
from razortools.check.runner import Options, check_quietly
from razortools.engine import directories, files, namespace
from razortools.engine.store.device import Device
from razortools.engine.volume import Volume
from razortools.format.inode import ROOT_INODE, FileType, Inode
from razortools.format.keys import COUNTERS_KEY, Kind, Table, inode_key, kind_range, object_range, record_key
from razortools.format.superblock import SUPERBLOCK_BYTES, Superblock
from razortools.format.volume import Counters
from razortools.units import InodeNo, RecordNo
from tests.check.damages import _entry_of
from tests.check.editing import (
    edit_inode,
    edit_item,
    editing,
    find_inode,
    first_item,
    flip,
    image_of,
    indexed,
    rewrite_superblock,
)
from tests.check.samples import healthy, opened


def done_to(device: Device, **wishes: object) -> Repaired:
    """Repair; whatever is kept must be clean."""
    done: Repaired = finished(repair(device, Wishes(Options(threads=1), **wishes)))  # type: ignore[arg-type]
    return done


def kept(device: Device, **wishes: object) -> Volume:
    """Repair, demand that it is kept and clean, and open the result."""
    done = done_to(device, **wishes)
    assert done.refused == "" and done.changes
    assert check_quietly(done.overlay).exit_code == 0
    return opened(done.overlay)


def names(volume: Volume, path: str = "/") -> set[bytes]:
    at = ROOT_INODE
    for part in filter(None, path.encode().split(b"/")):
        at = namespace.lookup(volume, at, part)
    return {name for _, name, _ in directories.entries(volume, at)}


def contents(volume: Volume, path: str) -> bytes:
    ino = namespace.resolve(volume, path.encode())
    return files.read(volume, ino, 0, volume.inodes.get(ino).size)


# An old superblock


def used_on(device: Device, sessions: int, first: int = 0) -> Device:
    """Make a file and delete two others in each of some sessions."""
    for number in range(first, first + sessions):
        with opened(device) as volume:
            namespace.create(volume, ROOT_INODE, b"new%d" % number, 0o644, 0, 0)
            for member in (number, number + 20):
                namespace.unlink(volume, namespace.lookup(volume, ROOT_INODE, b"crowd"), b"member %d" % member)
            volume.checkpoint()
    return device


def with_a_stale_slot(slot: int) -> Device:
    """Return a filesystem of which one slot was written back from an earlier day."""
    device = healthy()
    olds = [device.read(place * 4096, SUPERBLOCK_BYTES) for place in (0, 1)]
    used_on(device, 3)
    device.write(slot * 4096, olds[slot])
    return device


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("damaged_backup", [False, True])
@pytest.mark.parametrize("careful", [False, True])
def test_a_stale_slot_never_rolls_the_filesystem_back(slot: int, damaged_backup: bool, careful: bool) -> None:
    device = with_a_stale_slot(slot)
    newest = image_of(device)
    if damaged_backup:
        flip(device, newest.geometry.backups[0] * 4096 + 60)
    done = done_to(device, careful=careful)
    assert done.loss is None or (done.loss.is_none and not done.loss.harmed)
    volume = opened(done.overlay)
    assert {b"new0", b"new1", b"new2"} <= names(volume)
    assert b"member 0" not in names(volume, "/crowd")
    if not careful:
        assert done.after.clean


@pytest.mark.parametrize("slot", [0, 1])
def test_a_stale_slot_does_not_outlive_a_journal_that_waits(slot: int) -> None:
    device = with_a_stale_slot(slot)
    volume = opened(device)
    namespace.create(volume, ROOT_INODE, b"waits", 0o644, 0, 0)
    volume.commit()
    old = device.read(slot * 4096, SUPERBLOCK_BYTES)
    device.write(slot * 4096, replace(Superblock.decode(old), generation=2 + slot).encode())
    assert {b"new0", b"new1", b"new2", b"waits"} <= names(kept(device))


def test_a_newer_superblock_that_nothing_confirms_is_believed_while_its_root_can_be_read() -> None:
    device = used_on(healthy(), 1)
    before = image_of(device)
    older = before.superblock
    used_on(device, 3, first=1)
    other = 1 - image_of(device).superblock.slot
    for number, place in enumerate(before.geometry.backups):  # all of them, and a slot, are of an earlier day
        device.write(place * 4096, replace(older, slot=2 + number, address=place).encode())
    device.write(other * 4096, replace(older, slot=other, address=other).encode())
    volume = kept(device)
    assert {b"new0", b"new1", b"new2", b"new3"} <= names(volume)
    assert b"member 1" not in names(volume, "/crowd")


def test_an_old_slot_that_calls_itself_new_is_not_believed() -> None:
    device = used_on(healthy(), 3)
    newest = image_of(device).superblock
    rewrite_superblock(device, 1 - newest.slot, 4096, generation=newest.generation + 1000 + newest.slot)
    assert {b"new0", b"new1", b"new2"} <= names(kept(device))


# What -p may do, and what it may not


def inode_of(device: Device, path: str) -> Inode:
    return Inode.decode(first_item(device, find_inode(device, path), Kind.INODE)[1])


def with_holes_and_counts_that_are_one_too_high() -> Device:
    """Return a sparse file that nothing is wrong with, but its count of blocks; the volume counts as wrongly."""
    device = healthy()
    holes = find_inode(device, "/docs/deep/holes")
    counters = Counters.decode(indexed(device).get(COUNTERS_KEY) or b"")
    edit_inode(device, holes, stored_blocks=inode_of(device, "/docs/deep/holes").stored_blocks + 1)
    edit_item(device, COUNTERS_KEY, data_blocks=counters.data_blocks + 1)
    return device


@pytest.mark.parametrize("careful", [False, True])
def test_holes_do_not_become_unreadable_because_two_counts_are_wrong(careful: bool) -> None:
    before = contents(opened(healthy()), "/docs/deep/holes")
    assert contents(kept(with_holes_and_counts_that_are_one_too_high(), careful=careful), "/docs/deep/holes") == before


def with_a_name_that_two_inodes_claim() -> tuple[Device, InodeNo]:
    """Return a directory in which f2 leads to a file that lost its back link; another inode without an entry says that it is f2."""
    device = healthy()
    with opened(device) as volume:
        for name in (b"f1", b"f2"):
            files.write(volume, namespace.create(volume, ROOT_INODE, name, 0o644, 0, 0), 0, b"I am " + name)
    readable, claims = find_inode(device, "/f2"), find_inode(device, "/f1")
    own, other = first_item(device, readable, Kind.BACK_LINK), first_item(device, claims, Kind.BACK_LINK)
    with editing(device) as store:
        store.tree.delete(_entry_of(device, "/f1")[0])
        store.tree.delete(own[0])
        store.tree.put(other[0], own[1])
    return device, claims


def test_the_name_of_a_readable_file_is_never_given_to_another_inode() -> None:
    device, _ = with_a_name_that_two_inodes_claim()
    volume = kept(device)
    assert contents(volume, "/f2") == b"I am f2"
    lost = [name for name in names(volume, "/lost+found") if b"f2" in name]
    assert [contents(volume, "/lost+found/" + name.decode()) for name in lost] == [b"I am f1"]


def test_preening_leaves_a_name_where_it_leads() -> None:
    device, _ = with_a_name_that_two_inodes_claim()
    done = done_to(device, careful=True)
    assert contents(opened(done.overlay), "/f2") == b"I am f2"


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFIFO])
def test_an_empty_file_with_two_names_is_no_directory_because_one_of_them_says_so(kind: int, careful: bool) -> None:
    device = healthy()
    with opened(device) as volume:
        number = namespace.mknod(volume, ROOT_INODE, b"empty", kind | 0o644, 0, 0, 0)
        namespace.link(volume, number, ROOT_INODE, b"again")
    edit_item(device, _entry_of(device, "/empty")[0], file_type=FileType.DIRECTORY)
    volume = kept(device, careful=careful)
    assert volume.inodes.get(number).mode == kind | 0o644
    assert namespace.lookup(volume, ROOT_INODE, b"again") == namespace.lookup(volume, ROOT_INODE, b"empty") == number


def deletes(kind: Kind, path: str) -> Callable[[Draft, Finding], None]:
    """Return a planner that mends a link count and takes a part of a file away with it."""

    def plan(draft: Draft, finding: Finding) -> None:
        assert finding.inode is not None
        draft.set(inode_key(finding.inode), "link_count", 1, "right")
        for key, _ in list(draft.items(*kind_range(find_inode(draft.image.device, path), kind))):
            draft.delete(key, "wrong")

    return plan


def with_a_wrong_link_count() -> Device:
    device = healthy()
    edit_inode(device, find_inode(device, "/docs/one"), link_count=7)
    return device


@pytest.mark.parametrize("kind", [Kind.DATA_RECORD, Kind.BACK_LINK, Kind.INODE])
def test_preening_drops_each_edit_that_destroys_whatever_the_problem_is_called(
    monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    monkeypatch.setitem(planning.BY_CODE, "E0401", deletes(kind, "/docs/many"))
    done = done_to(with_a_wrong_link_count(), careful=True)
    assert not done.changes and done.rounds == []


def test_an_answer_that_is_taken_back_leaves_no_trace_in_the_draft() -> None:
    device = with_a_wrong_link_count()
    facts = believed(device)
    assert facts is not None
    draft = Draft(indexed(device), facts.image)
    key = inode_key(find_inode(device, "/docs/one"))
    finding = problems.LINK_COUNT.found(inode=5, value=1, counted=2)
    draft.answer(finding)
    draft.set(key, "link_count", 2, "first")
    kept_value, kept_edits = draft.get(key), list(draft.edits)
    draft.answer(finding)
    draft.set(key, "link_count", 3, "second")
    draft.put(record_key(InodeNo(99_999), RecordNo(0)), b"new", "new")
    draft.delete(key, "gone")
    assert not draft.is_harmless
    draft.take_back()
    assert draft.get(key) == kept_value and draft.edits == kept_edits
    assert list(draft.items(*object_range(Table.FILES, 99_999))) == []


# The verdict


ABOUT_A_NUMBER = ["E0312", "E0401", "E0403", "E0404", "E0405", "E0407", "E0409", "E0414", "E0506", "E0510", "E0601"]


@pytest.mark.parametrize("code", ABOUT_A_NUMBER)
def test_a_wrong_number_is_no_reason_to_give_up_a_file(code: str) -> None:
    values = {"value": 9, "counted": 8, "field": "data_blocks"}
    finding = replace(problems.LINK_COUNT.found(path="/docs/many", inode=7, value=1, counted=2), code=code, values=values)
    assert "/docs/many" in objection_to(Loss(harmed=["/docs/many"]), finding)


def objection_to(costs: Loss, *findings: Finding, careful: bool = False) -> str:
    before = Report("image", (), tuple(findings), Summary())
    return objection(before, Report("image", (), (), Summary()), Inventory(None, KeyList()), costs, set(), careful=careful)


def damaged(first: int, behind: int) -> Finding:
    return problems.DATA_CHECKSUM.found(
        what="record", found=1, expected=2, path="/docs/many", byte_range=(first, behind), where="bytes"
    )


def test_damaged_bytes_excuse_the_loss_of_these_bytes_only() -> None:
    inside = Loss(harmed=["/docs/many"], harmed_ranges={"/docs/many": ((0, 100), (8192, 9000))})
    assert objection_to(inside, damaged(0, 8192), damaged(8192, 16384)) == ""
    beside = Loss(harmed=["/docs/many"], harmed_ranges={"/docs/many": ((0, 100), (16384, 16385))})
    assert "/docs/many" in objection_to(beside, damaged(0, 8192), damaged(8192, 16384))
    assert "/docs/many" in objection_to(Loss(harmed=["/docs/many"]), damaged(0, 8192))


def test_preening_has_no_excuse_for_any_harm() -> None:
    inside = Loss(harmed=["/docs/many"], harmed_ranges={"/docs/many": ((0, 100),)})
    assert "/docs/many" in objection_to(inside, damaged(0, 8192), careful=True)
    assert "transactions" in objection_to(Loss(dropped_transactions=1), damaged(0, 8192), careful=True)


def left(*findings: Finding) -> Report:
    return Report("image", (), findings, Summary())


def test_many_freed_blocks_do_not_make_up_for_one_new_error() -> None:
    orphaned = problems.ORPHANED_BLOCKS.found(first=1, last=10_000, count=10_000)
    error = problems.LINK_COUNT.found(inode=7, value=1, counted=2)
    files = Inventory(None, KeyList())
    assert objection(left(orphaned, error), left(error), files, Loss(), set()) == ""
    assert "would not have become better" in objection(left(orphaned), left(error), files, Loss(), set())


def test_a_result_whose_check_stops_is_not_better() -> None:
    errors = [problems.LINK_COUNT.found(inode=number, value=1, counted=2) for number in range(9)]
    stopped = problems.PASS_FAILED[5].found(reason="of a kind")
    files = Inventory(None, KeyList())
    assert "could not be checked to the end" in objection(left(*errors), left(stopped), files, Loss(), set())
