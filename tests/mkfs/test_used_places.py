"""mkfs.razorfs in a place that held something before: what was there does not come back."""

import random
from pathlib import Path

import pytest

from razortools.check.findings import Severity
from razortools.check.runner import check_quietly
from razortools.engine import namespace
from razortools.engine.make import image as make_image
from razortools.engine.make import target as make_target
from razortools.engine.store import superblocks
from razortools.engine.store.device import open_image
from razortools.engine.volume import open_volume
from razortools.errors import DeviceFailed, NotAnImage
from razortools.format.inode import ROOT_INODE
from razortools.format.superblock import SUPERBLOCK_BYTES
from razortools.units import KIB, MIB
from tests.mkfs.conftest import Mkfs

SIZE_BYTES = 16 * MIB + 28 * KIB  # no multiple of the larger blocks
WAYS = [("4K", "", "4K", "8M"), ("4K", "", "64K", ""), ("64K", "", "4K", ""), ("8K", "6M", "4K", ""), ("4K", "6M", "4K", "8M")]


@pytest.fixture
def block_device(image: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that mkfs takes for a block device: it cannot be cut off, and has no holes."""
    image.write_bytes(random.Random(1).randbytes(SIZE_BYTES))
    examine = make_target.examine

    def as_device(*words: object) -> make_target.Target:
        found = examine(*words)  # type: ignore[arg-type]
        found.is_block_device = True
        return found

    monkeypatch.setattr(make_target, "examine", as_device)
    return image


def used(run_mkfs: Mkfs, image: Path, block: str, size: str) -> bytes:
    """Make a filesystem in *image*, let it come to a few generations, and return its UUID."""
    assert run_mkfs("-q", "-f", "-b", block, image, *filter(None, [size])).code == 0
    for number in range(3):
        with open_volume(open_image(image, writable=True)) as volume:
            namespace.mkdir(volume, ROOT_INODE, b"old%d" % number, 0o755, 0, 0)
    with open_image(image, writable=False) as device:
        return superblocks.newest(device).uuid


def uuids_in(image: Path) -> set[bytes]:
    """Return the UUIDs of all superblocks that lie anywhere in *image*."""
    with open_image(image, writable=False) as device:
        ends = range(0, device.size_bytes - SUPERBLOCK_BYTES + 1, SUPERBLOCK_BYTES)
        copies = [superblocks.read_copy(device, offset).superblock for offset in ends]
        return {copy.uuid for copy in copies if copy}


def lose_slots(image: Path) -> None:
    with image.open("r+b") as file:
        file.write(bytes(128 * KIB))


@pytest.mark.parametrize(("old_block", "old_size", "block", "size"), WAYS)
def test_no_superblock_of_an_older_filesystem_is_left_on_a_device(
    run_mkfs: Mkfs, block_device: Path, old_block: str, old_size: str, block: str, size: str
) -> None:
    old = used(run_mkfs, block_device, old_block, old_size)
    assert run_mkfs("-q", "-f", "-b", block, block_device, *filter(None, [size])).code == 0
    assert len(uuids_in(block_device)) == 1
    assert old not in uuids_in(block_device)


@pytest.mark.parametrize(("old_size", "size"), [("", "5M"), ("5M", "5M")])
def test_backups_of_an_older_filesystem_without_slots_are_found_all_the_same(
    run_mkfs: Mkfs, block_device: Path, old_size: str, size: str
) -> None:
    old = used(run_mkfs, block_device, "8K", old_size)
    lose_slots(block_device)
    assert run_mkfs("-q", "-f", block_device, size).code == 0
    assert old not in uuids_in(block_device)


def test_no_superblock_of_an_older_filesystem_is_left_in_a_longer_file(run_mkfs: Mkfs, image: Path) -> None:
    old = used(run_mkfs, image, "4K", "16M")
    assert run_mkfs("-q", "-f", image, "8M").code == 0
    assert image.stat().st_size == 16 * MIB
    assert old not in uuids_in(image)
    lose_slots(image)
    with open_image(image, writable=False) as device:
        assert superblocks.newest(device).uuid != old


def test_a_making_that_fails_leaves_nothing_of_the_older_filesystem_to_believe(
    run_mkfs: Mkfs, block_device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used(run_mkfs, block_device, "4K", "")

    def fail(*_: object) -> None:
        raise DeviceFailed("memory: write failed: Input/output error")

    monkeypatch.setattr(make_image, "create", fail)
    assert run_mkfs("-q", "-f", "-b", "16K", block_device).code == 1
    assert uuids_in(block_device) == set()
    with open_image(block_device, writable=False) as device, pytest.raises(NotAnImage):
        superblocks.newest(device)


@pytest.mark.parametrize("block", ["4K", "8K", "64K"])
@pytest.mark.parametrize("size", ["", "12M"])
def test_a_filesystem_on_a_device_that_held_other_bytes_is_clean(
    run_mkfs: Mkfs, block_device: Path, block: str, size: str
) -> None:
    assert run_mkfs("-q", "-f", "-b", block, block_device, *filter(None, [size])).code == 0
    with open_image(block_device, writable=False) as device:
        report = check_quietly(device)
    assert [finding.message for finding in report.findings if finding.severity > Severity.NOTE] == []
    assert report.exit_code == 0
