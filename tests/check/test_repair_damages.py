"""Every damage that the check knows is repaired, or refused with a sentence; what is not concerned stays as it was.

The laws hold for each of them: a second run finds nothing; the same plan makes the same image; taking back gives what there was.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from razortools.check.comparison import loss
from razortools.check.findings import Severity
from razortools.check.inventory import Inventory, take_inventory
from razortools.check.problems import PROBLEMS
from razortools.check.repair.edits import Verb
from razortools.check.repair.plan_file import plan_for, read_plan, write_plan
from razortools.check.repair.repair import Repaired, Wishes, follow, repair
from razortools.check.repair.undo import undo
from razortools.check.repair.write_out import write_out
from razortools.check.report import Report
from razortools.check.runner import check_quietly
from razortools.check.steps import finished
from razortools.engine.store.device import Device, open_image
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.volume import open_volume
from razortools.format.keys import KIND_AT, Kind
from tests.check.damages import DAMAGES, Damage
from tests.check.editing import indexed

REFUSED = {"E0110", "E0111", "E0112", "E0113", "E0115"}  # nothing can help, or nothing is allowed
IDS = [f"{code}-{number}" for number, (code, _) in enumerate(DAMAGES)]


def repaired(device: Device, wishes: Wishes | None = None) -> Repaired:
    done: Repaired = finished(repair(device, wishes))
    return done


def pages_of(overlay: OverlayDevice) -> dict[int, bytes]:
    return dict(overlay.written_pages())


@pytest.mark.parametrize(("code", "damage"), DAMAGES, ids=IDS)
def test_a_damage_is_repaired_and_a_second_run_is_clean(code: str, damage: Damage) -> None:
    done = repaired(damage())
    if code in REFUSED:
        assert not done.changes
        assert done.refused or done.before.worst is Severity.FATAL
        return
    assert done.refused == ""
    assert done.after.clean, [(finding.code, finding.message) for finding in done.after.findings]
    assert done.changes == (not done.before.clean)
    if done.changes:
        again = repaired(done.overlay)
        assert again.before.clean and not again.changes
        open_volume(OverlayDevice(done.overlay)).close()


@pytest.mark.parametrize(("code", "damage"), DAMAGES, ids=IDS)
def test_files_that_no_finding_concerns_are_what_they_were(code: str, damage: Damage) -> None:
    device = damage()
    done = repaired(device)
    if not done.changes:
        return
    before, after = take_inventory(device), take_inventory(done.overlay)
    costs = loss(before, after)
    hurt = set(hurt_paths(done.before, before))
    touched = {one.old for one in costs.renamed} | {one.path for one in costs.truncated} | set(costs.lost)
    assert {path for path in touched if not is_below_one_of(path, hurt)} == set()


def hurt_paths(report: Report, files: Inventory) -> Iterator[str]:
    """Yield what the findings concern: by path, and by every name of the inode."""
    for finding in report.findings:
        if finding.severity > Severity.NOTE:
            if finding.path is not None:
                yield finding.path
            if finding.inode is not None and files.find(finding.inode) >= 0:
                yield files.path(finding.inode)


def is_below_one_of(path: str, tops: set[str]) -> bool:
    return path in tops or any(top != "/" and path.startswith(f"{top}/") for top in tops)


@pytest.mark.parametrize(("code", "damage"), DAMAGES, ids=IDS)
def test_preening_does_safe_edits_only_and_all_of_them(code: str, damage: Damage) -> None:
    device = damage()
    done = repaired(device, Wishes(careful=True))
    assert all(PROBLEMS[edit.code].repair.safe for edits in done.rounds for edit in edits)
    assert done.loss is None or not done.loss.harmed
    problems = [finding for finding in done.before.findings if finding.severity > Severity.NOTE]
    kinds_are_safe = all(PROBLEMS[finding.code].repair.safe for finding in problems)
    if code not in REFUSED and kinds_are_safe and not destroys(device, repaired(device)):
        assert done.after.clean and not done.refused


def destroys(device: Device, done: Repaired) -> bool:
    """Return whether a repair drops or replaces items other than names: then it is not safe, whatever the problem is called."""
    edits = [edit for edits in done.rounds for edit in edits if edit.key and edit.key[KIND_AT] != Kind.NAME]
    there = indexed(device) if edits else None
    return any(
        edit.verb is Verb.DELETE or (edit.verb is Verb.PUT and there is not None and there.get(edit.key) is not None)
        for edit in edits
    )


@pytest.mark.parametrize(("code", "damage"), DAMAGES, ids=IDS)
def test_following_the_plan_is_the_repair_byte_for_byte(code: str, damage: Damage, tmp_path: Path) -> None:
    device = damage()
    done = repaired(device)
    if not done.changes:
        return
    path = str(tmp_path / "plan")
    write_plan(plan_for(device, done.rounds, None), "image", path)
    same: Repaired = finished(follow(damage(), read_plan(path)))
    assert same.refused == "" and same.rounds == done.rounds
    assert pages_of(same.overlay) == pages_of(done.overlay)


@pytest.mark.parametrize(("code", "damage"), DAMAGES[::5], ids=IDS[::5])
def test_taking_a_repair_back_gives_the_damaged_image_again(code: str, damage: Damage, tmp_path: Path) -> None:
    device = damage()
    if type(device).__name__ == "DeafDevice":
        return  # a bad sector cannot be put into a file
    path = tmp_path / "image"
    path.write_bytes(device.read(0, device.size_bytes))
    with open_image(path, writable=True) as image:
        done = repaired(image)
        if not done.changes:
            return
        write_out(done.overlay, image, str(tmp_path / "undo"))
        assert check_quietly(image).exit_code == 0
        undo(image, str(tmp_path / "undo"))
    assert path.read_bytes() == device.read(0, device.size_bytes)
