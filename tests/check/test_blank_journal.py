"""A journal of which nothing is left, in an image that was in use: said, not mounted, repaired; and what only looks like it."""

import pytest

from razortools.check.problems import JOURNAL_DAMAGED
from razortools.check.repair.repair import Wishes, repair
from razortools.check.runner import Options, check_quietly
from razortools.check.steps import finished
from razortools.engine import namespace
from razortools.engine.store.device import Device
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage
from razortools.format.inode import ROOT_INODE
from tests.check.editing import image_of
from tests.check.samples import Clock, Copy, new_device, opened

QUICK = Options(threads=1)


def codes(device: Device) -> set[str]:
    return {finding.code for finding in check_quietly(device, QUICK).findings}


def in_use() -> tuple[Device, Volume]:
    """An image that was written to before its last checkpoint and after it, and is still open."""
    device = new_device()
    volume = opened(device)
    for name in (b"before", b"since"):
        volume.checkpoint()
        namespace.create(volume, ROOT_INODE, name, 0o600, 0, 0)
        volume.commit()
    return device, volume


def overwrite_journal(device: Device, filling: int = 0) -> None:
    """Take away all that stands in the journal."""
    geometry = image_of(device).geometry
    device.write(geometry.journal_start * geometry.block_bytes, bytes([filling]) * geometry.journal_bytes)


@pytest.mark.parametrize("filling", [0, 0xA5])
def test_it_is_said_and_not_mounted(filling: int) -> None:
    device, _ = in_use()
    overwrite_journal(device, filling)
    assert JOURNAL_DAMAGED.code in codes(device)
    with pytest.raises(CorruptImage, match="nothing is left in the journal"):
        open_volume(device, clock=Clock())


def test_the_repair_says_what_may_be_lost_and_it_mounts_again_even_after_a_crash_at_once() -> None:
    device, _ = in_use()
    overwrite_journal(device)
    done = finished(repair(device, Wishes(check=QUICK)))
    assert done.loss.dropped_transactions
    assert codes(done.overlay) == set()
    volume = open_volume(done.overlay, clock=Clock())
    assert namespace.lookup(volume, ROOT_INODE, b"before")
    crashed = Copy(done.overlay)  # in use, and nothing was committed
    assert codes(crashed) == set()
    open_volume(crashed, clock=Clock())


def test_nothing_is_missed_in_a_clean_image() -> None:
    device, volume = in_use()
    volume.close()
    overwrite_journal(device)
    assert codes(device) == set()


def test_nothing_is_missed_after_the_journal_was_compacted() -> None:
    device, volume = in_use()
    volume.compact_journal()
    for copy in (Copy(device), without_newest_superblock(Copy(device))):
        overwrite_journal(copy)  # what a discard does, where a device can
        assert JOURNAL_DAMAGED.code not in codes(copy)
        open_volume(copy, clock=Clock())


def without_newest_superblock(device: Device) -> Device:
    """Take away the slot that was written last: the other one must not expect what was compacted."""
    image = image_of(device)
    for block in (image.superblock.generation % 2, *image.geometry.backups):
        device.write(block * image.block_bytes, bytes(512))
    return device
