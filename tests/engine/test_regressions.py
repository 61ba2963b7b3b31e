"""Bugs that were found once, each by its name."""

import os
import random
from dataclasses import replace

import pytest

from razortools.check import runner
from razortools.check.findings import Severity
from razortools.engine import files, namespace
from razortools.engine.inodes import InodeTable
from razortools.engine.namespace import AttributeChange
from razortools.engine.store.pages import MemoryDevice
from razortools.errors import OutOfSpace
from razortools.format.inode import ROOT_INODE
from razortools.units import KIB, MIB
from tests.workload import formatted, opened


def problems(device: MemoryDevice) -> list[str]:
    """Return what the check finds wrong."""
    return [finding.message for finding in runner.check_quietly(device).findings if finding.severity is not Severity.NOTE]


@pytest.mark.parametrize("spare_blocks", range(0, 60, 6))
@pytest.mark.parametrize("metadata_copies", [1, 2])
def test_a_write_of_many_small_records_keeps_room_for_their_items(spare_blocks: int, metadata_copies: int) -> None:
    """A write promised the tree room for one record however many it made dirty; the commit then found none, nor did recovery."""
    device = MemoryDevice(4 * MIB)
    formatted(device, record_bytes=4 * KIB, metadata_copies=metadata_copies)
    volume = opened(device)
    source = random.Random(1)
    ino = namespace.create(volume, ROOT_INODE, b"a", 0o644, 0, 0)
    other = namespace.create(volume, ROOT_INODE, b"b", 0o644, 0, 0)
    files.write(volume, other, 0, source.randbytes(4 * 4 * KIB))
    volume.checkpoint()
    data = source.randbytes(4 * KIB * (volume.statistics().free_blocks - spare_blocks))
    try:
        written = files.write(volume, ino, 0, data)
    except OutOfSpace:
        written = 0
    volume.commit()
    volume.checkpoint()
    volume.close()
    assert opened(device, read_only=True).inodes.get(ino).size == written
    device.read_only = False
    assert not problems(device)


def test_an_inode_that_an_operation_holds_survives_the_flush_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flush pushed the inode out of its table and changed another copy, which the operation then wrote over."""
    device = MemoryDevice(64 * MIB)
    formatted(device)
    volume = opened(device)
    volume.inodes = InodeTable(volume, capacity=16)
    for number in range(100):
        small = namespace.create(volume, ROOT_INODE, b"%d" % number, 0o644, 0, 0)
        files.write(volume, small, 0, os.urandom(5000))
    ino = namespace.create(volume, ROOT_INODE, b"x", 0o644, 0, 0)
    files.write(volume, ino, 0, os.urandom(9000))
    answers = iter([False])
    really = volume._has_room
    monkeypatch.setattr(volume, "_has_room", lambda blocks, **how: next(answers, None) is None and really(blocks, **how))
    namespace.setattr(volume, ino, AttributeChange(mode=0o600))
    assert volume.inodes.get(ino).stored_blocks == 3
    volume.close()
    assert not problems(device)


def test_a_checkpoint_that_is_begun_after_more_was_done_takes_all_of_it_along() -> None:
    """It named the new sizes without the data and kept old counters: after a crash an inode's number was given away twice."""
    device = MemoryDevice(4 * MIB)
    formatted(device)
    volume = opened(device)
    namespace.create(volume, ROOT_INODE, b"a", 0o644, 0, 0)
    volume.begin_commit()
    ino = namespace.create(volume, ROOT_INODE, b"b", 0o644, 0, 0)
    files.write(volume, ino, 0, b"b" * 9000)
    volume.settle()
    volume.begin_checkpoint()
    volume.settle()
    assert not problems(device)  # as a power cut would leave it
    again = opened(device)
    assert files.read(again, ino, 0, 9000) == b"b" * 9000
    assert namespace.create(again, ROOT_INODE, b"c", 0o644, 0, 0) != ino


def test_an_image_whose_mounts_cannot_be_counted_any_more_is_mounted_all_the_same() -> None:
    # Found by the field fuzz: one more did not fit into the superblock, so no mount for writing was possible.
    device = formatted(MemoryDevice(MIB))
    for _ in range(2):
        with opened(device) as volume:
            volume.store.superblock = replace(volume.store.superblock, mount_count=(1 << 32) - 1)
    with opened(device) as volume:
        assert volume.store.superblock.mount_count == (1 << 32) - 1
