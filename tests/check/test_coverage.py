"""Who answers for which keys: the rules of coverage, on small sets of nodes that stand for a tree and its past."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from razortools.check.repair.coverage import Child, Leaf, Open, Tile, offers, tile
from razortools.check.scan import FoundNode
from razortools.format.keys import HIGHEST_KEY, KEY_BYTES, LOWEST_KEY
from razortools.format.node import ChildPointer

END = 100


def key(number: int) -> bytes:
    """Return a key for a number from 0 to END."""
    if number == 0:
        return LOWEST_KEY
    return HIGHEST_KEY if number == END else number.to_bytes(KEY_BYTES, "big")


def number(some: bytes) -> int:
    return END if some == HIGHEST_KEY else int.from_bytes(some, "big")


def node(level: int, low: int, high: int, generation: int, block: int) -> FoundNode:
    pointer = ChildPointer(block, 0, generation, block)
    return FoundNode(block, pointer, level, key(low), key(high), is_at_home=True, mended=False, good_copies=frozenset({block}))


def child(of: FoundNode) -> Child:
    return of.low, of.high, of.pointer


def answers(found: list[FoundNode], named: dict[int, list[Child]], proven: Iterable[Leaf] = ()) -> list[tuple[int, int, int]]:
    """Return (first, first behind, block of the leaf, 0: lost) of the tiles; *named*: children by the block of an inner node."""
    proven = list(proven)
    offered = offers(found, proven, lambda inner: named.get(inner.block, []))
    return [shown(one) for one in tile(proven, offered, found, leaf_of)]


def leaf_of(found: FoundNode) -> Leaf:
    return Leaf(found.low, found.high, found.pointer, found.block, is_sound=True)


def shown(one: Tile) -> tuple[int, int, int]:
    return number(one.low), number(one.high), one.leaf.block if one.leaf is not None else 0


@given(st.lists(st.tuples(st.integers(0, END), st.integers(0, END)), max_size=20))
def test_what_is_open_is_what_nobody_has_taken(ranges: list[tuple[int, int]]) -> None:
    uncovered, open_numbers = Open(), set(range(END))
    for low, high in ranges:
        taken = {n for a, b in uncovered.take(key(low), key(high)) for n in range(number(a), number(b))}
        assert taken == open_numbers & set(range(low, high))
        open_numbers -= taken
        assert uncovered.is_empty == (not open_numbers)
        assert uncovered.touches(key(low), key(high)) is False
    assert {n for a, b in uncovered.ranges() for n in range(number(a), number(b))} == open_numbers


def test_without_anything_above_the_newest_leaf_answers() -> None:
    old = node(0, 0, END, 1, 10)
    left, right = node(0, 0, 50, 2, 11), node(0, 50, END, 3, 12)
    assert answers([old, left, right], {}) == [(0, 50, 11), (50, END, 12)]
    assert answers([old, right], {}) == [(0, 50, 10), (50, END, 12)]


def test_a_leaf_that_is_named_and_not_found_is_lost_and_no_older_one_takes_its_place() -> None:
    old, left = node(0, 0, END, 1, 10), node(0, 0, 50, 2, 11)
    gone, above = node(0, 50, END, 3, 12), node(1, 0, END, 3, 20)
    found = [old, left, above]
    assert answers(found, {20: [child(left), child(gone)]}) == [(0, 50, 11), (50, END, 0)]


def test_of_a_lost_range_the_older_leaves_are_told_the_newest_first() -> None:
    older, old, gone, above = node(0, 0, END, 1, 10), node(0, 0, 60, 2, 11), node(0, 0, END, 3, 12), node(1, 0, END, 3, 20)
    offered = offers([older, old, above], [], lambda inner: [child(gone)])
    (lost,) = tile([], offered, [older, old, above], leaf_of)
    assert [leaf.block for leaf in lost.older] == [11, 10] and lost.generation == 3


def test_a_leaf_that_is_younger_than_whoever_names_another_answers() -> None:
    """The node above was written anew, too, and that one is lost."""
    old, new, above = node(0, 0, END, 2, 10), node(0, 0, END, 5, 11), node(1, 0, END, 2, 20)
    assert answers([old, new, above], {20: [child(old)]}) == [(0, END, 11)]


def test_a_leaf_that_nobody_named_when_it_should_have_been_named_counts_for_nothing() -> None:
    """It is left over from a checkpoint that was cut short; the next one had the same number."""
    true, torn, above = node(0, 0, END, 2, 10), node(0, 0, END, 4, 11), node(1, 0, END, 6, 20)
    assert answers([true, torn, above], {20: [child(true)]}) == [(0, END, 10)]


def test_the_newest_inner_node_names_and_what_older_ones_named_is_not_missed() -> None:
    """Levels settle from above: what only an outdated node names is no loss."""
    now, gone = node(0, 0, END, 5, 10), node(0, 0, END, 4, 11)
    old_above, above = node(1, 0, END, 4, 20), node(1, 0, END, 5, 21)
    named = {20: [child(gone)], 21: [child(now)]}
    assert answers([now, old_above, above], named) == [(0, END, 10)]
    top = node(2, 0, END, 5, 30)
    assert answers([now, old_above, above, top], named | {30: [child(above)]}) == [(0, END, 10)]


def test_a_lost_inner_node_leaves_its_range_to_the_newest_leaves() -> None:
    left, right, old = node(0, 0, 50, 3, 10), node(0, 50, END, 4, 11), node(0, 50, END, 1, 12)
    gone, top = node(1, 0, END, 4, 20), node(2, 0, END, 4, 30)
    assert answers([left, right, old, top], {30: [child(gone)]}) == [(0, 50, 10), (50, END, 11)]


def test_a_pointer_that_leads_to_the_node_of_another_range_says_nothing() -> None:
    left, right, above = node(0, 0, 50, 2, 10), node(0, 50, END, 2, 11), node(1, 0, END, 2, 20)
    twice = [(key(0), key(50), left.pointer), (key(50), key(END), left.pointer)]
    assert answers([left, right, above], {20: twice}) == [(0, 50, 10), (50, END, 11)]
    proven = [leaf_of(left)]
    assert answers([right, above], {20: twice}, proven) == [(0, 50, 10), (50, END, 11)]


def test_proven_leaves_come_first_and_proven_losses_too() -> None:
    old, new = node(0, 0, END, 3, 10), node(0, 0, 50, 1, 11)
    lost = Leaf(key(50), key(END), ChildPointer(12, 0, 2, 12), 0, is_sound=False)
    assert answers([old], {}, [leaf_of(new), lost]) == [(0, 50, 11), (50, END, 0)]


@given(st.lists(st.tuples(st.integers(0, END - 1), st.integers(1, END), st.integers(1, 9), st.booleans()), max_size=12))
def test_tiles_cover_every_key_once(leaves: list[tuple[int, int, int, bool]]) -> None:
    found = [node(0, low, high, generation, 10 + place) for place, (low, high, generation, _) in enumerate(leaves) if low < high]
    tiles = answers(found, {})
    assert [low for low, _, _ in tiles] == [0, *(high for _, high, _ in tiles[:-1])]
    assert tiles[-1][1] == END
