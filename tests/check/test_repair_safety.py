"""What a repair must never do to data: each of these did harm once.

The rules: an old superblock never rolls a filesystem back; what -p does costs nothing; a name or a hole is never given away for a
number that is wrong; what is lost all the same is told.
"""

from dataclasses import replace

import pytest

from razortools.check.repair.repair import Repaired, Wishes, repair
from razortools.check.repair.surveying import finished
from razortools.check.runner import Options, check_quietly
from razortools.engine import directories, files, namespace
from razortools.engine.store.device import Device
from razortools.engine.volume import Volume
from razortools.format.inode import ROOT_INODE
from razortools.format.superblock import SUPERBLOCK_BYTES, Superblock
from tests.check.editing import flip, image_of, rewrite_superblock
from tests.check.samples import healthy, opened


def done_to(device: Device, **wishes: object) -> Repaired:
    """Repair; whatever is kept must be clean."""
    done: Repaired = finished(repair(device, Wishes(Options(threads=1), **wishes)))  # type: ignore[arg-type]
    return done


def kept(device: Device, **wishes: object) -> Volume:
    """Repair, demand that it is kept and clean, and open the result."""
    done = done_to(device, **wishes)
    assert done.refused == "" and done.changes
    assert check_quietly(done.overlay).exit_code == 0
    return opened(done.overlay)


def names(volume: Volume, path: str = "/") -> set[bytes]:
    at = ROOT_INODE
    for part in filter(None, path.encode().split(b"/")):
        at = namespace.lookup(volume, at, part)
    return {name for _, name, _ in directories.entries(volume, at)}


# An old superblock


def used_on(device: Device, sessions: int, first: int = 0) -> Device:
    """Make a file and delete two others in each of some sessions."""
    for number in range(first, first + sessions):
        with opened(device) as volume:
            namespace.create(volume, ROOT_INODE, b"new%d" % number, 0o644, 0, 0)
            for member in (number, number + 20):
                namespace.unlink(volume, namespace.lookup(volume, ROOT_INODE, b"crowd"), b"member %d" % member)
            volume.checkpoint()
    return device


def with_a_stale_slot(slot: int) -> Device:
    """Return a filesystem of which one slot was written back from an earlier day."""
    device = healthy()
    olds = [device.read(place * 4096, SUPERBLOCK_BYTES) for place in (0, 1)]
    used_on(device, 3)
    device.write(slot * 4096, olds[slot])
    return device


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("damaged_backup", [False, True])
@pytest.mark.parametrize("careful", [False, True])
def test_a_stale_slot_never_rolls_the_filesystem_back(slot: int, damaged_backup: bool, careful: bool) -> None:
    device = with_a_stale_slot(slot)
    newest = image_of(device)
    if damaged_backup:
        flip(device, newest.geometry.backups[0] * 4096 + 60)
    done = done_to(device, careful=careful)
    assert done.loss is None or (done.loss.is_none and not done.loss.harmed)
    volume = opened(done.overlay)
    assert {b"new0", b"new1", b"new2"} <= names(volume)
    assert b"member 0" not in names(volume, "/crowd")
    if not careful:
        assert done.after.clean


@pytest.mark.parametrize("slot", [0, 1])
def test_a_stale_slot_does_not_outlive_a_journal_that_waits(slot: int) -> None:
    device = with_a_stale_slot(slot)
    volume = opened(device)
    namespace.create(volume, ROOT_INODE, b"waits", 0o644, 0, 0)
    volume.commit()
    old = device.read(slot * 4096, SUPERBLOCK_BYTES)
    device.write(slot * 4096, replace(Superblock.decode(old), generation=2 + slot).encode())
    assert {b"new0", b"new1", b"new2", b"waits"} <= names(kept(device))


def test_a_newer_superblock_that_nothing_confirms_is_believed_while_its_root_can_be_read() -> None:
    device = used_on(healthy(), 1)
    before = image_of(device)
    older = before.superblock
    used_on(device, 3, first=1)
    other = 1 - image_of(device).superblock.slot
    for number, place in enumerate(before.geometry.backups):  # all of them, and a slot, are of an earlier day
        device.write(place * 4096, replace(older, slot=2 + number, address=place).encode())
    device.write(other * 4096, replace(older, slot=other, address=other).encode())
    volume = kept(device)
    assert {b"new0", b"new1", b"new2", b"new3"} <= names(volume)
    assert b"member 1" not in names(volume, "/crowd")


def test_an_old_slot_that_calls_itself_new_is_not_believed() -> None:
    device = used_on(healthy(), 3)
    newest = image_of(device).superblock
    rewrite_superblock(device, 1 - newest.slot, 4096, generation=newest.generation + 1000 + newest.slot)
    assert {b"new0", b"new1", b"new2"} <= names(kept(device))
