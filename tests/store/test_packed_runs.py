"""Packed runs: what a list of runs would say, in sixteen bytes each."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.engine.store import packed_runs
from razortools.engine.store.packed_runs import PackedRuns
from razortools.format.data import Run
from razortools.units import BlockNo

starts = st.integers(0, (1 << 48) - 1).map(BlockNo)
lists_of_runs = st.lists(st.tuples(starts, st.integers(1, (1 << 32) - 1)))


def blocks(runs: list[Run]) -> list[int]:
    return sorted(block for start, count in runs for block in range(start, start + count))


@given(st.lists(lists_of_runs))
def test_it_is_the_list_of_what_was_added(lists: list[list[Run]]) -> None:
    packed = PackedRuns()
    for runs in lists:
        packed.add(runs)
    assert list(packed) == [run for runs in lists for run in runs]
    assert len(packed) == len(list(packed))


@given(lists_of_runs, lists_of_runs)
def test_a_copy_stays_as_it_was_and_can_be_dropped_from_the_original(first: list[Run], second: list[Run]) -> None:
    packed = PackedRuns(first)
    copy = packed.copy()
    packed.add(second)
    assert list(copy) == first
    packed.drop_oldest(copy)
    assert list(packed) == second


@pytest.mark.parametrize("others", [[(BlockNo(1), 3)], [(BlockNo(2), 2)], [(BlockNo(1), 2), (BlockNo(9), 1)]])
def test_only_the_oldest_can_be_dropped(others: list[Run]) -> None:
    with pytest.raises(AssertionError, match="not the oldest"):
        PackedRuns([(BlockNo(1), 2), (BlockNo(5), 1)]).drop_oldest(PackedRuns(others))


@given(st.lists(st.tuples(st.integers(0, 500).map(BlockNo), st.integers(1, 5)), max_size=40), st.integers(1, 8))
def test_pieces_are_ordered_joined_small_and_name_each_block_as_often(runs: list[Run], piece_runs: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_runs, "PIECE_RUNS", piece_runs)
        pieces = list(PackedRuns(runs).pieces())
    for piece in pieces:
        assert 0 < len(piece) <= piece_runs
        assert all(a[0] <= b[0] and a[0] + a[1] != b[0] for a, b in pairwise(piece))
    assert blocks([run for piece in pieces for run in piece]) == blocks(runs)


def test_a_run_takes_sixteen_bytes_and_some_room_to_grow() -> None:
    tracemalloc.start()
    try:
        packed = PackedRuns((BlockNo(1_000_000 + 3 * number), 2) for number in range(100_000))
        assert tracemalloc.get_traced_memory()[0] < 20 * len(packed)
        tracemalloc.reset_peak()
        assert sum(len(piece) for piece in packed.pieces()) == len(packed)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(packed) + 400 * packed_runs.PIECE_RUNS
    finally:
        tracemalloc.stop()
