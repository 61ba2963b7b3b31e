"""The explorer is able to fail: each engine that breaks a promise on purpose is caught, and the whole one is not, on equal plans.

Most breaks are caught by the first workloads of any campaign. Where a break needs a history of its own (a full image, a ring that
wraps, a crash of a recovery), the plan says so.
"""

from dataclasses import dataclass

import pytest

from razortools.debug.crashtest.campaign import Plan, run
from razortools.debug.crashtest.explorer import Depth, Explorer, Violation
from razortools.debug.crashtest.playing import ground
from razortools.debug.crashtest.workloads import numbered
from tests.crashtest import broken_engines as broken
from tests.crashtest.broken_engines import Break

SHALLOW = Depth(states_per_flush=32, second_crashes=1)
SINGLE_CUTS = Depth(states_per_flush=64, second_crashes=0)
DEEP = Depth(states_per_flush=256, second_crashes=0)
FEW = Depth(states_per_flush=4, second_crashes=0)
EARLY_STATES_MAX = 6000  # of an honest campaign: seconds

# What every campaign starts with is enough for these.
CAUGHT_EARLY: tuple[Break, ...] = (
    broken.commit_without_flush,
    broken.superblock_before_nodes,
    broken.nodes_not_flushed_before_superblock,
    broken.nodes_not_flushed_by_recovery,
    broken.superblock_not_flushed,
    broken.backups_before_nodes,
    broken.image_in_use_says_clean,
    broken.space_map_overwritten,
    broken.replayed_blocks_left_free,
    broken.freed_blocks_lost,
    broken.half_a_transaction_replayed,
    broken.data_not_verified,
    broken.commit_vouches_for_itself,
    broken.checkpoint_forgets_the_ring_tail,
    broken.stale_mirrors,
    broken.entry_and_inode_in_two_commits,
    broken.truncation_keeps_what_lies_beyond,
    broken.truncation_in_steps_without_a_note,
)


@dataclass(frozen=True)
class History:
    """What it takes to notice a break: a ground, workloads, and how deep to look."""

    ground: str
    depth: Depth
    workloads: tuple[str, ...]


# A value of more than a sector, old and new together, so that one lost sector of the journal lies within one entry.
LONG_VALUES = "create /n; setxattr /n user.k 450; commit; create /m; setxattr /n user.k 450; commit"
MORE_THAN_A_BLOCK = "; ".join(f"mkdir /m{number}" for number in range(12)) + "; commit"
DONE_IN_BETWEEN = "create /m; begin; create /n; write /n 0 5000; settle; begin-checkpoint; settle"
CHANGED_MEANWHILE = "create /k; begin-checkpoint; create /n; write /a 3000 3000; rename /a /m; settle"
MORE_THAN_THE_RING = "; ".join(f"chmod /a 6{number % 8}0; commit" for number in range(40))

NEEDS: tuple[tuple[Break, History], ...] = (
    (broken.freed_blocks_reused_at_once, History("full", SHALLOW, ("create /n", "write /a 0 9000", "write /a 3000 3000"))),
    (broken.orphans_left, History("plain", SINGLE_CUTS, ("hold /a; unlink /a",))),
    (broken.nameless_inodes_kept_from_the_orphan_table, History("plain", SINGLE_CUTS, ("hold /a; unlink /a; commit",))),
    (broken.nameless_inodes_left_to_the_next_commit, History("plain", SINGLE_CUTS, ("hold /a; unlink /a; fsyncdir /",))),
    (broken.commit_entry_not_checked, History("plain", DEEP, (LONG_VALUES,))),
    (broken.fsync_of_one_file_only, History("plain", SINGLE_CUTS, ("write /a 0 9000; fsyncdir /",))),
    (broken.loose_pages_left_behind, History("paged", SINGLE_CUTS, ("write /a 4096 4096; commit",))),
    (broken.data_not_verified, History("paged", SINGLE_CUTS, ("write /a 4096 4096; commit",))),
    (broken.blocks_below_late_pages_let_go, History("paged", SINGLE_CUTS, ("write /a 4096 4096; commit; write /a 8192 4096",))),
    (broken.sync_overtakes_the_commit_before_it, History("plain", SINGLE_CUTS, ("create /n; begin; mkdir /m; fsync /n",))),
    (broken.checkpoint_leaves_data_behind, History("plain", SINGLE_CUTS, (DONE_IN_BETWEEN,))),
    (broken.frozen_nodes_change_before_they_are_encoded, History("plain", SINGLE_CUTS, (CHANGED_MEANWHILE,))),
    (broken.rename_in_two_commits, History("plain", SINGLE_CUTS, ("rename /a /n", "rename /a /d/n"))),
    (broken.exchange_in_two_commits, History("plain", SINGLE_CUTS, ("exchange /a /d/x",))),
    (broken.ring_wraps_to_the_wrong_place, History("wrapping", SINGLE_CUTS, (MORE_THAN_A_BLOCK,))),
    (broken.journal_released_at_every_commit, History("plain", FEW, (MORE_THAN_THE_RING,))),
)


def named(breaks: Break) -> str:
    return breaks.__name__


HISTORIES = {history: named(breaks) for breaks, history in NEEDS}


def explored(history: History) -> list[Violation]:
    """Return what exploring *history* finds with the engine as it is now."""
    explorer = Explorer(ground(history.ground), 1, history.depth)
    for text in history.workloads:
        explorer.explore(numbered(text))
        if explorer.tally.violations:
            break
    return explorer.tally.violations


@pytest.mark.slow
@pytest.mark.parametrize("breaks", CAUGHT_EARLY, ids=named)
def test_a_broken_engine_is_caught_by_the_first_workloads_of_a_campaign(breaks: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch)
    plan = Plan(depth=SHALLOW, grounds=("plain",), exhaustive_length=1, random_count=None, states_max=EARLY_STATES_MAX)
    violations = run(plan).violations
    assert violations, f"not noticed: {breaks.__doc__}"
    assert all(violation.cuts for violation in violations), "it is noticed without any crash: that proves nothing here"


@pytest.mark.slow
@pytest.mark.parametrize(("breaks", "history"), NEEDS, ids=[named(breaks) for breaks, _ in NEEDS])
def test_a_broken_engine_is_caught_by_the_history_that_hurts_it(
    breaks: Break, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch)
    violations = explored(history)
    assert violations, f"not noticed: {breaks.__doc__}"
    assert all(violation.cuts for violation in violations), "it is noticed without any crash: that proves nothing here"


@pytest.mark.slow
@pytest.mark.parametrize("history", HISTORIES, ids=HISTORIES.values())
def test_the_whole_engine_comes_through_the_same_histories(history: History) -> None:
    assert explored(history) == []


@pytest.mark.slow
def test_the_whole_engine_comes_through_the_first_workloads_of_a_campaign() -> None:
    plan = Plan(depth=SHALLOW, grounds=("plain",), exhaustive_length=1, random_count=None, states_max=EARLY_STATES_MAX)
    result = run(plan)
    assert (result.violations, len(result.states) >= EARLY_STATES_MAX) == ([], True)


@pytest.mark.slow
def test_truncations_of_several_operations_survive_power_cuts_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    broken.truncation_in_steps(monkeypatch)
    texts = (
        "truncate /a 0; commit", "truncate /a 5000; commit", "hold /a; unlink /a; commit", "truncate /a 0; append /a 300; commit",
    )  # fmt: skip
    assert explored(History("plain", SINGLE_CUTS, texts)) == []
