"""The engine without a journal, which exists to measure what the journal costs: checkpoints are all it promises."""

import random
from pathlib import Path

import pytest

from razortools.engine import directories, files, namespace
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import open_volume
from razortools.format.inode import ROOT_INODE
from razortools.format.journal import JOURNAL_MAGIC, Operation
from tests.engine.volumes import Clock, new_device, open_again

PACKAGE = Path(__file__).parents[2] / "razortools"


class CountingDevice(MemoryDevice):
    """Counts what reaches it."""

    flushes = writes = 0

    def flush(self) -> None:
        self.flushes += 1
        super().flush()

    def write(self, offset: int, data: bytes | memoryview) -> None:
        self.writes += 1
        super().write(offset, data)


def filled(*, journaling: bool) -> tuple[CountingDevice, dict[bytes, bytes]]:
    """Do some work, commit in between, close; return the device and the volume's items at the end."""
    device = CountingDevice(16 << 20)
    device.write(0, new_device().read(0, 16 << 20))
    with open_volume(device, clock=Clock(), journaling=journaling) as volume:
        for number in range(200):
            ino = namespace.create(volume, ROOT_INODE, b"%d" % number, 0o644, 0, 0)
            files.write(volume, ino, 0, bytes([number]) * 3000 * (number % 5))
            if number % 50 == 49:
                volume.commit()
        namespace.unlink(volume, ROOT_INODE, b"7")
    return device, dict(open_again(device).store.items(bytes(18), b"\xff" * 18))


def test_it_ends_in_the_same_state_after_the_same_work() -> None:
    assert filled(journaling=False)[1] == filled(journaling=True)[1]


def test_a_commit_writes_the_data_and_flushes_once_and_leaves_the_journal_alone() -> None:
    device = CountingDevice(16 << 20)
    device.write(0, new_device().read(0, 16 << 20))
    volume = open_volume(device, clock=Clock(), journaling=False)
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    files.write(volume, ino, 0, random.Random(1).randbytes(65_536))
    writes, flushes = device.writes, device.flushes
    volume.commit()
    assert (device.writes - writes, device.flushes - flushes) == (1, 1)
    volume.commit()
    assert (device.writes - writes, device.flushes - flushes) == (1, 1)  # nothing has changed
    files.write(volume, ino, 65_536, b"a small change, which a journal would hold as a patch")
    volume.commit()
    assert (device.writes - writes, device.flushes - flushes) == (2, 2)
    journal = volume.store.journal
    assert JOURNAL_MAGIC not in device.read(journal.start_bytes, journal.ring_bytes)


def test_a_crash_takes_everything_since_the_last_checkpoint_and_nothing_before_it() -> None:
    device = new_device()
    volume = open_volume(device, clock=Clock(), journaling=False)
    namespace.create(volume, ROOT_INODE, b"kept", 0o644, 0, 0)
    volume.checkpoint()
    namespace.create(volume, ROOT_INODE, b"committed", 0o644, 0, 0)
    volume.commit()
    again = open_again(device)
    assert [name for _, name, _ in directories.entries(again, ROOT_INODE)] == [b"kept"]


def test_an_operation_that_fails_is_taken_back_all_the_same() -> None:
    volume = open_volume(new_device(), clock=Clock(), journaling=False)
    before = dict(volume.store.items(bytes(18), b"\xff" * 18))
    with pytest.raises(RuntimeError), volume.operation(Operation.CREATE, ROOT_INODE):
        volume.store.put(b"\x01" * 18, b"")
        raise RuntimeError
    assert dict(volume.store.items(bytes(18), b"\xff" * 18)) == before


def test_abort_is_refused() -> None:
    volume = open_volume(new_device(), clock=Clock(), journaling=False)
    with pytest.raises(AssertionError, match="without a journal"):
        volume.abort()


def test_no_mount_and_no_command_offers_it() -> None:
    above = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "engine"]
    assert [path for path in above if "journaling=" in path.read_text(encoding="utf-8")] == []
