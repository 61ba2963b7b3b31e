"""The pool of places for nodes: what is to be spared is spared, however scattered the free blocks lie."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.engine.create import create, plan_create
from razortools.engine.store.nodepool import NodePool
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.recovery import open_store
from razortools.units import MIB


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 1 << 32), copies=st.sampled_from([1, 2]), wanted=st.lists(st.integers(1, 150), min_size=1, max_size=4))
def test_a_reservation_leaves_what_is_to_be_spared(seed: int, copies: int, wanted: list[int]) -> None:
    chance = random.Random(seed)
    device = MemoryDevice(chance.choice([5, 20]) * MIB)
    create(device, plan_create(device.size_bytes, block_bytes=chance.choice([4096, 16384]), metadata_copies=copies))
    store, _ = open_store(device)
    maps = store.maps
    pieces = []
    longest = chance.choice([4, 60, 300])
    while maps.free_blocks:
        pieces += maps.place(min(chance.randrange(1, longest), maps.free_blocks))
    for start, count in chance.sample(pieces, len(pieces) // chance.choice([2, 3, 5])):
        maps.unplace([(start, count)])
    pool = NodePool(maps, store.geometry, copies)
    for node_count in wanted:
        before, had = maps.free_blocks, pool.node_count
        needed = max(node_count - had, 0) * copies * store.geometry.node_blocks
        spare = max(before - needed - chance.randrange(90), 0)  # just enough, or nearly
        if pool.reserve(node_count, spare) and node_count > had:
            assert maps.free_blocks >= spare, f"{before} free, {node_count} nodes wanted, {spare} to be spared"
            assert pool.node_count >= node_count


def test_taking_more_for_locality_leaves_the_other_side_its_part() -> None:
    """The free blocks lie in runs of 35, so the first side gathers pieces; the last of them was rounded up to a batch."""
    device = MemoryDevice(8 * MIB)
    create(device, plan_create(device.size_bytes, block_bytes=16384))
    store, _ = open_store(device)
    maps = store.maps
    taken = sorted(maps.place(1)[0][0] for _ in range(maps.free_blocks))
    inner = taken[taken.index(next(b for a, b in pairwise(taken) if b == a + 1)) :]
    for number, block in enumerate(inner):
        if number < 5 * 36:
            if number % 36:
                maps.unplace([(block, 1)])
        elif number % 2 and maps.free_blocks < 225:
            maps.unplace([(block, 1)])
    assert maps.free_blocks == 225
    assert NodePool(maps, store.geometry, 2).reserve(71, 74)
    assert maps.free_blocks >= 74


@pytest.mark.parametrize("copies", [1, 2])
def test_what_is_not_reserved_is_not_taken(copies: int) -> None:
    device = MemoryDevice(5 * MIB)
    create(device, plan_create(device.size_bytes, metadata_copies=copies))
    store, _ = open_store(device)
    pool = NodePool(store.maps, store.geometry, copies)
    before = store.maps.free_blocks
    assert not pool.reserve(before, 0 if copies == 2 else before)
    assert store.maps.free_blocks == before


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 1 << 32), copies=st.sampled_from([1, 2]))
def test_what_is_held_is_told_as_few_runs_and_given_back_whole(seed: int, copies: int) -> None:
    chance = random.Random(seed)
    device = MemoryDevice(20 * MIB)
    create(device, plan_create(device.size_bytes, metadata_copies=copies))
    store, _ = open_store(device)
    maps, node_blocks = store.maps, store.geometry.node_blocks
    pieces = [maps.place(chance.randrange(1, 40)) for _ in range(60)]
    for runs in chance.sample(pieces, 30):
        maps.unplace(runs)
    free_before = maps.free_blocks
    pool = NodePool(maps, store.geometry, copies)
    for _ in range(chance.randrange(1, 5)):
        pool.reserve(pool.node_count + chance.randrange(1, 80))
    taken = [start for both in pool.take(chance.randrange(pool.node_count)) for start in both if start]
    runs = sorted(pool.runs())
    assert sum(count for _, count in runs) == pool.block_count == free_before - maps.free_blocks - len(taken) * node_blocks
    assert all(start + count < following for (start, count), (following, _) in pairwise(runs)), "neighbours are one run"
    held = {block for start, count in runs for block in range(start, start + count)}
    assert all(map(maps.is_used, held)), "a run is told that is not held"
    assert not held & {block for start in taken for block in range(start, start + node_blocks)}
    pool.release()
    assert (pool.block_count, pool.node_count, pool.runs()) == (0, 0, [])
    assert maps.free_blocks == free_before - len(taken) * node_blocks
    assert not any(map(maps.is_used, held))
