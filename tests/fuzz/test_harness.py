"""The fuzz harness itself: it finds every structure, changes what it says and nothing else, and sees a check that is blind."""

import random

import pytest

from razortools.check import inode_pass, journal_pass
from razortools.engine.store.pages import PAGE_BYTES
from razortools.format.keys import inline_key
from razortools.format.node import NODE_MAGIC, ChildPointer, decode_header
from razortools.format.record import CATALOGUE
from tests.check.editing import edit_item, find_inode, image_of
from tests.check.samples import healthy
from tools.fsck_matrix import UNDO_MODULE
from tools.fuzzing import bytesweep, campaigns, verdict
from tools.fuzzing.bases import BASES, base
from tools.fuzzing.blast import named_again, terrain_of, touched_by
from tools.fuzzing.campaigns import damage_outcome, differing_pages, lawful_damage, origins
from tools.fuzzing.damage import DAMAGES
from tools.fuzzing.damaged import Damaged
from tools.fuzzing.fields import cases, examine, sites_of
from tools.fuzzing.harmless import FREE, why_not_usable
from tools.fuzzing.histories import history
from tools.fuzzing.outcome import Outcome, Tally
from tools.fuzzing.sites import find_sites
from tools.fuzzing.staged import StagedCheck
from tools.fuzzing.verbs import VERBS, changes
from tools.fuzzing.verdict import judge


def test_every_structure_of_the_catalogue_is_found_in_some_image() -> None:
    found = {name for image in BASES for name in sites_of(image)}
    assert found == {record.__name__ for record in CATALOGUE if record.__module__ != UNDO_MODULE}


@pytest.mark.parametrize("image", BASES)
def test_the_images_are_in_order_and_can_be_used(image: str) -> None:
    verdict = judge(base(image))
    assert (verdict.codes, verdict.stumbled) == ((), "")
    assert why_not_usable(base(image)) == ""


@pytest.mark.parametrize("image", BASES)
def test_sealing_what_was_not_changed_changes_nothing(image: str) -> None:
    for sites in sites_of(image).values():
        for site in sites:
            device = Damaged(base(image))
            site.write(device, 0, b"", sealed=True)
            assert not device.differs(), site


def test_every_field_is_changed_by_every_verb() -> None:
    for record in CATALOGUE:
        chance = random.Random(f"1 {record.__name__}")  # whatever was imported first; by chance none is what was there
        raw = b"\x05" * (record.skipped_bytes() + record.FIXED_BYTES + (8 if record.TAIL else 0))
        made = {(change.field, change.verb) for change in changes(record, raw, chance)}
        assert made == {(field.name, verb) for field in record.FIELDS for verb in VERBS}


def test_only_fields_that_exist_are_declared_free() -> None:
    assert set(FREE) <= {f"{record.__name__}.{field.name}" for record in CATALOGUE for field in record.FIELDS}


def test_a_check_that_is_blind_for_inodes_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inode_pass, "inode_faults", lambda inode: iter(()))
    inodes = cases("at rest", 1, structures=frozenset({"Inode"}), sites_max=1)
    failures = {case.field for case in inodes if case.change.field == "reserved" and case.sealed and examine(case).failure}
    assert failures == {"Inode.reserved"}


def test_a_check_that_stops_in_the_middle_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_pass, "reading", lambda *_: 1 / 0)
    assert "E0299" in judge(base("at rest")).stumbled
    device = DAMAGES["one bit"](history(1), random.Random(1))
    assert damage_outcome("one bit", history(1), device, "").failure


def test_a_pointer_with_another_checksum_is_what_a_lost_write_leaves() -> None:
    """So nothing can vouch for what is below such a pointer, and it is within the blast radius."""
    one, other = healthy(1), healthy(1)
    key = inline_key(find_inode(one, "/small"))
    for device, text in ((one, b"one way"), (other, b"another")):
        edit_item(device, key, stored=text, raw_bytes=7, algorithm=0)
    nodes = [page for page in differing_pages(one, other) if one.read(page * PAGE_BYTES, 4) == NODE_MAGIC]
    leaf = next(page for page in nodes if decode_header(one.read(page * PAGE_BYTES, PAGE_BYTES)).level == 0)
    lost_write, lie = Damaged(other), Damaged(one)
    lost_write.write(leaf * PAGE_BYTES, one.read(leaf * PAGE_BYTES, PAGE_BYTES))
    pointer = next(
        site
        for site in find_sites(one)
        if site.structure is ChildPointer and "child" in site.owner and ChildPointer.decode(site.read(one)).address == leaf
    )
    pointer.write(lie, ChildPointer.FIXED_BYTES - 4, other.read(leaf * PAGE_BYTES + 4, 4), sealed=True)
    assert lie.differs() and differing_pages(lie, lost_write) == []


def test_an_image_without_its_newest_superblock_may_be_of_an_earlier_commit_and_with_it_never() -> None:
    past = history(4340)
    assert origins(past, DAMAGES["stale blocks"](past, random.Random("4340 stale blocks"))) == past.last_session[::-1]
    assert origins(past, Damaged(past.now)) == ()
    assert origins(history(2002), DAMAGES["stale blocks"](history(2002), random.Random("2002 stale blocks"))) == ()


def test_a_tally_counts_all_and_shows_the_first_failures_of_each_sort() -> None:
    tally = Tally()
    shown = tally.add(Outcome("kind", ("failed",), f"case {number}", f"found {number}") for number in range(9))
    assert [outcome.case for outcome in shown] == ["case 0", "case 1", "case 2"]
    assert (tally.cases, tally.failed) == (9, 9)
    assert tally.table().split() == ["cases", "failed", "kind", "9", "9"]


def test_data_of_the_last_transaction_reach_as_far_as_that_and_other_data_as_far_as_their_file() -> None:
    """A transaction whose data never arrived is dropped as a whole, which is what a crash before it leaves (seed 20041)."""
    terrain = terrain_of(history(2505).now)
    assert terrain.last and terrain.last < terrain.waiting
    assert touched_by(terrain, [min(terrain.last_data)]) >= terrain.last
    others = [page for page in terrain.data if page not in terrain.last_data]
    assert others and all(touched_by(terrain, [page]) == terrain.data[page] for page in others)


def test_an_older_name_may_come_back_only_where_leaf_and_node_above_are_lost() -> None:
    """Seed 23558: the space map is lost as well, so an older leaf answers for the lost one, and a removed name comes back."""
    past = history(23558 // 8)
    device = DAMAGES["stale blocks"](past, random.Random("23558 stale blocks"))
    terrain, pages = terrain_of(past.now), set(device.changed_pages())
    image = image_of(past.now)
    again = named_again(terrain, image, device, pages)
    assert again - touched_by(terrain, pages)
    assert lawful_damage("stale blocks", past, device, "seed 23558", with_files=True).failure == ""
    leaves = {page for copies, _ in terrain.leaves for copy in copies for page in copy}
    inner = {page for copies in terrain.inner for copy in copies for page in copy}
    assert pages & leaves and pages & inner
    assert named_again(terrain, image, device, pages - leaves) == named_again(terrain, image, device, pages - inner) == set()


def test_a_check_in_stages_finds_what_a_whole_one_finds() -> None:
    staged = StagedCheck(bytesweep.small_image())
    pages = {staged.passes_kept(page): page for page in range(bytesweep.block_count())}
    # Superblocks, the journal, nodes, the space map, data, second copies, what is free.
    assert {0, 1, 2, 4, 6, 7, 8} <= pages.keys()
    for kept, page in pages.items():
        raw = bytesweep.small_image().read(page * PAGE_BYTES, PAGE_BYTES)
        with staged.of(page) as judged:
            found = {offset: judged(offset, bytes([raw[offset] ^ 4])) for offset in (0, 100, 4095)}
            assert judged(0, raw[:1]).codes == ()
        for offset, in_stages in found.items():
            device = Damaged(bytesweep.small_image())
            device.write(page * PAGE_BYTES + offset, bytes([raw[offset] ^ 4]))
            assert judge(device) == in_stages
            assert in_stages.is_detected == (kept not in (1, 8))  # at rest nothing in the journal matters


def test_a_check_in_stages_that_leaves_out_too_much_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StagedCheck, "passes_kept", lambda *_: 7)
    failures = [outcome.failure for outcome in bytesweep.sweep(70, step=512)]
    assert "a changed byte in use was not found" in failures and "a whole check finds something else" in failures


def test_what_does_not_end_is_told_as_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object) -> None:
        while True:
            pass

    monkeypatch.setattr(verdict, "PATIENCE_S", 0.2)
    monkeypatch.setattr(verdict, "check_quietly", hang)
    assert "no end after" in judge(base("at rest")).stumbled


@pytest.mark.slow
def test_the_parts_of_a_seed_are_the_whole_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaigns, "field_outcome", lambda case: Outcome(str(case), ()))
    whole = [outcome.kind for outcome in campaigns.CAMPAIGNS["fields"](3)]
    in_parts = [outcome.kind for part in campaigns.PARTS["fields"] for outcome in part(3)]
    assert len(set(whole)) == len(whole) > 40_000 and sorted(whole) == sorted(in_parts)
