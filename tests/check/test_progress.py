"""A check tells how far it is all the time: counted, not timed."""

from collections import Counter

import pytest

from razortools.check import directory_pass, inode_pass
from razortools.check.findings import Progress
from razortools.check.runner import Options, PhaseStarted, check
from razortools.engine import files, namespace, xattrs
from razortools.engine.store.device import Device
from razortools.format.inode import ROOT_INODE
from razortools.units import MIB
from tests.check.samples import Copy, KeptDevice, new_device, opened

FILES = 1500
READS_MAX = 200  # between two signs: some milliseconds of work, whatever the image
INODES_STEP = 50


class Counting(Copy):
    """Counts what is read."""

    def __init__(self, base: Device) -> None:
        super().__init__(base)
        self.reads = 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return super().read(offset, length)


@pytest.fixture(scope="module")
def many() -> Device:
    """An image of many small files in one directory, each with an attribute and contents in the tree: thousands of nodes."""
    device = new_device(12 * MIB)
    assert isinstance(device, KeptDevice)
    with opened(device) as volume:
        for number in range(FILES):
            ino = namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 0, 0)
            files.write(volume, ino, 0, b"%d, " % number * 200)
            xattrs.set(volume, ino, b"user.note", b"%d" % number * 50)
    return device


@pytest.mark.parametrize(
    "options", [Options(threads=1), Options(threads=1, path="/file 7"), Options(threads=1, only=frozenset((8,)))]
)
def test_no_phase_reads_much_without_a_sign(many: Device, options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_pass, "INODES_STEP", INODES_STEP)
    monkeypatch.setattr(inode_pass, "INODES_STEP", INODES_STEP)
    device = Counting(many)
    longest: Counter[int] = Counter()
    signs: Counter[int] = Counter()
    number, seen = 0, 0
    for step in check(device, options):
        if isinstance(step, PhaseStarted):
            number = step.number
        elif isinstance(step, Progress):
            longest[number] = max(longest[number], device.reads - seen)
            signs[number] += 1
        seen = device.reads
    assert device.reads > 1000
    assert {phase: reads for phase, reads in longest.items() if reads > READS_MAX} == {}
    if 4 in options.only:
        assert signs[3] >= FILES // INODES_STEP and signs[4] >= 2 * FILES // INODES_STEP
