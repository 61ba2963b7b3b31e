"""Structures and places: what is shown is what the format says, and what is named as lost is what is lost."""

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from razortools.debug.opening import look_into
from razortools.debug.ownership import Wanted, owners
from razortools.debug.rawtree import RawTree
from razortools.debug.session import Session
from razortools.engine import files, namespace
from razortools.engine.store.device import open_image
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.spacemaps import SpaceMaps
from razortools.engine.volume import open_volume
from razortools.format.geometry import plan_geometry
from razortools.format.inode import ROOT_INODE
from razortools.units import MIB
from tests.debug.tool import NOISE, answer, crashed, debug, furnished, hurt, text
from tests.images import make_image, open_for_writing


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("structures") / "a.img")


@pytest.fixture(scope="module")
def dirty(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("dirty") / "a.img"
    copy.write_bytes(image.read_bytes())
    return crashed(copy.with_name("dirty.img"), copy)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image whose tree has two levels."""
    image = make_image(tmp_path_factory.mktemp("wide") / "a.img", 4 * MIB)
    with open_for_writing(image) as volume:
        for number in range(300):
            ino = namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 1, 2)
            files.write(volume, ino, 0, b"%d" % number * 200)
    return image


@pytest.fixture
def session(image: Path) -> Iterator[Session]:
    session = look_into(open_image(image, writable=False), writable=False)
    yield session
    session.close()


def test_each_copy_of_the_superblock_can_be_looked_at(dirty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest, other = (answer(capsys, dirty, f"super {copy}")["superblock"] for copy in ("A", "B"))
    if newest["generation"] < other["generation"]:
        newest, other = other, newest
    assert answer(capsys, dirty, "super")["superblock"] == newest
    assert (newest["state"], other["state"]) == (2, 1)
    assert answer(capsys, dirty, "super 2")["superblock"]["slot"] == 3
    assert "[newest: " in text(capsys, dirty, "super A") + text(capsys, dirty, "super B")
    for wrong, code in (("super C", 2), ("super 9", 2), ("super 0", 2)):
        assert debug("-R", wrong, dirty) == code
    damaged = tmp_path / "damaged.img"
    damaged.write_bytes(dirty.read_bytes())
    hurt(damaged, 100)
    assert debug("-R", "super A", damaged) == 1
    assert "'block' shows its bytes" in capsys.readouterr().err


def test_the_journal_is_filtered_by_path_operation_and_time(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = answer(capsys, dirty, "journal")["transactions"]
    (transaction,) = everything
    operations = {entry["operation"] for entry in transaction["entries"]}
    assert operations == {"create", "flush_data", "counters"}
    for operation in operations:
        (one,) = answer(capsys, dirty, f"journal --operation {operation}")["transactions"]
        assert {entry["operation"] for entry in one["entries"]} == {operation}
    (one,) = answer(capsys, dirty, "journal --path /late")["transactions"]
    assert {entry["path"] for entry in one["entries"]} == {"/late"}
    at = transaction["committed_at_ns"]
    moment = f"{at // 10**9}.{at % 10**9:09}"
    assert answer(capsys, dirty, f"journal --since {moment} --until {moment}")["transactions"] == everything
    for nothing in (f"--since {at // 10**9 + 1}", f"--until {at // 10**9 - 1}", "--transaction 99", "--path /home"):
        assert answer(capsys, dirty, f"journal {nothing}")["transactions"] == []
    verbose = text(capsys, dirty, "journal -v")
    assert "next_inode: 10 -> 11" in verbose
    assert "before: (absent)" in verbose


def test_a_node_is_shown_with_its_items_and_who_names_it(wide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = answer(capsys, wide, "super")["superblock"]["root"]["address"]
    shown = answer(capsys, wide, f"node {root}")
    assert (shown["checksum"], shown["named_by"], shown["header"]["level"]) == ("good", "the tree of the last checkpoint", 1)
    leaf = shown["items"][0]["value"]["address"]
    below = answer(capsys, wide, f"node {leaf}")
    assert below["items"][0]["value"]["record"] == "Inode"
    assert "directory_entry" in text(capsys, wide, f"node {leaf}")
    assert debug("-R", "node 3", wide) == 1
    assert debug("-R", "node 999999999", wide) == 1
    with open_image(wide, writable=False) as device:
        abandoned = [block for block in range(60, 1000) if device.read(block * 4096, 4) == b"RZND"]
    states = {answer(capsys, wide, f"node {block}")["named_by"] for block in abandoned[:1]}
    assert all("tree" in state or "nothing" in state for state in states)


def test_btree_counts_what_the_tree_holds_and_tells_damage(
    wide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = answer(capsys, wide, "btree --walk")
    with open_volume(open_image(wide, writable=False), read_only=True) as volume:
        items = sum(1 for _ in volume.store.items(bytes(18), b"\xff" * 18))
        assert sum(level["nodes"] for level in told["levels"]) == volume.store.superblock.node_count == len(told["nodes"])
    assert sum(kind["count"] for kind in told["items"].values()) == items
    assert told["items"]["inode"]["count"] == 301
    assert told["faults"] == []
    damaged = tmp_path / "damaged.img"
    damaged.write_bytes(wide.read_bytes())
    one, other = told["nodes"][1]["blocks"]
    hurt(damaged, one * 4096 + 200)
    (fault,) = answer(capsys, damaged, "btree")["faults"]
    assert (fault["block"], fault["lost"]) == (one, False)
    hurt(damaged, other * 4096 + 300)
    assert {fault["lost"] for fault in answer(capsys, damaged, "btree")["faults"]} == {True}
    assert "node lost, with all below it" in text(capsys, damaged, "btree")


def test_items_are_found_by_as_much_of_their_key_as_is_known(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ino = answer(capsys, image, "stat /home/noise")["inode"]
    records = answer(capsys, image, f"item files {ino} data_record")
    assert [one["key"] for one in records] == [f"files {ino} data_record {number}" for number in range(3)]
    assert answer(capsys, image, f"item {records[1]['hex']}") == records[1:2]
    assert answer(capsys, image, f"item 1 {ino:#x} 0x50 2") == records[2:]
    assert len(answer(capsys, image, "item names")) == 9
    assert "bytes after decompression" in text(capsys, image, f"item files {ino}")
    for wrong in ("item nothing", "item files x", "item files 1 2 3 4", "item files 99999", "item " + "x" * 36, "item files -1"):
        assert debug("-R", wrong, image) == 2, wrong


def test_an_inode_is_shown_by_path_or_number(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = answer(capsys, image, "inode /hard")
    assert (shown["fields"]["size"], shown["fields"]["link_count"]) == (6, 2)
    assert shown["items"] == {"inode": 1, "back_link": 2, "xattr": 1, "inline_data": 1}
    assert answer(capsys, image, f"inode '<{shown['inode']}>'") == shown
    assert answer(capsys, image, f"paths {shown['inode']}")["paths"] == ["/home/small", "/hard"]
    assert debug("-R", "paths 12345", image) == 1
    assert debug("-R", "inode '<12345>'", image) == 1


def test_strings_are_listed_with_their_counts(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = answer(capsys, image, "strings")
    assert told["totals"] == {"strings": 9, "bytes": 45, "references": 9}
    assert [one["text"] for one in answer(capsys, image, "strings 's*'")["strings"]] == ["small", "sparse", "symlink"]
    assert answer(capsys, image, "strings --shared 2")["strings"] == []


def test_records_and_where_tell_the_blocks_that_hold_the_bytes(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pieces = answer(capsys, image, "records --verify /home/noise")["pieces"]
    assert [piece["kind"] for piece in pieces] == ["record", "record", "record", "xattr user.large"]
    assert {piece["state"] for piece in pieces} == {"good"}
    raw = image.read_bytes()
    held = b"".join(raw[first * 4096 : (first + count) * 4096] for piece in pieces[:3] for first, count in piece["runs"])
    assert held.startswith(NOISE)  # noise is stored as it is
    runs = answer(capsys, image, "where /home/noise")["runs"]
    assert [[one["first_block"], one["blocks"]] for one in runs] == [run for piece in pieces for run in piece["runs"]]
    (inline,) = answer(capsys, image, "records /hard")["pieces"]
    assert (inline["kind"], inline["raw_bytes"]) == ("inline", 6)
    assert "in the tree" in text(capsys, image, "records /hard")
    assert "leaf at block" in text(capsys, image, "where /hard")


def test_space_adds_up(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = answer(capsys, image, "space")
    assert sum(told["used"].values()) + told["free_blocks"] == told["block_count"]
    assert sum(size["blocks"] for size in told["free_runs"]) == told["free_blocks"]
    assert answer(capsys, image, "super")["superblock"]["free_blocks"] == told["free_blocks"]
    assert told["files"]["files"] == 3
    assert "largest free run" in text(capsys, image, "space")


def test_free_runs_are_what_allocation_left() -> None:
    chance = random.Random(7)
    geometry = plan_geometry(300 * MIB, 4096)
    maps = SpaceMaps(MemoryDevice(300 * MIB), geometry)
    free = set(range(geometry.block_count)) - {
        block for first, count in geometry.fixed_extents() for block in range(first, first + count)
    }
    for _ in range(60):
        start = maps.allocate_run(chance.randrange(1, 700), chance.randrange(geometry.block_count))
        assert start is not None
    used = {block for block in free if maps.is_used(block)}  # type: ignore[arg-type]
    runs = list(maps.free_runs())
    assert {block for first, count in runs for block in range(first, first + count)} == free - used
    assert all(first + count < later for (first, count), (later, _) in pairwise(runs))


def test_each_block_has_one_owner_and_they_agree_with_the_space_map(session: Session) -> None:
    count = session.geometry().block_count
    found = owners(session, Wanted([(0, count)]))
    covered = [block for owner in found for block in range(*owner.span)]
    assert covered == list(range(count))
    for owner in found:
        used = {session.volume.store.maps.is_used(block) for block in range(*owner.span)}  # type: ignore[arg-type]
        assert used == {owner.what != "free"}, owner
    assert not any("nothing that can be read" in owner.what for owner in found)


def test_whois_follows_a_byte_to_the_file_that_holds_it(image: Path, dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = image.read_bytes().find(NOISE[200_000:200_064])
    (owner,) = answer(capsys, image, f"whois {place}")["owners"]
    assert (owner["paths"], owner["file_offset"], owner["file_end"]) == (["/home/noise"], 131072, 262144)
    assert "bytes 131072 to 262143 of the file" in text(capsys, image, f"whois {place}")
    assert answer(capsys, image, "whois 0")["owners"][0]["what"] == "superblock, slot A"
    journal = answer(capsys, dirty, "super")["superblock"]["journal_start"]
    losses = {owner["loss"] for block in range(6) for owner in answer(capsys, dirty, f"whois -b {journal + block}")["owners"]}
    assert losses == {"nothing: no transaction waits there", "transaction 5 and all that follow it"}
    for wrong in ("whois", "whois 1 --ddrescue x", "whois 1T", "whois --ddrescue /none"):
        assert debug("-R", wrong, image) == 2


def test_a_ddrescue_map_is_turned_into_paths_and_those_are_what_cannot_be_read(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = image.read_bytes().find(NOISE[:64])
    map_file = tmp_path / "disk.map"
    map_file.write_text(
        "# Mapfile. Created by GNU ddrescue version 1.27\n# Command line: ddrescue a\rb.img\n0x0 ? 1\n"
        f"0x0 {place:#x} +\n{place:#x} 0x200 -\n{place + 512:#x} 0x10000000 +\n"
    )
    told = answer(capsys, image, f"whois --ddrescue {map_file}")
    assert told["hurt"] == ["/home/noise"]
    assert "1 bad areas in 1 blocks; 1 files are hurt" in text(capsys, image, f"whois --ddrescue {map_file}")
    damaged = tmp_path / "damaged.img"
    damaged.write_bytes(image.read_bytes())
    hurt(damaged, place, bytes(512))
    verified = answer(capsys, damaged, "verify")["damaged"]
    assert [one["paths"] for one in verified] == [["/home/noise"]]
    assert "DAMAGED" in text(capsys, damaged, "verify /home")
    assert "every checksum is right" in text(capsys, damaged, "verify /hard")
    map_file.write_text("nonsense\nmore nonsense\n")
    assert debug("-R", f"whois --ddrescue {map_file}", image) == 2


def test_every_checksum_of_a_good_image_is_right_and_every_flipped_bit_of_a_used_block_is_told(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], session: Session
) -> None:
    told = answer(capsys, image, "verify")
    assert told["damaged"] == []
    assert told["checked"]["records"] == 8
    chance = random.Random(11)
    whole = image.read_bytes()
    kinds = ("data, record", "tree node", "a large")
    used = [owner for owner in owners(session, Wanted([(0, 4096)])) if owner.what.startswith(kinds)]
    damaged = tmp_path / "damaged.img"
    for owner in chance.sample(used, 6):
        at = chance.randrange(owner.span[0] * 4096, owner.span[1] * 4096)
        damaged.write_bytes(whole)
        hurt(damaged, at, bytes([whole[at] ^ 1 << chance.randrange(8)]))
        assert answer(capsys, damaged, "verify")["damaged"], (owner, at)


def test_without_a_tree_its_readable_part_is_still_shown(wide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged.img"
    damaged.write_bytes(wide.read_bytes())
    told = answer(capsys, wide, "btree --walk")
    last = told["nodes"][-1]["blocks"]  # it holds the counters: the filesystem cannot be opened
    for block in last:
        hurt(damaged, block * 4096 + 100)
    assert debug("-R", "ls", damaged) == 1
    assert answer(capsys, damaged, "item files 2 inode")[0]["value"]["record"] == "Inode"
    assert answer(capsys, damaged, f"node {last[0]}")["checksum"].startswith("WRONG")
    assert answer(capsys, damaged, "super")["superblock"]["root_level"] == 1
    assert answer(capsys, damaged, f"whois -b {last[0]}")["owners"][0]["loss"].startswith("everything from ")
    assert len(answer(capsys, damaged, "verify")["damaged"]) == 2


def test_the_raw_tree_holds_what_the_engine_holds(wide: Path) -> None:
    with open_volume(open_image(wide, writable=False), read_only=True) as volume:
        tree = RawTree(volume.store.device, volume.store.superblock)
        items = list(volume.store.items(bytes(18), b"\xff" * 18))
        assert list(tree.items()) == items
        for key, value in items[::37]:
            assert tree.get(key) == value
            assert key in tree.leaf_of(key).keys
            assert list(tree.items(key, key)) == [(key, value)]
        assert tree.get(b"\x02" + b"\xff" * 17) is None
        low, high = items[50][0], items[200][0]
        assert list(tree.items(low, high)) == items[50:201]
