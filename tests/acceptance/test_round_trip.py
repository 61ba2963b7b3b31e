"""What is put in comes back: contents, names, modes, owners, times, extended attributes, links and holes."""

import os
import stat
from pathlib import Path

import pytest

from razortools.check.runner import check_quietly
from razortools.engine import directories, files, namespace
from razortools.engine.store.device import open_image
from razortools.engine.store.pages import MemoryDevice
from razortools.errors import PosixError
from razortools.format.inode import ROOT_INODE
from razortools.units import GIB, KIB, MIB
from tests.acceptance.trees import (
    EVERY_BYTE,
    Planned,
    differences,
    expected,
    make_in_volume,
    make_on_host,
    plan_tree,
    seen_in_volume,
    seen_on_host,
)
from tests.mount.mounts import Mounted
from tests.workload import formatted, opened

SECTOR_BYTES = 512  # the unit of st_blocks


def assert_clean(image: Path) -> None:
    """A check of the image finds nothing."""
    with open_image(image, writable=False) as device:
        report = check_quietly(device)
    assert report.findings == ()
    assert report.exit_code == 0


# Many files of every kind


def assert_a_tree_comes_back_through_the_mount(mounted: Mounted, tree: list[Planned]) -> None:
    top = os.fsencode(mounted.path)
    make_on_host(top, tree)
    mounted.remount()
    assert differences(seen_on_host(top), expected(tree)) == []
    for planned in tree:
        if stat.S_ISREG(planned.mode):
            assert os.lstat(os.path.join(top, planned.path)).st_blocks * SECTOR_BYTES <= planned.stored_bytes_max + SECTOR_BYTES
    mounted.umount()
    assert_clean(mounted.image)


def test_1000_files_of_every_kind_come_back_through_the_mount(mounted: Mounted) -> None:
    assert_a_tree_comes_back_through_the_mount(mounted, plan_tree(seed=1, file_count=1000))


@pytest.mark.slow
def test_10000_files_of_every_kind_come_back_through_the_mount(mounted: Mounted) -> None:
    assert_a_tree_comes_back_through_the_mount(mounted, plan_tree(seed=2, file_count=10_000))


@pytest.mark.slow
def test_100000_files_of_every_kind_come_back_through_the_engine() -> None:
    device = formatted(MemoryDevice(4 * GIB))
    tree = plan_tree(seed=3, file_count=100_000)
    with opened(device) as volume:
        make_in_volume(volume, tree)
    wanted = expected(tree)
    with opened(device) as volume:
        assert differences(seen_in_volume(volume), wanted) == []
        assert volume.counters.inode_count == len(tree) + 1
    report = check_quietly(device)
    assert report.findings == ()
    assert report.summary.files + report.summary.directories == len(tree) + 1


def test_a_tree_made_by_the_engine_is_the_same_through_the_mount(unmounted: Mounted) -> None:
    tree = plan_tree(seed=4, file_count=500)
    with opened(open_image(unmounted.image, writable=True)) as volume:
        make_in_volume(volume, tree)
    unmounted.mount("ro")
    assert differences(seen_on_host(os.fsencode(unmounted.path)), expected(tree)) == []


def test_a_tree_made_through_the_mount_is_the_same_to_the_engine(mounted: Mounted) -> None:
    tree = plan_tree(seed=5, file_count=500)
    make_on_host(os.fsencode(mounted.path), tree)
    mounted.umount()
    with opened(open_image(mounted.image, writable=False), read_only=True) as volume:
        assert differences(seen_in_volume(volume), expected(tree)) == []


# Names


def test_every_byte_but_slash_and_nul_may_stand_in_a_name(mounted: Mounted) -> None:
    top = os.fsencode(mounted.path)
    names = {bytes([byte]) for byte in EVERY_BYTE if byte != ord(".")}
    names |= {EVERY_BYTE, EVERY_BYTE + b"x", b"...", b"\xff" * 255, b" "}
    for name in names:
        with open(os.path.join(top, name), "wb") as file:
            file.write(name)
    mounted.remount()
    assert set(os.listdir(top)) == names
    for name in names:
        with open(os.path.join(top, name), "rb") as file:
            assert file.read() == name


def test_a_name_of_256_bytes_is_refused_and_one_of_255_is_not(mounted: Mounted) -> None:
    (mounted.path / ("n" * 255)).touch()
    with pytest.raises(OSError, match="too long"):
        (mounted.path / ("n" * 256)).touch()
    assert os.listdir(mounted.path) == ["n" * 255]


# Depth and width


def test_directories_may_be_40_levels_deep(mounted: Mounted) -> None:
    names = [f"level {number} ".ljust(90, "x") for number in range(40)]
    deep = mounted.path.joinpath(*names)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"at the bottom")
    mounted.remount()
    assert (deep / "file").read_bytes() == b"at the bottom"
    place = mounted.path
    for name in names:
        assert os.listdir(place) == [name]
        assert place.stat().st_nlink == 3
        place /= name
    assert place.joinpath(*[".."] * 40).stat().st_ino == mounted.path.stat().st_ino
    place.joinpath("file").rename(mounted.path / "file")
    for _ in names:
        place.rmdir()
        place = place.parent
    assert os.listdir(mounted.path) == ["file"]
    mounted.umount()
    assert_clean(mounted.image)


@pytest.mark.slow
def test_a_directory_may_have_100000_entries() -> None:
    device = formatted(MemoryDevice(512 * MIB))
    names = {b"entry %d" % number for number in range(100_000)}
    with opened(device) as volume:
        folder = namespace.mkdir(volume, ROOT_INODE, b"folder", 0o755, 0, 0)
        numbers = {name: namespace.create(volume, folder, name, 0o644, 0, 0) for name in names}
    with opened(device) as volume:
        listed = [name for _, name, _ in directories.entries(volume, folder)]
        assert len(listed) == len(names)
        assert set(listed) == names
        assert all(namespace.lookup(volume, folder, name) == ino for name, ino in numbers.items())
        with pytest.raises(PosixError):
            namespace.lookup(volume, folder, b"entry 100000")
        gone = sorted(names)[::2]
        for name in gone:
            namespace.unlink(volume, folder, name)
    with opened(device) as volume:
        assert {name for _, name, _ in directories.entries(volume, folder)} == names - set(gone)
        for name in names - set(gone):
            namespace.unlink(volume, folder, name)
        namespace.rmdir(volume, ROOT_INODE, b"folder")
        assert list(directories.entries(volume, ROOT_INODE)) == []
        assert (volume.counters.inode_count, volume.counters.name_count) == (1, 0)
    assert check_quietly(device).findings == ()


# Holes


def test_a_sparse_file_of_3_gib_takes_next_to_nothing_and_reads_as_zeros(mounted: Mounted) -> None:
    path = mounted.path / "sparse"
    marks = {0: b"first", 1 * GIB + 12_345: b"middle", 3 * GIB - 4: b"last"}
    before = mounted.image.stat().st_blocks
    with open(path, "wb") as file:
        os.ftruncate(file.fileno(), 3 * GIB)
        for offset, mark in marks.items():
            os.pwrite(file.fileno(), mark, offset)
    mounted.remount()
    assert path.stat().st_size == 3 * GIB
    assert path.stat().st_blocks * SECTOR_BYTES <= len(marks) * 128 * KIB
    assert (mounted.image.stat().st_blocks - before) * SECTOR_BYTES <= 4 * MIB
    assert os.statvfs(mounted.path).f_bfree * os.statvfs(mounted.path).f_frsize > 0.9 * mounted.image.stat().st_size
    with open(path, "rb") as file:
        for offset, mark in marks.items():
            assert os.pread(file.fileno(), len(mark), offset) == mark
        around = [(offset, 300 * KIB) for offset in (5, 777 * MIB, 1 * GIB + 12_351, 2 * GIB + 1, 3 * GIB - 301 * KIB)]
        for offset, length in around:
            assert os.pread(file.fileno(), length, offset) == bytes(length)
        assert os.pread(file.fileno(), 100, 3 * GIB - 4) == b"last"
    path.unlink()
    mounted.umount()
    assert_clean(mounted.image)


def test_a_sparse_file_of_3_gib_is_all_there_when_read_to_the_end() -> None:
    device = formatted(MemoryDevice(16 * MIB))
    with opened(device) as volume:
        ino = namespace.create(volume, ROOT_INODE, b"sparse", 0o644, 0, 0)
        files.write(volume, ino, 3 * GIB - 1, b"\n")
    with opened(device) as volume:
        zeros = bytes(16 * MIB)
        for offset in range(0, 3 * GIB - 16 * MIB, 16 * MIB):
            assert files.read(volume, ino, offset, 16 * MIB) == zeros
        assert files.read(volume, ino, 3 * GIB - 16 * MIB, 17 * MIB) == zeros[1:] + b"\n"
        assert volume.counters.data_blocks <= 32
    assert device.written_bytes < 2 * MIB


def test_zeros_that_are_written_become_a_hole(mounted: Mounted) -> None:
    path = mounted.path / "zeros"
    path.write_bytes(bytes(20 * MIB))
    mounted.remount()
    assert path.stat().st_blocks * SECTOR_BYTES <= 4096
    assert path.read_bytes() == bytes(20 * MIB)
