"""Every newest superblock is lost or of an earlier day: the newest state is found by its tree, and nothing forged is."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import crc32c
import pytest

from razortools.check.repair.newer_state import Younger, find_younger
from razortools.check.repair.repair import Repaired, Wishes, repair
from razortools.check.runner import Options
from razortools.check.salvage import salvage
from razortools.check.scan import node_at
from razortools.check.steps import finished
from razortools.engine import namespace
from razortools.engine.store.device import Device
from razortools.format.data import DataRecord
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import HIGHEST_KEY, LOWEST_KEY, Kind
from razortools.format.node import NodeHeader, decode_header, node_checksum
from razortools.format.superblock import SUPERBLOCK_BYTES, Superblock
from tests.check.damages import _flip_map
from tests.check.editing import edit_inode, edit_item, find_inode, first_item, flip, image_of
from tests.check.samples import healthy, opened, unclean
from tests.check.test_repair_safety import contents, done_to, kept, names, used_on

NEW = {b"new0", b"new1", b"new2"}


def copies_of(device: Device) -> dict[int, bytes]:
    places = (0, 1, *image_of(device).geometry.backups)
    return {place: device.read(place * 4096, SUPERBLOCK_BYTES) for place in places}


def put_back(device: Device, copies: dict[int, bytes]) -> None:
    for place, raw in copies.items():
        device.write(place * 4096, raw)


def of_an_earlier_day(sessions: int = 3) -> Device:
    """Return an image all of whose superblocks were put back to what they said some sessions ago."""
    device = healthy()
    copies = copies_of(device)
    used_on(device, sessions)
    put_back(device, copies)
    _flip_map(device, 0)  # something that makes a repair look
    return device


def test_the_newest_tree_is_found_if_every_superblock_is_of_an_earlier_day() -> None:
    volume = kept(of_an_earlier_day())
    assert names(volume) >= NEW
    assert b"member 0" not in names(volume, "/crowd")


def test_that_a_newer_state_was_found_is_told() -> None:
    done = done_to(of_an_earlier_day())
    assert any("newer state was found" in remark for remark in done.remarks)


def test_preening_does_not_build_upon_an_old_state() -> None:
    done = done_to(of_an_earlier_day(), careful=True)
    assert not done.changes and "newer state" in done.refused


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_what_waits_in_the_journal_of_the_newest_state_is_replayed_and_nothing_else(missing: int) -> None:
    device = healthy()
    copies = copies_of(device)
    used_on(device, 3)
    volume = opened(device)
    for number in range(4):
        namespace.create(volume, ROOT_INODE, b"waits %d" % number, 0o644, 0, 0)
        volume.commit()
        if number == missing - 1:
            volume.checkpoint()
    namespace.rename(volume, ROOT_INODE, b"waits 0", ROOT_INODE, b"came")
    volume.commit()
    put_back(device, copies)
    _flip_map(device, 0)
    assert names(kept(device)) >= NEW | {b"came", b"waits 1", b"waits 2", b"waits 3"}
    assert b"waits 0" not in names(kept(device))


def test_a_checkpoint_that_never_was_in_the_journal_is_not_mixed_with_what_was() -> None:
    device = healthy()
    copies = copies_of(device)
    volume = opened(device)
    ino = namespace.lookup(volume, ROOT_INODE, b"small")
    namespace.setattr(volume, ino, namespace.AttributeChange(mode=0o600))
    volume.commit()
    edit_inode(device, ino, mode=0o100640)  # as a transaction that is too large for the journal
    put_back(device, copies)
    _flip_map(device, 0)
    assert kept(device).inodes.get(ino).mode == 0o100640


def test_a_state_of_which_something_is_missing_is_not_believed_for_a_crash_may_have_left_it() -> None:
    device = healthy()
    volume = opened(device)
    namespace.create(volume, ROOT_INODE, b"late", 0o644, 0, 0)
    copies = copies_of(device)
    volume.checkpoint()
    root = image_of(device).superblock.root
    put_back(device, copies)
    truth = image_of(device).superblock
    found = find_younger(device, truth, journal_is_damaged=False).superblock
    assert found is not None and found.root == root
    _, value = first_item(device, find_inode(device, "/docs/many"), Kind.DATA_RECORD)
    flip(device, DataRecord.decode(value).address * 4096)
    assert find_younger(device, truth, journal_is_damaged=False).superblock is None
    assert find_younger(device, truth, journal_is_damaged=True).superblock == found


def forge_a_root(device: Device, path: str) -> None:
    """Let the contents of a file be the root of the tree, with the right place, and of a generation to come."""
    image = image_of(device)
    key, value = first_item(device, find_inode(device, path), Kind.DATA_RECORD)
    record = DataRecord.decode(value)
    raw = bytearray(device.read(image.superblock.root.address * 4096, image.superblock.node_bytes))
    header = replace(decode_header(bytes(raw)), address=record.address, mirror=0, generation=1 << 40)
    raw[8 : 8 + NodeHeader.FIXED_BYTES] = header.STRUCT.pack(*NodeHeader._FLATTEN(header))
    raw[4:8] = node_checksum(bytes(raw)).to_bytes(4, "little")
    device.write(record.address * 4096, bytes(raw))
    edit_item(device, key, crc32c=checksum(device, record.runs(4096)))


def checksum(device: Device, runs: Iterable[tuple[int, int]]) -> int:
    return crc32c.crc32c(b"".join(device.read(first * 4096, count * 4096) for first, count in runs))


def test_a_root_in_the_contents_of_a_file_is_none() -> None:
    device = healthy()
    forge_a_root(device, "/docs/many")
    truth: Superblock = image_of(device).superblock
    assert find_younger(device, truth, journal_is_damaged=True) == Younger()


def test_lost_roots_of_newer_states_are_no_reason_to_go_back_to_an_older_one() -> None:
    device = healthy()
    copies = copies_of(device)
    before = image_of(device).superblock.generation
    del copies[image_of(used_on(device, 3)).geometry.backups[-1]]  # all that is left of the newest superblock
    put_back(device, copies)
    lose_newer_roots(device, before)
    volume = kept(device)
    assert names(volume) >= NEW
    assert contents(volume, "/docs/many") == contents(opened(healthy()), "/docs/many")


def _from(device: Device, block: int) -> Repaired:
    done: Repaired = finished(repair(device, Wishes(Options(threads=1, backup_block=block))))
    return done


def lose_newer_roots(device: Device, before: int) -> None:
    """Destroy every root that is younger than *before*."""
    image = image_of(device)
    for block in range(image.geometry.block_count):
        node = node_at(image, block)
        if node is not None and node.low == LOWEST_KEY and node.high == HIGHEST_KEY and node.pointer.generation > before:
            device.write(block * 4096 + 600, b"damage" * 300)


def test_if_the_newest_state_is_not_whole_the_old_one_is_not_repaired_in_its_place_unless_asked_for() -> None:
    device = of_an_earlier_day()
    truth = image_of(device).superblock
    lose_newer_roots(device, truth.generation)
    done = done_to(device)
    assert not done.changes and f"-b {truth.address}" in done.refused
    assert _from(device, truth.address).changes


def test_a_healthy_image_shows_nothing_newer() -> None:
    for device in (healthy(), unclean(3)):
        assert find_younger(device, image_of(device).superblock, journal_is_damaged=False) == Younger()


def test_a_salvage_copies_the_newest_state_out(tmp_path: Path) -> None:
    device = healthy()
    copies = copies_of(device)
    used_on(device, 3)
    put_back(device, copies)
    flip(device, (image_of(device).superblock.generation + 1) % 2 * 4096 + 100)  # where the next one went
    report = finished(salvage(device, str(tmp_path)))
    assert {os.fsencode(name) for name in os.listdir(tmp_path)} >= NEW
    assert "member 0" not in os.listdir(tmp_path / "crowd") and "member 5" in os.listdir(tmp_path / "crowd")
    assert any("newer state was found" in remark for remark in report.remarks)


def test_a_salvage_tells_of_a_newer_state_that_is_not_whole(tmp_path: Path) -> None:
    device = healthy(1)
    copies = copies_of(device)
    used_on(device, 3)
    root = image_of(device).superblock.root
    put_back(device, copies)
    for slot in (0, 1):
        flip(device, slot * 4096 + 100)
    flip(device, root.address * 4096 + 100)
    report = finished(salvage(device, str(tmp_path)))
    assert any("parts of a still newer state (generation 12" in remark for remark in report.remarks) and not report.is_whole
