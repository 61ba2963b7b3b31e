"""Bytes of a small image, changed one after the other; the long version takes each.

The long version: `python -m tools.fuzz bytes --seeds 0-383`.
"""

import pytest

from tools.fuzzing import bytesweep

pytestmark = pytest.mark.slow

STEP = 331  # a prime, so that the blocks together see most offsets


@pytest.mark.parametrize("quarter", range(4))
def test_a_changed_byte_anywhere_is_found_or_harmless(quarter: int) -> None:
    kinds = set()
    for block in range(quarter, bytesweep.block_count(), 4):
        for outcome in bytesweep.sweep(block, step=STEP, start=block * 7 % STEP):
            assert outcome.failure == "", outcome.case
            kinds.add(outcome.kind)
    assert kinds == {"byte in use", "block not in use"}
