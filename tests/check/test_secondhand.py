"""What older leaves may say about a range whose current leaf is lost, one rule each."""

import random
from dataclasses import replace
from itertools import pairwise

import crc32c
import pytest

from razortools.check.repair import rebuild as module
from razortools.check.repair.rebuild import RebuildResult, examine
from razortools.check.repair.repair import Repaired, repair
from razortools.check.repair.used import UsedBlocks
from razortools.check.repair.waiting import waiting_blocks
from razortools.check.steps import finished
from razortools.check.tree import Place, TreeIndex, walk
from razortools.engine import directories, files, namespace
from razortools.engine.store import checkpoint, commit
from razortools.engine.store.device import Device
from razortools.engine.volume import Volume
from razortools.format.data import CUT_OUT, DataRecord, Patch
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.keys import (
    HIGHEST_KEY,
    LOWEST_KEY,
    Kind,
    back_link_key,
    entry_key,
    inline_key,
    inode_key,
    kind_range,
    object_of,
    patch_key,
    record_key,
)
from razortools.format.name import hash_name
from razortools.format.node import NodeHeader, encode_node
from razortools.format.superblock import State
from razortools.units import KIB, MIB, BlockNo, InodeNo
from tests.check.editing import edit_item, editing, image_of, indexed, write_superblocks
from tests.check.samples import Copy, KeptDevice
from tests.check.test_rebuild import contents, destroy, items_of, nodes_by_level, rebuilt
from tests.check.test_scan import ended
from tests.workload import Clock, formatted
from tests.workload import opened as opened_with

CROWD = 60


class Story:
    """An image with a crowd of files, so that its directory and its inodes lie in different leaves."""

    def __init__(self, copies: int = 2) -> None:
        self.device: Device = formatted(KeptDevice(8 * MIB), record_bytes=4 * KIB, metadata_copies=copies)
        self.clock = Clock()
        self.inodes: dict[bytes, InodeNo] = {}
        with self.opened() as volume:
            for number in range(CROWD):
                self.make(volume, b"file %d" % number, random.Random(number).randbytes(9000))
            volume.checkpoint()

    def opened(self) -> Volume:
        return opened_with(self.device, self.clock)

    def make(self, volume: Volume, name: bytes, data: bytes) -> None:
        self.inodes[name] = namespace.create(volume, ROOT_INODE, name, 0o640, 1, 2)
        files.write(volume, self.inodes[name], 0, data)

    def lose_leaf_of(self, name: bytes) -> tuple[Copy, RebuildResult]:
        """Destroy the leaf that holds the inode *name*, and rebuild."""
        key = inode_key(self.inodes[name])
        image = image_of(self.device)
        for visit in walk(image, TreeIndex(image)):
            if visit.place.level == 0 and key in visit.keys:
                lost = Copy(self.device)
                destroy(lost, tuple(place for place in (visit.place.pointer.address, visit.place.pointer.mirror) if place))
                return rebuilt(lost)
        raise AssertionError(name)

    def value(self, device: Device, key: bytes) -> bytes | None:
        return indexed(device).get(key)

    def records(self, device: Device, name: bytes) -> list[DataRecord]:
        low, high = kind_range(self.inodes[name], Kind.DATA_RECORD)
        return [DataRecord.decode(value) for _, value in indexed(device).range_items(low, high)]


def test_a_file_that_was_not_changed_since_comes_back_whole() -> None:
    story = Story()
    with story.opened() as volume:
        files.write(volume, story.inodes[b"file 30"], 0, b"changed")  # so that the leaf is written anew
    before = story.records(story.device, b"file 31")
    after, result = story.lose_leaf_of(b"file 31")
    assert story.records(after, b"file 31") == before
    assert story.inodes[b"file 31"] in result.older_inodes


def test_of_a_file_that_was_changed_since_the_old_bytes_do_not_come_back() -> None:
    story = Story()
    with story.opened() as volume:
        files.write(volume, story.inodes[b"file 30"], 4096, random.Random(0).randbytes(4096))
    now = story.records(story.device, b"file 30")
    after, _ = story.lose_leaf_of(b"file 30")
    found = story.records(after, b"file 30")
    assert [found[0], found[2]] == [now[0], now[2]]
    assert found[1].flags == CUT_OUT and found[1].stored_bytes == 0


def test_a_deleted_file_does_not_come_back() -> None:
    story = Story()
    with story.opened() as volume:
        namespace.unlink(volume, ROOT_INODE, b"file 30")
    after, result = story.lose_leaf_of(b"file 31")
    assert story.value(after, inode_key(story.inodes[b"file 30"])) is None
    assert story.records(after, b"file 30") == []
    assert story.inodes[b"file 30"] not in result.older_inodes


def lose_leaves_with(device: Device, *wanted: bytes) -> Copy:
    """Destroy the leaves in which these keys stand, or would."""
    image, lost = image_of(device), Copy(device)
    for place in _places_of_leaves(device):
        if any(place.low <= key < place.high for key in wanted):
            destroy(lost, tuple(block for block in (place.pointer.address, place.pointer.mirror) if block))
    assert image.superblock.root_level
    return lost


@pytest.mark.parametrize("is_renamed", [False, True])
def test_an_old_name_comes_back_only_if_the_string_table_counts_one_more_use_of_it(is_renamed: bool) -> None:
    """Entry and back link are both lost, so they only bear each other out as they were; others use the name, too."""
    story = Story()
    with story.opened() as volume:
        other = namespace.mkdir(volume, ROOT_INODE, b"other", 0o755, 1, 2)
        namespace.create(volume, other, b"twin", 0o644, 1, 2)
        for number in range(CROWD):
            namespace.create(volume, other, b"between %d" % number, 0o644, 1, 2)
        story.make(volume, b"twin", random.Random(7).randbytes(9000))
    with story.opened() as volume:
        if is_renamed:
            namespace.rename(volume, ROOT_INODE, b"twin", ROOT_INODE, b"another name")
        else:  # so that both leaves are written anew
            namespace.create(volume, ROOT_INODE, b"another name", 0o644, 1, 2)
            files.write(volume, story.inodes[b"twin"], 0, b"H")
    number = story.inodes[b"twin"]
    place = entry_key(ROOT_INODE, hash_name(b"twin", image_of(story.device).superblock.hash_seed))
    lost = lose_leaves_with(story.device, place, back_link_key(number, 0), back_link_key(number, 1))
    done = repaired(lost)
    assert done.changes
    volume = opened_with(done.overlay, Clock())
    assert namespace.lookup(volume, namespace.lookup(volume, ROOT_INODE, b"other"), b"twin")
    found = {name: InodeNo(entry.inode) for _, name, entry in directories.entries(volume, ROOT_INODE)}
    assert (b"twin" in found) is not is_renamed
    assert files.read(volume, number, 4096, 9000 - 4096) == random.Random(7).randbytes(9000)[4096:]  # whatever its name is


@pytest.mark.parametrize("is_stored_anew", [False, True])
def test_a_small_change_that_was_synced_comes_back_unless_the_record_was_stored_anew(is_stored_anew: bool) -> None:
    story = Story()
    number = story.inodes[b"file 5"]
    key, value = patch_key(number, 4096), Patch(0, b"synced").encode()
    with editing(story.device) as store:
        store.tree.put(key, value)
    with editing(story.device) as store:  # the leaf is written anew
        place = record_key(number, 1)
        record = DataRecord.decode(store.tree.get(place) or b"")
        if is_stored_anew:
            store.tree.delete(key)
            store.tree.put(place, replace(record, birth=store.generation).encode())
        store.tree.put(patch_key(number, 8192), value)
    lost = lose_leaves_with(story.device, key)
    write_superblocks(lost, backups=True, state=State.DIRTY)
    done = repaired(lost)
    assert indexed(done.overlay).get(key) == (None if is_stored_anew else value)
    assert any("small changes" in remark for remark in done.remarks)


def test_a_file_made_since_is_lost() -> None:
    story = Story()
    with story.opened() as volume:
        namespace.unlink(volume, ROOT_INODE, b"file 59")
        story.make(volume, b"new", b"never seen")
    after, _ = story.lose_leaf_of(b"new")
    assert story.value(after, inode_key(story.inodes[b"new"])) is None


def test_blocks_that_somebody_else_owns_now_are_not_taken() -> None:
    """The old record verifies and its blocks are in use, but by another file, for the same contents."""
    story = Story()
    with story.opened() as volume:
        files.write(volume, story.inodes[b"file 30"], 0, b"changed")
    was = story.records(story.device, b"file 31")
    with editing(story.device) as store:
        store.tree.put(record_key(story.inodes[b"file 3"], 50), was[0].encode())
    after, _ = story.lose_leaf_of(b"file 31")
    found = story.records(after, b"file 31")
    assert found[1:] == was[1:]
    assert found[0].flags == CUT_OUT


def test_the_file_at_the_edge_reads_as_an_error_where_its_records_are_lost() -> None:
    story = Story()
    with story.opened() as volume:
        story.make(volume, b"long", random.Random(5).randbytes(200 * 4096))
    number = story.inodes[b"long"]
    image, lost = image_of(story.device), Copy(story.device)
    destroyed = next(
        visit
        for visit in walk(image, TreeIndex(image))
        if visit.place.level == 0 and visit.keys and visit.keys[0][:10] == record_key(number, 0)[:10]
    )
    destroy(lost, tuple(place for place in (destroyed.place.pointer.address, destroyed.place.pointer.mirror) if place))
    after, result = rebuilt(lost)
    held = {int.from_bytes(key[10:], "big") for key in destroyed.keys if key[:10] == record_key(number, 0)[:10]}
    found = {
        int.from_bytes(key[10:], "big"): DataRecord.decode(value).flags
        for key, value in indexed(after).range_items(*kind_range(number, Kind.DATA_RECORD))
    }
    assert found.keys() == set(range(200))
    assert {record for record, flags in found.items() if flags == CUT_OUT} == held
    assert len(result.lost) == 1


def test_a_file_that_has_all_its_blocks_has_lost_nothing_but_holes() -> None:
    """Its key range reaches into the lost leaf, but its inode counts no more blocks than are there."""
    story = Story()
    with story.opened() as volume:
        story.make(volume, b"long", random.Random(5).randbytes(200 * 4096))
        for number in range(20):
            story.make(volume, b"behind %d" % number, b"x" * 300)
    number = story.inodes[b"long"]
    ends = _places_of_leaves(story.device)
    last = max(place.low for place in ends if place.low[:10] == record_key(number, 0)[:10])
    first_hole = int.from_bytes(last[10:], "big")
    with story.opened() as volume:
        files.truncate(volume, number, first_hole * 4096)
        files.truncate(volume, number, 200 * 4096)
    lost = Copy(story.device)
    (place,) = [place for place in _places_of_leaves(lost) if place.low == last]
    destroy(lost, tuple(block for block in (place.pointer.address, place.pointer.mirror) if block))
    after, result = rebuilt(lost)
    assert len(result.lost) == 1
    assert len(story.records(after, b"long")) == first_hole
    assert not [record for record in story.records(after, b"long") if record.flags & CUT_OUT]


def _places_of_leaves(device: Device) -> list[Place]:
    image = image_of(device)
    return [visit.place for visit in walk(image, TreeIndex(image)) if not visit.place.level]


def test_small_contents_come_back_only_if_the_file_was_not_changed() -> None:
    """The inode of the file is in a leaf that is still there, and tells when the contents were changed last."""
    for changed in (False, True):
        story = Story()
        with story.opened() as volume:
            for number in range(200):
                story.make(volume, b"small %d" % number, b"small contents %d" % number)
        number, other = _file_with_its_contents_in_the_next_leaf(story.device)
        with story.opened() as volume:
            files.write(volume, number if changed else other, 0, b"new contents!")
        key = inline_key(number)
        was = items_of(story.device)[key]
        lost, image = Copy(story.device), image_of(story.device)
        for visit in walk(image, TreeIndex(image)):
            if key in visit.keys and not visit.place.level:
                destroy(lost, tuple(block for block in (visit.place.pointer.address, visit.place.pointer.mirror) if block))
        after, result = rebuilt(lost)
        assert number not in result.older_inodes and other in result.older_inodes
        if changed:
            assert story.value(after, key) is None
            assert DataRecord.decode(story.value(after, record_key(number, 0)) or b"").flags == CUT_OUT
        else:
            assert story.value(after, key) == was
            assert story.value(after, record_key(number, 0)) is None


def _file_with_its_contents_in_the_next_leaf(device: Device) -> tuple[InodeNo, InodeNo]:
    """Return a file whose inode ends one leaf, while its contents begin the next, and another file in that."""
    image = image_of(device)
    leaves = [visit.keys for visit in walk(image, TreeIndex(image)) if not visit.place.level]
    for before, keys in pairwise(leaves):
        number = InodeNo(object_of(keys[0]))
        if inode_key(number) in before and inline_key(number) in keys:
            others = {object_of(key) for key in keys if key[9] == Kind.INLINE_DATA} - {number}
            return number, InodeNo(max(others & {object_of(key) for key in keys if key[9] == Kind.INODE}))
    raise AssertionError("no leaf ends within a file")


def test_with_the_root_lost_too_an_older_leaf_does_not_pass_for_the_current_one() -> None:
    story = Story()
    with story.opened() as volume:
        namespace.unlink(volume, ROOT_INODE, b"file 30")
    key = inode_key(story.inodes[b"file 31"])
    image = image_of(story.device)
    visits = [visit for visit in walk(image, TreeIndex(image)) if visit.place.level or key in visit.keys]
    lost = Copy(story.device)
    for visit in visits:
        destroy(lost, tuple(place for place in (visit.place.pointer.address, visit.place.pointer.mirror) if place))
    after, result = rebuilt(lost)
    assert len(result.lost) == 1
    assert story.value(after, inode_key(story.inodes[b"file 30"])) is None
    assert story.value(after, inode_key(story.inodes[b"file 31"])) is not None


def test_without_a_space_map_no_old_record_is_believed() -> None:
    story = Story()
    with story.opened() as volume:
        files.write(volume, story.inodes[b"file 30"], 0, b"changed")
    image = image_of(story.device)
    map_start = image.geometry.spacemap_starts[image.superblock.spacemap_active]
    story.device.write(map_start * image.block_bytes, bytes(image.block_bytes))
    assert UsedBlocks(image).are_used(0, 1) is None
    after, _ = story.lose_leaf_of(b"file 31")
    assert [record.flags for record in story.records(after, b"file 31")] == [CUT_OUT] * 3
    inode = Inode.decode(story.value(after, inode_key(story.inodes[b"file 31"])) or b"")
    assert inode.size == 9000


@pytest.mark.parametrize("map_is_lost", [False, True])
def test_nodes_of_a_checkpoint_that_was_cut_short_count_for_nothing(map_is_lost: bool) -> None:
    story = Story()
    volume = story.opened()
    volume.checkpoint()
    expected = contents(Copy(story.device))
    namespace.unlink(volume, ROOT_INODE, b"file 30")
    story.make(volume, b"never was", b"x" * 5000)
    store = volume.store
    commit.freeze(store, 1)
    plan = finished(checkpoint.preparing(store, 2, {}))
    cut_short = Copy(story.device)
    for offset, data in plan.writes:
        cut_short.write(offset, data)
    for level, nodes in nodes_by_level(cut_short).items():
        for places in nodes:
            if level:
                destroy(cut_short, places)
    if map_is_lost:
        image = image_of(cut_short)
        map_start = image.geometry.spacemap_starts[image.superblock.spacemap_active]
        cut_short.write(map_start * image.block_bytes, bytes(image.block_bytes))
    after, result = rebuilt(cut_short)
    assert result.lost == []
    assert contents(after) == expected


def test_what_the_waiting_journal_deletes_is_no_harm_done_by_a_repair() -> None:
    """With a node lost the journal cannot be replayed at first; the files that it deletes seem to be there."""
    story = Story()
    volume = story.opened()
    volume.checkpoint()
    namespace.unlink(volume, ROOT_INODE, b"file 5")
    # All of it: a smaller change would be a patch over a record whose item is lost.
    whole = b"in the journal only".ljust(volume.inodes.get(story.inodes[b"file 30"]).size, b".")
    files.write(volume, story.inodes[b"file 30"], 0, whole)
    volume.commit()
    crashed, key = Copy(story.device), inode_key(story.inodes[b"file 30"])
    image = image_of(crashed)
    for visit in walk(image, TreeIndex(image)):
        place = visit.place
        if place.level == 0 and place.low <= key < place.high:
            destroy(crashed, tuple(block for block in (place.pointer.address, place.pointer.mirror) if block))
    done = repaired(crashed)
    assert done.refused == "" and done.after.clean
    with opened_with(done.overlay) as after:
        assert files.read(after, story.inodes[b"file 30"], 0, len(whole)) == whole
        assert b"file 5" not in [name for _, name, _ in directories.entries(after, ROOT_INODE)]


def repaired(device: Device) -> Repaired:
    return finished(repair(device))


def test_files_that_were_found_in_an_older_state_are_named() -> None:
    story = Story()
    with story.opened() as volume:
        files.write(volume, story.inodes[b"file 30"], 0, b"changed")
    key, image, lost = inode_key(story.inodes[b"file 30"]), image_of(story.device), Copy(story.device)
    for visit in walk(image, TreeIndex(image)):
        if key in visit.keys and not visit.place.level:
            destroy(lost, tuple(block for block in (visit.place.pointer.address, visit.place.pointer.mirror) if block))
    done = repaired(lost)
    assert "/file 30" in done.older
    assert done.report(written=True).as_json()["repair"]["older"] == done.older


def grown() -> Story:
    """Return a story in which some files have grown twice, so that an older leaf of theirs lies in blocks that are free."""
    story = Story()
    for size in (9000, 9100):
        with story.opened() as volume:
            for number in range(28, 33):
                files.write(volume, story.inodes[b"file %d" % number], size, random.Random(size).randbytes(100))
    return story


def without(story: Story, number: int | None, *maps: int) -> Copy:
    """Return the image without its root, without the leaf of a file, and without these maps (0: the active one, 1: the other)."""
    key = inode_key(story.inodes[b"file %d" % number]) if number is not None else b""
    image, lost = image_of(story.device), Copy(story.device)
    for visit in walk(image, TreeIndex(image)):
        if visit.place.level or key in visit.keys:
            destroy(lost, tuple(block for block in (visit.place.pointer.address, visit.place.pointer.mirror) if block))
    for which in maps:
        start = image.geometry.spacemap_starts[image.superblock.spacemap_active ^ which]
        lost.write(start * image.block_bytes, bytes(image.block_bytes))
    return lost


@pytest.mark.parametrize("maps", [(0,), (1,), (0, 1)], ids=["active map lost", "other map lost", "both lost"])
def test_with_root_and_space_map_lost_too_files_do_not_become_older_without_a_word(maps: tuple[int, ...]) -> None:
    """An older leaf is the newest that is found then. It was taken for the last one: exit code 1, "nothing" lost, none named."""
    story = grown()
    done = repaired(without(story, 30, *maps))
    assert done.changes and done.after.clean and done.loss is not None
    old, new = indexed(done.overlay), indexed(story.device)
    changed = {name.decode() for name, number in story.inodes.items() if old.get(inode_key(number)) != new.get(inode_key(number))}
    assert "file 30" in changed and changed <= {path[1:] for path in done.older}
    assert not done.loss.is_none and done.loss.older == len(done.older)


@pytest.mark.parametrize("maps", [(), (0,), (0, 1)], ids=["no map lost", "active map lost", "both lost"])
def test_leaves_that_together_make_the_lost_root_are_the_last_ones(maps: tuple[int, ...]) -> None:
    """Its checksum, which the superblock tells, proves that; as the space map does, where it is there."""
    story = grown()
    done = repaired(without(story, None, *maps))
    assert done.older == [] and contents(done.overlay) == contents(story.device)


@pytest.mark.parametrize("lost_leaf", [None, 10])
def test_leaves_below_a_lost_node_prove_that_they_are_the_last_ones_if_all_are_there(lost_leaf: int | None) -> None:
    story = Story()
    with story.opened() as volume:
        for number in range(2000):
            namespace.create(volume, ROOT_INODE, b"small %d" % number, 0o644, 1, 2)
    nodes, image, lost = nodes_by_level(story.device), image_of(story.device), Copy(story.device)
    assert max(nodes) == 2
    destroy(lost, nodes[1][0])
    if lost_leaf is not None:
        destroy(lost, nodes[0][lost_leaf])  # one below that node
    for start in image.geometry.spacemap_starts:
        lost.write(start * image.block_bytes, bytes(image.block_bytes))
    done = repaired(lost)
    assert done.changes and done.loss is not None
    assert (done.loss.older > 10) == (lost_leaf is not None)


def test_a_rebuild_overwrites_no_block_that_the_space_map_calls_used() -> None:
    story = Story()
    image, lost = image_of(story.device), Copy(story.device)
    used = UsedBlocks(image)
    before = {block: lost.read(block * 4096, 4096) for block in range(image.geometry.block_count) if used.are_used(block, 1)}
    nodes = nodes_by_level(lost)
    for places in nodes[0][3:5] + nodes[max(nodes)]:
        destroy(lost, places)
        before.update({place: lost.read(place * 4096, 4096) for place in places})
    after, _ = rebuilt(lost)
    fixed = {block for first, count in image.geometry.fixed_extents() for block in range(first, first + count)}
    changed = [block for block, data in before.items() if block not in fixed and after.read(block * 4096, 4096) != data]
    assert changed == []


def test_a_node_that_somebody_wrote_into_a_file_is_no_node() -> None:
    """The forger knows the tag and the place; the file is stored as it is. Without the root, the node looks like the newest."""
    story = Story(copies=1)
    with story.opened() as volume:
        story.make(volume, b"forged", random.Random(7).randbytes(4096))
    device, image = story.device, image_of(story.device)
    (key, value), *_ = [(key, value) for key, value in items_of(device).items() if key == record_key(story.inodes[b"forged"], 0)]
    block = DataRecord.decode(value).address
    target = inode_key(story.inodes[b"file 30"])
    evil = replace(Inode.decode(items_of(device)[target]), mode=0o104777, uid=0)
    header = NodeHeader(image.tag, block, 0, image.superblock.generation, 1, 0, 0, Inode.FIXED_BYTES, LOWEST_KEY, HIGHEST_KEY)
    raw, _ = encode_node(header, [target], [evil.encode()], image.geometry.node_bytes)
    device.write(block * 4096, raw)
    edit_item(device, key, crc32c=crc32c.crc32c(raw))
    nodes = nodes_by_level(device)
    destroy(device, nodes[max(nodes)][0])
    after, result = rebuilt(device)
    assert result.lost == []
    assert Inode.decode(items_of(after)[target]).mode == 0o100640
    assert contents(after)[b"/forged"].data == raw


def test_blocks_that_hold_something_else_now_are_not_taken() -> None:
    """They are in use, and everybody who could say by whom is lost."""
    story = Story()
    with story.opened() as volume:
        files.write(volume, story.inodes[b"file 30"], 0, b"changed")
    was = story.records(story.device, b"file 31")
    story.device.write(was[0].address * 4096, random.Random(0).randbytes(4096))
    after, _ = story.lose_leaf_of(b"file 31")
    found = story.records(after, b"file 31")
    assert found[1:] == was[1:]
    assert found[0].flags == CUT_OUT


def test_of_a_file_that_the_journal_deletes_nothing_is_left() -> None:
    """Its records at the edge of the gap would be cut out, holes among them, of which the journal knows nothing."""
    story = Story()
    with story.opened() as volume:
        story.make(volume, b"holes", b"")
        for number in range(0, 600, 2):
            files.write(volume, story.inodes[b"holes"], 4096 * number, random.Random(number).randbytes(4096))
    volume = story.opened()
    namespace.unlink(volume, ROOT_INODE, b"holes")
    volume.commit()
    lost, image, number = Copy(story.device), image_of(story.device), story.inodes[b"holes"]
    places = [visit.place for visit in walk(image, TreeIndex(image)) if visit.keys and not visit.place.level]
    middle = [place for place in places if place.low[:10] == record_key(number, 0)[:10] == place.high[:10]]
    destroy(lost, tuple(block for block in (middle[1].pointer.address, middle[1].pointer.mirror) if block))
    done = repaired(lost)
    assert done.refused == "" and done.after.clean
    assert [key for key in items_of(done.overlay) if key[:9] == inode_key(number)[:9]] == []
    assert b"/lost+found" not in contents(done.overlay)


def test_how_much_of_a_lost_tree_was_found_is_told() -> None:
    """What a node held that is lost altogether, no inventory of before can know; the superblock counts."""
    story = Story()
    with story.opened() as volume:
        story.make(volume, b"new", b"never seen")
    after, result = story.lose_leaf_of(b"new")
    assert result.inodes_told == CROWD + 2 and result.inodes_found < result.inodes_told
    told = f"of {CROWD + 2} files and directories that the superblock counts, {result.inodes_found} were found"
    assert told in result.sentences
    assert len([key for key in items_of(after) if key[9] == Kind.INODE]) == result.inodes_found == result.superblock.inode_count


def test_what_the_journal_took_and_let_go_is_known() -> None:
    story = Story()
    before = story.records(story.device, b"file 7")
    volume = story.opened()
    files.write(volume, story.inodes[b"file 7"], 0, random.Random(1).randbytes(4096))
    volume.commit()
    files.write(volume, story.inodes[b"file 7"], 0, random.Random(2).randbytes(4096))
    volume.commit()
    waiting = waiting_blocks(image_of(story.device))
    placed = {record.address for record in story.records(recovered_device(story.device), b"file 7")} - {r.address for r in before}
    assert len(placed) == 1 and placed < {first for first, _ in waiting.placed}
    assert waiting.freed == [(before[0].address, 1)]
    assert waiting.deleted == set()


def recovered_device(device: Device) -> Device:
    copy = Copy(device)
    opened_with(copy).close()
    return copy


@pytest.mark.parametrize("map_is_lost", [False, True])
def test_new_nodes_keep_away_from_all_that_may_be_needed(map_is_lost: bool) -> None:
    """From what the map calls used; without a map from the readable nodes of the old tree; always from what the journal took."""
    story = Story()
    volume = story.opened()
    files.write(volume, story.inodes[b"file 7"], 0, random.Random(1).randbytes(4096))
    volume.commit()
    lost, nodes = Copy(story.device), nodes_by_level(story.device)
    destroy(lost, nodes[0][3])
    image = image_of(lost)
    used = {block for block in range(image.geometry.block_count) if UsedBlocks(image).are_used(block, 1)}
    if map_is_lost:
        map_start = image.geometry.spacemap_starts[image.superblock.spacemap_active]
        lost.write(map_start * image.block_bytes, bytes(image.block_bytes))
        used = {place for places in nodes[max(nodes)] for place in places}
    found = ended(examine(lost))
    spared = module._Spared(found.seen.inner, module._marked_pages(found.image))
    maps = module._space(found.image, module._pieces(found.tiles, found.stock.gaps), found.stock, found.waiting, spared)
    taken = {block for first, count in found.waiting.placed for block in range(first, first + count)}
    assert taken and used
    assert [block for block in used | taken if not maps.is_used(BlockNo(block))] == []
