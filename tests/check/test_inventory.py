"""The inventory: what a user finds in an image, as far as it can be read."""

import random

import pytest

from razortools.check.inventory import Inventory, take_inventory
from razortools.check.keylist import KeyList
from razortools.check.paths import Paths
from razortools.check.pieces import is_partly_readable, pieces
from razortools.engine import files, namespace
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.format.data import DataRecord
from razortools.format.directory import BackLink, DirectoryEntry
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Kind, back_link_key, entry_key, inode_key, kind_range, offset_of, record_key
from razortools.units import InodeNo, RecordNo
from tests.check.damages import DAMAGES, Damage
from tests.check.editing import editing, find_inode, first_item, flip
from tests.check.samples import fill, healthy, new_device, opened, unclean


def place_of(inventory: Inventory, device: Device, path: str) -> int:
    place = inventory.find(find_inode(device, path))
    assert place >= 0
    return place


def test_every_file_is_in_it_and_nothing_is_hurt() -> None:
    inventory = take_inventory(healthy())
    assert not any(inventory.hurt)
    assert not inventory.dangling
    assert not inventory.headless
    names = {inventory.path(number) for number in inventory.numbers}
    assert {"/", "/docs/deep/holes", "/link", "/crowd/member 39"} <= names


def test_it_tells_of_the_image_as_the_next_mount_will_see_it() -> None:
    inventory = take_inventory(unclean(2))
    assert {"/late0", "/late1"} <= {inventory.path(number) for number in inventory.numbers}


def test_two_inventories_of_equal_images_are_equal_wherever_the_data_lie() -> None:
    other = new_device(4 << 20)  # another size, so that everything lies elsewhere
    with opened(other) as volume:
        fill(volume)
    one, two = take_inventory(healthy()), take_inventory(other)
    assert (one.numbers, one.contents, one.names) == (two.numbers, two.contents, two.names)


def test_a_changed_byte_changes_the_sum_of_its_file_only() -> None:
    device = healthy()
    before = take_inventory(device)
    with opened(device) as volume:
        files.write(volume, namespace.resolve(volume, b"/docs/one"), 4000, b"!")
    after = take_inventory(device)
    place = place_of(before, device, "/docs/one")
    assert [at for at in range(len(before.numbers)) if before.contents[at] != after.contents[at]] == [place]


def test_a_record_that_does_not_verify_hurts_its_file_only() -> None:
    device = healthy()
    _, value = first_item(device, find_inode(device, "/docs/many"), Kind.DATA_RECORD)
    flip(device, DataRecord.decode(value).address * 4096 + 77)
    inventory = take_inventory(device)
    place = place_of(inventory, device, "/docs/many")
    assert [at for at, hurt in enumerate(inventory.hurt) if hurt] == [place]
    assert [(piece.first, piece.behind) for piece in pieces(inventory, inventory.numbers[place]) if piece.identity is None] == [
        (0, 8192)
    ]
    assert is_partly_readable(inventory, inventory.numbers[place])


def test_holes_are_pieces_too() -> None:
    inventory = take_inventory(healthy())
    number = find_inode(healthy(), "/docs/deep/holes")
    stored = [(piece.first, piece.behind) for piece in pieces(inventory, number) if piece.identity]
    assert stored
    assert all(first >= 40_000 // 8192 * 8192 for first, _ in stored)
    assert next(piece.first for piece in pieces(inventory, number)) == 0


def test_a_name_without_an_inode_and_contents_without_one_are_noticed() -> None:
    device = healthy()
    number = find_inode(device, "/docs/one")
    with editing(device) as store:
        store.tree.delete(inode_key(number))
    inventory = take_inventory(device)
    assert [inventory.path_at(key) for key in inventory.dangling] == ["/docs/one"]
    assert list(inventory.headless) == [number]


def test_a_path_is_told_by_back_links_where_an_entry_is_missing() -> None:
    device = healthy()
    inventory = take_inventory(device)
    number = find_inode(device, "/docs/one")
    with editing(device) as store:
        for key, value in list(store.tree.items(*entries_of(find_inode(device, "/docs")))):
            if DirectoryEntry.decode(value).inode == number:
                store.tree.delete(key)
    after = take_inventory(device)
    assert after.parents[after.find(number)] == 0
    assert after.path(number) == inventory.path(number) == "/docs/one"


def entries_of(directory: InodeNo) -> tuple[bytes, bytes]:
    return kind_range(directory, Kind.DIRECTORY_ENTRY)


@pytest.mark.parametrize(("code", "damage"), DAMAGES, ids=[code for code, _ in DAMAGES])
def test_no_damage_stops_it_and_nothing_is_written(code: str, damage: Damage) -> None:
    overlay = OverlayDevice(damage())
    overlay.read_only = True
    inventory = take_inventory(overlay)
    assert not overlay.written_bytes
    assert all(isinstance(inventory.path(number), str) for number in inventory.numbers)


def test_an_image_without_a_superblock_has_an_empty_inventory() -> None:
    inventory = take_inventory(OverlayDevice(DAMAGES[0][1]()))
    assert inventory.facts is None
    assert list(inventory.numbers) == []


def test_a_list_of_keys_knows_what_is_in_it() -> None:
    seed = 20
    print(f"seed {seed}")
    chance = random.Random(seed)
    keys = [record_key(InodeNo(chance.randrange(100)), RecordNo(chance.randrange(100))) for _ in range(500)]
    listed = KeyList()
    for key in keys:
        listed.add(key)
    listed.sort()
    everyone = [record_key(InodeNo(inode), RecordNo(number)) for inode in range(100) for number in range(100)]
    assert {key for key in everyone if key in listed} == set(keys)
    assert record_key(ROOT_INODE, RecordNo(1)) not in KeyList()


def test_the_way_around_a_cycle_of_directories_is_gone_once(monkeypatch: pytest.MonkeyPatch) -> None:
    files_count, asked = 50, 0
    device = new_device()
    with opened(device) as volume:
        above = namespace.mkdir(volume, ROOT_INODE, b"above", 0o755, 1, 2)
        below = namespace.mkdir(volume, above, b"below", 0o755, 1, 2)
        numbers = [namespace.create(volume, below, b"file %d" % number, 0o644, 1, 2) for number in range(files_count)]
    key, value = first_item(device, ROOT_INODE, Kind.DIRECTORY_ENTRY)
    entry = DirectoryEntry.decode(value)
    with editing(device) as store:  # the one above lies in the one below
        store.tree.delete(key)
        store.tree.put(entry_key(below, offset_of(key)), value)
        store.tree.put(back_link_key(above, entry.link_no), BackLink(below, entry.name_id).encode())
    name_of = Paths.name

    def counted(paths: Paths, name_id: int) -> str:
        nonlocal asked
        asked += 1
        return name_of(paths, name_id)

    monkeypatch.setattr(Paths, "name", counted)
    inventory = take_inventory(device)
    assert [inventory.path(number) for number in numbers] == [f"<inode {number}>" for number in numbers]
    assert asked < 4 * files_count
