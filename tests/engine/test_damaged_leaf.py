"""A leaf goes bad on the disk: its own files are told, and what others write becomes durable all the same."""

import random

import pytest

from razortools.engine import files, namespace
from razortools.engine.create import create, plan_create
from razortools.engine.store.nodes import Ref
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import record_key
from razortools.units import KIB, MIB, InodeNo, RecordNo
from tests.engine.data_volumes import assert_memory_adds_up, new_file, open_again

RECORD_BYTES = 4 * KIB
RECORDS = 3000
HURT = 1500  # a record whose item stands in the leaf


def with_many_records() -> tuple[MemoryDevice, InodeNo]:
    """An image with one copy of its metadata, and a file whose records stand in many leaves."""
    device = MemoryDevice(64 * MIB)
    create(device, plan_create(64 * MIB, record_bytes=RECORD_BYTES, metadata_copies=1))
    volume = open_again(device)
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    chance = random.Random(1)
    for number in range(RECORDS):
        files.write(volume, ino, number * RECORD_BYTES, chance.randbytes(RECORD_BYTES))
    volume.close()
    return device, ino


def leaf_of(volume: Volume, ino: InodeNo) -> Ref:
    key = record_key(ino, HURT)
    volume.store.get(key)
    found = volume.store.tree.find(key, 0)
    assert found is not None
    return found


def flip(device: MemoryDevice, leaf: Ref, block_bytes: int) -> None:
    """Turn one bit of the leaf on the disk."""
    place = leaf.address * block_bytes + 2000
    device.write(place, bytes([device.read(place, 1)[0] ^ 1]))


def write_something_else(volume: Volume) -> InodeNo:
    other = new_file(volume)
    files.write(volume, other, 0, b"unrelated")
    return other


def test_what_could_not_be_stored_is_not_taken() -> None:
    """Whole records were taken without a look at where they would stand. From then on no commit of anybody succeeded."""
    device, ino = with_many_records()
    volume = open_again(device)
    leaf = leaf_of(volume, ino)
    volume.store.nodes.drop(leaf)
    flip(device, leaf, volume.block_bytes)
    with pytest.raises(CorruptImage, match="metadata is damaged"):
        files.write(volume, ino, HURT * RECORD_BYTES, bytes([7]) * (8 * RECORD_BYTES))
    other = write_something_else(volume)
    volume.commit()
    assert not volume.records.lost
    volume.close()
    assert files.read(open_again(device), other, 0, 100) == b"unrelated"


def test_what_was_taken_before_the_leaf_went_bad_is_given_up_and_told_and_all_else_is_stored() -> None:
    device, ino = with_many_records()
    volume = open_again(device)
    files.write(volume, ino, HURT * RECORD_BYTES, bytes([7]) * RECORD_BYTES)
    files.write(volume, ino, 0, bytes([8]) * RECORD_BYTES)  # in another leaf
    other = write_something_else(volume)
    leaf = leaf_of(volume, ino)
    volume.store.nodes.drop(leaf)
    flip(device, leaf, volume.block_bytes)
    files.flush_all(volume)
    volume.commit()
    assert list(volume.records.lost) == [ino] and [told for told, _ in volume.records.lost_lately] == [ino]
    assert volume.records.find_dirty(ino, RecordNo(HURT)) is None
    assert_memory_adds_up(volume)
    volume.close()
    again = open_again(device)
    assert files.read(again, other, 0, 100) == b"unrelated"
    assert files.read(again, ino, 0, 10) == bytes([8]) * 10
    with pytest.raises(CorruptImage):
        files.read(again, ino, HURT * RECORD_BYTES, 10)
