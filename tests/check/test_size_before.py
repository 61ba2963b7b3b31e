"""The size from before a resizing: a note where a resizing was cut off, and nowhere else."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from razortools.check.runner import check_quietly
from razortools.engine.store.device import Device
from razortools.engine.store.superblocks import slot_image
from razortools.format.undo import Stage
from tests.check.cut_off import resized_until
from tests.check.editing import image_of, rewrite_superblock
from tests.check.samples import healthy, unclean

OTHER_COUNTS = (400, 511, 513)  # blocks; the images have 512


def codes(device: Device) -> set[str]:
    return {finding.code for finding in check_quietly(device).findings}


def older_slot(device: Device) -> int:
    return 1 - image_of(device).superblock.slot


def settled(device: Device) -> None:
    """Write the other slot, as the last stage of a resizing does, and leave the backups."""
    truth = image_of(device).superblock
    device.write(*slot_image(replace(truth, generation=truth.generation - 1)))


@pytest.mark.parametrize(("stage", "expected"), [(Stage.MARK, {"E0109"}), (Stage.AHEAD, {"E0109"}), (Stage.BEHIND, set())])
def test_a_resizing_before_its_truth_and_at_its_end_leaves_one_size(stage: Stage, expected: set[str]) -> None:
    assert codes(resized_until(stage)) == expected


def test_a_resizing_without_its_last_stage_leaves_the_size_before_in_slot_and_backups() -> None:
    found = check_quietly(resized_until(Stage.TRUTH)).findings
    assert {finding.code for finding in found} == {"E0118"} and len(found) > 1


def test_a_resizing_that_has_written_the_slot_alone_leaves_the_size_before_in_backups() -> None:
    device = resized_until(Stage.TRUTH)
    settled(device)
    assert codes(device) == {"E0118"}


@pytest.mark.parametrize("block_count", OTHER_COUNTS)
@pytest.mark.parametrize("start", [healthy, unclean])
def test_another_size_in_the_older_slot_of_an_image_that_nobody_resized_is_damage(
    start: Callable[[], Device], block_count: int
) -> None:
    device = start()
    rewrite_superblock(device, older_slot(device), 4096, block_count=block_count)
    assert "E0118" not in codes(device) and "E0103" in codes(device)


@pytest.mark.parametrize("block_count", OTHER_COUNTS)
@pytest.mark.parametrize("age", [0, 1, 2, 3])
def test_another_size_in_a_backup_of_an_image_that_nobody_resized_is_damage(age: int, block_count: int) -> None:
    device = healthy()
    image = image_of(device)
    changed = {"generation": image.superblock.generation - age, "block_count": block_count}
    rewrite_superblock(device, image.geometry.backups[0], 4096, **changed)
    assert "E0118" not in codes(device) and "E0105" in codes(device)


@pytest.mark.parametrize("field", ["mount_count", "transaction", "label"])
def test_the_size_before_and_another_field_changed_is_damage(field: str) -> None:
    device = resized_until(Stage.TRUTH)
    value = b"other".ljust(64, b"\0") if field == "label" else 7
    rewrite_superblock(device, older_slot(device), 4096, **{field: value})
    assert "E0103" in codes(device)


@pytest.mark.parametrize(("age", "field"), [(2, "mount_count"), (3, "uuid")])
def test_a_backup_that_tells_the_size_before_and_something_else_is_damage(age: int, field: str) -> None:
    device = resized_until(Stage.TRUTH)
    image = image_of(device)
    place = next(finding.block for finding in check_quietly(device).findings if finding.block in image.geometry.backups)
    assert place is not None
    rewrite_superblock(device, place, 4096, generation=image.superblock.generation - age)
    assert codes(device) == {"E0118"}
    rewrite_superblock(device, place, 4096, **{field: bytes(16) if field == "uuid" else 7})
    assert "E0105" in codes(device)
