"""razorfs-debug crashtest: figures as text and as one document, exit codes, and a story that can be repeated word by word."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from razortools import crashtest
from razortools.cli import app as cli
from razortools.debug.crashtest import story
from razortools.debug.crashtest.campaign import Plan, run
from razortools.debug.crashtest.explorer import Depth, Explorer, PowerCut, Violation
from razortools.debug.crashtest.playing import ground
from razortools.debug.crashtest.workloads import numbered
from razortools.errors import UsageError
from tests.crashtest import broken_engines as broken
from tests.schemas import valid

QUICK = ("--ground", "plain", "--depth", "12", "--compound", "0", "--jobs", "1")
LONG = "mkdir /m; write /a 0 9000; rename /b /n; setxattr /d user.k 20"  # only its second operation needs its data
DEEPER = ("--depth", "64", "--compound", "0")  # deep enough to meet a commit that arrived before its data
DEPTH = Depth(states_per_flush=64, second_crashes=0)


def crash_test(*words: str) -> int:
    """Return the exit code of razorfs-debug crashtest with *words*."""
    return cli.invoke(crashtest.app, crashtest.NAME, cli.CRASHTEST_CODES, words)


@pytest.fixture
def broken_replay(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The engine believes transactions whose data never arrived; undo() mends it."""
    broken.data_not_verified(monkeypatch)
    yield monkeypatch
    monkeypatch.undo()


def told_violation(capsys: pytest.CaptureFixture[str], text: str = "write /a 0 9000") -> list[str]:
    """Explore *text*, which must violate a promise, and return the lines of the story."""
    assert crash_test("--workload", text, *DEEPER) == 4
    return capsys.readouterr().out.splitlines()


def repeat_words(lines: list[str]) -> list[str]:
    """Return the words that a story says it is repeated with, without the command's name."""
    command = next(line for line in lines if line.startswith("repeat: ")).removeprefix("repeat: ")
    name, words = shlex.split(command)[:2], shlex.split(command)[2:]
    assert name == ["razorfs-debug", "crashtest"]
    return words


# Verdicts


def test_no_violation_is_exit_code_0_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert crash_test("--workload", "create /n; fsync /n", *QUICK[:-2]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == "no violation"
    assert re.search(r"^workloads +1$", out, re.MULTILINE)


def test_json_is_one_document_with_the_figures_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert crash_test("--json", "--workload", "create /n", *QUICK[:-2]) == 0
    out, err = capsys.readouterr()
    found = valid("razorfs-debug", json.loads(out), "crashtest")
    assert (found["verdict"], found["violations"], found["story"], found["workloads"]) == ("no violation", 0, [], 1)
    assert 0 < found["recovered_in_full"] <= found["states"] <= found["tried"]
    assert err == ""


def test_a_violation_is_exit_code_4_and_a_story(broken_replay: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told_violation(capsys)
    text = "\n".join(lines)
    assert "VIOLATION, the smallest of" in text
    assert "workload on the plain image: write /a 0 9000" in text
    assert "power cut during: " in text
    assert "was lost" in text or "was torn" in text
    assert "no violation" not in text
    assert crash_test("--json", "--workload", "write /a 0 9000", *DEEPER) == 4
    found = valid("razorfs-debug", json.loads(capsys.readouterr().out), "crashtest")
    assert found["verdict"] == "violation" and found["violations"] > 0
    assert found["story"] == lines[lines.index(found["story"][0]) :]


def test_quiet_says_nothing_unless_there_is_a_violation(capsys: pytest.CaptureFixture[str]) -> None:
    assert crash_test("--quiet", "--workload", "create /n", *QUICK[:-2]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_text_is_the_same_on_every_run_but_for_the_time_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for _ in range(2):
        assert crash_test("--length", "0", "--random", "8", "--seed", "3", *QUICK) == 0
        out = capsys.readouterr().out
        told.append(re.sub(r"(?m)^(seconds|distinct states a second) .*$", r"\1", out))
    assert told[0] == told[1]
    assert "workloads" in told[0] and " 8" in told[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--length", "4"], "--length 4"),
        (["--depth", "0"], "--depth 0"),
        (["--compound", "-1"], "--compound -1"),
        (["--jobs", "0"], "--jobs 0"),
        (["--random", "-1"], "--random -1"),
        (["--states", "-1"], "--states -1"),
        (["--seconds", "nan"], "--seconds nan"),
        (["--ground", "mars"], "plain, single, full"),
        (["--crash", "1:"], "--crash means nothing to a campaign; it goes with --workload"),
        (["--workload", "explode /n"], "explode"),
        (["--workload", "create"], "create PATH"),
        (["--workload", "create /n", "--crash", "soon"], "soon"),
        (["--workload", "create /n", "--crash", "99999:"], "99999"),
        (["--seed", "much"], "--seed"),
        (["--length", "0"], "--length 0 tries nothing"),
        (["--length", "0", "--random", "0"], "--length 0 tries nothing"),
        (["--repairs", "1", "--ground", "plain"], "--ground means nothing to --repairs; it goes with a campaign or --workload"),
        (["--repairs", "1", "--workload", "create /n"], "--workload means nothing to --repairs"),
        (["--repairs", "1", "--workload", "create /n", "--crash", "1:"], "--workload means nothing to --repairs"),
        (["--repairs", "1", "--crash", "1:"], "--crash means nothing to --repairs; it goes with --workload"),
        (["--workload", "create /n", "--random", "3"], "--random means nothing to --workload; it goes with a campaign"),
        (["--workload", "create /n", "--length", "1"], "--length means nothing to --workload"),
    ],
)
def test_words_that_make_no_sense_get_one_sentence_and_exit_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert crash_test(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.startswith(f"{crashtest.NAME}: ") and said in err


def test_every_option_stands_in_the_table() -> None:
    told = set().union(*crashtest.GOES_WITH.values())
    with_all = {"seed", "depth", "second", "as_json", "quiet", "version", "debug"}
    options = [one for one in typer.main.get_command(crashtest.app).params if one.param_type_name == "option"]
    assert with_all <= {one.name for one in options}
    assert told == {word for one in options if one.name not in with_all for word in one.opts if word.startswith("--")}


def test_it_is_a_word_of_razorfs_debug() -> None:
    command = [sys.executable, "-m", "razortools.debugfs", "crashtest", "--json", "--workload", "create /n", "--depth", "4"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert json.loads(finished.stdout)["verdict"] == "no violation"


# Repeating


def test_the_words_of_a_story_give_the_same_violation_again(
    broken_replay: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = told_violation(capsys)
    assert crash_test(*repeat_words(first)) == 4
    again = capsys.readouterr().out.splitlines()
    start = "workload on the plain image: write /a 0 9000"
    assert again[again.index(start) :] == first[first.index(start) :]


def test_with_the_engine_mended_the_same_words_find_nothing(
    broken_replay: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = repeat_words(told_violation(capsys))
    broken_replay.undo()
    assert crash_test(*words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no violation"


def test_a_violation_after_several_power_cuts_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    broken.nodes_not_flushed_by_recovery(monkeypatch)
    plan = Plan(depth=Depth(states_per_flush=32, second_crashes=1), grounds=("plain",), exhaustive_length=1)
    violation = min(run(plan).violations, key=lambda violation: violation.size)
    assert len(violation.cuts) > 1
    explorer = Explorer(ground("plain"), 1, plan.depth)
    cuts = story.parse_cuts(story.format_cuts(violation.cuts))
    assert cuts == violation.cuts
    found = story.repeat(explorer, violation.workload, cuts)
    assert found is not None  # repeating looks at everything, exploring lets razorfsck look at some of the states only
    assert all(reason in "; ".join(found.reasons) for reason in violation.reasons)
    lines = story.tell(violation, explorer.ground, 1)
    assert any(line.startswith(f"power cut 1 of {len(cuts)}") for line in lines)
    assert any("mount after the crash" in line or "work after the crash" in line for line in lines)


def test_the_smallest_violation_leaves_out_what_it_does_not_need(broken_replay: pytest.MonkeyPatch) -> None:
    explorer = Explorer(ground("plain"), 1, DEPTH)
    explorer.explore(numbered(LONG))
    found = list(explorer.tally.violations)
    assert found
    smallest = story.smallest(found, explorer)
    assert smallest.workload in LONG.split("; ")
    assert smallest.size <= min(violation.size for violation in found)
    assert story.repeat(Explorer(ground("plain"), 1, DEPTH), smallest.workload, smallest.cuts) is not None


@pytest.mark.parametrize(
    "cuts", [(PowerCut(6, ((48, 1), (49, 3))),), (PowerCut(1, ()), PowerCut(20, ((7, 2),))), (PowerCut(0, ()),)]
)
def test_power_cuts_are_read_back_as_they_are_written(cuts: tuple[PowerCut, ...]) -> None:
    assert story.parse_cuts(story.format_cuts(cuts)) == cuts


@pytest.mark.parametrize("text", ["", "x", "1:2", "1:2=", "1:2=3=4", "1:2=3;4", "1:a=1"])
def test_what_is_no_power_cut_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        story.parse_cuts(text)


def test_an_ordinary_bug_is_not_blamed_on_a_crash(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    broken.truncation_keeps_its_tail(monkeypatch)
    assert crash_test("--workload", "truncate /a 5000; truncate /a 9000", *QUICK[2:-2]) == 4
    out = capsys.readouterr().out
    assert "without any crash: " in out and "--crash" not in out


# The run that CI counts


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_thousand_states_of_power_cuts_keep_every_promise(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(
        seed=1, depth=Depth(states_per_flush=48, second_crashes=1), exhaustive_length=2, random_count=None,
        states_max=50_000, jobs=2,
    )  # fmt: skip
    result = run(plan)
    with capsys.disabled():
        print(
            f"\ncrash explorer: {result.workload_count:,} workloads, {len(result.states):,} distinct states, of them "
            f"{len(result.compound):,} after several power cuts, {result.seconds:.0f} s, "
            f"{result.states_per_second:,.0f} states/s, {len(result.violations)} violations"
        )
    assert no_violation(result.violations)
    assert len(result.states) >= 50_000
    assert result.compound


def no_violation(violations: list[Violation]) -> bool:
    """Return whether there is none; print how to repeat the first one."""
    for violation in violations[:1]:
        print(violation.ground, violation.workload, story.format_cuts(violation.cuts), *violation.reasons, sep="\n")
    return not violations
