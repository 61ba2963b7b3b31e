"""What keeps a repair of much damage from growing with its square gives the same answers as asking each time. Counted, not timed.

The measurement is bench/scaling.py.
"""

import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.check.facts import InodeFacts
from razortools.check.inventory import Inventory, lost_places
from razortools.check.keylist import KeyList
from razortools.check.repair import naming, plan_links
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Verb
from razortools.check.repair.repair import repair
from razortools.check.repair.verdict import _joined, _lies_in
from razortools.check.runner import check_quietly
from razortools.check.steps import finished
from razortools.check.tree import Place, TreeIndex
from razortools.engine import namespace
from razortools.engine.store.pages import PAGE_BYTES, MemoryDevice
from razortools.format.directory import BackLink
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Kind, back_link_key, kind_range
from razortools.format.node import ChildPointer
from razortools.units import InodeNo
from tests.check.damages import DAMAGES
from tests.check.editing import editing, facts_of, image_of, indexed
from tests.check.samples import healthy, new_device, opened

RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=8)


@given(wanted=st.tuples(st.integers(0, 45), st.integers(0, 12)), ranges=RANGES)
def test_bytes_lie_in_ranges_if_each_of_them_does(wanted: tuple[int, int], ranges: list[tuple[int, int]]) -> None:
    first, behind = wanted[0], wanted[0] + wanted[1]
    covered = {byte for start, end in ranges for byte in range(start, end)}
    assert _lies_in((first, behind), _joined(ranges)) == (set(range(first, behind)) <= covered)


@given(
    places=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), max_size=10),
    asked=st.tuples(st.integers(0, 255), st.integers(0, 30)),
)
def test_the_lost_parts_that_may_hold_a_key_are_all_found(places: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    """They may lie in one another: the keys of a damaged node need not be in order."""
    facts = check_facts()
    facts.tree.lost[:] = [
        Place(ChildPointer(0, 0, 0, 0), 0, bytes([first]), bytes([min(first + length, 255)])) for first, length in places
    ]
    low, high = bytes([asked[0]]), bytes([min(asked[0] + asked[1], 255)])
    wanted = [place for place in lost_places(facts) if place.low <= high and place.high > low]
    found = Inventory(facts, KeyList()).lost_within(low, high)
    assert [place for place in found if place.high > low] == wanted


def test_a_lost_part_that_holds_others_is_found_behind_them() -> None:
    facts = check_facts()
    wide, narrow = ((bytes([first]), bytes([behind])) for first, behind in ((0, 200), (10, 20)))
    facts.tree.lost[:] = [Place(ChildPointer(0, 0, 0, 0), 0, *wide), Place(ChildPointer(0, 0, 0, 0), 0, *narrow)]
    assert facts.tree.lost[0] in Inventory(facts, KeyList()).lost_within(b"\x96", b"\x96")


def check_facts() -> InodeFacts:
    nothing = array("Q")
    return InodeFacts(TreeIndex(image_of(healthy())), nothing, nothing, nothing, nothing, {}, None)


def test_the_next_data_are_where_pages_are_whatever_was_written_and_forgotten_between() -> None:
    chance = random.Random(7)
    device = MemoryDevice(64 * PAGE_BYTES)
    pages: set[int] = set()
    for _ in range(400):
        page = chance.randrange(64)
        if chance.random() < 0.5:
            device.write(page * PAGE_BYTES, b"x")
            pages.add(page)
        elif chance.random() < 0.2:
            kept = chance.randrange(40, 64)
            device.resize(kept * PAGE_BYTES)
            device.resize(64 * PAGE_BYTES)
            pages = {one for one in pages if one < kept}
        at = chance.randrange(64 * PAGE_BYTES)
        there = min((one for one in pages if one >= at // PAGE_BYTES), default=64)
        assert device.next_data(at) == max(at, there * PAGE_BYTES)


def test_as_many_pages_in_other_places_are_other_pages() -> None:
    device = MemoryDevice(64 * PAGE_BYTES)
    device.write(50 * PAGE_BYTES, b"x")
    assert device.next_data(0) == 50 * PAGE_BYTES
    device.resize(40 * PAGE_BYTES)
    device.write(20 * PAGE_BYTES, b"x")
    assert device.next_data(0) == 20 * PAGE_BYTES


def test_the_back_links_that_a_draft_remembers_are_those_that_it_would_read() -> None:
    device = healthy()
    draft = Draft(indexed(device), facts_of(device).image)
    draft.answer(next(iter(check_quietly(DAMAGES[0][1]()).findings)))
    chance = random.Random(11)
    for step in range(600):
        number, link_no = chance.randrange(2, 6), chance.randrange(6)
        key = back_link_key(InodeNo(number), link_no)
        if chance.random() < 0.5:
            draft.put(key, BackLink(chance.randrange(1, 9), step).encode(), "put")
        elif chance.random() < 0.5:
            draft.delete(key, "delete")
        elif chance.random() < 0.1:
            draft.take_back()
        assert draft.has_planned(Verb.PUT, draft.edits[-1].code if draft.edits else "") == any(
            edit.verb is Verb.PUT for edit in draft.edits
        )
        assert draft._order == sorted(draft._changed)  # an item that was put, deleted and put again stood in one of them only
        asked = chance.randrange(2, 6)
        assert list(draft.back_links(asked).items()) == list(draft._read_back_links(asked).items()), step


def cost_of_names(count: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many names are looked up to mend a file all of whose back links are lost."""
    device = new_device()
    with opened(device) as volume:
        ino = namespace.create(volume, ROOT_INODE, b"first", 0o644, 0, 0)
        for number in range(count):
            namespace.link(volume, ino, ROOT_INODE, b"name %d" % number)
    with editing(device) as store:
        for key, _ in list(store.tree.items(*kind_range(ino, Kind.BACK_LINK))):
            store.tree.delete(key)
    looked_up = 0
    find_name = naming.find_name

    def counted(draft: Draft, directory: int, text: bytes) -> object:
        nonlocal looked_up
        looked_up += 1
        return find_name(draft, directory, text)

    with monkeypatch.context() as patched:
        patched.setattr(naming, "find_name", counted)
        patched.setattr(plan_links, "find_name", counted)
        done = finished(repair(device))
    assert done.after.clean and not done.refused
    return looked_up


def test_a_file_with_many_names_is_mended_name_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name asked all others whether they are confirmed: 500 took two seconds, 4,000 minutes."""
    assert cost_of_names(120, monkeypatch) <= 3 * 120
