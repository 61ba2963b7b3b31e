"""Items under a key with one wrong bit: put where they belong if that is known, and never dropped without a word."""

from collections.abc import Callable

import pytest

from razortools.check.repair.repair import Repaired, Wishes, repair
from razortools.check.runner import Options
from razortools.check.steps import finished
from razortools.engine import namespace
from razortools.engine.store.device import Device
from razortools.engine.volume import open_volume
from razortools.format.directory import DirectoryEntry
from razortools.format.keys import (
    KEY_BYTES,
    Kind,
    Table,
    back_link_key,
    inline_key,
    inode_key,
    patch_key,
    record_key,
)
from razortools.units import InodeNo
from tests.check.editing import all_items, editing, find_inode, first_item, indexed
from tests.check.samples import Clock, Copy, healthy
from tests.check.test_patches import patched
from tests.schemas import valid
from tests.workload import everything


def rekeyed(device: Device, key: bytes, bit: int) -> None:
    """Turn one bit of a key: 0 is the last one of its offset."""
    with editing(device) as store:
        value = store.tree.get(key)
        assert value is not None
        store.tree.delete(key)
        store.tree.put((int.from_bytes(key, "big") ^ 1 << bit).to_bytes(KEY_BYTES, "big"), value)


def repaired(device: Device) -> Repaired:
    done: Repaired = finished(repair(device, Wishes(check=Options(threads=1))))
    assert done.refused == "" and done.after.clean
    return done


def items(device: Device) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for _, (keys, values) in indexed(device).leaves():
        found.update(zip(keys, values, strict=True))
    return {key: value for key, value in found.items() if key[0] != Table.VOLUME}


def member_entry(device: Device) -> bytes:
    ino = find_inode(device, "/crowd/member 36")
    crowd = find_inode(device, "/crowd")
    return next(key for key, value in all_items(device, crowd, Kind.DIRECTORY_ENTRY) if DirectoryEntry.decode(value).inode == ino)


TABLE, OBJECT, KIND, OFFSET = 136, 72, 64, 0  # the lowest bit of each part
PLACES: dict[str, tuple[Callable[[Device], bytes], int]] = {
    "inline data, offset": (lambda device: inline_key(find_inode(device, "/small")), OFFSET + 36),
    "inline data, inode": (lambda device: inline_key(find_inode(device, "/small")), OBJECT + 20),
    "attribute, table": (lambda device: first_item(device, find_inode(device, "/small"), Kind.XATTR)[0], TABLE + 4),
    "attribute, kind": (lambda device: first_item(device, find_inode(device, "/small"), Kind.XATTR)[0], KIND + 2),
    "record, table": (lambda device: record_key(find_inode(device, "/docs/many"), 2), TABLE + 6),
    "record, number 2^53": (lambda device: record_key(find_inode(device, "/docs/many"), 2), OFFSET + 53),
    "record, number 2^49": (lambda device: record_key(find_inode(device, "/docs/many"), 2), OFFSET + 49),
    "record, number 2^30": (lambda device: record_key(find_inode(device, "/docs/many"), 2), OFFSET + 30),
    "record, inode": (lambda device: record_key(find_inode(device, "/docs/many"), 2), OBJECT + 30),
    "inode, offset": (lambda device: inode_key(find_inode(device, "/docs/one")), OFFSET + 5),
    "inode, kind": (lambda device: inode_key(find_inode(device, "/docs/one")), KIND + 1),
    "back link, table": (lambda device: back_link_key(find_inode(device, "/docs/one"), 0), TABLE + 5),
    "entry, directory": (member_entry, OBJECT + 18),
    "entry, kind": (member_entry, KIND + 3),
}


@pytest.mark.parametrize("place", PLACES)
def test_an_item_under_a_key_with_one_wrong_bit_is_put_back(place: str) -> None:
    find, bit = PLACES[place]
    device = healthy()
    good = items(device)
    rekeyed(device, find(device), bit)
    done = repaired(device)
    assert items(done.overlay) == good
    assert done.loss is not None and not done.loss.removed
    assert not done.loss.truncated and not done.loss.lost


def test_a_patch_under_a_key_with_one_wrong_bit_is_put_back() -> None:
    device, ino = patched()
    rekeyed(device, patch_key(ino, 0), TABLE + 5)
    assert items(repaired(device).overlay).get(patch_key(ino, 0)) is not None


def test_a_file_stays_in_its_directory_if_a_bit_of_the_entrys_directory_is_wrong() -> None:
    device = healthy()
    rekeyed(device, member_entry(device), OBJECT + 18)
    with open_volume(Copy(repaired(device).overlay), clock=Clock()) as volume:
        assert [path for path in everything(volume) if b"member 36" in path] == [b"/crowd/member 36"]
        assert namespace.resolve(volume, b"/crowd")


def test_what_nobody_misses_is_removed_and_told() -> None:
    device = healthy()
    with editing(device) as store:
        store.tree.put(bytes([9]) + inline_key(InodeNo(5))[1:], b"?")
    loss = repaired(device).loss
    assert loss is not None and not loss.is_none
    assert loss.removed == 1 and valid("razorfsck", loss.as_json(), "loss")["removed_items"] == 1
    assert "removed: items that made no sense: 1" in loss.sentences


def test_a_file_does_not_grow_without_measure_for_one_record_that_lies_far_away() -> None:
    """Two bits are wrong, so nobody knows where it belongs."""
    device = healthy()
    many = find_inode(device, "/docs/many")
    key = record_key(many, 2)
    with editing(device) as store:
        value = store.tree.get(key) or b""
        store.tree.delete(key)
        store.tree.put(record_key(many, 2 | 3 << 30), value)
    done = repaired(device)
    assert done.loss is not None and done.loss.removed == 1 and not done.loss.changed
    with open_volume(Copy(done.overlay), clock=Clock()) as volume:
        assert volume.inodes.peek(many).size == 60_000
