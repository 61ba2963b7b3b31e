"""Power cuts inside of repairs: no state that one may leave is worse than what was there, and every one can be taken back.

The repairs are real ones, of one image for each problem in the table. The explorer is able to fail: each way to write a repair
out that breaks a promise on purpose is caught.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from razortools import crashtest
from razortools.check.repair import undo as undo_module
from razortools.check.repair.undo_file import UndoWriter
from razortools.check.repair.write_order import WriteOrder
from razortools.cli import app as cli
from razortools.debug.crashtest.hurting import hurt
from razortools.debug.crashtest.repair_campaign import mend as mend_really
from razortools.debug.crashtest.repair_log import LoggedDisk, LoggedShelf
from razortools.debug.crashtest.repairs import Mend, RepairDepth, RepairExplorer, RepairTally
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.recovery import open_store
from razortools.errors import DeviceFailed
from razortools.format.superblock import State
from razortools.format.undo import Stage
from tests.check.damages import DAMAGES, Damage
from tests.check.mending import damaged, mend
from tests.check.samples import unclean
from tests.schemas import valid

SEED = 1
SHALLOW = RepairDepth(states_per_flush=12, undo_from=1, again_from=1)
# Nothing is wrong with these, or nothing can be done.
NOT_WRITTEN = {"E0109", "E0110", "E0111", "E0112", "E0113", "E0115", "E0118", "E0119", "E0201", "E0202", "E0315", "E0513"}
DEEP = RepairDepth(states_per_flush=256, undo_from=6, again_from=3)


def explored(device: Device, depth: RepairDepth, mending: Mend = mend) -> RepairTally:
    return RepairExplorer(device.read(0, device.size_bytes), mending, SEED, depth).explore()


def one_of_each() -> list[tuple[str, Damage]]:
    return list(dict(reversed(DAMAGES)).items())


@pytest.mark.parametrize(("code", "damage"), one_of_each(), ids=[code for code, _ in one_of_each()])
def test_a_power_cut_in_a_real_repair_makes_nothing_worse_and_can_be_taken_back(code: str, damage: Damage) -> None:
    print(f"seed {SEED}")
    try:
        found = explored(damage(), SHALLOW, mend_really)
    except DeviceFailed:  # bad sectors: what the explorer starts from must be readable
        assert code in ("E0302", "E0802")
        return
    assert found.violations == []
    assert found.is_written == (code not in NOT_WRITTEN)
    assert not found.is_written or len(found.states) >= 8  # where a repair writes a few sectors, these are all


@pytest.mark.parametrize("start", [damaged, lambda: unclean(2)], ids=["clean", "unclean"])
def test_a_small_repair_explored_deeply(start: Callable[[], Device]) -> None:
    found = explored(start(), DEEP)
    assert found.violations == []
    assert len(found.states) > 1000
    assert set(found.stages) == {"write-out", "undo", "again"}


# The explorer can fail


@contextmanager
def truth_before_the_rest(patch: pytest.MonkeyPatch) -> Iterator[None]:
    stage = WriteOrder.stage
    swapped = {Stage.AHEAD: Stage.TRUTH, Stage.TRUTH: Stage.AHEAD}
    patch.setattr(WriteOrder, "stage", lambda order, offset: swapped.get(stage(order, offset), Stage.BEHIND))
    yield


@contextmanager
def everything_at_once(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """One flush for all of the pages."""
    patch.setattr(WriteOrder, "stage", lambda order, offset: Stage.AHEAD)
    yield


@contextmanager
def the_rest_too_early(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the old filesystem needs is overwritten before the new one is the truth."""
    stage = WriteOrder.stage
    patch.setattr(WriteOrder, "stage", lambda order, offset: min(stage(order, offset), Stage.TRUTH))
    yield


@contextmanager
def undo_file_not_flushed(patch: pytest.MonkeyPatch) -> Iterator[None]:
    finish, flush = UndoWriter.finish, LoggedDisk.flush

    def finish_without_flush(writer: UndoWriter, now_ns: int) -> None:
        patch.setattr(LoggedDisk, "flush", lambda disk: None)
        finish(writer, now_ns)
        patch.setattr(LoggedDisk, "flush", flush)

    patch.setattr(UndoWriter, "finish", finish_without_flush)
    yield


@contextmanager
def undo_file_of_an_earlier_repair_overwritten(patch: pytest.MonkeyPatch) -> Iterator[None]:
    publish = LoggedShelf.publish

    def publish_over_it(shelf: LoggedShelf) -> None:
        publish(shelf)
        shelf.older.clear()

    patch.setattr(LoggedShelf, "publish", publish_over_it)
    yield


@contextmanager
def taken_back_the_same_way_round(patch: pytest.MonkeyPatch) -> Iterator[None]:
    patch.setattr(undo_module, "reversed", sorted, raising=False)
    yield


@contextmanager
def taken_back_without_flushes(patch: pytest.MonkeyPatch) -> Iterator[None]:
    restore = undo_module._Undo._restore

    def restore_without_flush(undoing: undo_module._Undo, stage: Stage) -> None:
        flush = LoggedDisk.flush
        patch.setattr(LoggedDisk, "flush", lambda disk: None)
        restore(undoing, stage)
        patch.setattr(LoggedDisk, "flush", flush)

    patch.setattr(undo_module._Undo, "_restore", restore_without_flush)
    yield


BREAKS = (
    truth_before_the_rest,
    everything_at_once,
    the_rest_too_early,
    undo_file_not_flushed,
    undo_file_of_an_earlier_repair_overwritten,
    taken_back_the_same_way_round,
    taken_back_without_flushes,
)


@pytest.mark.parametrize("broken", BREAKS, ids=[broken.__name__ for broken in BREAKS])
def test_a_repair_that_breaks_a_promise_is_caught(broken: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    with broken(monkeypatch):  # type: ignore[attr-defined]
        found = [
            violation
            for start in (damaged(), unclean(2))
            for violation in explored(start, RepairDepth(states_per_flush=64, again_from=2)).violations
        ]
    assert found


def test_a_repair_that_overwrites_what_the_old_filesystem_names_is_caught() -> None:
    """Two checkpoints: the second one takes blocks that only the first one had freed."""

    def careless(overlay: OverlayDevice) -> None:
        mend(overlay)
        store, _ = open_store(overlay)
        for key, value in list(store.tree.items(bytes(18), b"\xfe" * 18)):
            store.tree.delete(key)
            store.tree.put(key, value)
        assert store.room.holds_tree()
        store.checkpoint(store.superblock.written_at_ns, state=State.CLEAN)

    found = explored(damaged(), RepairDepth(states_per_flush=64), careless)
    assert any("worse off" in violation for violation in found.violations)


# The command


def crash_test(*words: str) -> int:
    """Return the exit code of razorfs-debug crashtest with *words*."""
    return cli.invoke(crashtest.app, crashtest.NAME, cli.CRASHTEST_CODES, words)


QUICK = ("--depth", "12", "--compound", "1")


def test_the_command_repairs_images_that_it_has_damaged_and_tells_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert crash_test("--repairs", "4", "--seed", "3", *QUICK, "--json") == 0
    figures = valid("razorfs-debug", json.loads(capsys.readouterr().out), "crashtest")
    assert (figures["verdict"], figures["images"], figures["violations"], figures["story"]) == ("no violation", 4, 0, [])
    assert 0 < figures["repairs"] <= 4
    assert figures["states"] > 50
    assert crash_test("--repairs", "1", "--seed", "3", *QUICK) == 0
    assert "images, damaged at random" in capsys.readouterr().out


def test_a_violation_is_told_as_a_story_and_repeated_by_its_seed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with everything_at_once(monkeypatch):
        assert crash_test("--repairs", "20", "--seed", "1", *QUICK) == 4
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith("image: ") for line in lines)
        assert any("power cut after" in line for line in lines)
        command = next(line for line in lines if line.startswith("repeat: ")).removeprefix("repeat: razorfs-debug crashtest ")
        assert crash_test(*command.split(), *QUICK) == 4
        assert [line for line in capsys.readouterr().out.splitlines() if "power cut" in line] == [
            line for line in lines if "power cut" in line
        ]


def test_the_same_seed_damages_the_same_image() -> None:
    assert hurt(5) == hurt(5)
    assert hurt(5).image != hurt(6).image
    assert len({hurt(seed).story for seed in range(30)}) == 30
