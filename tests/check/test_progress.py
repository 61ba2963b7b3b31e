"""A check tells how far it is all the time: counted, not timed."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from razortools.check import comparison, directory_pass, inode_pass, journal_pass, journal_rules, superblock_pass
from razortools.check.findings import Progress
from razortools.check.inventory import take_inventory
from razortools.check.journal_rules import Ring
from razortools.check.runner import Options, PhaseStarted, check
from razortools.engine import files, namespace, xattrs
from razortools.engine.store import arrival, checkpoint, journal_reader, recovery
from razortools.engine.store.device import Device
from razortools.engine.store.journal_reader import JournalReader
from razortools.engine.store.tree import Tree
from razortools.format.inode import ROOT_INODE
from razortools.steps import finished
from razortools.units import MIB
from tests.check.samples import Copy, KeptDevice, healthy, new_device, opened, unclean

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


STEP = 40  # entries of the journal


@pytest.mark.parametrize("torn", [False, True])
def test_a_large_transaction_is_judged_and_replayed_with_signs(torn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    device = new_device(12 * MIB, journal_bytes=2 * MIB)
    volume = opened(device)
    namespace.create(volume, ROOT_INODE, b"before", 0o644, 0, 0)
    volume.commit()
    ring, start = volume.store.journal, volume.store.journal.head
    for number in range(FILES // 3):
        namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 0, 0)
    volume.commit()
    if torn:  # from its second block on it is there as a whole, and proves nothing
        device.write(ring.start_bytes + start % ring.ring_bytes, bytes(4096))
    work = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            nonlocal work
            work += 1
            return function(*arguments)

        return counting

    for owner, name in ((Ring, "entry"), (JournalReader, "_entry"), (Tree, "put"), (journal_pass, "entry_faults"),
                        (recovery, "changed_blocks"), (checkpoint, "encode_node")):  # fmt: skip
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    for owner, name in ((journal_reader, "STEP_ENTRIES"), (journal_rules, "STEP_ENTRIES"), (journal_pass, "STEP_ENTRIES"),
                        (recovery, "PART_ENTRIES"), (arrival, "STEP_ENTRIES")):  # fmt: skip
        monkeypatch.setattr(owner, name, STEP)
    longest = seen = reached = 0
    for event in journal_pass.check(finished(superblock_pass.check(Copy(device)))):
        if isinstance(event, Progress):
            assert reached <= event.done <= event.total
            if event.done > reached:
                longest, seen, reached = max(longest, work - seen), work, event.done
    assert work > 2 * FILES
    assert max(longest, work - seen) <= 3 * STEP


def test_files_are_compared_with_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = take_inventory(unclean(2)), take_inventory(healthy())  # names are gone, so all of them are looked through
    monkeypatch.setattr(comparison, "STEP", 10)
    done = [step.done for step in comparison.comparing(before, after)]
    assert done == sorted(done) and len(set(done)) > len(before.numbers) // 10 > 4
