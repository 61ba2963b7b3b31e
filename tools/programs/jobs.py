"""A job: something that a program does on a mount, and how it went."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.mount.mounts import Mounted

JOB_S = 900  # what takes longer hangs


class Outcome(Enum):
    """How a job went."""

    WELL = "well"
    SKIPPED = "skipped"  # the program says that it does not apply here; the story says why
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Job:
    """What to do on a mount. *do* returns how it went and a word about it."""

    name: str
    do: Callable[[Mounted], tuple[Outcome, str]]


class WentWrong(Exception):
    """A program failed, or what it made is not right."""


def call(words: Sequence[str | Path], *, user: str | None = None, cwd: Path | None = None) -> str:
    """Run a program, as *user*, and return what it said. Raises WentWrong with that if it fails or hangs."""
    said = [str(word) for word in words]
    group = {"user": user, "group": user, "extra_groups": []} if user else {}
    try:
        done = subprocess.run(said, capture_output=True, text=True, timeout=JOB_S, cwd=cwd, errors="replace", **group)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired:
        raise WentWrong(f"{said[0]} had not ended after {JOB_S} s") from None
    output = f"{done.stdout}{done.stderr}"
    if done.returncode:
        raise WentWrong(f"{' '.join(said)}: exit {done.returncode}\n{output[-4000:]}")
    return output


def outcome_of(do: Callable[[Mounted], str]) -> Callable[[Mounted], tuple[Outcome, str]]:
    """Return *do*, which returns a word about its success and raises WentWrong, as a job wants it."""

    def doing(mounted: Mounted) -> tuple[Outcome, str]:
        try:
            return Outcome.WELL, do(mounted)
        except WentWrong as story:
            return Outcome.FAILED, str(story)

    return doing
