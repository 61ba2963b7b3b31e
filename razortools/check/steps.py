"""Steps: work that tells how it goes while it goes, and comes to a value in the end.

A pass, a repair, a scan are generators, so whoever runs them shows their progress, or does not.
"""

from collections.abc import Callable, Generator
from typing import TypeVar

from razortools.check.findings import Progress

PARTS = 1000  # of the whole, for the progress of what is made of several steps
Step = TypeVar("Step")
Result = TypeVar("Result")


def followed(steps: Generator[Step, None, Result], tell: Callable[[Step], object]) -> Result:
    """Return what *steps* come to; *tell* gets each of them."""
    while True:
        try:
            step = next(steps)
        except StopIteration as done:
            result: Result = done.value
            return result
        tell(step)


def finished(steps: Generator[object, None, Result]) -> Result:
    """Return what *steps* come to, without telling how it goes."""
    return followed(steps, lambda step: None)


def scaled(steps: Generator[Progress, None, Result], first: int, last: int) -> Generator[Progress, None, Result]:
    """Run *steps* and tell their progress as that of a part of the whole, from *first* to *last* of PARTS."""
    reached = first
    while True:
        try:
            step = next(steps)
        except StopIteration as done:
            result: Result = done.value
            return result
        share = min(step.done / step.total, 1.0) if step.total else 0.0
        reached = max(reached, first + int(share * (last - first)))
        yield Progress(reached, PARTS)
