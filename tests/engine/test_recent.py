"""Tables of recent values are bounded, and never forget what was just used."""

from hypothesis import given
from hypothesis import strategies as st

from razortools.engine.recent import RecentTable

STEPS = st.lists(st.tuples(st.sampled_from(["get", "put", "drop"]), st.integers(0, 30)))


@given(steps=STEPS, capacity=st.integers(1, 20))
def test_a_value_is_what_was_put_last_or_forgotten(steps: list[tuple[str, int]], capacity: int) -> None:
    table: RecentTable[int, int] = RecentTable(capacity)
    truth: dict[int, int] = {}
    for time, (step, key) in enumerate(steps):
        if step == "put":
            table.put(key, time)
            truth[key] = time
        elif step == "drop":
            table.drop(key)
            truth.pop(key, None)
        else:
            assert table.get(key) in (None, truth.get(key))
        assert len(table) <= max(capacity, 2)


@given(steps=STEPS, capacity=st.integers(2, 20))
def test_the_last_half_of_the_keys_used_is_still_there(steps: list[tuple[str, int]], capacity: int) -> None:
    table: RecentTable[int, int] = RecentTable(capacity)
    used: list[int] = []
    for _, key in steps:
        table.put(key, key)
        used = [key, *(other for other in used if other != key)]
    for key in used[: capacity // 2]:
        assert table.get(key) == key


def test_clear_forgets_everything() -> None:
    table: RecentTable[str, int] = RecentTable(10)
    for key in "abcdefghij":
        table.put(key, 1)
    table.clear()
    assert len(table) == 0
    assert table.get("j") is None
