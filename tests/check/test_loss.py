"""The loss statement: what became of every file between two views."""

from collections.abc import Callable

import pytest

from razortools.check.comparison import loss
from razortools.check.inventory import take_inventory
from razortools.check.loss import Changed, Loss, Renamed, Truncated
from razortools.check.pieces import is_partly_readable
from razortools.check.repair.repair import Repaired, Wishes, repair
from razortools.check.runner import Options
from razortools.check.steps import finished
from razortools.engine import files, namespace, xattrs
from razortools.engine.store.device import Device
from razortools.engine.volume import Volume
from razortools.format.data import DataRecord
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Kind, inline_key, inode_key, kind_range, record_key
from razortools.units import RecordNo
from tests.check.damages import DAMAGES, Damage
from tests.check.editing import edit_inode, edit_item, editing, find_inode, first_item, flip
from tests.check.samples import Copy, healthy, opened

FILES = 52  # in the sample, directories not counted


def after(change: Callable[[Device], object], *, before: Callable[[Device], object] | None = None) -> Loss:
    """Return the loss between the sample (after *before*) and the same after *change*."""
    old = healthy()
    if before is not None:
        before(old)
    new = Copy(old)
    change(new)
    return loss(take_inventory(old), take_inventory(new))


def mounted(change: Callable[[Volume], object]) -> Callable[[Device], object]:
    def with_volume(device: Device) -> None:
        with opened(device) as volume:
            change(volume)

    return with_volume


def damage_data(device: Device) -> None:
    """Make the first record of /docs/many unreadable: its first 8192 bytes."""
    _, value = first_item(device, find_inode(device, "/docs/many"), Kind.DATA_RECORD)
    flip(device, DataRecord.decode(value).address * 4096 + 77)


def cut_out(device: Device) -> None:
    edit_item(device, record_key(find_inode(device, "/docs/many"), RecordNo(0)), flags=2)


def drop_record(device: Device) -> None:
    with editing(device) as store:
        store.tree.delete(record_key(find_inode(device, "/docs/many"), RecordNo(0)))


def test_nothing_is_lost_where_nothing_changed() -> None:
    found = after(lambda device: None)
    assert found.unchanged == FILES
    assert found.is_none
    assert found.as_json() == {"unchanged": FILES, "renamed": [], "truncated": [], "lost": []}


def test_a_renamed_file_is_told_with_both_paths() -> None:
    found = after(mounted(lambda volume: namespace.rename(volume, ROOT_INODE, b"small", ROOT_INODE, b"tiny")))
    assert found.renamed == [Renamed("/small", "/tiny")]
    assert found.unchanged == FILES - 1
    assert not found.harmed


def test_of_a_renamed_directory_it_alone_is_told() -> None:
    found = after(mounted(lambda volume: namespace.rename(volume, ROOT_INODE, b"docs", ROOT_INODE, b"papers")))
    assert found.renamed == [Renamed("/docs", "/papers")]
    assert found.unchanged == FILES


def test_a_name_of_a_file_that_has_others_leads_to_one_of_them() -> None:
    found = after(mounted(lambda volume: namespace.unlink(volume, ROOT_INODE, b"small")))
    assert found.renamed == [Renamed("/small", "/docs/small too")]
    assert found.lost == []


def test_a_file_that_is_gone_is_lost_and_that_is_the_repairs_doing() -> None:
    found = after(mounted(lambda volume: namespace.unlink(volume, namespace.resolve(volume, b"/docs"), b"one")))
    assert found.lost == found.harmed == ["/docs/one"]
    assert found.unchanged == FILES - 1


def test_the_bytes_that_a_repair_cuts_out_are_told_although_nobody_could_read_them() -> None:
    found = after(cut_out, before=damage_data)
    assert found.truncated == [Truncated("/docs/many", ((0, 8192),))]
    assert found.harmed == []
    assert found.unchanged == FILES - 1


def test_cutting_out_what_could_be_read_harms() -> None:
    found = after(cut_out)
    assert found.truncated == [Truncated("/docs/many", ((0, 8192),))]
    assert found.harmed == ["/docs/many"]


@pytest.mark.parametrize(("before", "harmed"), [(damage_data, []), (None, ["/docs/many"])], ids=["unreadable", "readable"])
def test_zeros_in_the_place_of_data_are_told_as_lost_bytes(before: Callable[[Device], object], harmed: list[str]) -> None:
    found = after(drop_record, before=before)
    assert found.truncated == [Truncated("/docs/many", ((0, 8192),))]
    assert found.harmed == harmed


def test_what_was_mended_is_no_loss() -> None:
    found = after(damage_data, before=damage_data)  # the same bit twice
    assert found.is_none
    assert found.unchanged == FILES


def test_a_shorter_file_has_lost_its_end() -> None:
    found = after(mounted(lambda volume: files.truncate(volume, namespace.resolve(volume, b"/docs/many"), 50_000)))
    assert found.truncated == [Truncated("/docs/many", ((50_000, 60_000),))]
    assert found.harmed == ["/docs/many"]


def test_a_hole_at_the_end_that_is_gone_is_told_but_no_harm() -> None:
    longer = mounted(lambda volume: files.truncate(volume, namespace.resolve(volume, b"/docs/many"), 200_000))
    shorter = mounted(lambda volume: files.truncate(volume, namespace.resolve(volume, b"/docs/many"), 60_000))
    found = after(shorter, before=longer)
    assert found.truncated == [Truncated("/docs/many", ((60_000, 200_000),))]
    assert found.harmed == []


def test_other_bytes_in_the_middle_of_a_file_are_told_by_the_record_that_holds_them() -> None:
    found = after(mounted(lambda volume: files.write(volume, namespace.resolve(volume, b"/docs/many"), 20_000, b"other")))
    assert found.truncated == [Truncated("/docs/many", ((16384, 24576),))]
    assert found.harmed == ["/docs/many"]


def test_the_same_bytes_stored_in_another_way_are_the_same() -> None:
    def rewrite(volume: Volume) -> None:
        ino = namespace.resolve(volume, b"/docs/deep/by none")
        data = files.read(volume, ino, 0, 1 << 20)
        xattrs.set(volume, ino, b"user.razorfs.compression", b"zstd:19")
        files.write(volume, ino, 0, data)

    def wish(volume: Volume) -> None:
        xattrs.set(volume, namespace.resolve(volume, b"/docs/deep/by none"), b"user.razorfs.compression", b"zstd:19")

    found = after(mounted(rewrite), before=mounted(wish))
    assert not (found.truncated or found.lost or found.renamed or found.harmed)
    assert found.changed == [Changed("/docs/deep/by none", ("time of change", "time of status"))]


def test_an_attribute_that_is_gone_is_told_by_its_name() -> None:
    found = after(mounted(lambda volume: xattrs.remove(volume, namespace.resolve(volume, b"/small"), b"user.note")))
    assert found.truncated == [Truncated("/small", (), ("user.note",))]
    assert found.harmed == ["/small"]
    assert found.as_json()["truncated"] == [{"path": "/small", "ranges": [], "attributes": ["user.note"]}]


def test_contents_that_found_an_inode_again_are_renamed() -> None:
    original = healthy()
    number = find_inode(original, "/docs/one")
    with editing(original) as store:
        inode = store.tree.get(inode_key(number))
    assert inode is not None

    def lose_inode(device: Device) -> None:
        with editing(device) as store:
            store.tree.delete(inode_key(number))

    def give_another(device: Device) -> None:
        """Move the contents to a new inode, as a repair might, under a new name."""
        with opened(device) as volume:
            new = namespace.create(volume, ROOT_INODE, b"found", 0o600, 0, 0)
        with editing(device) as store:
            value = store.tree.get(inode_key(new))
            assert value is not None
            store.tree.put(inode_key(new), value[:16] + inode[16:32] + value[32:])
            for key, record in list(store.tree.items(*kind_range(number, Kind.DATA_RECORD))):
                store.tree.delete(key)
                store.tree.put(record_key(new, RecordNo(int.from_bytes(key[10:], "big"))), record)

    found = after(give_another, before=lose_inode)
    assert found.renamed == [Renamed("/docs/one", "/found")]
    assert found.lost == []


def test_a_name_that_led_nowhere_is_lost_but_not_by_the_repair() -> None:
    def lose(device: Device) -> None:
        number = find_inode(device, "/small")
        with editing(device) as store:
            store.tree.delete(inode_key(number))
            store.tree.delete(inline_key(number))

    found = after(lambda device: None, before=lose)
    assert found.lost == ["/docs/small too", "/small"]
    assert found.harmed == []


def test_everything_is_lost_with_the_superblock_and_nothing_is_compared_where_there_never_was_one() -> None:
    blind = take_inventory(DAMAGES[0][1]())
    found = loss(take_inventory(healthy()), blind)
    assert (found.unchanged, len(found.lost)) == (0, FILES + 4)
    gained = loss(blind, take_inventory(healthy()))
    assert not gained.is_none and gained.not_compared == FILES + 4
    assert gained.as_json()["lost"] is None and gained.as_json()["unchanged"] is None


def damage_of(code: str, number: int = 0) -> Device:
    return [damage for its_code, damage in DAMAGES if its_code == code][number]()


def cost_of(damage: Device, repair: Callable[[Device], object]) -> Loss:
    repaired = Copy(damage)
    repair(repaired)
    return loss(take_inventory(damage), take_inventory(repaired))


def test_dropping_an_attribute_that_nobody_can_ask_for_does_not_harm() -> None:
    device = damage_of("E0311")

    def drop(copy: Device) -> None:
        number = find_inode(copy, "/small")
        with editing(copy) as store:
            keys = [key for key, value in store.tree.items(*kind_range(number, Kind.XATTR)) if b"user.note" in value]
            store.tree.delete(keys[0])

    found = cost_of(device, drop)
    assert found.truncated == [Truncated("/small", (), ("user.note",))]
    assert found.harmed == []


def test_what_a_node_that_was_named_twice_has_displaced_could_not_be_read_before() -> None:
    found = loss(take_inventory(healthy()), take_inventory(damage_of("E0305")))
    assert found.lost
    inventory = take_inventory(damage_of("E0305"))
    number = find_inode(healthy(), "/docs/deep/by zlib:6")
    assert inventory.hurt[inventory.find(number)]
    assert not is_partly_readable(inventory, number)


def test_of_bytes_that_are_kept_twice_one_may_go() -> None:
    def keep_blocks(copy: Device) -> None:
        with editing(copy) as store:
            store.tree.delete(inline_key(find_inode(copy, "/docs/one")))

    found = cost_of(damage_of("E0507", 1), keep_blocks)
    assert found.is_none


def test_a_link_without_a_target_is_no_loss_of_the_repairs() -> None:
    def drop(copy: Device) -> None:
        with opened(copy) as volume:
            namespace.unlink(volume, ROOT_INODE, b"link")

    found = cost_of(damage_of("E0507", 2), drop)
    assert found.lost == ["/link"]
    assert found.harmed == []


@pytest.mark.parametrize(("code", "damage"), DAMAGES, ids=[code for code, _ in DAMAGES])
def test_whatever_is_damaged_an_image_compared_with_itself_has_harmed_nothing(code: str, damage: Damage) -> None:
    device = damage()
    found = loss(take_inventory(device), take_inventory(device))
    assert found.harmed == []
    assert found.renamed == []


CHANGES = [({"mode": 0o100777}, "mode"), ({"uid": 7}, "owner"), ({"mtime_ns": 5}, "time of change")]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_another_owner_mode_or_time_is_told_and_the_file_is_not_unchanged(change: dict[str, int], words: str) -> None:
    found = after(lambda device: edit_inode(device, find_inode(device, "/docs/one"), **change))
    assert found.changed == [Changed("/docs/one", (words,))]
    assert found.unchanged == FILES - 1
    assert not found.is_none and found.harmed == []
    assert found.as_json()["changed"] == [{"path": "/docs/one", "fields": [words]}]
    assert found.sentences == [f"changed: /docs/one: {words}"]


def test_a_file_that_has_grown_is_not_unchanged() -> None:
    found = after(lambda device: edit_inode(device, find_inode(device, "/docs/many"), size=60_001))
    assert found.changed == [Changed("/docs/many", ("size",))]
    assert found.unchanged == FILES - 1


def test_the_bytes_that_a_repair_alone_has_cost_are_known() -> None:
    assert after(cut_out).harmed_ranges == {"/docs/many": ((0, 8192),)}
    assert after(lambda device: None).harmed_ranges == {}


def test_an_inode_that_was_made_anew_is_told_to_have_lost_its_owner_mode_and_times() -> None:
    device = healthy()
    with editing(device) as store:
        store.tree.delete(inode_key(find_inode(device, "/docs/one")))
    done: Repaired = finished(repair(device, Wishes(check=Options(threads=1))))
    assert done.refused == "" and done.loss is not None
    assert done.loss.changed == [Changed("/docs/one", ("owner", "group", "mode", "times"))]
    assert not done.loss.is_none
