"""What a power cut leaves is no damage: razorfsck must not call it any. Found by the crash explorer, kept as they were found."""

from contextlib import suppress

import pytest

from razortools.check import runner
from razortools.check.findings import Severity
from razortools.engine.store.device import Device
from razortools.engine.store.simulated import SimulatedDevice
from razortools.errors import DeviceFailed, ReadOnly
from razortools.format.journal import COMMIT_BYTES, Operation
from tests.check.editing import image_of, journal_entries, write_journal
from tests.check.samples import unclean
from tests.workload import Workload, crash_at_flush, formatted, opened

SECTOR_BYTES = 512


def complaints(device: Device) -> list[str]:
    return [found.code for found in runner.check_quietly(device).findings if found.severity > Severity.NOTE]


def last_commit_end(device: Device, number: int = -1) -> int:
    """Return the position behind the commit entry of a transaction that waits for replay."""
    commits = [entry for entry in journal_entries(image_of(device)) if entry.head.operation == Operation.COMMIT]
    return commits[number].position + COMMIT_BYTES


def test_sectors_of_zeros_that_did_not_arrive_behind_the_last_commit_are_no_damage() -> None:
    # seed 1, "unlink /a": the sector behind a commit entry kept what a torn transaction had left there.
    device = unclean(1)
    behind = -(-last_commit_end(device) // SECTOR_BYTES) * SECTOR_BYTES
    write_journal(image_of(device), behind, b"\x01" * SECTOR_BYTES)
    assert complaints(device) == []


def test_the_sector_that_a_commit_entry_ends_in_arrived_with_it() -> None:
    device = unclean(1)
    write_journal(image_of(device), last_commit_end(device), b"\x01")
    assert complaints(device) == ["E0206"]


def test_what_was_flushed_arrived_with_all_its_zeros() -> None:
    device = unclean(2)
    behind = -(-last_commit_end(device, 0) // SECTOR_BYTES) * SECTOR_BYTES
    write_journal(image_of(device), behind, b"\x01")
    assert complaints(device) == ["E0206"]


@pytest.mark.parametrize("flush", range(4))
def test_a_power_cut_while_a_clean_image_is_opened_leaves_a_healthy_one(flush: int) -> None:
    # seed 1, "create /n": the first checkpoint after a clean mount tore the spare space map of an image that was marked clean.
    disk = SimulatedDevice(1 << 20)
    formatted(disk)
    with opened(disk) as before:
        work = Workload(before, 1, file_bytes_max=20_000)
        for _ in range(30):
            work.step()
    disk.flush()
    found = []
    for seed in range(8):
        attempt = SimulatedDevice.holding(disk)
        survivors = crash_at_flush(attempt, flush, seed)
        with suppress(DeviceFailed, ReadOnly):
            volume = opened(attempt)
            volume.checkpoint()
            volume.close()
        assert survivors
        found += [complaints(survivor) for survivor in survivors]
    assert found == [[]] * len(found)
