"""What a repair makes of particular damages: which half is believed, what is kept, where files go."""

import random
import stat
from collections.abc import Callable
from dataclasses import replace

import pytest

from razortools.check.repair.repair import Repaired, Wishes, repair
from razortools.check.runner import Options, check_quietly
from razortools.check.steps import finished
from razortools.engine import directories, files, namespace, xattrs
from razortools.engine.store.device import Device
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage
from razortools.format.data import DataRecord
from razortools.format.directory import BackLink
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.keys import (
    HIGHEST_KEY,
    KIND_AT,
    Kind,
    back_link_key,
    inode_key,
    kind_range,
    name_key,
    record_key,
    xattr_key,
)
from razortools.format.name import hash_name
from razortools.format.superblock import Superblock
from razortools.format.xattr import Xattr
from razortools.units import InodeNo, NameId
from tests.check.damages import _entry_of, _flip_map, _lose_sector, _set_header
from tests.check.editing import (
    all_items,
    edit_inode,
    edit_item,
    editing,
    find_inode,
    first_item,
    flip,
    image_of,
    indexed,
    journal_entries,
    rewrite_entry,
    rewrite_node,
    rewrite_superblock,
    write_superblocks,
)
from tests.check.samples import healthy, opened, unclean
from tools.fuzzing.view import view


def repaired(device: Device) -> Volume:
    """Repair, demand that a second check is clean, and open the result."""
    done: Repaired = finished(repair(device, Wishes(Options(threads=1))))
    assert done.refused == "" and done.changes
    assert check_quietly(done.overlay).exit_code == 0
    return opened(done.overlay)


def names(volume: Volume, path: str = "/") -> set[bytes]:
    return {name for _, name, _ in directories.entries(volume, found(volume, path))}


def found(volume: Volume, path: str) -> InodeNo:
    at = ROOT_INODE
    for part in filter(None, path.encode().split(b"/")):
        at = InodeNo(namespace.lookup(volume, at, part))
    return at


def contents(volume: Volume, path: str) -> bytes:
    ino = found(volume, path)
    return files.read(volume, ino, 0, volume.inodes.get(ino).size)


def whole(path: str) -> bytes:
    return contents(opened(healthy()), path)


def drop(device: Device, *keys: bytes) -> None:
    with editing(device) as store:
        for key in keys:
            store.tree.delete(key)


# Names


def test_an_entry_that_leads_to_a_stranger_leads_back_to_whoever_names_it() -> None:
    device = healthy()
    stranger = find_inode(device, "/docs/many")
    edit_item(device, _entry_of(device, "/docs/one")[0], inode=stranger)
    volume = repaired(device)
    assert contents(volume, "/docs/one") == whole("/docs/one")
    assert contents(volume, "/docs/many") == whole("/docs/many")
    assert volume.inodes.get(stranger).link_count == 1


def test_a_lost_entry_is_written_from_its_back_link_and_keeps_its_name() -> None:
    device = healthy()
    drop(device, _entry_of(device, "/docs/one")[0])
    assert b"one" in names(repaired(device), "/docs")


def test_a_directory_that_is_gone_is_made_again_for_those_who_say_that_they_lie_in_it() -> None:
    device = healthy()
    deep = find_inode(device, "/docs/deep")
    entries = [key for key, _ in all_items(device, deep, Kind.DIRECTORY_ENTRY)]
    links = [key for key, _ in all_items(device, deep, Kind.BACK_LINK)]
    drop(device, inode_key(deep), *entries, *links)
    volume = repaired(device)
    assert names(volume, "/docs/deep") == names(opened(healthy()), "/docs/deep")
    assert contents(volume, "/docs/deep/by lz4") == whole("/docs/deep/by lz4")


def test_what_no_name_leads_to_is_in_lost_and_found_under_its_path() -> None:
    device = healthy()
    crowd, root_entry = find_inode(device, "/crowd"), _entry_of(device, "/crowd")[0]
    edit_inode(device, crowd, mode=stat.S_IFREG | 0o644)
    edit_item(device, root_entry, file_type=stat.S_IFREG >> 12)
    drop(device, *[key for key, _ in all_items(device, crowd, Kind.DIRECTORY_ENTRY)])
    volume = repaired(device)
    assert {b"crowd+member 0", b"crowd+member 39"} <= names(volume, "/lost+found")
    assert contents(volume, "/lost+found/crowd+member 5") == whole("/crowd/member 5")
    assert volume.inodes.get(found(volume, "/lost+found")).mode == stat.S_IFDIR | 0o700


def test_a_directory_in_itself_is_taken_out_and_keeps_what_it_holds() -> None:
    device = healthy()
    docs, deep = find_inode(device, "/docs"), find_inode(device, "/docs/deep")
    key, entry = _entry_of(device, "/docs")
    with editing(device) as store:
        store.tree.delete(key)
        store.tree.put(key[:1] + deep.to_bytes(8, "big") + key[9:], entry.encode())
        store.tree.put(back_link_key(docs, entry.link_no), BackLink(deep, entry.name_id).encode())
    volume = repaired(device)
    assert contents(volume, "/lost+found/docs/one") == whole("/docs/one")


def test_a_link_number_that_no_entry_can_hold_goes() -> None:
    device = healthy()
    one = find_inode(device, "/docs/one")
    key, value = first_item(device, one, Kind.BACK_LINK)
    with editing(device) as store:
        store.tree.delete(key)
        store.tree.put(back_link_key(one, 1 << 40), value)
    assert contents(repaired(device), "/docs/one") == whole("/docs/one")


def test_a_file_that_is_called_a_directory_by_its_mode_only_stays_a_file() -> None:
    device = healthy()
    edit_inode(device, find_inode(device, "/docs/one"), mode=stat.S_IFDIR | 0o644)
    assert contents(repaired(device), "/docs/one") == whole("/docs/one")


def test_an_empty_directory_that_is_called_a_file_by_its_mode_only_stays_a_directory() -> None:
    device = healthy()
    with opened(device) as volume:
        namespace.mkdir(volume, ROOT_INODE, b"empty", 0o755, 0, 0)
    edit_inode(device, find_inode(device, "/empty"), mode=stat.S_IFREG | 0o755)
    assert repaired(device).inodes.get(find_inode(device, "/empty")).is_directory


# Numbers that no image comes to


KINDS_OF_FILES = [Kind.DIRECTORY_ENTRY, Kind.BACK_LINK, Kind.INODE, Kind.DATA_RECORD, Kind.INLINE_DATA, Kind.XATTR]


@pytest.mark.parametrize("kind", KINDS_OF_FILES)
def test_an_item_of_an_inode_number_that_cannot_be_is_removed_and_believed_in_nothing(kind: Kind) -> None:
    """A repair made an inode of such an item once; then no number was left for the next one, and no check was clean any more."""
    device = healthy()
    items = indexed(device).range_items(inode_key(InodeNo(2)), HIGHEST_KEY)
    key, value = next((key, value) for key, value in items if key[KIND_AT] == kind)
    with editing(device) as store:
        store.tree.delete(key)
        store.tree.put(key[:1] + bytes([key[1] | 0x80]) + key[2:], value)
    assert "E0306" in {finding.code for finding in check_quietly(device).findings}
    done: Repaired = finished(repair(device, Wishes(Options(threads=1))))
    assert done.refused == "" and done.after.exit_code == 0
    assert not list(indexed(done.overlay).range_items(inode_key(InodeNo(1 << 62)), name_key(NameId(0))))
    if kind in (Kind.DIRECTORY_ENTRY, Kind.BACK_LINK):  # each is told by the other
        assert view(done.overlay) == view(healthy())


# Contents


def test_a_record_that_does_not_verify_is_cut_out_and_the_rest_can_be_read() -> None:
    device = healthy()
    many = find_inode(device, "/docs/many")
    record = DataRecord.decode(all_items(device, many, Kind.DATA_RECORD)[1][1])
    device.write(record.address * 4096, random.Random(1).randbytes(100))
    volume = repaired(device)
    for start in (0, 16384):
        assert files.read(volume, many, start, 8192) == whole("/docs/many")[start : start + 8192]
    with pytest.raises(CorruptImage, match="repair"):
        files.read(volume, many, 8192, 10)
    files.write(volume, many, 8192, b"x" * 8192)  # written as a whole, it is as good as new
    volume.commit()
    assert files.read(volume, many, 8192, 8192) == b"x" * 8192


def test_one_flipped_bit_in_a_record_is_turned_back() -> None:
    device = healthy()
    record = DataRecord.decode(first_item(device, find_inode(device, "/docs/deep/by zstd:3"), Kind.DATA_RECORD)[1])
    flip(device, record.address * 4096 + record.stored_bytes // 2, 5)
    assert contents(repaired(device), "/docs/deep/by zstd:3") == whole("/docs/deep/by zstd:3")


def test_lost_records_do_not_read_as_zeros() -> None:
    device = healthy()
    many = find_inode(device, "/docs/many")
    drop(device, all_items(device, many, Kind.DATA_RECORD)[2][0])
    volume = repaired(device)
    assert files.read(volume, many, 0, 16384) == whole("/docs/many")[:16384]
    with pytest.raises(CorruptImage):
        files.read(volume, many, 16384, 1)


def test_holes_of_a_file_whose_blocks_are_counted_wrongly_stay_holes() -> None:
    device = healthy()
    holes = find_inode(device, "/docs/deep/holes")
    inode = Inode.decode(first_item(device, holes, Kind.INODE)[1])
    edit_inode(device, holes, stored_blocks=inode.stored_blocks + 1)
    assert contents(repaired(device), "/docs/deep/holes") == whole("/docs/deep/holes")


def test_two_files_that_claim_the_same_good_data_get_a_copy_each() -> None:
    device = healthy()
    value = first_item(device, find_inode(device, "/docs/one"), Kind.DATA_RECORD)[1]
    with opened(device) as volume:
        files.write(volume, namespace.create(volume, ROOT_INODE, b"twin", 0o644, 0, 0), 0, whole("/docs/one"))
    edit_item(device, first_item(device, find_inode(device, "/twin"), Kind.DATA_RECORD)[0], **_fields(value))
    volume = repaired(device)
    assert contents(volume, "/twin") == contents(volume, "/docs/one") == whole("/docs/one")
    files.write(volume, found(volume, "/twin"), 0, b"changed")
    volume.commit()
    assert contents(volume, "/docs/one") == whole("/docs/one")


def _fields(value: bytes) -> dict[str, object]:
    record = DataRecord.decode(value)
    return {field.name: getattr(record, field.name) for field in DataRecord.FIELDS}


def test_a_size_that_is_too_small_for_data_that_are_counted_is_set_right() -> None:
    device = healthy()
    edit_inode(device, find_inode(device, "/docs/many"), size=100)
    assert contents(repaired(device), "/docs/many") == whole("/docs/many")


def test_an_attribute_that_claims_to_lie_in_blocks_is_read_where_it_is() -> None:
    device = healthy()
    small = find_inode(device, "/small")
    edit_item(device, xattr_key(small, hash_name(b"user.note", bytes(range(16)))), flags=1)
    assert xattrs.get(repaired(device), small, b"user.note") == b"short"


def test_an_attribute_that_is_filed_in_the_wrong_place_is_filed_anew() -> None:
    device = healthy()
    small = find_inode(device, "/small")
    with editing(device) as store:
        store.tree.put(xattr_key(small, 5), Xattr.inline(b"user.lost", b"and found").encode())
    assert xattrs.get(repaired(device), small, b"user.lost") == b"and found"


# Nodes and superblocks


def test_a_pointer_that_leads_to_a_strange_block_does_not_get_it_overwritten() -> None:
    device = healthy()
    record = DataRecord.decode(first_item(device, find_inode(device, "/docs/many"), Kind.DATA_RECORD)[1])

    def mislead(raw: bytearray) -> None:
        at = raw.rindex(indexed(device).mirrors[3].to_bytes(8, "little"))
        raw[at : at + 8] = record.address.to_bytes(8, "little")

    rewrite_node(device, lambda level, raw: level == 1, mislead)
    assert contents(repaired(device), "/docs/many") == whole("/docs/many")


@pytest.mark.parametrize("copies", [1, 2])
def test_one_flipped_bit_in_every_copy_of_a_node_is_turned_back(copies: int) -> None:
    device = healthy(copies=copies)
    index = indexed(device)
    for address in filter(None, (index.addresses[2], index.mirrors[2])):
        flip(device, address * 4096 + 900, 3)
    volume = repaired(device)
    assert names(volume, "/crowd") == names(opened(healthy()), "/crowd")


WRONG_COUNTS = [{"item_count": 0}, {"item_count": 1}, {"item_count": 60_000}, {"used_bytes": 0}, {"used_bytes": 99}]


@pytest.mark.parametrize("counts", WRONG_COUNTS)
def test_a_leaf_that_only_counts_its_items_wrongly_loses_none(counts: dict[str, int]) -> None:
    device = healthy()
    rewrite_node(device, lambda level, raw: level == 0, lambda raw: _set_header(raw, **counts))
    volume = repaired(device)
    assert names(volume, "/docs") == names(opened(healthy()), "/docs")
    assert contents(volume, "/docs/one") == whole("/docs/one")


def test_a_root_whose_level_is_told_wrongly_by_every_superblock_is_asked_itself() -> None:
    device = healthy()
    write_superblocks(device, backups=True, root_level=0)
    assert contents(repaired(device), "/docs/many") == whole("/docs/many")


def test_a_record_at_an_impossible_place_does_not_make_the_file_endless() -> None:
    device = healthy()
    one = find_inode(device, "/docs/one")
    key, value = first_item(device, one, Kind.DATA_RECORD)
    with editing(device) as store:
        store.tree.delete(key)
        store.tree.put(record_key(one, 1 << 62), value)
    assert repaired(device).inodes.get(one).size == 5000


def test_one_flipped_bit_in_every_superblock_is_turned_back_and_the_newest_is_believed() -> None:
    device = unclean(3)
    image = image_of(device)
    for block in (image.superblock.slot, *image.geometry.backups):
        flip(device, block * 4096 + 200, 6)
    assert {b"late0", b"late1", b"late2"} <= names(repaired(device))


@pytest.mark.parametrize("field", ["uuid", "hash_seed", "root", "root_level", "spacemap_active", "journal_tail", "free_blocks"])
def test_copies_of_the_superblock_outvote_one_that_was_edited(field: str) -> None:
    device = unclean(2)
    image = image_of(device)
    value = getattr(image.superblock, field)
    wrong = bytes(16) if isinstance(value, bytes) else replace(value, address=7) if field == "root" else value + 4096
    rewrite_superblock(device, image.superblock.slot, 4096, **{field: wrong})
    volume = repaired(device)
    assert contents(volume, "/docs/one") == whole("/docs/one") and b"late1" in names(volume)


def test_an_older_superblock_is_not_believed_only_because_more_copies_tell_of_it() -> None:
    device = unclean(1)
    image = image_of(device)
    with opened(device) as volume:
        namespace.create(volume, ROOT_INODE, b"newest", 0o644, 0, 0)
        volume.checkpoint()
    for number, place in enumerate(image.geometry.backups):  # the backups of the newest checkpoint never arrived
        device.write(place * 4096, replace(image.superblock, slot=2 + number, address=place).encode())
    edit_inode(device, find_inode(device, "/docs/one"), link_count=7)
    for number, place in enumerate(image.geometry.backups):
        device.write(place * 4096, replace(image.superblock, slot=2 + number, address=place).encode())
    flip(device, image.geometry.backups[0] * 4096 + 60)
    assert b"newest" in names(repaired(device))


# The journal


def test_a_damaged_space_map_does_not_cost_what_waits_in_the_journal() -> None:
    device = unclean(3)
    _flip_map(device, 0)
    volume = repaired(device)
    assert {b"late0", b"late1", b"late2"} <= names(volume)
    assert contents(volume, "/late2") == random.Random(2).randbytes(6000)


@pytest.mark.parametrize(("number", "offset"), [(1, 2), (2, 6), (3, 20), (1, 36), (1, 38), (1, 60), (1, 70)])
def test_one_flipped_bit_in_the_journal_costs_nothing(number: int, offset: int) -> None:
    device = unclean(3)
    image = image_of(device)
    entry = journal_entries(image)[number]
    flip(device, image.geometry.journal_start * 4096 + (entry.position + offset) % image.geometry.journal_bytes, 4)
    volume = repaired(device)
    assert {b"late0", b"late1", b"late2"} <= names(volume)


def test_what_was_committed_before_the_damage_in_the_journal_is_replayed() -> None:
    device = unclean(3)
    second = next(number for number, entry in enumerate(journal_entries(image_of(device))) if entry.head.operation == 0) + 2
    _lose_sector(device, second)
    found_names = names(repaired(device))
    assert b"late0" in found_names and not {b"late1", b"late2"} & found_names


def test_leftovers_in_the_journal_are_not_taken_for_later_entries() -> None:
    device = unclean(3)
    rewrite_entry(device, 0, key=bytes(18))
    volume = repaired(device)
    namespace.create(volume, ROOT_INODE, b"after", 0o644, 0, 0)
    volume.commit()
    again = opened(volume.store.device)
    assert b"after" in names(again)


# The whole


def test_the_old_view_stays_whole_until_the_superblock_is_written() -> None:
    """Everything but the two slots of the superblock may be written at any time: the old filesystem is what it was."""
    device = healthy()
    edit_inode(device, find_inode(device, "/docs/one"), link_count=7)
    done: Repaired = finished(repair(device))
    image = image_of(device)
    for offset, page in done.overlay.written_pages():
        if offset // 4096 not in (0, 1, *image.geometry.backups):
            device.write(offset, page)
    # The spare map belongs to the superblock before the last, which has done its duty.
    assert {finding.code for finding in check_quietly(device).findings} <= {"E0401", "E0514"}
    assert contents(opened(device), "/docs/many") == whole("/docs/many")


def test_what_is_mended_in_its_place_gets_newer_superblocks_too() -> None:
    device = healthy()
    flip(device, indexed(device).mirrors[3] * 4096 + 500)
    done: Repaired = finished(repair(device))
    assert [[edit.verb.value for edit in edits] for edits in done.rounds] == [["copy node"], ["write the frame anew"]]
    assert image_of(done.overlay).superblock.generation > image_of(device).superblock.generation + 1


def test_a_repair_that_hurts_others_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    device = healthy()
    edit_inode(device, find_inode(device, "/docs/one"), link_count=7)
    many = find_inode(device, "/docs/many")

    def wrong(draft, finding) -> None:  # type: ignore[no-untyped-def]
        draft.set(inode_key(finding.inode), "link_count", 1, "right")
        for key, _ in list(draft.items(*kind_range(many, Kind.DATA_RECORD))):
            draft.delete(key, "wrong")

    monkeypatch.setitem(_planners(), "E0401", wrong)
    done: Repaired = finished(repair(device))
    assert not done.changes and "/docs/many" in done.refused


def test_a_repair_that_helps_nobody_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    device = healthy()
    edit_inode(device, find_inode(device, "/docs/one"), link_count=7)

    def useless(draft, finding) -> None:  # type: ignore[no-untyped-def]
        draft.set(inode_key(finding.inode), "link_count", 5, "wrong")

    monkeypatch.setitem(_planners(), "E0401", useless)
    done: Repaired = finished(repair(device))
    assert not done.changes and "would not have become better" in done.refused


def _planners() -> dict[str, Callable[..., None]]:
    from razortools.check.repair import planning

    return planning.BY_CODE  # type: ignore[return-value]


def test_damage_that_nobody_foresaw_ends_a_repair_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from razortools.check.repair.bench import Bench

    def breaks(*_: object) -> None:
        raise ZeroDivisionError("of a kind")

    device = healthy()
    edit_inode(device, find_inode(device, "/docs/one"), link_count=7)
    monkeypatch.setattr(Bench, "apply", breaks)
    done: Repaired = finished(repair(device))
    assert not done.changes and "ZeroDivisionError: of a kind" in done.refused


def test_superblocks_with_different_numbers_follow_one_another_after_a_repair() -> None:
    device = healthy()
    edit_inode(device, find_inode(device, "/docs/one"), link_count=7)
    done: Repaired = finished(repair(device))
    slots = [Superblock.decode(done.overlay.read(slot * 4096, 4096)) for slot in (0, 1)]
    assert abs(slots[0].generation - slots[1].generation) == 1
    assert min(slot.generation for slot in slots) > image_of(device).superblock.generation


def test_one_bit_of_a_mode_makes_no_file_a_symbolic_link_for_good() -> None:
    """The entry, which told the truth, was made to say the same, and the file could not be read any more."""
    device = healthy()
    ino = find_inode(device, "/docs/one")
    edit_inode(device, ino, mode=stat.S_IFLNK | 0o644)
    done = finished(repair(device, Wishes(check=Options(threads=1))))
    assert done.after.clean
    with opened(done.overlay) as volume:
        assert stat.S_ISREG(volume.inodes.get(ino).mode)
        assert len(files.read(volume, ino, 0, 10_000)) == 5000
