"""Every problem in the table can be found, and nothing that a check meets makes it stop."""

import pytest

from razortools.check.explain import explain
from razortools.check.findings import Severity
from razortools.check.problems import (
    COMMITTED_SINCE,
    COPIES_NOT_JUDGED,
    MAP_NOT_KEPT,
    MOVED_ON,
    PASS_FAILED,
    PROBLEMS,
    TOO_MANY,
)
from razortools.check.runner import check_quietly
from razortools.errors import UsageError
from tests.check.damages import DAMAGES, Damage

IN_USE = {problem.code for problem in (MOVED_ON, COPIES_NOT_JUDGED, COMMITTED_SINCE, MAP_NOT_KEPT)}  # see test_in_use.py
GENERAL = {problem.code for problem in (*PASS_FAILED.values(), *TOO_MANY.values())}


def test_every_problem_has_a_damage_that_brings_it() -> None:
    assert {code for code, _ in DAMAGES} == set(PROBLEMS) - GENERAL - IN_USE


@pytest.mark.parametrize(("code", "damage"), DAMAGES, ids=[f"{code}-{number}" for number, (code, _) in enumerate(DAMAGES)])
def test_a_damage_is_reported_under_its_code(code: str, damage: Damage) -> None:
    report = check_quietly(damage())
    found = {finding.code for finding in report.findings}
    assert code in found, [(finding.code, finding.message) for finding in report.findings]
    assert not found & {problem.code for problem in PASS_FAILED.values()}
    severity = PROBLEMS[code].severity
    if severity is Severity.FATAL:
        assert report.exit_code & 8
    elif severity > Severity.NOTE:
        assert report.exit_code == 4


def test_codes_carry_the_phase_that_finds_them() -> None:
    assert all(code[0] == "E" and 1 <= int(code[1:3]) <= 8 and code[3:].isdigit() for code in PROBLEMS)


@pytest.mark.parametrize("code", sorted(PROBLEMS))
def test_every_code_is_explained_in_sentences(code: str) -> None:
    told = dict(explain(code.lower()))
    assert told["Code"] == code
    assert told["Cause"].endswith(".") and told["Risk"].endswith(".") and told["Repair"].endswith(".")
    assert not any("{" in text or "}" in text for text in told.values())  # only the sentence has values, shown as <value>


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(UsageError, match="such as E0501"):
        explain("E9999")
