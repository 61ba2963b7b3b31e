"""The daemon is killed in the middle of its work, again and again; what judges the outcome knows a broken promise."""

import errno
from pathlib import Path

import pytest

from tools.kill_rounds import Moment, Rounds, _listen
from tools.killed.load import Step, contents
from tools.killed.plans import Tree
from tools.killed.verdict import History, Verdict, judge

CREATE = Step("create", "a/file")
FIRST = Step("write", "a/file", "", 0, 3000, 2)
SECOND = Step("write", "a/file", "", 3000, 3000, 3)
SYNC = Step("fsync", "a/file")
OTHER = Step("create", "b/file")


def after(*steps: Step) -> Tree:
    """The directory of worker a after the writes *steps*."""
    return {"a/file": b"".join(contents(step.seed, step.length) for step in steps)}


def judged(lines: str, steps: dict[str, list[Step]], found: dict[str, Tree]) -> Verdict:
    """Judge what was *found*; *lines* are what the workers said, such as "a a." for: a began a step and was done with it."""
    histories = {name: History(name, {}, planned) for name, planned in steps.items()}
    for position, word in enumerate(lines.split()):
        history = histories[word[0]]
        (history.done if word.endswith(".") else history.begun).append(position)
    return judge(list(histories.values()), [found[name] for name in steps])


@pytest.mark.mount
@pytest.mark.slow
def test_what_was_promised_is_there_after_each_of_ten_kills(fuse: None, tmp_path: Path) -> None:
    totals = Rounds(tmp_path, seed=7).run(10, tell=print)
    assert totals.violation == ""
    assert (totals.rounds, totals.syncs > 100, totals.acknowledged > 2000) == (10, True, True)


def test_any_prefix_of_what_was_not_synced_is_as_it_should_be() -> None:
    for kept, found in enumerate([{}, after(), after(FIRST), after(FIRST, SECOND)]):
        verdict = judged("a a. a a. a", {"a": [CREATE, FIRST, SECOND]}, {"a": found})
        assert (verdict.violations, verdict.kept, verdict.lost) == ((), (kept,), max(0, 2 - kept))


def test_a_synced_write_that_is_not_there_is_a_violation() -> None:
    verdict = judged("a a. a a. a a.", {"a": [CREATE, FIRST, SYNC]}, {"a": after()})
    assert verdict.promised == (3,)
    assert "a/file: 0 bytes there, 3000 bytes expected" in verdict.violations[0]


def test_a_sync_that_was_not_acknowledged_promises_nothing() -> None:
    assert judged("a a. a a. a", {"a": [CREATE, FIRST, SYNC]}, {"a": {}}).violations == ()


def test_somebody_elses_sync_promises_what_was_acknowledged_before_it_began() -> None:
    steps = {"a": [CREATE, FIRST], "b": [OTHER, Step("fsyncdir", "b")]}
    found: dict[str, Tree] = {"a": {}, "b": {"b/file": b""}}
    verdict = judged("a a. b b. b b.", steps, found)
    assert (verdict.promised, verdict.violations != ()) == ((1, 2), True)
    verdict = judged("b b. b a a. b.", steps, found)
    assert (verdict.promised, verdict.violations) == ((0, 2), ())


def test_a_synchronous_write_promises_itself() -> None:
    steps = {"a": [CREATE, FIRST._replace(is_synced=True)]}
    assert judged("a a. a a.", steps, {"a": after()}).violations
    assert judged("a a. a", steps, {"a": after()}).violations == ()


def test_a_step_without_the_one_before_it_is_a_violation() -> None:
    hole: Tree = {"a/file": bytes(3000) + contents(SECOND.seed, SECOND.length)}
    assert "nearest: after step 3" in judged("a a. a a. a a.", {"a": [CREATE, FIRST, SECOND]}, {"a": hole}).violations[0]


def test_a_step_without_what_others_had_been_told_before_it_began_is_a_violation() -> None:
    steps = {"a": [CREATE], "b": [OTHER]}
    found: dict[str, Tree] = {"a": {}, "b": {"b/file": b""}}
    assert "had 1 steps acknowledged before" in judged("a a. b b.", steps, found).violations[0]
    assert judged("a b b. a.", steps, found).violations == ()


def test_half_a_rename_is_a_violation() -> None:
    steps = {"a": [CREATE, Step("rename", "a/file", "a/new")]}
    for found in ({"a/file": b""}, {"a/new": b""}):
        assert judged("a a. a", steps, {"a": found}).violations == ()
    for found in ({"a/file": b"", "a/new": b""},):
        assert judged("a a. a", steps, {"a": found}).violations


def test_a_write_that_starts_within_a_page_may_be_cut_at_the_end_of_that_page_and_nowhere_else() -> None:
    long = SECOND._replace(length=5000)
    whole = contents(FIRST.seed, 3000) + contents(long.seed, 5000)
    steps = {"a": [CREATE, FIRST, long]}
    assert judged("a a. a a. a", steps, {"a": {"a/file": whole[:4096]}}).kept == (2.5,)
    for end in (4095, 4097, 7999):
        assert judged("a a. a a. a", steps, {"a": {"a/file": whole[:end]}}).violations
    assert judged("a a. a a. a a. a a.", {"a": [*steps["a"], SYNC]}, {"a": {"a/file": whole[:4096]}}).violations


def failures_of(*lines: tuple[str, int, int, int]) -> list[str]:
    """What is held against the daemon of these lines, if it is killed once somebody has been told that something is done."""
    steps = {name: [CREATE, FIRST] for name in "ab"}
    histories = [History(name, {}, planned) for name, planned in steps.items()]
    return _listen(iter(lines), histories, Moment(1, False, 0, ()), lambda: None)


def test_a_call_that_fails_before_the_kill_is_held_against_the_daemon() -> None:
    assert failures_of(("begun", 0, 0, 0), ("failed", 0, 0, errno.EIO)) != []
    assert failures_of(("begun", 0, 0, 0), ("done", 0, 0, 0), ("begun", 1, 0, 0), ("failed", 1, 0, errno.ENOSPC)) != []


def test_what_the_kernel_answers_for_a_dying_daemon_is_not() -> None:
    for error in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO):
        assert failures_of(("begun", 0, 0, 0), ("done", 0, 0, 0), ("begun", 1, 0, 0), ("failed", 1, 0, error)) == []
