"""Counts of who holds an inode: what a dict would say, in a fraction of its memory."""

import random
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.engine.holds import PAGE_INODES, Holds
from razortools.units import InodeNo

NUMBERS = st.sampled_from([InodeNo(number) for number in (1, 2, PAGE_INODES - 1, PAGE_INODES, 10**6, 1 << 60)])
COUNTS = st.sampled_from([1, 1, 1, 2, 200, 255, 256, 1000])


@given(st.lists(st.tuples(st.booleans(), NUMBERS, COUNTS)))
def test_they_count_as_a_dict_does(steps: list[tuple[bool, InodeNo, int]]) -> None:
    holds, model = Holds(), Counter[InodeNo]()
    for adds, ino, count in steps:
        if adds:
            holds.add(ino, count)
            model[ino] += count
        elif model[ino] < count:
            with pytest.raises(AssertionError):
                holds.take(ino, count)
        else:
            model[ino] -= count
            assert holds.take(ino, count) == (model[ino] == 0)
        assert all(holds.count(number) == model[number] for number in model)
        assert holds.inode_count == sum(count > 0 for count in model.values())
    for ino, count in model.items():
        if count:
            holds.take(ino, count)
    assert not holds._pages and not holds._more


def bytes_per_inode(numbers: list[InodeNo]) -> float:
    tracemalloc.start()
    try:
        holds = Holds()
        for ino in numbers:
            holds.add(ino)
        return tracemalloc.get_traced_memory()[0] / len(numbers)
    finally:
        tracemalloc.stop()


def test_a_held_inode_takes_a_few_bytes_where_its_neighbours_are_held_and_never_many() -> None:
    everywhere = [InodeNo(number) for number in range(1, 200_001)]
    here_and_there = random.Random(1).sample(everywhere, 20_000)  # one in ten
    alone = [InodeNo(number) for number in range(1, 2_000_000, 100)]
    assert bytes_per_inode(everywhere) < 5
    assert bytes_per_inode(here_and_there) < 60
    assert bytes_per_inode(alone) < 280
