"""What the crash explorer has found, each kept as it was found: the ground, the workload and the power cut."""

from razortools.debug.crashtest import story
from razortools.debug.crashtest.explorer import Depth, Explorer
from razortools.debug.crashtest.playing import ground
from razortools.debug.crashtest.workloads import numbered


def test_a_commit_entry_whose_last_bytes_are_what_the_ring_held_before_is_no_damage() -> None:
    # The entry ends five bytes behind a sector's beginning. That sector never arrived, but the ring held the same five bytes from
    # its last round, with other things behind them: razorfsck called these stray bytes (E0206).
    explorer = Explorer(ground("wrapping"), 1, Depth())
    workload = "create /b; append /d 100; write /b 0 512; commit; create /d/e; commit; write /b 0 480; commit"
    assert story.repeat(explorer, workload, story.parse_cuts("10:40=1")) is None


def test_what_a_recovery_stores_does_not_make_a_transaction_whole_that_it_has_dropped() -> None:
    # Recovery drops the last transaction, whose data were lost, and finds a patch of the one before. A mount that stored that
    # record first wrote the very bytes into the very blocks: after a power cut the next recovery found the transaction whole.
    explorer = Explorer(ground("plain"), 1, Depth(states_per_flush=200, second_crashes=12))
    explorer.explore(numbered("write /a 3000 3000; begin; rename /a /n"))
    assert explorer.tally.states
    assert not explorer.tally.violations
