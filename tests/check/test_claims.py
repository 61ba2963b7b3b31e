"""The bitmap of claims agrees with a set of numbers."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from razortools.check.claims import Claims, bit_runs
from razortools.format.spacemap import spacemap_shape

BLOCKS = 3 * 4096 * 8
runs = st.lists(st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, 40_000)), max_size=12)


@given(runs)
def test_claims_are_a_set_that_knows_what_came_twice(wanted: list[tuple[int, int]]) -> None:
    claims = Claims(spacemap_shape(BLOCKS, 4096))
    once: set[int] = set()
    twice: set[int] = set()
    for first, count in wanted:
        run = set(range(first, min(first + count, BLOCKS)))
        assert claims.claim(first, len(run)) == (not run & once)
        twice |= run & once
        once |= run
    bits = {group * claims.group_blocks + bit for group in range(3) for bit in _set_bits(claims.page(group))}
    assert bits == once
    assert claims.has_shared == bool(twice)
    shared = {block for first, last in claims.shared(0, BLOCKS) for block in range(first, last + 1)}
    assert shared == twice


@given(st.integers(0, 1 << 200))
def test_runs_of_bits_put_together_give_the_number(number: int) -> None:
    found = bit_runs(number)
    assert sum(((1 << (last - first + 1)) - 1) << first for first, last in found) == number
    assert all(before[1] + 1 < after[0] for before, after in pairwise(found))


def _set_bits(page: bytes) -> list[int]:
    number = int.from_bytes(page, "little")
    return [bit for first, last in bit_runs(number) for bit in range(first, last + 1)]
