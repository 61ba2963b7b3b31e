"""No false alarm: whatever the engine leaves behind, closed or crashed, is found to be in order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.check.report import Report
from razortools.check.runner import Options, check_quietly
from razortools.engine import files, namespace
from razortools.engine.store.device import Device
from razortools.engine.store.simulated import SimulatedDevice
from razortools.errors import DeviceFailed
from razortools.format.inode import ROOT_INODE
from razortools.units import GIB, MIB, TIB
from tests.check.samples import KeptDevice, healthy, new_device, opened, unclean
from tests.test_golden import GOLDEN, device_of
from tests.workload import Clock, Workload, crash_at_flush, formatted
from tests.workload import opened as opened_with

TORN_BY_A_CRASH = {"E0101", "E0104", "E0105"}  # a superblock that was being written; the other one is the truth


def problems_of(report: Report) -> list[tuple[str, str]]:
    return [(finding.code, finding.message) for finding in report.findings if finding.severity]


def assert_clean(device: Device) -> Report:
    report = check_quietly(device)
    assert problems_of(report) == []
    assert report.clean and report.exit_code == 0
    return report


@pytest.mark.parametrize("size_bytes", [MIB, 16 * MIB, 3 * GIB, 16 * TIB])
@pytest.mark.parametrize("block_bytes", [4096, 65536])
def test_a_new_filesystem_is_clean(size_bytes: int, block_bytes: int) -> None:
    if size_bytes // block_bytes >= 64:
        assert_clean(new_device(size_bytes, block_bytes=block_bytes, record_bytes=65536))


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("block_bytes", [4096, 16384])
def test_a_filesystem_with_everything_in_it_is_clean(copies: int, block_bytes: int) -> None:
    report = assert_clean(healthy(copies, block_bytes))
    assert [phase.status for phase in report.phases] == ["ok"] * 8
    assert report.summary.files == 52 and report.summary.directories == 4


def test_an_unclean_filesystem_is_judged_as_the_next_mount_sees_it() -> None:
    report = check_quietly(unclean(3))
    assert [finding.code for finding in report.findings] == ["E0201"]
    assert report.findings[0].count == 3
    assert report.exit_code == 0
    assert report.summary.files == 52 + 3


def test_looking_never_writes() -> None:
    device = unclean(2)
    before = device.read(0, device.size_bytes)
    device.write = device.flush = None  # type: ignore[assignment, method-assign]
    check_quietly(device)
    assert device.read(0, device.size_bytes) == before


def test_open_and_deleted_files_of_a_crash_are_only_a_note() -> None:
    device = healthy()
    volume = opened(device)
    ino = namespace.lookup(volume, ROOT_INODE, b"small")
    namespace.hold(volume, ino)
    namespace.unlink(volume, ROOT_INODE, b"small")
    namespace.unlink(volume, namespace.lookup(volume, ROOT_INODE, b"docs"), b"small too")
    volume.checkpoint()
    report = check_quietly(device)
    assert [finding.code for finding in report.findings] == ["E0315"]
    assert report.exit_code == 0


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32), copies=st.sampled_from([1, 2]))
def test_random_work_leaves_a_clean_filesystem(seed: int, copies: int) -> None:
    device = formatted(KeptDevice(4 * MIB), metadata_copies=copies)
    for round_no in range(3):
        volume = opened_with(device)
        work = Workload(volume, seed + round_no)
        for number in range(80):
            work.step()
            if number % 20 == 19:
                volume.commit()
                assert_clean(device)
        volume.close()
        assert_clean(device)


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32))
def test_a_full_filesystem_is_clean(seed: int) -> None:
    device = formatted(KeptDevice(MIB))
    volume = opened_with(device)
    work = Workload(volume, seed, scale=4)
    for _ in range(150):
        work.step()
    volume.close()
    assert_clean(device)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_after_a_crash_only_what_was_being_written_may_be_torn(seed: int) -> None:
    disk = SimulatedDevice(2 * MIB)
    formatted(disk)
    disk.flush()
    volume = opened_with(disk)
    work = Workload(volume, seed, file_bytes_max=60_000)
    survivors = crash_at_flush(disk, disk.flush_count + work.chance.randrange(1, 20), seed)
    try:
        while True:
            for _ in range(work.chance.randrange(1, 20)):
                work.step()
            volume.commit()
    except DeviceFailed:
        pass
    for device in survivors:
        found = problems_of(check_quietly(device))
        assert {code for code, _ in found} <= TORN_BY_A_CRASH, found
        opened_with(device, Clock()).close()
        assert_clean(device)


def test_each_phase_may_be_asked_for_alone() -> None:
    device = healthy()
    for number in range(1, 9):
        report = check_quietly(device, Options(only=frozenset({number})))
        assert [phase.number for phase in report.phases] == [number]
        assert report.clean


def test_a_path_limits_what_is_read() -> None:
    report = check_quietly(healthy(), Options(path="/docs/deep"))
    everything = check_quietly(healthy())
    assert report.clean
    assert 0 < report.phases[6].checked < everything.phases[6].checked


def test_a_filesystem_that_grew_and_shrank_is_clean() -> None:
    device = new_device(8 * MIB)
    with opened(device) as volume:
        for number in range(300):
            ino = namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 0, 0)
            files.write(volume, ino, 0, bytes([number % 251]) * 9000)
        for number in range(0, 300, 2):
            namespace.unlink(volume, ROOT_INODE, b"file %d" % number)
    assert_clean(device)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_images_of_earlier_versions_are_in_order(name: str) -> None:
    assert_clean(device_of(name))
