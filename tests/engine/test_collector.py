"""The collector looks less often, but still finds what only it can find."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from razortools.engine import collector


class Knot:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    """Leave the process as it was."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_was_there_before_is_not_looked_at_again() -> None:
    collector.calm()
    assert gc.get_freeze_count() > 10_000
    assert gc.isenabled()


def test_cycles_that_are_made_later_are_found_before_memory_fills_up() -> None:
    collector.calm()
    ghost = weakref.ref(Knot())
    kept = [[number] for number in range(2 * collector.YOUNG_OBJECTS)]
    assert ghost() is None
    assert len(kept) == 2 * collector.YOUNG_OBJECTS
