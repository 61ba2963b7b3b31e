"""A journal that cannot be replayed hides what became of the files: what a check finds in the older state is not acted upon."""

from razortools.check.inventory import take_inventory
from razortools.check.repair.repair import Repaired, Wishes, repair
from razortools.check.runner import Options, check_quietly
from razortools.check.steps import finished
from razortools.engine import namespace
from razortools.engine.store.device import Device
from razortools.format.data import DataRecord
from razortools.format.keys import Kind
from tests.check.editing import find_inode, first_item, flip, image_of
from tests.check.samples import healthy, opened


def repaired(device: Device) -> Repaired:
    return finished(repair(device, Wishes(check=Options(threads=1))))


def test_a_file_that_the_journal_deletes_does_not_come_back_in_parts() -> None:
    """A damaged map kept the journal from being replayed, and a damaged record of the deleted file was cut out of nothing."""
    device = healthy()
    _, value = first_item(device, find_inode(device, "/docs/many"), Kind.DATA_RECORD)
    volume = opened(device)
    namespace.unlink(volume, namespace.resolve(volume, b"/docs"), b"many")
    volume.commit()  # and the power fails
    device.write(DataRecord.decode(value).address * 4096, bytes(512))  # more than a bit: it cannot be turned back
    superblock = image_of(device).superblock
    flip(device, (superblock.spacemap_a, superblock.spacemap_b)[superblock.spacemap_active] * 4096 + 9)
    assert {"E0207", "E0508", "E0801"} <= {finding.code for finding in check_quietly(device).findings}

    done = repaired(device)
    assert done.after.clean
    assert done.loss is not None
    assert done.loss.is_none
    inventory = take_inventory(done.overlay)
    assert "/lost+found" not in {inventory.path(number) for number in inventory.numbers}
