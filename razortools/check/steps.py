"""The progress of steps: that of a whole which is made of several."""

from collections.abc import Generator
from typing import TypeVar

from razortools.check.findings import Progress
from razortools.steps import finished, followed, mapped

__all__ = ["PARTS", "finished", "followed", "mapped", "scaled"]  # how they are run is the same on every floor

PARTS = 1000  # of the whole, for the progress of what is made of several steps
Result = TypeVar("Result")


def scaled(steps: Generator[Progress, None, Result], first: int, last: int) -> Generator[Progress, None, Result]:
    """Run *steps* and tell their progress as that of a part of the whole, from *first* to *last* of PARTS."""
    reached = first

    def part(step: Progress) -> Progress:
        nonlocal reached
        share = min(step.done / step.total, 1.0) if step.total else 0.0
        reached = max(reached, first + int(share * (last - first)))
        return Progress(reached, PARTS)

    return mapped(steps, part)
