"""Compaction: the same files in fewer nodes and fewer pieces, and nothing else. What was compacted is compact."""

import random
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate, chain, pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.check.compact import plan as plan_module
from razortools.check.compact import write as write_module
from razortools.check.compact.compact import compact
from razortools.check.compact.layout import measure, usage
from razortools.check.compact.loose import fill_limit, find_sections, first_part, grouped
from razortools.check.compact.offer import may_pay, offered
from razortools.check.compact.pieces import Chunk
from razortools.check.compact.plan import Plan, make_plan
from razortools.check.compact.sameness import difference
from razortools.check.comparison import loss
from razortools.check.inventory import take_inventory
from razortools.check.runner import Options, check_quietly
from razortools.check.steps import finished
from razortools.engine import directories, files, namespace, xattrs
from razortools.engine.store.device import Device
from razortools.engine.store.nodepool import NodePool
from razortools.errors import OutOfSpace
from razortools.format.data import DataRecord
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.keys import COUNTERS_KEY, Kind, name_key, record_key
from razortools.format.name import Name
from razortools.format.node import ITEM_OVERHEAD_BYTES
from razortools.format.volume import Counters
from razortools.units import MIB, BlockNo, InodeNo, NameId
from tests.check.aged import aged, compacted
from tests.check.editing import edit_inode, find_inode, image_of, write_superblocks
from tests.check.samples import Copy, healthy, new_device, opened, unclean
from tests.workload import Seen, Workload, everything
from tools.fuzzing.generator import healthy_image

SEED = 20


def seen(device: Device) -> dict[bytes, Seen]:
    """Return all that a user finds on *device*, which stays as it is."""
    return everything(opened(Copy(device)))


# The law, over images


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("size_bytes", [2 * MIB, 20 * MIB], ids=["small nodes", "large nodes"])
def test_an_aged_image_holds_the_same_in_fewer_nodes_and_pieces(size_bytes: int, copies: int) -> None:
    device = aged(size_bytes, copies)
    before = seen(device)
    done = compacted(device)
    assert done.refused == "" and seen(device) == before
    assert done.layout_before is not None and done.layout_after is not None
    was, now = done.layout_before, done.layout_after
    assert now.node_count < was.node_count and now.leaf_fill > was.leaf_fill
    assert now.fragment_count * 2 < was.fragment_count
    assert now.string_count == was.string_count - done.strings_dropped < was.string_count
    assert now.used_bytes < was.used_bytes
    assert done.report().exit_code == 1
    assert check_quietly(device).findings == ()
    assert now == measure(image_of(device)).layout(), "what is told is what is there"


def test_a_record_in_several_runs_becomes_one() -> None:
    device = new_device(MIB)
    chance = random.Random(SEED)
    with opened(device) as volume:
        Workload(volume, SEED, file_bytes_max=4096).fill()
        names = [name for _, name in sorted((entry.inode, name) for _, name, entry in directories.entries(volume, ROOT_INODE))]
        for number, name in enumerate(names):
            if number % 3:  # no more than two free blocks lie side by side
                namespace.unlink(volume, ROOT_INODE, name)
        volume.checkpoint()
        with suppress(OutOfSpace):
            for number in range(100):
                ino = namespace.create(volume, ROOT_INODE, b"broken %d" % number, 0o644, 1, 2)
                files.write(volume, ino, 0, chance.randbytes(8000))
                xattrs.set(volume, ino, b"user.large", chance.randbytes(16_000))
    chunks = list(measure(image_of(device)).chunks())
    assert sum(len(chunk.records) == 1 and chunk.piece_count > 1 for chunk in chunks) >= 4
    with opened(device) as volume:
        for name in names[::3]:
            namespace.unlink(volume, ROOT_INODE, name)
    before = seen(device)
    done = compacted(device)
    assert done.refused == "" and seen(device) == before
    assert {chunk.piece_count for chunk in measure(image_of(device)).chunks()} == {1}


def test_what_was_compacted_is_compact() -> None:
    device = aged()
    compacted(device)
    before = device.read(0, device.size_bytes)
    again = compacted(device)
    assert (again.step_count, again.report().exit_code, again.fragments_left, again.nodes_left) == (0, 0, 0, 0)
    assert device.read(0, device.size_bytes) == before


@pytest.mark.parametrize("part", range(3))
def test_generated_images_keep_what_they_hold_and_never_grow(part: int) -> None:
    gained = 0
    for seed in range(part, 9, 3):
        device = Copy(healthy_image(seed).device)
        before = take_inventory(Copy(device), 1)
        done = compacted(device)
        was, now = done.layout_before, done.layout_after
        assert was is not None and now is not None and done.refused == "", seed
        assert loss(before, take_inventory(device, 1)).is_none, seed
        assert check_quietly(device).clean, seed
        assert (now.used_bytes, now.fragment_count, now.node_count) <= (was.used_bytes, was.fragment_count, was.node_count), seed
        assert now.fragment_count <= was.fragment_count and now.string_count <= was.string_count, seed
        assert compacted(device).step_count == 0, seed
        gained += bool(done.step_count)
    assert gained


def test_the_volume_goes_on_with_a_compacted_image() -> None:
    device = aged()
    compacted(device)
    with opened(device) as volume:
        work = Workload(volume, SEED)
        for _ in range(150):
            work.step()
        before = everything(volume)
    assert seen(device) == before
    assert check_quietly(device).clean


def test_what_waits_in_the_journal_is_replayed_first() -> None:
    device = unclean(3)
    before = seen(device)
    done = compacted(device)
    assert done.step_count >= 1 and done.refused == ""
    assert seen(device) == before
    assert check_quietly(device).findings == ()


# Full images


def full(seed: int) -> Device:
    """Return an image of aged files without room for another one."""
    device = aged(seed=seed, growing_count=3)
    with opened(device) as volume:
        Workload(volume, seed, file_bytes_max=60_000).fill()
    return device


@pytest.mark.parametrize("seed", range(2))
def test_a_full_image_is_compacted_as_far_as_there_is_room(seed: int) -> None:
    device = full(seed)
    before = seen(device)
    done = compacted(device)
    was, now = done.layout_before, done.layout_after
    assert done.refused == "" and was is not None and now is not None
    assert done.step_count and (now.node_count < was.node_count or now.fragment_count < was.fragment_count)
    assert now.used_bytes <= was.used_bytes
    assert seen(device) == before and check_quietly(device).clean
    assert compacted(device).step_count == 0


def test_what_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "MOVED_BYTES_MAX", 0)
    device = aged()
    done = compacted(device)
    assert done.step_count == 1 and done.nodes_left == 0
    assert done.fragments_left > 0
    assert done.layout_before is not None and done.layout_after is not None
    assert done.layout_after.fragment_count == done.layout_before.fragment_count


class TightPool(NodePool):
    """A pool without room for more than so many nodes."""

    nodes_max = 0

    def reserve(self, node_count: int, spare_blocks: int = 0) -> bool:
        """See NodePool."""
        self.nodes_max -= 1
        return self.nodes_max >= 0 and super().reserve(node_count, spare_blocks)


def test_where_not_all_nodes_fit_a_part_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_module, "NodePool", TightPool)
    monkeypatch.setattr(plan_module, "MOVED_BYTES_MAX", 0)
    device = aged()
    nothing = compacted(device)
    assert (nothing.step_count, nothing.refused, nothing.report().exit_code) == (0, "", 0) and nothing.nodes_left > 0
    monkeypatch.setattr(TightPool, "nodes_max", 6)
    before = seen(device)
    done = compacted(device)
    assert done.step_count > 0 and done.layout_before is not None and done.layout_after is not None
    assert done.layout_after.node_count < done.layout_before.node_count
    assert seen(device) == before and check_quietly(device).clean


def test_steps_that_are_used_up_are_told() -> None:
    device = full(1)
    done = compacted(device, steps_max=1)
    assert done.step_count == 1 and done.is_cut_short
    assert check_quietly(device).clean
    assert not compacted(device).is_cut_short


# What is not clean


def test_an_image_that_is_not_clean_is_refused() -> None:
    device = aged()
    edit_inode(device, find_inode(device, "/docs/one"), link_count=7)
    before = device.read(0, device.size_bytes)
    done = compacted(device)
    assert "E0401" in done.refused and "--repair" in done.refused
    assert done.report().exit_code == 4 and done.step_count == 0
    assert device.read(0, device.size_bytes) == before


def with_unused_names(count: int) -> Device:
    device = healthy()
    with opened(device) as volume, volume.store.operation(0, 0):  # type: ignore[arg-type]
        for number in range(count):
            volume.store.put(name_key(NameId(volume.counters.next_name_id)), Name(0, b"nobody %d" % number).encode())
            volume.counters.next_name_id += 1
            volume.counters.name_count += 1
    return device


def test_a_string_that_nothing_uses_is_dropped_and_not_refused() -> None:
    device = with_unused_names(1)
    assert [finding.code for finding in check_quietly(device).findings] == ["E0602"]
    before = seen(device)
    done = compacted(device)
    assert done.strings_dropped == 1 and done.report().exit_code == 1
    assert [finding.repaired for finding in done.report().findings] == [True]
    assert check_quietly(device).findings == () and seen(device) == before


def test_more_unused_strings_than_are_listed_are_not_refused_either() -> None:
    """Those that are not listed count under another code (E0698), which had nothing to do with compacting."""
    device = with_unused_names(4)
    done = finished(compact(device, Options(threads=1, findings_per_code=2), lambda overlay: "undo", lambda: True))
    assert [finding.code for finding in done.before.findings] == ["E0602", "E0602", "E0698"]
    assert done.refused == "" and done.is_cut_short


# A result that is not right is not written


def changes_an_inode(plan: Plan, key: bytes, value: bytes) -> bytes | None:
    return replace(Inode.decode(value), mtime_ns=1).encode() if key[9] == Kind.INODE else value


def loses_an_attribute(plan: Plan, key: bytes, value: bytes) -> bytes | None:
    return None if key[9] == Kind.XATTR else value


def counts_wrongly(plan: Plan, key: bytes, value: bytes) -> bytes | None:
    return replace(Counters.decode(value), raw_bytes=5).encode() if key == COUNTERS_KEY else value


def loses_a_small_file(plan: Plan, key: bytes, value: bytes) -> bytes | None:
    return None if key[9] == Kind.INLINE_DATA and key[8] % 2 else value


@pytest.mark.parametrize("wrong", [changes_an_inode, loses_an_attribute, counts_wrongly, loses_a_small_file])
def test_a_wrong_result_is_refused(wrong, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    right = Plan._changed

    def changed(plan: Plan, key: bytes, value: bytes) -> bytes | None:
        after = right(plan, key, value)
        return after if after is None else wrong(plan, key, after)

    monkeypatch.setattr(Plan, "_changed", changed)
    monkeypatch.setattr(plan_module, "_touched", lambda plan: set(range(len(plan.measured.leaf_pointers))))
    device = aged()
    before = device.read(0, device.size_bytes)
    done = compacted(device)
    assert "would not be right" in done.refused and done.report().exit_code == 4
    assert device.read(0, device.size_bytes) == before


def test_a_result_that_takes_more_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "fill_limit", lambda capacity: capacity // 4)
    done = compacted(aged())
    assert "more room" in done.refused
    monkeypatch.undo()
    once = aged(copies=1)
    write_superblocks(once, backups=True, metadata_copies=2)
    before = once.read(0, once.size_bytes)
    assert "nodes with one" in compacted(once).refused
    assert once.read(0, once.size_bytes) == before


def test_the_same_image_does_not_differ_and_another_one_does() -> None:
    device = aged()
    before = measure(image_of(device)).tree
    assert difference(before, measure(image_of(Copy(device))).tree) == ""
    other = Copy(device)
    with opened(other) as volume:
        files.write(volume, find_inode(device, "/docs/many"), 20_000, b"x")
    assert "inode" in difference(before, measure(image_of(other)).tree)


# The parts


def chunk_at(*places: int) -> Chunk:
    """Return a chunk whose records, of a block each, lie at *places*."""
    chunk = Chunk(4096)
    for number, place in enumerate(places):
        record = DataRecord(place, 4096, 4096, 0, 0, 0, 1)
        chunk.add((record_key(InodeNo(5), number), record.encode(), record))
    return chunk


class Runs:
    """Stands for a space map in which runs of no more than so many blocks are free."""

    def __init__(self, blocks_max: int) -> None:
        self.blocks_max = blocks_max
        self.next = 1000

    def allocate_run(self, block_count: int, near: int) -> BlockNo | None:
        """See SpaceMaps."""
        if block_count > self.blocks_max:
            return None
        self.next += 100
        return BlockNo(self.next)


@pytest.mark.parametrize(
    ("places", "blocks_max", "moved", "joined"),
    [
        ((10, 20, 30), 9, 3, 2),
        ((10, 11, 12), 9, 0, 0),  # in one piece
        ((10, 20, 21, 30), 9, 4, 2),
        ((10, 20, 21, 30), 2, 0, 0),  # what would be joined is parted elsewhere
        ((10, 20, 30, 40), 2, 4, 2),
        ((10, 20, 30, 31), 2, 2, 1),
        ((10, 20), 1, 0, 0),
    ],
)
def test_what_is_moved_joins_more_than_it_parts(places: tuple[int, ...], blocks_max: int, moved: int, joined: int) -> None:
    chunk = chunk_at(*places)
    measured = SimpleNamespace(image=SimpleNamespace(block_bytes=4096), chunks=lambda: [chunk])
    plan = Plan(measured, Runs(blocks_max))  # type: ignore[arg-type]
    plan_module._Moving(plan, 100).run()
    assert (len(plan.moves), plan.fragments_joined) == (moved, joined)
    after = [DataRecord.decode(plan.moves.get(key, value)).address for key, value, _ in chunk.records]
    assert chunk.piece_count - chunk_at(*after).piece_count == joined
    assert plan.fragments_left == chunk.piece_count - 1 - joined


@st.composite
def leaves(draw: st.DrawFn) -> list[list[int]]:
    """Return the sizes of the items of leaves of a thousand bytes, many of them loose."""
    chance = random.Random(draw(st.integers(0, 1 << 32)))
    found = []
    for _ in range(draw(st.integers(1, 40))):
        fill = chance.choice((0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)) * 1000
        sizes = list(accumulate((chance.randrange(21, 240) for _ in range(60)), lambda total, size: total + size))
        found.append([size - before for before, size in zip([0, *sizes], sizes, strict=False) if size <= fill])
    return found


@given(leaves())
@settings(max_examples=60, deadline=None)
def test_packed_leaves_are_fewer_hold_the_same_and_are_packed(sizes: list[list[int]]) -> None:
    sections = find_sections([sum(one) for one in sizes], sizes.__getitem__, 1000)
    packed: list[list[int]] = []
    at = 0
    for section in sections:
        packed += sizes[at : section.first]
        items = [(bytes(18), bytes(size - ITEM_OVERHEAD_BYTES)) for one in sizes[section.first : section.behind] for size in one]
        groups = [[len(value) + ITEM_OVERHEAD_BYTES for _, value in group] for group in grouped(items, fill_limit(1000))]
        assert tuple(map(sum, groups)) == section.packed
        assert len(groups) < section.behind - section.first and all(sum(group) <= 1000 for group in groups)
        packed += groups
        at = section.behind
        for nodes_max in (1, 2, 5, len(sizes)):
            part = first_part(section, sizes.__getitem__, 1000, nodes_max)
            if part is not None:
                assert part.first == section.first and part.behind <= section.behind
                assert 0 < len(part.packed) <= nodes_max and part.saved > 0
            assert nodes_max < len(sizes) or part == section
    packed += sizes[at:]
    assert list(chain(*packed)) == list(chain(*sizes))
    if len(sizes) > 1 and all(sum(one) <= 300 for one in sizes):
        assert sections
    assert find_sections([sum(one) for one in packed], packed.__getitem__, 1000) == []


def test_the_largest_free_run_is_found_across_pages_of_the_map() -> None:
    device = new_device(512 * MIB)
    found = measure(image_of(device))
    free = [block for block in range(found.image.geometry.block_count) if not found.claims.holds(block)]
    longest = best = 1
    for before, block in pairwise(free):
        longest = longest + 1 if block == before + 1 else 1
        best = max(best, longest)
    assert usage(found.claims, found.image) == (found.image.geometry.block_count - len(free), best)
    assert best > found.image.geometry.spacemap.group_blocks


# The offer


def test_a_look_offers_what_pays_and_nothing_else() -> None:
    broken_up = aged(8 * MIB, growing_count=24)
    summary = check_quietly(broken_up).summary
    plan = offered(broken_up, summary)
    assert plan is not None and plan.fragments_joined >= 64
    done = compacted(broken_up)
    assert done.layout_before is not None and done.layout_after is not None
    assert done.layout_before.fragment_count - done.layout_after.fragment_count >= plan.fragments_joined
    assert offered(broken_up, check_quietly(broken_up).summary) is None
    assert offered(healthy(), check_quietly(healthy()).summary) is None
    small = aged(20 * MIB)
    summary = check_quietly(small).summary
    saved = make_plan(measure(image_of(small))).nodes_saved
    assert may_pay(summary) and saved * 3 >= image_of(small).superblock.node_count
    assert offered(small, summary) is None, "so few nodes are not worth a word"


def test_the_check_counts_the_breaks_in_files() -> None:
    for device in (aged(), healthy(), healthy_image(4).device):
        chunks = [chunk for chunk in measure(image_of(device)).chunks() if chunk.records[0][0][9] == Kind.DATA_RECORD]
        files_there = {chunk.records[0][0][:9] for chunk in chunks}
        pieces = sum(chunk.piece_count - chunk.joins_before for chunk in chunks)
        assert check_quietly(device).summary.breaks == pieces - len(files_there)


def test_what_the_check_counts_bounds_what_can_be_gained() -> None:
    for seed in range(3):
        device = healthy_image(seed).device
        summary = check_quietly(device).summary
        done = compacted(Copy(device))
        assert done.layout_before is not None and done.layout_after is not None
        joined = done.layout_before.fragment_count - done.layout_after.fragment_count
        assert joined <= summary.breaks + summary.files  # each attribute in pieces has an inode


def test_nothing_is_written_before_it_is_checked() -> None:
    device = aged()
    before = device.read(0, device.size_bytes)
    steps = compact(device, Options(threads=1), lambda overlay: pytest.fail("written"))
    for _ in range(40):
        next(steps)
    steps.close()
    assert device.read(0, device.size_bytes) == before


def test_looking_for_what_can_be_gained_reads_only() -> None:
    device = aged(8 * MIB, growing_count=24)
    device.write = device.flush = None  # type: ignore[assignment, method-assign]
    assert offered(device, check_quietly(device).summary) is not None
    assert finished(compact(device, Options(threads=1), lambda overlay: "nothing", lambda: True)).is_cut_short


def test_the_root_alone_is_compact() -> None:
    device = new_device(MIB)
    assert compacted(device).step_count == 0
    with opened(device) as volume:
        namespace.mkdir(volume, ROOT_INODE, b"one", 0o755, 1, 2)
    assert compacted(device).step_count == 0
