"""A leaf goes bad on the disk: its own files are told, and what others write becomes durable all the same."""

import random
from dataclasses import replace

import pytest

from razortools.engine import attributes, files, namespace, orphans
from razortools.engine.attributes import AttributeChange
from razortools.engine.create import create, plan_create
from razortools.engine.limits import Limits
from razortools.engine.store.nodes import Ref
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import record_key
from razortools.format.node import decode_header, decode_items, encode_node
from razortools.units import KIB, MIB, InodeNo, RecordNo
from tests.engine.data_volumes import assert_memory_adds_up, data_records, new_file, open_again

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
    assert not volume.records.losses
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
    assert volume.records.losses.files() == [ino] and [told for told, _ in volume.records.losses.lately] == [ino]
    assert volume.records.find_dirty(ino, RecordNo(HURT)) is None
    assert_memory_adds_up(volume)
    volume.close()
    again = open_again(device)
    assert files.read(again, other, 0, 100) == b"unrelated"
    assert files.read(again, ino, 0, 10) == bytes([8]) * 10
    with pytest.raises(CorruptImage):
        files.read(again, ino, HURT * RECORD_BYTES, 10)


def with_little_memory() -> tuple[MemoryDevice, InodeNo, Volume]:
    """The same, with a record dirty whose leaf goes bad then, and little that may be dirty."""
    device, ino = with_many_records()
    volume = open_again(device, limits=Limits(dirty_bytes=512 * KIB))
    files.write(volume, ino, HURT * RECORD_BYTES, bytes([7]) * RECORD_BYTES)
    leaf = leaf_of(volume, ino)
    volume.store.nodes.drop(leaf)
    flip(device, leaf, volume.block_bytes)
    return device, ino, volume


def test_who_writes_when_something_of_others_is_given_up_goes_on_with_the_inode_as_it_is() -> None:
    """What had been given up made the table forget its copies; the writer put the one that it held over a newer one."""
    _, ino, volume = with_little_memory()
    other = new_file(volume)
    data = random.Random(5).randbytes(2 * MIB)
    for at in range(0, len(data), 2 * RECORD_BYTES):
        files.write(volume, other, at, data[at : at + 2 * RECORD_BYTES])
    assert volume.records.losses.files() == [ino]
    volume.commit()
    stored = sum(record.block_count(volume.block_bytes) for record in data_records(volume, other).values())
    assert volume.inodes.get(other).stored_blocks == stored
    assert files.read(volume, other, 0, len(data)) == data
    volume.close()


def test_an_operation_that_makes_room_and_loses_something_of_others_is_refused_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold an inode from before that, as every operation does that looks before it begins."""
    _, ino, volume = with_little_memory()
    other = new_file(volume)
    has_room = [False, True]
    monkeypatch.setattr(volume, "_has_room", lambda *_, **__: has_room.pop(0) if has_room else True)
    with pytest.raises(CorruptImage, match="try again"):
        attributes.setattr(volume, other, AttributeChange(mode=0o600))
    assert volume.records.losses.files() == [ino]
    attributes.setattr(volume, other, AttributeChange(mode=0o600))
    assert volume.inodes.get(other).mode & 0o777 == 0o600


def test_a_sealed_leaf_that_spans_no_keys_is_damage_like_any_other() -> None:
    """It was taken for one that the cache had dropped, and an assertion kept everybody from committing."""
    device, ino = with_many_records()
    volume = open_again(device)
    leaf = leaf_of(volume, ino)
    volume.store.nodes.drop(leaf)
    place, node_bytes = leaf.address * volume.block_bytes, volume.store.geometry.node_bytes
    raw = device.read(place, node_bytes)
    header = decode_header(raw)
    sealed, leaf.crc32c = encode_node(replace(header, high=header.low), *decode_items(raw, header), node_bytes)
    device.write(place, sealed)
    with pytest.raises(CorruptImage, match="spans no keys"):
        files.read(volume, ino, HURT * RECORD_BYTES, 10)
    other = write_something_else(volume)
    volume.commit()
    assert files.read(volume, other, 0, 100) == b"unrelated"


# Until when a loss is told


@pytest.mark.parametrize("ending", ["written anew", "written in part", "cut off", "cut off behind it", "deleted"])
def test_a_loss_is_told_until_nothing_is_lost_any_more(ending: str) -> None:
    """It was told once, to whoever asked first: the one who had written it was told that all was well."""
    volume = open_again(with_many_records()[0])
    ino, record = namespace.resolve(volume, b"/file"), RecordNo(HURT)
    files.write(volume, ino, HURT * RECORD_BYTES, bytes(RECORD_BYTES))
    volume.records.lose(ino, record, CorruptImage("the leaf is damaged"))
    for _ in range(2):
        assert "the leaf is damaged" in str(volume.records.losses.of(ino))
    assert volume.records.losses.of(ROOT_INODE) is None
    if ending == "written anew":
        files.write(volume, ino, HURT * RECORD_BYTES, bytes([7]) * RECORD_BYTES)
        assert volume.records.losses.of(ino) is not None
        files.flush_all(volume)
    elif ending == "written in part":
        files.write(volume, ino, (HURT + 1) * RECORD_BYTES, bytes([7]) * RECORD_BYTES)
        files.flush_all(volume)
    elif ending == "deleted":
        namespace.unlink(volume, ROOT_INODE, b"file")
        orphans.finish_orphans(volume)
    else:
        size = HURT * RECORD_BYTES + (RECORD_BYTES if ending == "cut off behind it" else 0)
        attributes.setattr(volume, ino, AttributeChange(size=size))
    is_told = ending in ("written in part", "cut off behind it")
    assert (volume.records.losses.of(ino) is not None) == is_told and bool(volume.records.losses) == is_told
