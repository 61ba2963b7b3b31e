"""Power cuts inside of compactions: no state that one may leave has lost anything or asks for a check, each can be taken back,
and each can be compacted again.

It is the explorer of repairs (see test_repairs.py, which shows that it can fail) on images in which nothing is wrong.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from razortools.check.compact.compact import compact
from razortools.check.repair.write_order import REPAIR_GENERATIONS, marked
from razortools.check.runner import Options
from razortools.check.steps import finished
from razortools.debug.crashtest.repairs import NothingToMend, RepairDepth, RepairExplorer, RepairTally
from razortools.engine.store import superblocks
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.format.superblock import SUPERBLOCK_BYTES, Superblock
from tests.check.aged import aged, compacted
from tests.check.samples import unclean
from tests.workload import Workload, opened

SEED = 1
DEPTH = RepairDepth(states_per_flush=5, undo_from=1, again_from=1)


def one_step(overlay: OverlayDevice) -> None:
    """Make *overlay* show what the first step of a compaction makes of the image below it."""
    made: list[OverlayDevice] = []

    def write(step: OverlayDevice) -> str:
        made.append(step)
        return "undo file"

    done = finished(compact(overlay.base, Options(threads=1), write, lambda: bool(made)))
    if not made:
        raise NothingToMend(done.refused)
    overlay._pages, overlay._shown = made[0]._pages, made[0]._shown


def explored(device: Device, compacting: Callable[[OverlayDevice], None] = one_step, depth: RepairDepth = DEPTH) -> RepairTally:
    return RepairExplorer(device.read(0, device.size_bytes), compacting, SEED, depth, is_sound=True).explore()


def full() -> Device:
    device = aged(growing_count=3)
    with opened(device) as volume:
        Workload(volume, SEED, file_bytes_max=60_000).fill()
    return device


@pytest.mark.slow
@pytest.mark.parametrize("start", [aged, full, lambda: unclean(2)], ids=["aged", "full", "unclean"])
def test_a_power_cut_in_a_compaction_loses_nothing_and_can_be_taken_back(start: Callable[[], Device]) -> None:
    print(f"seed {SEED}")
    found = explored(start())
    assert found.violations == []
    assert found.is_written and len(found.states) > 20
    assert set(found.stages) == {"write-out", "undo", "again"}


# The explorer can fail


def two_steps_at_once(overlay: OverlayDevice) -> None:
    """The second step uses what only the first one has freed."""
    compacted(overlay, steps_max=2)


def test_a_compaction_that_overwrites_what_the_old_filesystem_names_is_caught() -> None:
    found = explored(full(), two_steps_at_once, RepairDepth(states_per_flush=12, undo_from=0, again_from=0))
    assert any("worse off" in violation or "check finds" in violation for violation in found.violations)


def test_a_compaction_that_was_cut_off_asks_for_no_check() -> None:
    device = aged()
    before = superblocks.newest(device)
    newer = replace(before, generation=before.generation + REPAIR_GENERATIONS)
    told = [marked(device, newer, is_sound=is_sound) for is_sound in (True, False)]
    counts = [Superblock.decode(mark[1][:SUPERBLOCK_BYTES]).error_count for mark in told if mark is not None]
    assert counts == [before.error_count, before.error_count + 1]
