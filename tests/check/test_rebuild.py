"""What a rebuild finds again when the root, inner nodes, leaves or superblocks of an image are lost."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.check.repair.rebuild import RebuildResult, rebuild
from razortools.check.runner import check_quietly
from razortools.check.tree import TreeIndex, walk
from razortools.engine import files, namespace, xattrs
from razortools.engine.store.device import Device
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage, NotAnImage, OutOfSpace, UnsupportedFormat
from razortools.format.data import CUT_OUT, DataRecord
from razortools.format.directory import BackLink, DirectoryEntry
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import KIND_AT, Kind, back_link_key, kind_range, object_of, offset_of, record_key
from razortools.format.node import CHILD_BYTES, NODE_HEADER_BYTES, ChildPointer, decode_header, decode_items
from razortools.units import KIB, MIB, InodeNo
from tests.check.damages import DAMAGES
from tests.check.editing import editing, find_inode, flip, image_of, rewrite_node
from tests.check.samples import Copy, KeptDevice, healthy, opened, unclean
from tests.workload import Seen, Workload, everything, formatted
from tests.workload import opened as opened_for_work


def rebuilt(device: Device) -> tuple[Copy, RebuildResult]:
    """Return a rebuilt overlay over *device*, which stays as it is."""
    overlay = Copy(device)
    steps = rebuild(overlay)
    done = -1
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return overlay, end.value
        assert done <= step.done <= step.total
        done = step.done


def problems_of(device: Device) -> list[tuple[str, str]]:
    return [(finding.code, finding.message) for finding in check_quietly(device).findings if finding.severity]


def codes_of(device: Device) -> list[str]:
    return [finding.code for finding in check_quietly(device).findings]


def contents(device: Device) -> dict[bytes, Seen]:
    with opened(Copy(device)) as volume:
        return everything(volume)


def nodes_by_level(device: Device) -> dict[int, list[tuple[int, ...]]]:
    """Return the places of all copies of each node, by level."""
    image = image_of(device)
    found: dict[int, list[tuple[int, ...]]] = {}
    for visit in walk(image, TreeIndex(image)):
        pointer = visit.place.pointer
        found.setdefault(visit.place.level, []).append(tuple(place for place in (pointer.address, pointer.mirror) if place))
    return found


def destroy(device: Device, places: tuple[int, ...]) -> None:
    """Overwrite nodes with rubbish."""
    image = image_of(device)
    for place in places:
        device.write(place * image.block_bytes, random.Random(place).randbytes(image.geometry.node_bytes))


def destroy_superblocks(device: Device, *, backups: bool) -> None:
    image = image_of(device)
    for place in (0, 1, *(image.geometry.backups if backups else ())):
        device.write(place * image.block_bytes, random.Random(place).randbytes(image.block_bytes))


SHAPES = [(2, 4096), (1, 4096), (2, 16384), (1, 65536)]


@pytest.mark.parametrize(("copies", "block_bytes"), SHAPES)
def test_a_rebuild_of_a_healthy_image_changes_nothing_that_anybody_sees(copies: int, block_bytes: int) -> None:
    device = healthy(copies, block_bytes)
    after, result = rebuilt(device)
    assert problems_of(after) == []
    assert contents(after) == contents(device)
    assert result.lost == [] and result.scanned_nodes == 0


@pytest.mark.parametrize(("copies", "block_bytes"), SHAPES)
def test_a_lost_root_loses_nothing(copies: int, block_bytes: int) -> None:
    device = healthy(copies, block_bytes)
    before = contents(device)
    nodes = nodes_by_level(device)
    for places in nodes[max(nodes)]:
        if max(nodes):
            destroy(device, places)
    after, result = rebuilt(device)
    assert problems_of(after) == []
    assert contents(after) == before
    assert result.lost == []


@pytest.mark.parametrize(("copies", "block_bytes"), SHAPES)
def test_superblocks_are_found_in_the_backups(copies: int, block_bytes: int) -> None:
    device = healthy(copies, block_bytes)
    before = contents(device)
    destroy_superblocks(device, backups=False)
    after, _ = rebuilt(device)
    assert problems_of(after) == []
    assert contents(after) == before


def worked_on(seed: int, *, size_bytes: int = 4 * MIB, steps: int = 300, crowd: int = 0, **wishes: object) -> Device:
    """Return an image on which much was made, changed and deleted, with a checkpoint now and then: old nodes lie about."""
    device = formatted(KeptDevice(size_bytes), **({"record_bytes": 4 * KIB} | wishes))
    for part in range(4):
        with opened_for_work(device) as volume:
            _let_a_crowd_come_and_go(volume, random.Random(seed + part), part, crowd)
            work = Workload(volume, seed + part)
            for number in range(steps // 4):
                work.step()
                if number % 25 == 24:
                    volume.checkpoint()
    return device


def _let_a_crowd_come_and_go(volume: Volume, chance: random.Random, part: int, count: int) -> None:
    """Make so many files, and delete half of those of the part before."""
    for number in range(count):
        ino = namespace.create(volume, ROOT_INODE, b"%d of %d" % (number, part), 0o644, 1, 2)
        files.write(volume, ino, 0, chance.randbytes(chance.choice((0, 30, 700, 9000))))
        if chance.random() < 0.2:
            xattrs.set(volume, ino, b"user.part", b"%d" % part)
        if part and chance.random() < 0.5:
            namespace.unlink(volume, ROOT_INODE, b"%d of %d" % (number, part - 1))
        if number % 50 == 49:
            volume.checkpoint()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 32), copies=st.sampled_from([1, 2]), block_bytes=st.sampled_from([4096, 4096, 8192, 65536]))
def test_whatever_is_lost_above_the_leaves_nothing_is_lost(seed: int, copies: int, block_bytes: int) -> None:
    device = worked_on(
        seed, size_bytes=(16 if seed % 2 else 15) * block_bytes * 256, crowd=seed % 3 * 200, metadata_copies=copies,
        block_bytes=block_bytes, record_bytes=block_bytes,
    )  # fmt: skip
    before, nodes, chance = contents(device), nodes_by_level(device), random.Random(seed)
    inner = [places for level, found in nodes.items() if level for places in found]
    share = chance.choice([0.3, 1.0])
    for places in inner:
        if chance.random() < share:
            destroy(device, places)
    if chance.random() < 0.5:
        destroy_superblocks(device, backups=False)
    if copies == 2 and share == 1.0 and inner:  # one copy of a leaf is enough
        for places in nodes[0]:
            if chance.random() < 0.3:
                destroy(device, (chance.choice(places),))
    after, result = rebuilt(device)
    assert problems_of(after) == []
    assert contents(after) == before
    assert result.lost == []
    again, second = rebuilt(after)  # a rebuilt image can be rebuilt
    assert contents(again) == before and second.lost == []


def items_of(device: Device) -> dict[bytes, bytes]:
    image = image_of(device)
    index = TreeIndex(image)
    for _ in walk(image, index):
        pass
    return {key: value for _, (keys, values) in index.leaves() for key, value in zip(keys, values, strict=True)}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 32), copies=st.sampled_from([1, 2]))
def test_a_lost_leaf_takes_nothing_with_it_and_brings_back_nothing_that_is_contradicted(seed: int, copies: int) -> None:
    """An older name may come back only where all that could tell that it was given up is lost too: both halves of the link."""
    device = worked_on(seed, size_bytes=16 * MIB - 4096, crowd=seed % 3 * 60, metadata_copies=copies)
    before, nodes, chance = items_of(device), nodes_by_level(device), random.Random(seed)
    leaf = chance.choice(nodes[0])
    held = dict(zip(*_leaf_items(device, leaf[0]), strict=True))
    destroy(device, leaf)
    if chance.random() < 0.3:
        destroy(device, nodes[max(nodes)][0])
    after, result = rebuilt(device)
    now = items_of(after)
    assert [(gap.low <= min(held) and max(held) < gap.high) for gap in result.lost] == [True]
    (gap,) = result.lost
    assert {key: value for key, value in now.items() if not gap.low <= key < gap.high} == {
        key: value for key, value in before.items() if key not in held
    }
    led_to = {DirectoryEntry.decode(value).inode for key, value in now.items() if key[KIND_AT] == Kind.DIRECTORY_ENTRY}
    assert {object_of(key) for key in now.keys() - before.keys() if key[KIND_AT] == Kind.INODE} <= led_to
    for key in held.keys() & now.keys():
        if key[KIND_AT] == Kind.DATA_RECORD and not _is_cut_out(key, now[key]):
            assert now[key] == held[key]
        if key[KIND_AT] in (Kind.BACK_LINK, Kind.DIRECTORY_ENTRY) and now[key] != held[key]:
            halves = _both_halves(now, key)
            assert len(halves) == 2 and all(gap.low <= half < gap.high for half in halves)
    structure = {code for code, _ in problems_of(after) if code < "E0306" or code in {"E0508", "E0509", "E0511", "E0503"}}
    assert not structure, problems_of(after)


def _leaf_items(device: Device, block: int) -> tuple[list[bytes], list[bytes]]:
    image = image_of(device)
    raw = image.read_blocks(block, image.geometry.node_blocks)
    return decode_items(raw, decode_header(raw))


def _both_halves(items: dict[bytes, bytes], key: bytes) -> list[bytes]:
    """Return the keys of the entry and of the back link that *key* is one of."""
    if key[KIND_AT] == Kind.DIRECTORY_ENTRY:
        entry = DirectoryEntry.decode(items[key])
        return [key, back_link_key(InodeNo(entry.inode), entry.link_no)]
    low, high = kind_range(InodeNo(BackLink.decode(items[key]).parent), Kind.DIRECTORY_ENTRY)
    link = object_of(key), offset_of(key)
    entries = [place for place in items if low <= place <= high]
    leading = [place for place in entries if _led_to(items[place]) == link]
    return [key, *leading]


def _led_to(value: bytes) -> tuple[int, int]:
    entry = DirectoryEntry.decode(value)
    return entry.inode, entry.link_no


def _is_cut_out(key: bytes, value: bytes) -> bool:
    return key[KIND_AT] == Kind.DATA_RECORD and bool(DataRecord.decode(value).flags & CUT_OUT)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("transactions", [1, 5])
def test_a_waiting_journal_is_replayed_on_the_rebuilt_tree(copies: int, transactions: int) -> None:
    device = unclean(transactions, copies)
    before = contents(device)
    nodes = nodes_by_level(device)
    destroy(device, nodes[max(nodes)][0])
    after, _ = rebuilt(device)
    assert problems_of(after) == []
    assert [code for code in codes_of(after) if code == "E0201"]
    assert contents(after) == before


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 32), copies=st.sampled_from([1, 2]))
def test_a_journal_of_any_work_waits_for_the_rebuilt_tree(seed: int, copies: int) -> None:
    device = worked_on(seed, size_bytes=16 * MIB - 4096, crowd=seed % 2 * 60, metadata_copies=copies)
    volume = opened_for_work(device)
    work = Workload(volume, seed)
    for number in range(60):
        work.step()
        if number % 20 == 19:
            volume.commit()
    device = Copy(device)  # the volume is never closed: a crash
    before, nodes = contents(device), nodes_by_level(device)
    for level, found in nodes.items():
        for places in found:
            if level:
                destroy(device, places)
    after, result = rebuilt(device)
    assert result.lost == []
    assert contents(after) == before
    opened_for_work(after).close()
    assert problems_of(after) == []


STRUCTURE = {"E0101", "E0103", "E0106", "E0107", "E0302", "E0303", "E0304", "E0305", "E0503", "E0508", "E0509", "E0511"}
REFUSED = {"E0110", "E0111", "E0112", "E0113"}


@pytest.mark.parametrize("number", range(len(DAMAGES)))
def test_after_any_damage_a_rebuild_leaves_a_tree_in_order(number: int) -> None:
    code, damage = DAMAGES[number]
    device = damage()
    if code in REFUSED:
        with pytest.raises((NotAnImage, UnsupportedFormat, CorruptImage)):
            rebuilt(device)
        return
    after, _ = rebuilt(device)
    assert not STRUCTURE.intersection(codes_of(after)), problems_of(after)


@pytest.mark.parametrize("copies", [1, 2])
def test_a_flipped_bit_in_a_node_is_turned_back_in_all_copies(copies: int) -> None:
    device = healthy(copies)
    before = contents(device)
    for number, places in enumerate(nodes_by_level(device)[0]):
        for place in places:
            flip(device, place * 4096 + 50 + 13 * number, number % 8)
    after, result = rebuilt(device)
    assert problems_of(after) == [] and contents(after) == before
    assert result.mended_nodes == len(nodes_by_level(healthy(copies))[0]) and result.scanned_nodes == 0


def test_superblocks_with_a_flipped_bit_each_are_turned_back() -> None:
    device = healthy()
    before = contents(device)
    for number, place in enumerate((0, 1, *image_of(device).geometry.backups)):
        flip(device, place * 4096 + 11 * number, number)
    after, _ = rebuilt(device)
    assert problems_of(after) == [] and contents(after) == before


def full(seed: int, *, size_bytes: int = MIB, **wishes: object) -> Device:
    """Return an image in which not even an empty file can be made any more."""
    device = formatted(KeptDevice(size_bytes), record_bytes=4 * KIB, **wishes)
    with opened_for_work(device) as volume:
        work = Workload(volume, seed, file_bytes_max=60_000)
        for _ in range(60):
            work.step()
        work.fill()
    return device


@pytest.mark.parametrize("seed", range(12))
def test_a_full_image_has_room_for_its_rebuilt_tree(seed: int) -> None:
    device = full(seed, size_bytes=(1 + seed % 3) * MIB, metadata_copies=1 + seed % 2)
    before, nodes, chance = contents(device), nodes_by_level(device), random.Random(seed)
    for level, found in nodes.items():
        for places in found:
            if level:
                destroy(device, places)
    leaf = chance.choice(nodes[0]) if seed % 2 else ()
    destroy(device, leaf)
    after, result = rebuilt(device)
    assert not STRUCTURE.intersection(codes_of(after)), problems_of(after)
    if not leaf:
        assert contents(after) == before and result.lost == []
        with opened_for_work(after) as volume:
            Workload(volume, seed).delete_everything()
        assert problems_of(after) == []


def without_room() -> Device:
    """Return an image in which a file claims to own every block."""
    device = healthy()
    image = image_of(device)
    fixed = {block for first, count in image.geometry.fixed_extents() for block in range(first, first + count)}
    with editing(device) as store:
        for block in set(range(image.geometry.block_count)) - fixed:
            store.tree.put(record_key(find_inode(healthy(), "/small"), block), DataRecord(block, 4096, 4096, 0, 0, 0, 1).encode())
    return device


def test_where_there_is_no_room_for_a_new_tree_that_is_said() -> None:
    device = without_room()
    nodes = nodes_by_level(device)
    destroy(device, nodes[max(nodes)][0])
    with pytest.raises(OutOfSpace, match=r"no room for a new tree.*--salvage"):
        rebuilt(device)


def _point_elsewhere(raw: bytearray) -> None:
    """Let the second child's pointer name another block."""
    header = decode_header(bytes(raw))
    at = NODE_HEADER_BYTES + header.item_count * (CHILD_BYTES - ChildPointer.FIXED_BYTES) + ChildPointer.FIXED_BYTES
    raw[at] ^= 1


def swap(device: Device, one: int, other: int) -> None:
    before = device.read(one * 4096, 4096)
    device.write(one * 4096, device.read(other * 4096, 4096))
    device.write(other * 4096, before)


def with_two_leaves_swapped() -> Device:
    device = healthy(1)
    (one,), (other,) = nodes_by_level(device)[0][1:3]
    swap(device, one, other)
    return device


def with_a_pointer_that_lies() -> Device:
    device = healthy(1)
    rewrite_node(device, lambda level, raw: level == 1, _point_elsewhere)
    return device


@pytest.mark.parametrize("damage", [with_two_leaves_swapped, with_a_pointer_that_lies])
def test_a_leaf_that_lies_elsewhere_is_known_by_the_checksum_that_its_parent_tells(damage: Callable[[], Device]) -> None:
    after, result = rebuilt(damage())
    assert result.lost == [] and result.older_inodes == []
    assert contents(after) == contents(healthy(1))
