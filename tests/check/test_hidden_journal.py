"""A superblock that expects another entry of the journal than the one that waits: found, brought back, not seen for nothing."""

import random

from razortools.check.problems import JOURNAL_HIDDEN
from razortools.check.repair.repair import Wishes, repair
from razortools.check.runner import Options, check_quietly
from razortools.check.steps import finished
from razortools.engine import files, namespace
from razortools.engine.store.device import Device
from razortools.engine.volume import open_volume
from razortools.format.inode import ROOT_INODE
from razortools.units import MIB
from tests.check.editing import image_of, write_superblocks
from tests.check.samples import Clock, Copy, new_device, opened, unclean
from tools.fuzzing.view import view

QUICK = Options(threads=1)


def codes(device: Device) -> set[str]:
    return {finding.code for finding in check_quietly(device, QUICK).findings}


def test_the_repair_brings_back_all_that_waited() -> None:
    device = unclean(3)
    expected = view(device)
    sequence = image_of(device).superblock.journal_sequence
    write_superblocks(device, backups=True, journal_sequence=sequence + (1 << 32))
    assert JOURNAL_HIDDEN.code in codes(device)
    assert view(device) != expected  # a mount forgets it

    done = finished(repair(device, Wishes(check=QUICK)))
    assert done.after.clean
    assert view(done.overlay) == expected


def given_up() -> Device:
    """An image that crashed before the data of its last commit had arrived, was mounted again and at once crashed again."""
    device = new_device()
    volume = opened(device)
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o600, 0, 0)
    volume.checkpoint()
    before, journal = device.read(0, device.size_bytes), volume.store.journal
    files.write(volume, ino, 0, random.Random(1).randbytes(50_000))
    volume.commit()
    after, ring = Copy(device), device.read(journal.start_bytes, journal.ring_bytes)
    after.write(0, before)
    after.write(journal.start_bytes, ring)
    again = open_volume(after, clock=Clock())
    assert again.recovered.discarded == 1
    return after


def test_a_transaction_that_a_mount_gave_up_does_not_wait() -> None:
    device = given_up()
    superblock = image_of(device).superblock
    assert codes(device) == set()
    assert image_of(device).superblock == superblock


def test_what_the_round_before_left_in_the_ring_does_not_wait() -> None:
    device = new_device(4 * MIB)
    volume = opened(device)
    for number in range(3000):
        if volume.store.journal.head > 2 * volume.store.journal.ring_bytes:
            break
        namespace.create(volume, ROOT_INODE, b"name %d" % number, 0o600, 0, 0)
        namespace.unlink(volume, ROOT_INODE, b"name %d" % number)
        volume.commit()
    volume.checkpoint()
    crashed = Copy(device)
    write_superblocks(crashed, backups=True, transaction=0)  # all that is left in the ring is of later ones
    assert JOURNAL_HIDDEN.code not in codes(crashed)


def test_a_newer_entry_than_expected_is_no_reason_to_replay_it() -> None:
    """The superblock that names it is lost, and with it perhaps a checkpoint that came without an entry in the journal."""
    device = unclean(3)
    write_superblocks(device, backups=True, journal_sequence=image_of(device).superblock.journal_sequence - 1)
    assert JOURNAL_HIDDEN.code not in codes(device)
    assert "E0203" in codes(device)
