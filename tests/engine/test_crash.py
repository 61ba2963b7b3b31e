"""Prefix consistency: a crash at any flush leaves the state of a commit, the last acknowledged or the one under way."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.check import runner
from razortools.check.findings import Severity
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.simulated import SimulatedDevice
from razortools.engine.volume import Volume
from razortools.errors import DeviceFailed, ReadOnly
from razortools.units import MIB
from tests.workload import Clock, Seen, Workload, crash_at_flush, everything, formatted, opened


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_a_crash_leaves_a_prefix_that_holds_all_that_was_committed(seed: int) -> None:
    disk = SimulatedDevice(2 * MIB)
    formatted(disk)
    disk.flush()
    clock = Clock()
    volume = opened(disk, clock)
    work = Workload(volume, seed, file_bytes_max=60_000)
    survivors = crash_at_flush(disk, disk.flush_count + work.chance.randrange(1, 30), seed)
    prefixes = [everything(volume)]  # the state of the last acknowledged commit, and those after each operation since
    with suppress(DeviceFailed, ReadOnly):
        while not survivors:
            for _ in range(work.chance.randrange(1, 30)):
                work.step()
                prefixes.append(everything(volume))
            volume.commit()
            prefixes = prefixes[-1:]
    assert survivors, "the disk never failed"
    for disk_after in survivors:
        after = opened(disk_after, clock)
        found = everything(after)
        assert found in prefixes, _difference(found, prefixes[-1])
        assert not check_findings(disk_after, after)
        again = opened(disk_after, clock)
        assert everything(again) == found
        more = Workload(again, seed)
        for _ in range(20):
            more.step()
        assert not check_findings(disk_after, again)


def check_findings(device: MemoryDevice, volume: Volume) -> list[object]:
    """Close *volume* and return what the check finds on its device."""
    volume.close()
    return [finding for finding in runner.check_quietly(device).findings if finding.severity is not Severity.NOTE]


def _difference(found: dict[bytes, Seen], last: dict[bytes, Seen]) -> str:
    paths = [path for path in found.keys() | last.keys() if found.get(path) != last.get(path)]
    return f"against the last state: {[(path, found.get(path), last.get(path)) for path in paths]}"[:4000]


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_what_is_closed_comes_back_as_it_was(seed: int) -> None:
    device = formatted(SimulatedDevice(4 * MIB))
    clock = Clock()
    before = None
    for round_no in range(4):
        volume = opened(device, clock)
        if before is not None:
            assert everything(volume) == before
        work = Workload(volume, seed + round_no)
        for _ in range(80):
            work.step()
            if work.chance.random() < 0.05:
                volume.commit()
        before = everything(volume)
        volume.close()


@pytest.mark.parametrize("size", [1 * MIB, 2 * MIB, 20 * MIB])
@pytest.mark.parametrize("seed", range(3))
def test_a_full_image_refuses_cleanly_and_can_be_emptied(size: int, seed: int) -> None:
    device = formatted(SimulatedDevice(size))
    clock = Clock()
    volume = opened(device, clock)
    free_at_first = volume.statistics().free_blocks
    for round_no in range(3):
        work = Workload(volume, seed + 10 * round_no, file_bytes_max=size, scale=max(size // (4 * MIB), 1))
        for _ in range(300):
            work.step()
        work.fill()
        full = work.full
        for _ in range(200):
            work.step()
        assert work.full > full, "the image was not full"
        before = everything(volume)
        volume.close()
        volume = opened(device, clock)
        assert everything(volume) == before
        Workload(volume, seed).delete_everything()
        assert list(everything(volume)) == [b"/"]
        volume.checkpoint()
        assert volume.statistics().free_blocks >= free_at_first - 8 * volume.store.geometry.node_blocks
    volume.close()
