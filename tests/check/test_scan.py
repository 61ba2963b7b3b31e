"""What a scan finds on a device when nothing points to it any more, and what it does not take for ours."""

import os
import random
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from razortools.check.findings import Progress
from razortools.check.image import Image
from razortools.check.scan import PIECE_BYTES, FoundNode, find_superblock, read_items, scan_nodes
from razortools.check.steps import followed
from razortools.engine.store.device import Device, FileDevice, create_image
from razortools.engine.store.pages import MemoryDevice, OverlayDevice
from razortools.errors import DeviceFailed, NotAnImage, UnsupportedFormat
from razortools.format.superblock import SUPERBLOCK_BYTES
from razortools.units import GIB, MIB, TIB
from tests.check.editing import flip, image_of, indexed, rewrite_superblock
from tests.check.samples import Copy, KeptDevice, healthy, new_device

Result = TypeVar("Result")


def ended(steps: Generator[Progress, None, Result]) -> Result:
    before = -1

    def judge(step: Progress) -> None:
        nonlocal before
        assert before <= step.done <= step.total
        before = step.done

    return followed(steps, judge)


def all_nodes(image: Image) -> list[FoundNode]:
    return ended(scan_nodes(image, lambda node: True, lambda block: False))


def test_the_newest_superblock_is_found() -> None:
    device = healthy()
    found = ended(find_superblock(device))
    assert found.superblock == image_of(device).superblock
    assert not found.mended


@pytest.mark.parametrize("block_bytes", [4096, 8192, 65536])
def test_without_slots_a_backup_is_found(block_bytes: int) -> None:
    device = healthy(2, block_bytes)
    known = image_of(device)
    for slot in (0, 1):
        device.write(slot * block_bytes, random.Random(slot).randbytes(block_bytes))
    for place in known.geometry.backups[:-1]:
        device.write(place * block_bytes, bytes(block_bytes))
    found = ended(find_superblock(device))
    assert found.superblock.address == known.geometry.backups[-1]
    assert found.superblock.generation == known.superblock.generation


def test_a_backup_is_found_in_a_device_whose_size_tells_nothing() -> None:
    whole = healthy()
    device = KeptDevice(whole.size_bytes + 40 * MIB + 512)
    device.write(0, whole.read(0, whole.size_bytes))
    for slot in (0, 1):
        device.write(slot * 4096, bytes(4096))
    found = ended(find_superblock(device))
    assert found.superblock.uuid == image_of(whole).superblock.uuid


def test_a_copy_of_another_place_is_no_superblock() -> None:
    device = healthy()
    places = (0, 1, *image_of(device).geometry.backups)
    newest = device.read(image_of(device).superblock.address * 4096, SUPERBLOCK_BYTES)
    for place in places:
        device.write(place * 4096, bytes(4096))
    device.write(50 * 4096, newest)
    with pytest.raises(NotAnImage, match="no superblock was found anywhere"):
        ended(find_superblock(device))


def test_a_superblock_with_a_flipped_bit_is_taken_if_it_is_the_newest() -> None:
    device = healthy()
    superblock = image_of(device).superblock
    for place in (superblock.address, *image_of(device).geometry.backups):
        flip(device, place * 4096 + 400, 3)
    found = ended(find_superblock(device))
    assert found.mended and found.superblock.generation == superblock.generation


def test_images_of_newer_software_are_left_alone() -> None:
    device = healthy()
    for place in (0, 1, *image_of(device).geometry.backups):
        rewrite_superblock(device, place, 4096, incompat=1 << 50)
    with pytest.raises(UnsupportedFormat, match="use newer razortools"):
        ended(find_superblock(device))


@pytest.mark.parametrize("copies", [1, 2])
def test_every_node_of_the_tree_is_found_once(copies: int) -> None:
    device = healthy(copies)
    image, index = image_of(device), indexed(device)
    found = {node.pointer.address: node for node in all_nodes(image)}
    assert set(index.addresses) <= found.keys()
    for address, mirror in zip(index.addresses, index.mirrors, strict=True):
        assert found[address].good_copies == {address, mirror} - {0}
        assert found[address].is_at_home and not found[address].mended


def test_nodes_of_another_filesystem_are_not_ours() -> None:
    ours, theirs = new_device(), healthy()
    image = image_of(ours)
    stranger = replace(image_of(theirs).superblock, uuid=bytes(16))
    device = Copy(theirs)
    nodes = all_nodes(Image(device, stranger, image.geometry))
    assert nodes == []


def test_one_bit_of_a_node_may_have_flipped_and_only_one() -> None:
    device = healthy(1)
    image, index = image_of(device), indexed(device)
    first, second = index.addresses[2], index.addresses[3]
    flip(device, first * 4096 + 1234, 5)
    flip(device, second * 4096 + 1234, 5)
    flip(device, second * 4096 + 2234, 5)
    before = read_items(image_of(healthy(1)), first, next(n.pointer for n in all_nodes(image_of(healthy(1))) if n.block == first))
    found = {node.block: node for node in all_nodes(image)}
    assert found[first].mended and found[first].good_copies == frozenset()
    assert read_items(image, first, found[first].pointer) == before
    assert second not in found


def test_a_node_at_a_wrong_place_is_told_as_such() -> None:
    device = healthy(1)
    image, index = image_of(device), indexed(device)
    free = next(block for block in range(300, 500) if not any(device.read(block * 4096, 4096)))
    device.write(free * 4096, device.read(index.addresses[1] * 4096, 4096))
    device.write(index.addresses[1] * 4096, bytes(4096))
    (found,) = [node for node in all_nodes(image) if node.block == free]
    assert not found.is_at_home and found.good_copies == frozenset()


def test_what_is_known_to_be_data_is_passed_over() -> None:
    device = healthy(1)
    image, index = image_of(device), indexed(device)
    place = index.addresses[1]
    found = ended(scan_nodes(image, lambda node: True, lambda block: block == place))
    assert place not in {node.block for node in found}


class BadSectors(Copy):
    """A device on which one block cannot be read."""

    bad = 0

    def read(self, offset: int, length: int) -> bytes:
        if offset < (self.bad + 1) * 4096 and offset + length > self.bad * 4096:
            raise DeviceFailed("bad sector")
        return super().read(offset, length)


def test_a_bad_sector_costs_what_lies_in_it_only() -> None:
    device = BadSectors(healthy(1))
    image, index = image_of(device), indexed(device)
    before = {node.block for node in all_nodes(image)}
    device.bad = index.addresses[1]
    assert {node.block for node in all_nodes(image)} == before - {device.bad}


class Counting(FileDevice):
    """A file that counts what is read of it."""

    read_bytes = 0

    def read(self, offset: int, length: int) -> bytes:
        self.read_bytes += length
        return super().read(offset, length)


def test_holes_of_a_sparse_image_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "image"
    with create_image(path, TIB) as device:
        device.write(0, healthy().read(0, healthy().size_bytes))
        device.write(TIB - GIB, b"RZND" + bytes(4092))
    with Counting(os.open(path, os.O_RDONLY), "image", read_only=True) as opened:
        assert isinstance(opened, Counting)
        small = image_of(healthy())
        image = Image(opened, small.superblock, replace(small.geometry, block_count=TIB // 4096))
        assert len(all_nodes(image)) == len(all_nodes(small))
        assert opened.read_bytes < 4 * PIECE_BYTES
        assert opened.next_data(TIB // 2) == TIB - GIB
        assert opened.next_data(TIB - 1) == TIB


def test_devices_tell_where_data_may_lie() -> None:
    memory = MemoryDevice(10 * MIB)
    assert memory.next_data(0) == 10 * MIB
    memory.write(5 * MIB + 100, b"x")
    assert memory.next_data(0) == 5 * MIB
    assert memory.next_data(5 * MIB + 50) == 5 * MIB + 50
    overlay: Device = OverlayDevice(memory)
    assert overlay.next_data(0) == 5 * MIB
    overlay.write(3 * MIB, b"y")
    assert overlay.next_data(0) == 3 * MIB
    assert overlay.next_data(4 * MIB) == 5 * MIB
    assert overlay.next_data(6 * MIB) == 10 * MIB
