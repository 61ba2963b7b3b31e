"""What has rested is stored anew where trying harder saves blocks, and nothing else about it changes."""

import random
from dataclasses import replace

import pytest

from razortools.check.runner import Options, check_quietly
from razortools.engine import files, lately, namespace, recompress
from razortools.engine.limits import Limits
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume
from razortools.errors import OutOfSpace
from razortools.format.compression import Algorithm, Policy
from razortools.format.inode import Inode
from razortools.units import KIB, MIB, InodeNo, RecordNo
from tests.check.samples import late_paged
from tests.engine.data_volumes import (
    assert_memory_adds_up,
    assert_space_adds_up,
    assert_tree_adds_up,
    data_records,
    formatted,
    is_inline,
    new_file,
    open_again,
)

AFTER_ALL_NS = 1 << 62
WORDS = ["inode", "record", "journal", "block", "checkpoint", "tree", "leaf", "commit", "flush", "mirror", "page"]


def prose(seed: int, size: int) -> bytes:
    """Text that a better level packs tighter."""
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) + str(chance.randrange(40)) for _ in range(size // 6)).encode()[:size]


def volume_with(contents: dict[str, bytes], policy: Policy = Policy()) -> tuple[Volume, dict[str, InodeNo]]:  # noqa: B008
    volume = open_again(formatted(MemoryDevice(32 * MIB)))
    inodes = {}
    for name, data in contents.items():
        inodes[name] = new_file(volume, policy=policy)
        files.write(volume, inodes[name], 0, data)
    volume.commit()
    return volume, inodes


def recompressed(volume: Volume, step_bytes: int = MIB) -> int:
    """Do all there is to do; return how many records that were."""
    count = 0
    while volume.lately.has_rested(AFTER_ALL_NS):
        gains, failures = recompress.harder(volume, recompress.due(volume, AFTER_ALL_NS, step_bytes))
        assert failures == []
        count += len(recompress.take(volume, gains))
        files.flush_all(volume)
        volume.commit()
    return count


def without_blocks(inode: Inode) -> Inode:
    return replace(inode, stored_blocks=0)


def test_it_takes_fewer_blocks_and_nothing_else_has_changed() -> None:
    contents = {"long": prose(1, 3 * MIB), "short": prose(2, 9000), "noise": random.Random(3).randbytes(300_000), "none": b""}
    volume, inodes = volume_with(contents)
    before = {name: without_blocks(volume.inodes.get(ino)) for name, ino in inodes.items()}
    used = volume.counters.data_blocks
    assert recompressed(volume) >= 24
    assert volume.counters.data_blocks <= used * 0.95
    assert {name: files.read(volume, ino, 0, 4 * MIB) for name, ino in inodes.items()} == contents
    assert {name: without_blocks(volume.inodes.get(ino)) for name, ino in inodes.items()} == before
    volume.checkpoint()
    assert_tree_adds_up(volume)
    assert_space_adds_up(volume)
    volume.close()
    codes = {finding.code for finding in check_quietly(volume.store.device, Options(threads=1)).findings}
    assert codes == {"E0410"}  # these files have no names


def test_what_saves_nothing_is_not_written_again() -> None:
    volume, _ = volume_with({"noise": random.Random(3).randbytes(300_000), "small": prose(1, 2000)})
    written = volume.store.journal.head
    assert recompressed(volume) == 0
    assert volume.store.journal.head == written


def test_once_is_enough() -> None:
    volume, _ = volume_with({"long": prose(1, MIB)})
    assert recompressed(volume) > 0
    assert recompressed(volume) == 0
    assert len(volume.lately) == 0


def test_a_small_file_may_move_into_the_tree() -> None:
    for size in range(7600, 9600, 20):
        volume, inodes = volume_with({"file": prose(7, size)})
        if data_records(volume, inodes["file"]) and recompressed(volume) and is_inline(volume, inodes["file"]):
            assert files.read(volume, inodes["file"], 0, size) == prose(7, size)
            assert volume.inodes.get(inodes["file"]).stored_blocks == 0
            return
    raise AssertionError("no size was found that becomes small enough")


def test_only_files_that_leave_the_choice_are_touched() -> None:
    volume, _ = volume_with({"long": prose(1, MIB)}, Policy(Algorithm.ZSTD, 1))
    assert recompressed(volume) == 0


def test_what_has_not_rested_is_left_alone() -> None:
    volume, inodes = volume_with({"old": prose(1, MIB)})
    since_ns = volume.now_ns()
    young = new_file(volume)
    files.write(volume, young, 0, prose(2, MIB))
    volume.commit()
    assert {one.ino for one in recompress.due(volume, since_ns, 8 * MIB)} == {inodes["old"]}
    assert [ino for ino, _, _ in volume.lately.rested(AFTER_ALL_NS)] == [young]


def test_of_a_file_that_grows_only_what_is_new_is_tried() -> None:
    volume, inodes = volume_with({"log": prose(1, MIB)})
    assert recompressed(volume) == 8
    volume.checkpoint()
    files.write(volume, inodes["log"], MIB, prose(2, 300_000))
    volume.commit()
    assert [one.record_no for one in recompress.due(volume, AFTER_ALL_NS, 8 * MIB)] == [8, 9, 10]


def test_a_file_that_changes_before_it_has_rested_is_tried_as_a_whole() -> None:
    volume, inodes = volume_with({"log": prose(1, MIB)})
    volume.checkpoint()
    files.write(volume, inodes["log"], MIB, prose(2, 300_000))
    volume.commit()
    assert [one.record_no for one in recompress.due(volume, AFTER_ALL_NS, 8 * MIB)] == list(range(11))


def test_steps_go_through_a_long_file_record_by_record() -> None:
    volume, inodes = volume_with({"long": prose(1, MIB), "next": prose(2, 300_000)})
    seen = []
    while volume.lately.has_rested(AFTER_ALL_NS):
        step = recompress.due(volume, AFTER_ALL_NS, 200 * KIB)
        assert sum(one.item.raw_bytes for one in step) <= 200 * KIB + 128 * KIB
        seen += [(one.ino, one.record_no) for one in step]
    assert seen == [(inodes["long"], n) for n in range(8)] + [(inodes["next"], n) for n in range(3)]


@pytest.mark.parametrize("at", [5000, 128 * KIB - 3, 200_000], ids=["inside", "across two records", "appended"])
def test_what_was_synced_as_a_patch_is_not_replaced_by_what_was_packed_before(at: int) -> None:
    """The next checkpoint stored what had been made of the old bytes: what had been synced was gone, or not to be read."""
    data = bytearray(prose(3, 200_000))
    device = formatted(MemoryDevice(32 * MIB))
    volume = open_again(device)
    ino = new_file(volume)
    files.write(volume, ino, 0, bytes(data))
    volume.checkpoint()
    gains, _ = recompress.harder(volume, recompress.due(volume, AFTER_ALL_NS, MIB))
    assert len(recompress.take(volume, gains)) == 2
    files.write(volume, ino, at, b"ACKNOWLEDGED")
    data[at : at + 12] = b"ACKNOWLEDGED"
    volume.commit()
    assert volume.records.patched
    volume.checkpoint()
    assert not volume.records.patched
    volume.close()
    again = open_again(device)
    assert files.read(again, ino, 0, len(data)) == bytes(data)
    assert_space_adds_up(again)


def test_what_is_written_meanwhile_wins() -> None:
    volume, inodes = volume_with({"long": prose(1, 4 * 128 * KIB)})
    ino = inodes["long"]
    gains, _ = recompress.harder(volume, recompress.due(volume, AFTER_ALL_NS, MIB))
    files.write(volume, ino, 5, b"dirty")  # record 0, while the thread was at work
    files.write(volume, ino, 128 * KIB, prose(9, 128 * KIB))  # record 1, stored since
    files.flush_all(volume)
    files.write(volume, ino, 5, b"again")
    assert [gain.resting.record_no for gain in recompress.take(volume, gains)] == [2, 3]
    files.write(volume, ino, 2 * 128 * KIB + 7, b"over")  # record 2, dirty to be stored harder
    snapshots = {number: raw for _, number, raw in volume.records.snapshots()}
    assert volume.records.packing_of(ino, RecordNo(2), snapshots[RecordNo(2)]) is None
    assert volume.records.packing_of(ino, RecordNo(3), snapshots[RecordNo(3)]) is not None
    assert_memory_adds_up(volume)
    expected = bytearray(prose(1, 4 * 128 * KIB))
    expected[5:10] = b"again"
    expected[128 * KIB : 256 * KIB] = prose(9, 128 * KIB)
    expected[256 * KIB + 7 : 256 * KIB + 11] = b"over"
    volume.commit()
    assert files.read(volume, ino, 0, MIB) == expected
    again = open_again(volume.store.device)
    assert files.read(again, ino, 0, MIB) == expected


def test_a_file_that_is_deleted_meanwhile_stays_deleted() -> None:
    volume, inodes = volume_with({"long": prose(1, MIB)})
    gains, _ = recompress.harder(volume, recompress.due(volume, AFTER_ALL_NS, MIB))
    assert gains
    files.truncate(volume, inodes["long"], 0)
    assert recompress.take(volume, gains) == []
    volume.checkpoint()
    assert volume.counters.data_blocks == 0
    assert_space_adds_up(volume)


def test_damaged_data_are_told_and_left_alone() -> None:
    volume, inodes = volume_with({"long": prose(1, MIB)})
    item = data_records(volume, inodes["long"])[2]
    device = volume.store.device
    device.write(item.address * volume.block_bytes, bytes(4096))
    gains, failures = recompress.harder(volume, recompress.due(volume, AFTER_ALL_NS, MIB))
    assert 2 not in {gain.resting.record_no for gain in gains}
    ((resting, failed),) = failures
    assert resting.item == item and "checksum" in str(failed)


def test_on_a_full_image_it_lets_be() -> None:
    volume, inodes = volume_with({"long": prose(1, MIB)})
    ballast, size = new_file(volume, policy=Policy(Algorithm.NONE)), 0
    with pytest.raises(OutOfSpace):
        while True:
            size += files.write(volume, ballast, size, random.Random(size).randbytes(64 * KIB))
    volume.commit()
    recompressed(volume)
    assert files.read(volume, inodes["long"], 0, MIB) == prose(1, MIB)
    assert files.read(volume, ballast, 0, 64 * KIB) == random.Random(0).randbytes(64 * KIB)
    volume.checkpoint()
    assert_space_adds_up(volume)


def test_much_that_is_dirty_is_not_made_more() -> None:
    volume, _ = volume_with({"long": prose(1, 2 * MIB)})
    volume.set_limits(Limits(dirty_bytes=MIB))
    gains, _ = recompress.harder(volume, recompress.due(volume, AFTER_ALL_NS, 2 * MIB))
    assert len(recompress.take(volume, gains)) == 4
    assert volume.records.dirty_bytes <= MIB // 2


def test_what_is_remembered_is_bounded() -> None:
    known = lately.Lately()
    for number in range(lately.FILES_MAX + 10):
        known.note(InodeNo(number), number, 1)
    assert len(known) == lately.FILES_MAX
    assert known.first == 10
    assert known.forgotten_count == 10
    known.note(InodeNo(10), 10**9, 2)  # stored again: it has to rest again
    assert known.first == 11


def test_what_is_stored_anew_as_somebody_says_takes_its_late_pages_patches_and_dirty_bytes_along() -> None:
    device = late_paged()
    volume = open_again(device)
    ino = namespace.resolve(volume, b"/docs/many")
    files.write(volume, ino, 20_000, b"patched")
    volume.commit()
    files.write(volume, ino, 5, b"dirty")
    size = volume.inodes.get(ino).size
    data, mtime_ns = files.read(volume, ino, 0, size), volume.inodes.get(ino).mtime_ns
    numbers = [RecordNo(number) for number in range(size // volume.inodes.get(ino).record_bytes + 1)]
    assert recompress.store_anew(volume, ino, numbers, Policy(Algorithm.NONE)) >= size
    assert {record.algorithm for record in data_records(volume, ino).values()} == {Algorithm.NONE}
    assert not any(record.late_pages for record in data_records(volume, ino).values())
    assert_memory_adds_up(volume)
    assert volume.inodes.get(ino).mtime_ns == mtime_ns
    volume.close()
    assert check_quietly(device).exit_code == 0
    again = open_again(device)
    assert files.read(again, ino, 0, size) == data
