"""Steps: work that tells how it goes while it goes, and comes to a value in the end.

A replay, a pass, a repair, a scan are generators, so whoever runs them shows their progress, or does not.
"""

from collections.abc import Callable, Generator
from typing import TypeVar

Step = TypeVar("Step")
Other = TypeVar("Other")
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


def mapped(steps: Generator[Step, None, Result], change: Callable[[Step], Other]) -> Generator[Other, None, Result]:
    """Run *steps*; yield for each of them what *change* makes of it."""
    while True:
        try:
            step = next(steps)
        except StopIteration as done:
            result: Result = done.value
            return result
        yield change(step)
