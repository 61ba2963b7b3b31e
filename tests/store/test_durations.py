"""A histogram of durations: each is counted once, and a quantile lies within the bucket where it belongs."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.engine.store.durations import BOUNDS_S, Durations, quantile_s

TIMES = st.lists(st.integers(min_value=0, max_value=30 * 10**9), min_size=1, max_size=60)  # ns


@given(TIMES)
def test_each_duration_is_in_the_first_bucket_above_it(times: list[int]) -> None:
    durations = Durations()
    durations.note_all(times)
    for number, bound in enumerate(BOUNDS_S):
        assert sum(durations.counts[: number + 1]) == sum(took / 1e9 < bound for took in times)
    assert sum(durations.counts) == len(times)
    assert durations.total_s == pytest.approx(sum(times) / 1e9)


@given(TIMES, st.integers(0, 60))
def test_many_at_once_count_as_each_alone(times: list[int], cut: int) -> None:
    alone, together = Durations(), Durations()
    for took in times:
        alone.note_all([took])
    together.note_all(times[:cut])
    together.note_all(times[cut:])
    assert (together.counts, together.total_ns) == (alone.counts, alone.total_ns)


@given(TIMES, st.sampled_from([0.5, 0.99, 0.999]))
def test_a_quantile_is_off_by_less_than_its_bucket(times: list[int], share: float) -> None:
    durations = Durations()
    durations.note_all(times)
    exact = sorted(times)[min(int(share * len(times) - 1e-9), len(times) - 1)] / 1e9
    told = quantile_s(durations.counts, share)
    assert told is not None
    bucket = next((number for number, bound in enumerate(BOUNDS_S) if exact < bound), len(BOUNDS_S))
    lower = BOUNDS_S[bucket - 1] if bucket else 0.0
    upper = BOUNDS_S[min(bucket, len(BOUNDS_S) - 1)]
    assert lower <= told <= upper


def test_seconds_are_counted_as_nanoseconds() -> None:
    durations = Durations()
    durations.note(0.25)
    assert durations.total_s == 0.25
    told = quantile_s(durations.counts, 1.0)
    assert told is not None and told / 2 <= 0.25 < told


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile_s(Durations().counts, 0.5) is None


def test_quantiles_rise_with_the_share() -> None:
    durations, source = Durations(), random.Random(11)
    durations.note_all([int(source.expovariate(1000) * 1e9) for _ in range(1000)])
    told = [quantile_s(durations.counts, share / 100) for share in range(1, 100)]
    assert told == sorted(told, key=lambda one: one or 0.0)
