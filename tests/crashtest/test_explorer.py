"""The crash explorer's numbers are honest: what it remembers is what judging would say, and a seed tells all that it does."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.debug.crashtest import oracle, pictures
from razortools.debug.crashtest.campaign import Plan, Result, run
from razortools.debug.crashtest.disks import Base, CrashedDisk, State
from razortools.debug.crashtest.explorer import Depth, Explorer, epochs, states
from razortools.debug.crashtest.memory import Memory
from razortools.debug.crashtest.operations import Operation, parse, text_of
from razortools.debug.crashtest.oracle import Outcome
from razortools.debug.crashtest.playing import GROUNDS, Ground, NotTheReference, ground, play, play_recovery
from razortools.debug.crashtest.workloads import exhaustive, numbered, random_workload
from razortools.engine.loose import LoosePages
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.powercut import SECTOR_BYTES
from razortools.units import InodeNo
from tests.crashtest.broken_engines import late_pages_one_page_off, loose_pages_over_nothing

SHALLOW = Depth(states_per_flush=6, second_crashes=1, states_per_second_flush=4, crashes_max=2)


@pytest.fixture(scope="module")
def plain() -> Ground:
    return ground("plain")


@pytest.fixture(scope="module", params=GROUNDS)
def any_ground(request: pytest.FixtureRequest) -> Ground:
    return ground(request.param)


def whole_disk(base: Base, state: State) -> MemoryDevice:
    """Return an ordinary device that holds *state*: it shares nothing with the disks that the explorer reads from."""
    disk = MemoryDevice(len(base.image))
    disk.write(0, base.bytes_of(state))
    return disk


def judged_in_full(base: Base, state: State) -> Outcome:
    """Return the outcome of *state*, with no memory in between: the second look is at the very disk that the first one left."""
    complaints = [oracle.check(whole_disk(base, state))]
    disk = whole_disk(base, state)
    first = oracle.recover(disk)
    if not first.failure:
        later = oracle.go_on(disk)
        complaints.append(later.failure)
        assert later.picture == first.picture or later.failure
    return Outcome(first.picture, "; ".join(filter(None, (*complaints, first.failure))))


def states_of(on: Ground, text: str, limit: int, seed: int) -> Iterator[State]:
    """Yield states that power cuts in a workload may leave."""
    chance = random.Random(seed)
    for epoch in epochs(on.base, {}, play(on, numbered(text)).log):
        for state, _ in states(on.base, epoch, limit, chance):
            yield state


# Engine and reference


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 25))
def test_engine_and_reference_look_the_same_after_every_operation(plain: Ground, seed: int, length: int) -> None:
    played = play(plain, numbered(random_workload(seed, length)))  # it compares, and raises NotTheReference
    assert len(played.moments) == length + 1


@pytest.mark.slow
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_engine_and_reference_agree_on_the_other_grounds_too(any_ground: Ground, seed: int) -> None:
    play(any_ground, numbered(random_workload(seed, 20)))


def test_on_the_paged_ground_pages_wait_without_their_records(monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[InodeNo] = []
    honest = LoosePages.add

    def add(pages: LoosePages, ino: InodeNo, *words: Any) -> None:
        honest(pages, ino, *words)
        added.append(ino)

    monkeypatch.setattr(LoosePages, "add", add)
    start = ground("paged")
    play(start, numbered("write /a 4096 4096; commit; write /a 0 4096; begin; write /a 8192 4096; settle"))
    assert len(added) == 3
    play(start, numbered(random_workload(1, 40, pages=True)))
    assert len(added) > 8
    with monkeypatch.context() as patch, pytest.raises(NotTheReference):
        late_pages_one_page_off(patch)
        play(start, numbered("write /a 4096 4096; commit"))
    with monkeypatch.context() as patch, pytest.raises(NotTheReference):
        loose_pages_over_nothing(patch)
        play(start, numbered("write /a 4096 4096; commit; write /a 0 4096; commit; write /a 4096 4096; commit"))


def test_a_difference_without_any_crash_is_told_as_one(plain: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "SHOWN_BYTES", 10**6)  # no digests: the words show what differs
    honest = pictures.of_reference
    monkeypatch.setattr(pictures, "of_reference", lambda model: honest(model)[1:])
    with pytest.raises(NotTheReference, match="/ is there, but should not be"):
        play(plain, ())


def test_what_was_refused_changed_nothing_and_promises_nothing(plain: Ground) -> None:
    played = play(plain, numbered("fsync /nothing; mkdir /a; create /n"))
    assert played.moments[0] == played.moments[1] == played.moments[2] != played.moments[3]
    assert [moment for _, moment in played.synced] == [0, 3], "only the mount and the unmount promised something"


def test_what_a_power_cut_may_leave_starts_at_the_last_sync_and_ends_at_what_was_begun(plain: Ground) -> None:
    played = play(plain, numbered("create /n; fsync /n; mkdir /m; sync"))
    (fsync, _), (sync, _), _ = played.synced[1:]
    assert played.allowed(fsync - 1) == played.moments[0:3]
    assert played.allowed(fsync) == played.moments[2:5], "mkdir and sync have begun by then: nothing was written in between"
    assert played.allowed(sync) == played.moments[4:5]
    assert played.allowed(len(played.log)) == played.moments[-1:]


# Memory


@pytest.mark.slow
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32), length=st.sampled_from([1, 2, 4, 8]))
def test_a_verdict_that_is_remembered_is_the_one_that_judging_in_full_gives(any_ground: Ground, seed: int, length: int) -> None:
    explorer = Explorer(any_ground, 1, SHALLOW)
    chance = random.Random(seed)
    # Two workloads with a common beginning, so that there is something to remember from one to the other.
    start = random_workload(seed, length)
    texts = [f"{start}; {random_workload(seed + number, 2)}" for number in range(2)]
    found = [state for text in texts for state in states_of(any_ground, text, 12, seed)]
    for state in chance.sample(found, min(len(found), 30)):
        explorer.judge(state)  # so that the ones below have been seen, or look like one that was
    recalled = 0
    for state in chance.sample(found, min(len(found), 15)):
        before = explorer.tally.judged_count
        outcome = explorer.judge(state)
        recalled += explorer.tally.judged_count == before
        assert outcome == judged_in_full(any_ground.base, state)
    assert recalled > 2, "nothing was remembered: this has tested nothing"


def test_a_verdict_after_a_second_power_cut_is_remembered_as_rightly(plain: Ground) -> None:
    explorer = Explorer(plain, 1, SHALLOW)
    chance = random.Random(5)
    starts = chance.sample(list(states_of(plain, "write /a 0 9000; rename /a /n; commit; mkdir /m", 16, 1)), 4)
    recalled = 0
    for start in starts:
        log = play_recovery(plain.base, start).log
        found = [state for epoch in epochs(plain.base, start, log) for state, _ in states(plain.base, epoch, 8, chance)]
        for state in found:
            before = explorer.tally.judged_count
            outcome = explorer.judge(state)
            if explorer.tally.judged_count == before:
                recalled += 1
                assert outcome == judged_in_full(plain.base, state)
    assert recalled > 20


@settings(max_examples=200)
@given(st.data())
def test_memory_follows_what_a_reader_sees_whatever_it_reads(data: st.DataObject) -> None:
    sectors = 6
    base = Base(bytes(sectors * SECTOR_BYTES))
    memory: Memory[tuple[int, ...]] = Memory()
    seed = data.draw(st.integers(0, 1000))
    for _ in range(data.draw(st.integers(1, 30))):
        state: State = {}
        for place in range(sectors):
            base.put(state, place, bytes([data.draw(st.integers(0, 2))]) * SECTOR_BYTES)
        disk = CrashedDisk(base, state)
        verdict = wandering_reader(disk, seed)
        recalled = memory.recall(state)
        assert recalled in (None, verdict)
        if recalled is None:
            memory.learn(disk.steps, verdict)
            assert memory.recall(state) == verdict


def wandering_reader(disk: CrashedDisk, seed: int) -> tuple[int, ...]:
    """Read and write here and there, where next following from what was found: a judge in small."""
    found: list[int] = []
    for number in range(5):
        chance = random.Random(f"{seed} {number} {found}")
        place = chance.randrange(disk.size_bytes - 700)
        if chance.random() < 0.3:
            disk.write(place // SECTOR_BYTES * SECTOR_BYTES, bytes([7]) * SECTOR_BYTES)
        found += disk.read(place, chance.choice((1, 100, 600)))[::100]
    return tuple(found)


def test_reading_a_crashed_disk_shows_its_state_and_writing_it_changes_nothing_else(plain: Ground) -> None:
    for state in states_of(plain, "write /a 0 5000; commit", 5, 3):
        disk = CrashedDisk(plain.base, state)
        image = bytes(plain.base.bytes_of(state))
        assert disk.read(0, disk.size_bytes) == image
        disk.write(8192, bytes(512))
        assert CrashedDisk(plain.base, state).read(0, disk.size_bytes) == image


# Counting


@pytest.mark.parametrize("text", ["create /n", "write /a 0 9000; commit; rename /a /b"])
def test_as_many_distinct_states_are_counted_as_there_are_different_disks(plain: Ground, text: str) -> None:
    disks, marks, tried = set(), set(), 0
    for state in states_of(plain, text, 60, 1):
        tried += 1
        marks.add(plain.base.mark(state))
        disks.add(bytes(plain.base.bytes_of(state)))
    assert len(marks) == len(disks) < tried, "some states of different moments are the same"


def test_the_explorer_counts_the_states_of_a_workload_as_different_disks(plain: Ground) -> None:
    text = "create /n; commit"
    depth = Depth(states_per_flush=60, second_crashes=0)
    explorer = Explorer(plain, 1, depth)
    explorer.explore(numbered(text))
    chance = random.Random(f"1 plain {text}")
    disks = set()
    tried = 0
    for epoch in epochs(plain.base, {}, play(plain, numbered(text)).log):
        for state, _ in states(plain.base, epoch, 60, chance):
            disks.add(bytes(plain.base.bytes_of(state)))
            tried += 1
    assert (len(explorer.tally.states), explorer.tally.tried_count) == (len(disks), tried)


def test_a_mark_names_a_state_whatever_order_it_was_made_in_and_wherever() -> None:
    image = bytes(8 * SECTOR_BYTES)
    pieces = [(place, bytes([fill]) * SECTOR_BYTES) for place in (1, 5, 3) for fill in (1, 2)]
    marks = set()
    for order in (pieces, pieces[::-1][:3] + pieces):
        base = Base(image)  # another process numbers contents in another order
        state: State = {}
        for place, contents in order:
            base.put(state, place, contents)
        marks.add(base.mark(state))
    assert len(marks) == 1
    assert Base(image).mark({}) not in marks


def test_a_sector_that_is_like_the_base_again_is_no_difference() -> None:
    base = Base(bytes(2 * SECTOR_BYTES))
    state: State = {}
    base.put(state, 1, b"x" * SECTOR_BYTES)
    base.put(state, 1, bytes(SECTOR_BYTES))
    assert state == {}


# Seeds and processes


def figures(result: Result) -> tuple[object, ...]:
    return result.states, result.compound, result.workload_count, result.tried_count, result.violations


def small_plan(**changes: object) -> Plan:
    words = {"seed": 5, "depth": SHALLOW, "grounds": ("plain",), "exhaustive_length": 0, "random_count": 20} | changes
    return Plan(**words)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_states_with_one_process_and_with_two() -> None:
    alone, together = run(small_plan()), run(small_plan(jobs=2))
    assert figures(alone) == figures(together)
    assert alone.workload_count == 20
    assert alone.compound


def test_what_was_explored_before_changes_nothing(plain: Ground) -> None:
    fresh, used = Explorer(plain, 1, SHALLOW), Explorer(plain, 1, SHALLOW)
    for text in ("write /a 0 9000; commit", "create /n"):
        used.explore(numbered(text))
    used.tally = type(used.tally)()
    for explorer in (fresh, used):
        explorer.explore(numbered("create /n; commit"))
    assert fresh.tally.states == used.tally.states
    assert fresh.tally.compound == used.tally.compound
    assert fresh.tally.tried_count == used.tally.tried_count


@pytest.mark.slow
def test_another_seed_gives_other_states() -> None:
    assert run(small_plan(random_count=4)).states != run(small_plan(random_count=4, seed=6)).states


def test_a_campaign_stops_when_it_has_enough_states_or_enough_time() -> None:
    plan = small_plan(random_count=None, depth=Depth(states_per_flush=6, second_crashes=0))
    by_count = run(Plan(**{**plan_words(plan), "states_max": 30}))
    assert 30 <= len(by_count.states) < 2000
    by_time = run(Plan(**{**plan_words(plan), "seconds_max": 0.0}))
    assert by_time.workload_count == 8, "the chunk under way is finished"


def plan_words(plan: Plan) -> dict[str, object]:
    return {name: getattr(plan, name) for name in Plan.__slots__}


def test_a_plan_tries_every_operation_on_every_ground_and_pairs_on_the_first() -> None:
    tasks = list(Plan(exhaustive_length=2, random_count=3).tasks())
    singles = list(exhaustive(1))
    assert tasks[: len(GROUNDS) * len(singles)] == [(name, text) for name in GROUNDS for text in singles]
    assert [text for _, text in tasks[len(GROUNDS) * len(singles) : -3]] == list(exhaustive(2))
    assert {name for name, _ in tasks[len(GROUNDS) * len(singles) : -3]} == {GROUNDS[0]}
    assert len(set(tasks)) == len(tasks)


def test_a_workload_is_read_back_as_it_is_written() -> None:
    for text in [*exhaustive(1), random_workload(3, 30)]:
        assert text_of(parse(text)) == text
        assert all(isinstance(operation, Operation) for operation in parse(text))
