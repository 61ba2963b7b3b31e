"""Places for several items at once: what each wants, from nobody else, side by side where there is room; or nothing at all."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.engine.create import create, plan_create
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.recovery import open_store
from razortools.engine.store.spacemaps import SIDE_BY_SIDE_GROUPS, SpaceMaps
from razortools.errors import OutOfSpace
from razortools.units import MIB, BlockNo


def scattered(seed: int) -> SpaceMaps:
    """Return the space map of an image whose free blocks lie in pieces."""
    chance = random.Random(seed)
    device = MemoryDevice(4 * MIB)
    create(device, plan_create(device.size_bytes))
    maps = open_store(device)[0].maps
    pieces = []
    longest = chance.choice([2, 20, 300])
    while maps.free_blocks:
        pieces += maps.place(min(chance.randrange(1, longest), maps.free_blocks))
    for start, count in chance.sample(pieces, len(pieces) // 2):
        maps.unplace([(start, count)])
    return maps


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 1 << 32), counts=st.lists(st.integers(1, 40), max_size=30))
def test_each_gets_what_it_wants_from_nobody_else_or_nobody_anything(seed: int, counts: list[int]) -> None:
    maps = scattered(seed)
    free, unclaimed = maps.free_blocks, dict(maps.unclaimed)
    try:
        placed = maps.place_each(counts)
    except OutOfSpace:
        assert sum(counts) > free
        assert (maps.free_blocks, maps.unclaimed) == (free, unclaimed)
        return
    assert [sum(count for _, count in runs) for runs in placed] == counts
    blocks = [block for runs in placed for first, count in runs for block in range(first, first + count)]
    assert len(set(blocks)) == sum(counts) == free - maps.free_blocks and all(map(maps.is_used, blocks))
    assert maps.unclaimed == unclaimed | {first: count for runs in placed for first, count in runs}
    for runs in placed:
        maps.unplace(runs)
    assert (maps.free_blocks, maps.unclaimed) == (free, unclaimed)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1 << 32), start=st.integers(0, 1100), count=st.integers(0, 1100))
def test_the_free_parts_of_a_run_are_its_free_blocks(seed: int, start: int, count: int) -> None:
    maps = scattered(seed)
    parts = maps.free_parts(BlockNo(start), count)
    blocks = [block for first, length in parts for block in range(first, first + length)]
    end = min(start + count, maps.geometry.block_count)
    assert blocks == [block for block in range(start, end) if not maps.is_used(BlockNo(block))]
    assert all(first + length < after for (first, length), (after, _) in pairwise(parts)), "each as long as it is"


def test_where_there_is_room_they_lie_side_by_side() -> None:
    device = MemoryDevice(4 * MIB)
    create(device, plan_create(device.size_bytes))
    maps = open_store(device)[0].maps
    runs = [run for of_one in maps.place_each([3, 1, 8]) for run in of_one]
    assert [first - runs[0][0] for first, _ in runs] == [0, 3, 4]


def test_what_fails_on_the_way_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = scattered(3)
    free, unclaimed, honest, calls = maps.free_blocks, dict(maps.unclaimed), maps.place, []

    def place(count: int) -> list[tuple[int, int]]:
        calls.append(count)
        if len(calls) == 3:
            raise OutOfSpace("as the test asked")
        return honest(count)  # type: ignore[return-value]

    monkeypatch.setattr(maps, "place", place)
    with pytest.raises(OutOfSpace, match="as the test asked"):
        maps.place_each([free // 8] * 6)
    assert (len(calls), maps.free_blocks, maps.unclaimed) == (3, free, unclaimed)


def test_a_large_image_is_not_searched_through_for_them_to_lie_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each group has room enough, in single blocks: who serves requests would look at all of them, each time."""
    device = MemoryDevice(1024 * MIB)
    create(device, plan_create(device.size_bytes))
    maps = open_store(device)[0].maps
    for group in range(maps.group_count):
        free = maps._free_bits(group)
        maps._bits[group] |= free & int("01" * (maps.group_blocks // 2), 2)
        maps.free[group] = maps._free_bits(group).bit_count()
    maps.free_blocks = sum(maps.free)
    assert len([free for free in maps.free if free >= 100]) > 5
    searched: list[int] = []
    honest = maps._free_bits
    monkeypatch.setattr(maps, "_free_bits", lambda group: searched.append(group) or honest(group))
    placed = maps.place_each([1] * 100)
    assert sum(count for runs in placed for _, count in runs) == 100
    assert len(set(searched)) <= SIDE_BY_SIDE_GROUPS
