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
from razortools.check.repair import planning, spared
from razortools.check.repair import repair as repair_module
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Edit, Verb
from razortools.check.repair.plan_file import Plan, plan_for
from razortools.check.repair.repair import Repaired, Wishes, follow, repair
from razortools.check.repair.surveying import believed
from razortools.check.repair.verdict import objection
from razortools.check.report import Report, Summary
from razortools.check.runner import Options, check_quietly
from razortools.check.steps import finished
from razortools.engine import directories, files, namespace
from razortools.engine.store.device import Device
from razortools.engine.volume import Volume
from razortools.format.data import DataRecord
from razortools.format.inode import ROOT_INODE, FileType, Inode
from razortools.format.journal import EntryFlag
from razortools.format.keys import COUNTERS_KEY, Kind, Table, inode_key, kind_range, object_range, record_key
from razortools.format.superblock import SUPERBLOCK_BYTES, State, Superblock
from razortools.format.volume import Counters
from razortools.units import InodeNo, RecordNo
from tests.check.damages import _entry_of, _flip_map, _lose_root, _lose_sector
from tests.check.editing import (
    all_items,
    edit_inode,
    edit_item,
    editing,
    find_inode,
    first_item,
    flip,
    image_of,
    indexed,
    journal_entries,
    rewrite_entry,
    rewrite_superblock,
    write_superblocks,
)
from tests.check.samples import healthy, opened, unclean
from tools.fuzzing.view import view


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


def test_a_generation_that_no_image_can_have_come_to_does_not_outlive_a_repair() -> None:
    device = unclean(3)
    newest = image_of(device)
    for place in (newest.superblock.slot, *newest.geometry.backups):
        rewrite_superblock(device, place, 4096, generation=(1 << 63) + 3)
    volume = kept(device)
    assert {b"late0", b"late1", b"late2"} <= names(volume)
    assert volume.store.superblock.generation < newest.superblock.generation + 10


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
    """Return a directory in which f2 leads to a file that lost its back link; another inode, without one, claims the name."""
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


# What is lost or guessed is told


@pytest.mark.parametrize("algorithm", ["none", "zstd:3", "lz4", "zlib:6"])
def test_that_a_bit_was_turned_back_is_told(algorithm: str) -> None:
    path = f"/docs/deep/by {algorithm}"
    device = healthy()
    record = DataRecord.decode(first_item(device, find_inode(device, path), Kind.DATA_RECORD)[1])
    flip(device, record.address * 4096 + record.stored_bytes // 2, 5)
    done = done_to(device)
    assert done.changes and done.loss is not None
    assert done.loss.mended == [path] and not done.loss.is_none
    assert done.loss.as_json()["mended"] == [path]
    assert contents(opened(done.overlay), path) == contents(opened(healthy()), path)


def with_damage_in_the_journal(transactions: int = 3) -> Device:
    device = unclean(transactions)
    second = next(n for n, entry in enumerate(journal_entries(image_of(device))) if entry.head.operation == 0) + 2
    _lose_sector(device, second)
    return device


def test_transactions_that_were_safe_and_are_dropped_are_counted_and_named() -> None:
    done = done_to(with_damage_in_the_journal())
    assert done.changes and done.loss is not None and not done.loss.is_none
    assert done.loss.dropped_transactions == 2
    assert "/late2" in done.loss.dropped and "/late0" not in done.loss.dropped
    told = done.report(written=True).as_json()["loss"]
    assert isinstance(told, dict) and told["dropped"] == {"transactions": 2, "paths": done.loss.dropped}


def test_a_senseless_transaction_that_is_dropped_is_told_with_its_file() -> None:
    device = unclean(1)
    number = next(n for n, entry in enumerate(journal_entries(image_of(device))) if entry.head.key[9] == Kind.DATA_RECORD)
    rewrite_entry(device, number, flags=int(EntryFlag.HAS_UNDO))
    done = done_to(device)
    assert done.changes and done.loss is not None
    assert (done.loss.dropped_transactions, done.loss.dropped) in ((1, ["/late0"]), (0, []))


def test_a_torn_tail_is_no_loss() -> None:
    device = unclean(3)
    edit = next(n for n, entry in enumerate(journal_entries(image_of(device))) if entry.head.operation == 0)
    assert edit
    last = journal_entries(image_of(device))[-1]
    image = image_of(device)
    device.write(image.geometry.journal_start * 4096 + last.position % image.geometry.journal_bytes, bytes(512))
    _flip_map(device, 0)
    done = done_to(device)
    assert done.changes and done.loss is not None and done.loss.dropped_transactions == 0


def test_durable_transactions_are_never_dropped_without_a_word() -> None:
    finding = damaged(0, 8192)
    files = Inventory(None, KeyList())
    said = objection(left(finding), left(), files, Loss(dropped_transactions=2), set(), told=False)
    assert "without a word" in said
    assert objection(left(finding), left(), files, Loss(dropped_transactions=2), set(), told=True) == ""


def planned(device: Device, keep: Callable[[Edit], bool]) -> Plan:
    """Return the plan for an image, thinned out by an operator."""
    done = done_to(device)
    assert done.changes
    thinned = [tuple(filter(keep, edits)) for edits in done.rounds]
    return plan_for(device, [edits for edits in thinned if edits], None)


def test_a_plan_without_the_line_about_the_journal_is_refused_if_something_in_it_would_be_lost() -> None:
    device = with_damage_in_the_journal()
    edit_link = find_inode(device, "/docs/one")
    made = planned(device, lambda edit: edit.verb is not Verb.REPLAY)
    made = replace(made, rounds=(*made.rounds, (_wrong_count(edit_link),)))
    done: Repaired = finished(follow(device, made, Options(threads=1)))
    assert not done.changes and "would be lost" in done.refused


def _wrong_count(number: InodeNo) -> Edit:
    return Edit(verb=Verb.SET, code="E0401", why="as asked for", key=inode_key(number), field="link_count", value=1)


def with_two_damaged_records() -> Device:
    device = healthy()
    for _, value in all_items(device, find_inode(device, "/docs/many"), Kind.DATA_RECORD)[:2]:
        device.write(DataRecord.decode(value).address * 4096, b"damage" * 50)
    return device


def test_a_plan_that_leaves_problems_marks_the_image_as_hurt() -> None:
    device = with_two_damaged_records()
    keys = [key for key, _ in all_items(device, find_inode(device, "/docs/many"), Kind.DATA_RECORD)]
    made = planned(device, lambda edit: edit.key != keys[1])
    done: Repaired = finished(follow(device, made, Options(threads=1)))
    assert done.changes and not done.after.clean
    assert image_of(done.overlay).superblock.state == State.ERRORS


def test_a_mark_in_a_plan_that_mends_everything_is_not_believed() -> None:
    device = with_two_damaged_records()
    made = planned(device, lambda edit: True)
    mark = Edit(verb=Verb.SUPERBLOCK, code="E0108", why="mark the image as hurt: problems are left", field="state", value=3)
    done: Repaired = finished(follow(device, replace(made, rounds=(*made.rounds, (mark,))), Options(threads=1)))
    assert done.changes and done.after.clean
    assert image_of(done.overlay).superblock.state == State.CLEAN


def with_a_root_below_which_little_is_found() -> Device:
    """Return an image whose superblocks count a thousand times as many files as there are, and whose root is lost."""
    device = healthy()
    write_superblocks(device, backups=True, inode_count=100_000)
    _lose_root(device)
    root = image_of(device).superblock.root
    for block in (root.address, root.mirror):
        flip(device, block * 4096 + 2100)  # more than one bit: a rebuild is all that helps
    return device


def test_a_rebuild_that_finds_far_too_little_is_only_kept_if_it_was_asked_for() -> None:
    done = done_to(with_a_root_below_which_little_is_found())
    assert not done.changes and "--rebuild" in done.refused and "100000" in done.refused
    assert done_to(with_a_root_below_which_little_is_found(), rebuild=True).changes


def test_problems_that_are_too_many_for_one_run_are_said_to_need_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair_module, "ROUNDS_MAX", 1)
    device = healthy()
    with editing(device) as store:
        store.tree.delete(inode_key(find_inode(device, "/docs/deep")))
    done = done_to(device)
    assert not done.after.clean and any("run razorfsck again" in remark for remark in done.remarks)


@pytest.mark.parametrize("is_full", [False, True])
def test_data_whose_place_is_damaged_are_not_written_over(monkeypatch: pytest.MonkeyPatch, is_full: bool) -> None:
    """A record that names a device that is not there: its data verify, but its blocks counted as free.

    The repair wrote nodes into them, and cut the record out in its next round (seed 7821). Where nothing is spared but what the
    round itself puts into the tree, as in an image that is nearly full, they are safe as well.
    """
    if is_full:
        monkeypatch.setattr(spared, "has_room", lambda found, used: False)
    before = view(healthy())
    for ino in {entry.ino for entry in before.values()}:
        for key, value in all_items(healthy(), InodeNo(ino), Kind.DATA_RECORD):
            record, device = DataRecord.decode(value), healthy()
            edit_item(device, key, address=record.address | 1 << 63)
            done = done_to(device)
            assert done.refused == ""
            assert view(done.overlay) == before
