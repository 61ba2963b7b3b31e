"""The admin history of an image to which everything was done, as razorfs-debug tells it."""

import time
from pathlib import Path
from typing import Any

import pytest

from razortools import fsck, mkfs
from razortools.check import problems
from razortools.check.runner import Options, check_quietly
from razortools.cli import app as cli
from razortools.debug.crashtest.disks import RecordingDisk
from razortools.engine.store.admin import history_of
from razortools.engine.store.device import open_image
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.superblocks import newest
from razortools.engine.volume import open_volume
from razortools.format.admin import Action, Outcome
from razortools.units import MIB
from tests.check.editing import edit_inode, find_inode, write_superblocks
from tests.check.samples import Clock, Copy, opened, unclean
from tests.debug.cut_off import states
from tests.debug.tool import answer, crashed, debug, furnished, hurt
from tests.images import open_for_writing
from tests.test_golden import GOLDEN, device_of

SEED = 5


def told(capsys: pytest.CaptureFixture[str], image: Path) -> list[dict[str, Any]]:
    """Return what `admin` tells of *image*."""
    found: list[dict[str, Any]] = answer(capsys, image, "admin")["entries"]
    return found


def checked(*words: object) -> int:
    return cli.invoke(fsck.app, "razorfsck", cli.FSCK_CODES, [str(word) for word in words])


def test_each_thing_that_is_done_to_an_image_has_its_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began_ns, image = time.time_ns(), tmp_path / "a.img"
    assert cli.invoke(mkfs.app, "mkfs.razorfs", cli.MKFS_CODES, [str(image), "16M"]) == 0
    open_for_writing(image).close()
    assert debug("-w", "-R", "mkdir /home", image) == 0
    assert checked("-y", image) == 0
    with open_image(image, writable=True) as device:
        edit_inode(device, find_inode(device, "/home"), link_count=9)
    assert checked("-y", image) == 1
    assert debug("-w", "-R", "relabel other", "-R", "resize 20M", image) == 0
    assert checked("--compact", image) == 0  # nothing is to be gained, so nothing is done
    found = told(capsys, image)
    assert [(one["action"], one["outcome"]) for one in found] == [
        ("mkfs", "done"), ("mount", "done"), ("debug", "done"), ("check", "done"), ("repair", "done"), ("debug", "done"),
        ("label", "done"), ("resize", "done"),
    ]  # fmt: skip
    assert found[0]["detail"] == 16 * MIB and found[-1]["detail"] == 20 * MIB
    assert (found[4]["errors"], found[4]["warnings"], found[4]["detail"]) == (1, 0, 0)
    times = [one["at_ns"] for one in found]
    assert times == sorted(times) and began_ns <= times[0] and times[-1] <= time.time_ns()


def test_a_mount_after_a_crash_says_what_it_recovered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = crashed(tmp_path / "dirty.img", furnished(tmp_path / "a.img"), commits=3)
    open_for_writing(image).close()
    last = told(capsys, image)[-1]
    assert (last["action"], last["outcome"], last["detail"]) == ("mount", "recovered", 3)


def test_a_repair_that_leaves_problems_says_so_and_taken_back_it_leaves_no_entry(tmp_path: Path) -> None:
    image = furnished(tmp_path / "a.img")
    with open_image(image, writable=True) as device:
        edit_inode(device, find_inode(device, "/home/text"), link_count=9, mode=0o0644)
    assert checked("-p", "-f", image) == 5
    before = image.read_bytes()
    assert checked("-y", image) == 1
    with open_image(image, writable=False) as device:
        *_, careful, last = history_of(newest(device))
    assert (careful.action, careful.outcome, careful.detail, careful.errors) == (Action.REPAIR, Outcome.PROBLEMS_LEFT, 2, 3)
    assert (last.action, last.outcome, last.detail, last.errors) == (Action.REPAIR, Outcome.DONE, 0, 2)
    assert checked("--undo", image) == 0
    assert image.read_bytes() == before


def test_a_commit_has_its_entry_and_the_next_opening_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = furnished(tmp_path / "a.img")
    assert debug("-w", "-R", "set inode.uid 7 /home", "-R", "set inode.gid 7 /home", "-R", "commit", image) == 0
    assert told(capsys, image)[-1] | {"at_ns": 0} == told(capsys, image)[-1] | {"at_ns": 0, "action": "commit", "detail": 2}
    open_for_writing(image).close()
    assert [one["action"] for one in told(capsys, image)] == ["mkfs", "mount", "debug", "commit", "mount"]


def test_without_the_feature_nothing_is_kept_until_it_is_switched_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = furnished(tmp_path / "a.img")
    assert debug("-w", "-R", "feature admin_history off", image) == 0
    assert answer(capsys, image, "admin") == {"kept": False, "entries": []}
    open_for_writing(image).close()
    with open_image(image, writable=False) as device:
        assert check_quietly(device).exit_code == 0 and not any(newest(device).admin_history)
    assert debug("-w", "-R", "feature admin_history on", image) == 0
    assert [one["action"] for one in told(capsys, image)] == ["feature"]


@pytest.mark.parametrize("name", GOLDEN)
def test_an_image_of_an_earlier_build_stays_without(name: str) -> None:
    device = device_of(name)
    with open_volume(Copy(device), clock=Clock()) as volume:
        assert not volume.store.superblock.compat and not any(volume.store.superblock.admin_history)


def test_a_damaged_history_is_noted_and_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = furnished(tmp_path / "a.img")
    with open_image(image, writable=True) as device:
        write_superblocks(device, backups=True, admin_history=b"\xff" * 512 + newest(device).admin_history[512:])
        report = check_quietly(device)
    assert {finding.code for finding in report.findings} == {problems.ADMIN_HISTORY.code} and report.exit_code == 0
    open_for_writing(image).close()
    with open_image(image, writable=False) as device:
        assert check_quietly(device).findings == ()
    assert [one["action"] for one in told(capsys, image)] == ["mkfs", "mount", "mount"]


def test_a_rebuild_of_a_lost_tree_keeps_the_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = furnished(tmp_path / "a.img")
    with open_image(image, writable=False) as device:
        truth = newest(device)
        hurt(image, truth.root.address * truth.block_bytes + 100)
        hurt(image, truth.root.mirror * truth.block_bytes + 100)
    assert checked("--rebuild", image) in (1, 5)
    found = told(capsys, image)
    assert [one["action"] for one in found] == ["mkfs", "mount", "repair"] and found[-1]["errors"] > 0


def test_a_power_cut_during_a_mount_leaves_the_history_with_the_mount_or_without() -> None:
    """The superblock has more sectors than one now: no state may look damaged for it."""
    print(f"seed {SEED}")
    start = unclean(2)
    image = start.read(0, start.size_bytes)
    disk = RecordingDisk(bytearray(image))
    with opened(disk):
        pass
    before, after = history_of(newest(start)), history_of(newest(disk))
    assert len(after) == len(before) + 1
    for left in dict.fromkeys(states(image, disk.log, 6, SEED)):
        device = MemoryDevice(len(left))
        device.write(0, left)
        assert history_of(newest(device)) in (before, after)
        assert check_quietly(device, Options(only=frozenset((1,)), threads=1)).exit_code == 0
