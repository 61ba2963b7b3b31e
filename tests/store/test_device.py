"""Image files: what the host is asked for beyond reading and writing."""

import errno
import os
import random
from pathlib import Path

import pytest

from razortools.engine import files, namespace
from razortools.engine.create import create, plan_create
from razortools.engine.store.device import FileDevice, create_image, open_image
from razortools.engine.store.journal import FILL_BYTES
from razortools.engine.volume import open_volume
from razortools.errors import DeviceFailed
from razortools.format.inode import ROOT_INODE
from razortools.units import KIB, MIB


def allocated(path: Path, offset: int, length: int) -> int:
    """Return how many bytes of a range the host has allocated."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        end, total = offset + length, 0
        while offset < end:
            try:
                start = os.lseek(descriptor, offset, os.SEEK_DATA)
            except OSError:
                break
            offset = min(os.lseek(descriptor, start, os.SEEK_HOLE), end)
            total += max(offset - start, 0)
        return total
    finally:
        os.close(descriptor)


@pytest.fixture
def device(tmp_path: Path) -> FileDevice:
    return create_image(tmp_path / "image", 4 * MIB)


@pytest.mark.parametrize("offset", [4 * MIB, 1 << 62, 1 << 80])
def test_a_place_that_no_file_reaches_is_a_failure_in_words(device: FileDevice, offset: int) -> None:
    """A damaged superblock may name any place. The last one does not even fit into the host's numbers."""
    with pytest.raises(DeviceFailed, match="end"):
        device.read(offset, 4 * KIB)


def test_parts_lie_one_behind_the_other_even_if_the_system_takes_only_some(
    device: FileDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [bytes([number]) * (number * 100 + 1) for number in range(1, 9)]
    device.write_parts(1000, parts)
    assert device.read(1000, len(b"".join(parts))) == b"".join(parts)
    monkeypatch.setattr(os, "pwritev", lambda descriptor, parts, offset: os.pwrite(descriptor, b"".join(parts)[:450], offset))
    device.write_parts(50_000, parts)
    assert device.read(50_000, len(b"".join(parts))) == b"".join(parts)


def test_parts_that_cannot_be_written_are_told_like_any_write(device: FileDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(DeviceFailed, match="reaches behind its end"):
        device.write_parts(device.size_bytes - 5, [b"abc", b"def"])
    assert device.read(device.size_bytes - 5, 5) == bytes(5)
    monkeypatch.setattr(os, "pwritev", broken)
    with pytest.raises(DeviceFailed, match="write of 6 bytes at 0 failed"):
        device.write_parts(0, [b"abc", b"def"])


def test_what_lies_side_by_side_is_one_write(device: FileDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(3)
    writes = [(place * 100, chance.randbytes(100)) for place in [*range(5, 40), *range(50, 60), 70, *range(100, 3000)]]
    chance.shuffle(writes)
    calls: list[tuple[int, int]] = []
    true_pwritev = os.pwritev

    def pwritev(descriptor: int, parts: list[bytes], offset: int) -> int:
        calls.append((offset, len(parts)))
        return true_pwritev(descriptor, parts, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    device.write_many(writes)
    assert calls == [(500, 35), (5000, 10), (7000, 1), (10_000, 1024), (112_400, 1024), (214_800, 852)]
    assert all(device.read(offset, 100) == data for offset, data in writes)
    assert device.read(0, 500) == bytes(500)
    device.write_many(iter(()))
    assert len(calls) == 6


def test_filling_holes_changes_no_byte(device: FileDevice, tmp_path: Path) -> None:
    for offset in (0, 100_000, 104_096, MIB):
        device.write(offset, random.Random(offset).randbytes(3000))
    before = device.read(0, device.size_bytes)
    device.fill_holes(50_000, MIB)
    assert device.read(0, device.size_bytes) == before
    assert allocated(tmp_path / "image", 53_248, MIB - 8192) == MIB - 8192
    assert allocated(tmp_path / "image", 2 * MIB, MIB) == 0


def test_holes_are_filled_up_to_the_end_and_no_further(device: FileDevice) -> None:
    device.fill_holes(4 * MIB - 8192, MIB)
    assert device.size_bytes == 4 * MIB


def test_a_host_that_has_no_room_for_it_is_no_failure(device: FileDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[int, int]] = []

    def full(_: int, data: bytes, offset: int) -> int:
        tried.append((offset, len(data)))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    device.fill_holes(0, 4096)
    assert tried == [(0, 4096)]
    assert device.read(0, 4096) == bytes(4096)


def test_a_small_commit_finds_its_place_in_the_journal_allocated(tmp_path: Path) -> None:
    path = tmp_path / "image"
    with create_image(path, 64 * MIB) as image:
        create(image, plan_create(64 * MIB))
    with open_volume(open_image(path, writable=True)) as volume:
        journal = volume.store.journal
        namespace.create(volume, ROOT_INODE, b"first", 0o644, 0, 0)
        volume.commit()
        ahead = journal.start_bytes + journal.head % journal.ring_bytes
        assert allocated(path, ahead, FILL_BYTES // 2) == FILL_BYTES // 2
        assert allocated(path, journal.start_bytes, journal.ring_bytes) < FILL_BYTES + 16 * KIB, "not all of it at once"
        ino = namespace.lookup(volume, ROOT_INODE, b"first")
        for number in range(60):  # around the ring and again
            files.write(volume, ino, 0, bytes([number]) * 100)
            volume.commit()
        assert not volume.verify_journal().damage
