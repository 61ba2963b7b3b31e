"""A histogram of durations: each is counted once, and a quantile lies within the bucket where it belongs."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.engine.store.durations import BOUNDS_S, Durations, quantile_s

TIMES = st.lists(st.floats(min_value=0, max_value=30), min_size=1, max_size=60)


@given(TIMES)
def test_each_duration_is_in_the_first_bucket_that_holds_it(times: list[float]) -> None:
    durations = Durations()
    for took_s in times:
        durations.note(took_s)
    for number, bound in enumerate(BOUNDS_S):
        assert sum(durations.counts[: number + 1]) == sum(took_s <= bound for took_s in times)
    assert sum(durations.counts) == len(times)
    assert durations.total_s == pytest.approx(sum(times))


@given(TIMES, st.sampled_from([0.5, 0.99, 0.999]))
def test_a_quantile_is_off_by_less_than_its_bucket(times: list[float], share: float) -> None:
    durations = Durations()
    for took_s in times:
        durations.note(took_s)
    exact = sorted(times)[min(int(share * len(times) - 1e-9), len(times) - 1)]
    told = quantile_s(durations.counts, share)
    assert told is not None
    bucket = next((number for number, bound in enumerate(BOUNDS_S) if exact <= bound), len(BOUNDS_S))
    lower = BOUNDS_S[bucket - 1] if bucket else 0.0
    upper = BOUNDS_S[min(bucket, len(BOUNDS_S) - 1)]
    assert lower <= told <= upper


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile_s(Durations().counts, 0.5) is None


def test_quantiles_rise_with_the_share() -> None:
    durations, source = Durations(), random.Random(11)
    for _ in range(1000):
        durations.note(source.expovariate(1000))
    told = [quantile_s(durations.counts, share / 100) for share in range(1, 100)]
    assert told == sorted(told, key=lambda one: one or 0.0)
