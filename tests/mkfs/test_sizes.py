"""Images from 1 MiB to 16 TiB, and that the large ones cost nothing."""

import itertools
from pathlib import Path

import pytest

from razortools.engine import files, namespace
from razortools.engine.create import BLOCK_COUNT_MIN, create, plan_create
from razortools.engine.store.device import open_image
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import open_volume
from razortools.errors import UsageError
from razortools.format.inode import ROOT_INODE
from razortools.format.superblock import BLOCK_BYTES_CHOICES
from razortools.units import GIB, KIB, MIB, TIB
from tests.mkfs.conftest import Mkfs


def test_sixteen_tebibytes_take_a_few_blocks_of_the_host(run_mkfs: Mkfs, image: Path) -> None:
    run = run_mkfs(image, "16T")
    if run.code and "refuses a file" in run.err:  # ext4 with 4 KiB blocks ends one block below
        run = run_mkfs(image, str(16 * TIB - 64 * KIB))
    assert run.code == 0
    assert image.stat().st_size >= 16 * TIB - 64 * KIB
    assert image.stat().st_blocks * 512 < 512 * KIB
    with open_image(image, writable=True) as device:
        volume = open_volume(device)
        ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
        files.write(volume, ino, 0, b"contents")
        volume.commit()
        assert files.read(volume, ino, 0, 100) == b"contents"


@pytest.mark.parametrize(("size", "block"), list(itertools.product((MIB, 20 * MIB, GIB, 16 * TIB), BLOCK_BYTES_CHOICES)))
def test_every_size_works_with_every_block_size_or_is_refused(size: int, block: int) -> None:
    if size < BLOCK_COUNT_MIN * block:
        with pytest.raises(UsageError, match="too small"):
            plan_create(size, block_bytes=block)
        return
    device = MemoryDevice(size)
    create(device, plan_create(size, block_bytes=block))
    assert device.written_bytes <= 8 * block + 8 * 64 * KIB
    volume = open_volume(device)
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    files.write(volume, ino, 0, b"contents" * 10_000)
    volume.checkpoint()
    assert files.read(volume, ino, 79_992, 100) == b"contents"
    volume.close()


def test_the_smallest_image_holds_files(run_mkfs: Mkfs, image: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(50):
        (tmp_path / "tree" / f"file {number}").write_bytes(b"contents %d\n" % number * 500)
    assert run_mkfs(image, "1M", "-d", tmp_path / "tree").code == 0
    with open_image(image, writable=False) as device:
        volume = open_volume(device, read_only=True)
        for number in range(50):
            ino = namespace.resolve(volume, b"/file %d" % number)
            assert files.read(volume, ino, 0, 10_000) == b"contents %d\n" % number * 500


def test_a_size_that_is_no_multiple_of_the_block_works(run_mkfs: Mkfs, image: Path) -> None:
    assert run_mkfs(image, "10000001", "--json").document["block_count"] == 10_000_001 // 4096
    assert image.stat().st_size == 10_000_001
    with open_image(image, writable=False) as device:
        assert open_volume(device, read_only=True).statistics().inode_count == 1


def test_an_existing_file_grows_to_the_size_wanted(run_mkfs: Mkfs, image: Path) -> None:
    image.write_bytes(bytes(100))
    assert run_mkfs(image, "2M").code == 0
    assert image.stat().st_size == 2 * MIB


def test_an_existing_file_is_used_as_a_whole(run_mkfs: Mkfs, image: Path) -> None:
    image.write_bytes(bytes(3 * MIB))
    assert run_mkfs(image, "--json").document["size_bytes"] == 3 * MIB


def test_an_empty_file_needs_a_size(run_mkfs: Mkfs, image: Path) -> None:
    image.touch()
    assert run_mkfs(image).code == 2
    assert image.stat().st_size == 0


@pytest.mark.parametrize(
    ("words", "about"),
    [(["8E"], "'8E' is more than any file"), (["99999999999999E"], "is more than any file"),
     (["9" * 5000], "is more than any file"), (["9" * 400 + ".5"], "is more than any file"),
     (["1E"], "1 EiB is too large"), (["7E"], "7 EiB is too large")],
)  # fmt: skip
@pytest.mark.parametrize("option", ["-n", "-q"])
def test_regression_a_size_beyond_the_format_is_refused_and_leaves_no_file(
    run_mkfs: Mkfs, image: Path, words: list[str], about: str, option: str
) -> None:
    """It was an OverflowError that left an empty file; and -n planned it."""
    run = run_mkfs(option, image, *words)
    assert (run.code, run.err.count("\n"), image.exists()) == (2, 1, False)
    assert about in run.err
    assert len(run.err) < 200


def test_the_largest_image_has_a_number_for_each_of_its_blocks(run_mkfs: Mkfs, image: Path) -> None:
    run = run_mkfs("-n", image, str((1 << 60) - 4096), "--json")
    assert run.document["block_count"] == (1 << 48) - 1
