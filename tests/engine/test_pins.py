"""Pins: what a checkpoint names stays as it is while somebody looks at it, and that costs nobody anything but space."""

import random
from contextlib import suppress

import pytest

from razortools.check.runner import check_quietly
from razortools.engine import files, namespace
from razortools.engine.statfs import statfs
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume
from razortools.errors import OutOfSpace, PosixError
from razortools.format.inode import ROOT_INODE
from razortools.units import KIB, MIB
from tests.engine.volumes import new_volume

FILE_BYTES = 64 * KIB


def rewrite(volume: Volume, number: int, seed: int) -> None:
    """Replace a file by another one, which goes where there is room."""
    name = b"file %d" % number
    with suppress(PosixError):
        namespace.unlink(volume, ROOT_INODE, name)
    ino = namespace.create(volume, ROOT_INODE, name, 0o644, 0, 0)
    files.write(volume, ino, 0, random.Random(seed).randbytes(FILE_BYTES))


def filled(file_count: int = 8) -> Volume:
    volume = new_volume(4 * MIB)
    for number in range(file_count):
        rewrite(volume, number, number)
    volume.checkpoint()
    return volume


def on_disk(volume: Volume) -> MemoryDevice:
    """Return what a crash would leave now."""
    device = volume.store.device
    assert isinstance(device, MemoryDevice)
    return device.copy()


def free_blocks(volume: Volume) -> int:
    volume.checkpoint()
    return volume.store.maps.free_blocks


def test_blocks_that_a_pinned_checkpoint_names_are_not_used_again() -> None:
    volume = filled()
    pinned = on_disk(volume)
    volume.store.maps.pins.add("me")
    for turn in range(1, 6):
        for number in range(8):
            rewrite(volume, number, 100 * turn + number)
        volume.checkpoint()
    now = on_disk(volume)
    superblock = volume.store.superblock
    assert superblock.generation > 5
    maps = volume.store.geometry.fixed_extents()
    fixed = {block for first, count in maps for block in range(first, first + count)}
    used = [page for page, data in pinned.written_pages() if any(data) and page // 4096 not in fixed]
    assert len(used) > 8 * FILE_BYTES // 4096
    assert [page for page in used if now.read(page, 4096) != pinned.read(page, 4096)] == []


def test_what_is_written_while_a_pin_is_set_is_a_sound_image() -> None:
    """What is kept for who looks is free as far as the image goes: a crash must not leave it marked as used."""
    volume = filled()
    volume.store.maps.pins.add("me")
    for turn in range(1, 4):
        for number in range(8):
            rewrite(volume, number, 100 * turn + number)
        volume.checkpoint()
        assert volume.store.maps.pins.block_count > 0
        assert check_quietly(on_disk(volume)).clean
    volume.store.maps.unpin("me")
    volume.checkpoint()
    assert check_quietly(on_disk(volume)).clean


def test_space_comes_back_when_the_last_one_looks_no_more() -> None:
    volume = filled()
    before = free_blocks(volume)
    shown = statfs(volume).free_blocks
    for holder in ("me", "you"):
        volume.store.maps.pins.add(holder)
    rewrite(volume, 0, 100)
    assert free_blocks(volume) < before
    assert statfs(volume).free_blocks == shown  # it can be had at any time
    assert not volume.store.maps.unpin("me")
    assert volume.store.maps.pins.has("you") and free_blocks(volume) < before
    assert volume.store.maps.unpin("you")
    assert volume.store.maps.free_blocks == before


def test_a_full_volume_takes_the_space_back_instead_of_refusing_work() -> None:
    volume = filled(16)
    volume.store.maps.pins.add("me")
    for turn in range(1, 8):  # seven times more than there is room for beside what is pinned
        for number in range(16):
            rewrite(volume, number, 100 * turn + number)
        volume.checkpoint()
    assert not volume.store.maps.pins.has("me")
    assert volume.store.maps.pins.block_count == 0
    volume.checkpoint()
    assert check_quietly(on_disk(volume)).clean


def test_a_volume_that_is_really_full_refuses_work_with_a_pin_as_without() -> None:
    def written(*, pinned: bool) -> int:
        volume = filled(4)
        if pinned:
            volume.store.maps.pins.add("me")
        count = 0
        with pytest.raises(OutOfSpace):
            while True:
                rewrite(volume, 100 + count, count)
                count += 1
        return count

    assert written(pinned=True) == written(pinned=False)


def test_blocks_kept_again_and_again_take_a_bitmap_and_no_more() -> None:
    volume = filled()
    pins = volume.store.maps.pins
    pins.add("me")
    for turn in range(1, 5):
        rewrite(volume, 0, turn)
        volume.checkpoint()
    assert len(pins._kept) <= volume.store.maps.group_count
    assert pins.block_count == sum(bits.bit_count() for bits in pins._kept.values()) > 0
