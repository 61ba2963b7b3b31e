"""Which copy of the superblock is the truth, where the image holds copies of an older filesystem as well."""

from dataclasses import replace

import pytest

from razortools.check.repair import superblock_copies
from razortools.check.repair.repair import Repaired, repair
from razortools.check.runner import check_quietly
from razortools.check.steps import finished
from razortools.engine import namespace
from razortools.engine.create import create, plan_create
from razortools.engine.store import superblocks
from razortools.engine.store.device import Device
from razortools.engine.volume import open_volume
from razortools.errors import NotAnImage
from razortools.format.inode import ROOT_INODE
from razortools.format.superblock import SUPERBLOCK_BYTES, Superblock
from razortools.units import KIB, MIB
from tests.check.editing import facts_of
from tests.check.samples import KeptDevice

OLD, NEW = bytes([1] * 16), bytes([2] * 16)
OLD_AT_NS, NEW_AT_NS = 1_000_000_000, 2_000_000_000
CASES = [(16, 4, 8, 4), (16, 4, 16, 64), (16, 64, 16, 4), (16, 8, 4, 8)]  # MiB and KiB a block of the old one, of the new one


def make(device: Device, size_bytes: int, uuid: bytes, at_ns: int, block_bytes: int) -> None:
    """Make a filesystem at the start of *device*, which is not wiped."""
    device.write(0, bytes(136 * KIB))
    wishes = {"uuid": uuid, "hash_seed": uuid, "made_at_ns": at_ns, "block_bytes": block_bytes, "metadata_copies": 1}
    create(device, plan_create(size_bytes, **wishes))  # type: ignore[arg-type]


def twice_used(old_mib: int, old_kib: int, new_mib: int, new_kib: int) -> KeptDevice:
    """Return a device on which a filesystem of many generations was followed by a fresh one, both slots of which are lost."""
    device = KeptDevice(16 * MIB + 28 * KIB)
    make(device, min(old_mib * MIB, device.size_bytes), OLD, OLD_AT_NS, old_kib * KIB)
    for number in range(4):
        with open_volume(device, clock=lambda: OLD_AT_NS) as volume:
            namespace.mkdir(volume, ROOT_INODE, b"old%d" % number, 0o755, 0, 0)
    make(device, new_mib * MIB, NEW, NEW_AT_NS, new_kib * KIB)
    return device


def lose_slots(device: Device, block_bytes: int) -> None:
    for slot in (0, 1):
        device.write(slot * block_bytes, bytes(SUPERBLOCK_BYTES))


@pytest.mark.parametrize("case", CASES)
def test_a_superblock_of_an_older_filesystem_is_never_the_truth(case: tuple[int, int, int, int]) -> None:
    device = twice_used(*case)
    assert superblocks.newest(device).uuid == NEW
    lose_slots(device, case[3] * KIB)
    try:
        assert superblocks.newest(device).uuid == NEW
    except NotAnImage:  # no backup of the new one lies where one is looked for
        assert {copy.superblock for copy in superblocks.find_copies(device)} == {None}


def test_both_readers_believe_the_filesystem_that_was_written_last_and_razorfsck_says_so() -> None:
    device = twice_used(*CASES[0])
    lose_slots(device, 4 * KIB)
    report = check_quietly(device)
    told = [finding.message for finding in report.findings if finding.code == "E0120"]
    assert told and all(OLD.hex() in text and NEW.hex() in text for text in told)
    assert report.summary.directories == 1  # those of the old one are gone, and were not looked for
    assert superblocks.newest(device).uuid == NEW
    assert not {finding.code for finding in report.findings} - {"E0101", "E0104", "E0106", "E0109", "E0120"}


def test_a_repair_goes_on_from_the_filesystem_that_is_there_whatever_the_others_agree_about() -> None:
    device = twice_used(*CASES[0])
    lose_slots(device, 4 * KIB)
    done: Repaired = finished(repair(device))
    assert done.refused == ""
    assert superblocks.newest(done.overlay).uuid == NEW
    assert check_quietly(done.overlay).summary.directories == 1
    assert {copy.uuid for copy in superblock_copies.all_copies_of(device)} == {NEW}


def test_a_slot_says_which_filesystem_is_there_whatever_backups_tell() -> None:
    device = twice_used(*CASES[0])
    copies = [copy.superblock for copy in superblocks.find_copies(device) if copy.superblock]
    foreign = replace(copies[-1], uuid=OLD, generation=99, written_at_ns=NEW_AT_NS + 1)
    device.write(foreign.address * foreign.block_bytes, foreign.encode())
    assert superblocks.newest(device).uuid == NEW
    assert facts_of(device).image.superblock.uuid == NEW


def test_a_backup_counts_only_where_its_own_geometry_has_one() -> None:
    """A copy of a whole image inside of a file, for one, may come to lie where a backup is looked for."""
    device = KeptDevice(16 * MIB)
    make(device, 16 * MIB, NEW, NEW_AT_NS, 4 * KIB)
    found = superblocks.newest(device)
    place = 8 * MIB // (4 * KIB)
    inner = replace(found, uuid=OLD, block_count=found.block_count // 2 + 77, address=place, generation=50, written_at_ns=1 << 60)
    device.write(place * 4 * KIB, inner.encode())
    lose_slots(device, 4 * KIB)
    assert superblocks.newest(device).uuid == NEW
    assert "E0120" not in {finding.code for finding in check_quietly(device).findings}


def test_one_filesystem_is_told_from_another_with_the_same_uuid_by_when_it_was_made() -> None:
    device = twice_used(*CASES[0])
    lose_slots(device, 4 * KIB)
    old = next(one for one in every_copy(device) if one.uuid == OLD)
    for copy in every_copy(device):
        if copy.uuid == NEW:
            device.write(copy.address * copy.block_bytes, replace(copy, uuid=OLD).encode())
    found = superblocks.newest(device)
    assert (found.uuid, found.made_at_ns) == (OLD, NEW_AT_NS)
    assert found.generation < old.generation


def every_copy(device: Device) -> list[Superblock]:
    """Return every superblock anywhere on *device*."""
    copies = (superblocks.read_copy(device, offset) for offset in range(0, device.size_bytes, SUPERBLOCK_BYTES))
    return [copy.superblock for copy in copies if copy.superblock]
