"""Late pages: loose pages are written behind their records, which are not read for it, and nothing is lost by that."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from razortools.check import runner
from razortools.check.image import Image
from razortools.check.repair.journal import pending, scanned
from razortools.engine import files, late, loose, namespace
from razortools.engine.create import USUAL_FEATURES
from razortools.engine.limits import Limits
from razortools.engine.store.simulated import SimulatedDevice
from razortools.engine.store.superblocks import newest
from razortools.engine.stored import read_stored
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.compression import Algorithm, Policy
from razortools.format.data import LATE
from razortools.format.geometry import geometry_of
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Kind, kind_of
from razortools.units import KIB, MIB, InodeNo, RecordNo
from tests.engine.data_volumes import assert_memory_adds_up, assert_space_adds_up, assert_tree_adds_up, data_records
from tests.engine.test_loose import (
    AT,
    LIMITS,
    MERGING,
    OLD,
    PAGE,
    PAGE_BYTES,
    RECORD_BYTES,
    after_a_crash,
    damage,
    noise,
    overwritten,
    stored_file,
    whole,
)


def late_file(limits: Limits = LIMITS, record_bytes: int = RECORD_BYTES) -> tuple[SimulatedDevice, Volume, InodeNo]:
    return stored_file(limits, record_bytes, features=USUAL_FEATURES)


def late_places(volume: Volume, ino: InodeNo) -> dict[int, list[int]]:
    """Return which pages of a file's records were written later, by record."""
    told = {number: record.late_pages for number, record in data_records(volume, ino).items()}
    return {number: list(pages.places) for number, pages in told.items() if pages is not None}


def is_clean(disk: SimulatedDevice) -> bool:
    return not [finding for finding in runner.check_quietly(disk.copy()).findings if finding.severity]


@pytest.mark.parametrize("ending", [Volume.commit, Volume.checkpoint, Volume.close])
def test_what_makes_durable_writes_the_pages_and_reads_no_record(ending: Callable[[Volume], None]) -> None:
    disk, volume, ino = late_file()
    before = data_records(volume, ino)
    reads, written = disk.read_count, disk.written_bytes
    files.write(volume, ino, AT, PAGE)
    files.write(volume, ino, AT + PAGE_BYTES, PAGE[::-1])
    volume.commit()
    assert disk.read_count == reads and disk.written_bytes - written < 5 * PAGE_BYTES
    assert late_places(volume, ino) == {1: [5, 6]}
    after = data_records(volume, ino)
    assert after[1].runs(4096)[0] == before[1].runs(4096)[0] and after[0] == before[0]
    assert not volume.records.dirty_count
    wanted = overwritten(overwritten(), AT + PAGE_BYTES, PAGE[::-1])
    assert whole(volume, ino) == wanted
    ending(volume)
    again = after_a_crash(disk)
    assert whole(again, ino) == wanted
    assert_tree_adds_up(again)
    again.close()
    assert is_clean(disk)


def test_the_newest_of_several_late_pages_is_what_the_file_holds() -> None:
    disk, volume, ino = late_file()
    for number in range(3):
        files.write(volume, ino, AT, noise(number))
        volume.commit()
    assert late_places(volume, ino) == {1: [5, 5, 5]}
    assert whole(after_a_crash(disk), ino) == overwritten(page=noise(2))


@pytest.mark.parametrize(("share", "late_pages"), [(4, 8), (8, 4), (32, 1), (33, 0)])
def test_a_record_with_its_share_of_late_pages_is_stored_anew(share: int, late_pages: int) -> None:
    _, volume, ino = late_file(replace(LIMITS, late_share=share))
    wanted = OLD
    for pages in (range(5, 5 + late_pages), range(1)):
        for page in pages:
            files.write(volume, ino, RECORD_BYTES + page * PAGE_BYTES, PAGE)
            wanted = overwritten(wanted, RECORD_BYTES + page * PAGE_BYTES)
        volume.commit()
        assert whole(volume, ino) == wanted
        assert_tree_adds_up(volume)
        assert late_places(volume, ino) == ({1: list(pages)} if pages and pages[0] else {})
    volume.checkpoint()
    assert_space_adds_up(volume)


def test_a_record_whose_late_pages_lie_in_many_places_is_stored_anew() -> None:
    _, volume, ino = late_file()
    other = namespace.create(volume, ROOT_INODE, b"other", 0o644, 0, 0)
    for number in range(late.FURTHER_RUNS_MAX + 1):
        files.write(volume, ino, AT, noise(number))
        files.write(volume, other, number * RECORD_BYTES, OLD[:RECORD_BYTES])  # what lies between
        volume.commit()
        assert len(late_places(volume, ino).get(1, [])) == (number + 1) % (late.FURTHER_RUNS_MAX + 1)
    assert whole(volume, ino) == overwritten(page=noise(late.FURTHER_RUNS_MAX))


def test_the_blocks_of_late_pages_are_free_when_their_record_goes() -> None:
    _, volume, ino = late_file()
    free = volume.store.maps.free_blocks
    files.write(volume, ino, AT, PAGE)
    volume.checkpoint()
    assert volume.inodes.get(ino).stored_blocks == 97
    files.truncate(volume, ino, 0)
    volume.checkpoint()
    assert_space_adds_up(volume)
    assert volume.store.maps.free_blocks == free + 96 and not volume.inodes.get(ino).stored_blocks


@pytest.mark.parametrize("algorithm", [Algorithm.NONE, Algorithm.ZSTD, Algorithm.LZ4, Algorithm.ZLIB])
def test_late_pages_lie_over_what_any_algorithm_stores(algorithm: Algorithm) -> None:
    disk, volume, _ = late_file()
    volume.default_policy = Policy(algorithm)
    ino = namespace.create(volume, ROOT_INODE, b"text", 0o644, 0, 0)
    old = b"a text that shrinks well, and does not end with a page " * 3000
    files.write(volume, ino, 0, old)
    volume.checkpoint()
    volume.records.clean.drop(ino, RecordNo(0))
    files.write(volume, ino, 3 * PAGE_BYTES, PAGE)
    volume.commit()
    assert data_records(volume, ino)[0].algorithm == algorithm and late_places(volume, ino) == {0: [3]}
    assert whole(after_a_crash(disk), ino) == overwritten(old, 3 * PAGE_BYTES)


def test_later_changes_of_any_kind_find_the_late_page() -> None:
    disk, volume, ino = late_file()
    files.write(volume, ino, AT, PAGE)
    volume.commit()
    files.write(volume, ino, AT + 10, b"patched")
    wanted = overwritten(overwritten(), AT + 10, b"patched")
    assert whole(volume, ino) == wanted
    volume.commit()
    assert whole(after_a_crash(disk), ino) == wanted
    files.truncate(volume, ino, AT + 100)
    volume.checkpoint()
    assert whole(after_a_crash(disk), ino) == wanted[: AT + 100]


def placed_pages(volume: Volume, ino: InodeNo) -> files.Placed:
    placed, others = files.place_late(volume, loose.items_of(volume, [(ino, RecordNo(1))]))
    assert placed is not None and not others
    return placed


def finish(volume: Volume, placed: files.Placed) -> None:
    files.write_out(volume, placed)
    files.apply_flush(volume, placed)
    assert_memory_adds_up(volume)


def test_a_page_that_changes_while_it_is_written_stays_loose_and_the_others_do_not() -> None:
    disk, volume, ino = late_file()
    files.write(volume, ino, AT, PAGE)
    files.write(volume, ino, AT + PAGE_BYTES, PAGE)
    placed = placed_pages(volume, ino)
    files.write(volume, ino, AT, noise(1))
    files.write(volume, ino, AT + 2 * PAGE_BYTES, noise(2))
    finish(volume, placed)
    known = volume.records.loose.find(ino, RecordNo(1))
    assert known is not None and sorted(known.pages) == [5 * PAGE_BYTES, 7 * PAGE_BYTES]
    wanted = overwritten(overwritten(overwritten(page=noise(1)), AT + PAGE_BYTES), AT + 2 * PAGE_BYTES, noise(2))
    assert whole(volume, ino) == wanted
    volume.commit()
    assert whole(after_a_crash(disk), ino) == wanted


@pytest.mark.parametrize(
    "change",
    [
        lambda volume, ino: files.write(volume, ino, AT + 1, b"part of a page"),
        lambda volume, ino: files.write(volume, ino, 0, OLD[::-1]),
        lambda volume, ino: files.truncate(volume, ino, RECORD_BYTES),
        lambda volume, ino: (files.write(volume, ino, 0, OLD[::-1]), files.flush_all(volume, [ino])),
    ],
)
def test_pages_whose_record_became_another_while_they_were_written_are_not_entered(
    change: Callable[[Volume, InodeNo], object],
) -> None:
    _, volume, ino = late_file()
    files.write(volume, ino, AT, PAGE)
    placed = placed_pages(volume, ino)
    change(volume, ino)
    wanted = whole(volume, ino)
    if placed in volume.records.in_flight:  # who had to flush here and now has finished it first
        finish(volume, placed)
        assert not late_places(volume, ino)
    volume.checkpoint()
    assert whole(volume, ino) == wanted
    assert_space_adds_up(volume)


def test_blocks_of_pages_that_are_given_back_are_free_and_promised_again() -> None:
    _, volume, ino = late_file()
    files.write(volume, ino, AT, PAGE)
    free, reserved = volume.store.maps.free_blocks, volume.records.reserved_blocks
    placed = placed_pages(volume, ino)
    assert (volume.store.maps.free_blocks, volume.records.reserved_blocks) == (free - 1, reserved - 1)
    files.give_back(volume, placed)
    assert (volume.store.maps.free_blocks, volume.records.reserved_blocks) == (free, reserved)
    assert_memory_adds_up(volume)
    volume.checkpoint()
    assert whole(volume, ino) == overwritten()


def test_what_was_cached_of_a_record_gets_its_late_pages() -> None:
    _, volume, ino = late_file(Limits(loose_from=0))
    volume.records.clean.drop(ino, RecordNo(1))
    files.write(volume, ino, AT, PAGE)
    assert whole(volume, ino) == overwritten()  # and the record without its page is in the cache now
    volume.commit()
    hits = volume.store.residence.found_count
    assert whole(volume, ino) == overwritten()
    assert volume.store.residence.found_count == hits + 3


@pytest.mark.parametrize("has_feature", [False, True])
def test_a_record_that_is_in_memory_is_not_compressed_for_a_page_if_it_can_be_written_behind_it(has_feature: bool) -> None:
    features = USUAL_FEATURES if has_feature else MERGING
    disk, volume, ino = stored_file(Limits(loose_from=0), features=features)
    assert whole(volume, ino) == OLD and volume.records.is_in_memory(ino, RecordNo(1))
    files.write(volume, ino, AT, PAGE)
    assert len(volume.records.loose) == has_feature and whole(volume, ino) == overwritten()
    reads = disk.read_count
    volume.commit()
    assert disk.read_count == reads and late_places(volume, ino) == ({1: [5]} if has_feature else {})
    assert whole(volume, ino) == whole(after_a_crash(disk), ino) == overwritten()


def test_any_part_of_a_record_shows_the_loose_pages_that_reach_into_it() -> None:
    _, volume, ino = late_file()
    wanted = OLD
    for at in (AT, AT + PAGE_BYTES, 2 * RECORD_BYTES - PAGE_BYTES, 2 * RECORD_BYTES):
        files.write(volume, ino, at, noise(at))
        wanted = overwritten(wanted, at, noise(at))
    chance = random.Random(4712)
    print("seed 4712")
    edges = [AT + number * PAGE_BYTES + near for number in range(-1, 4) for near in (-1, 0, 1)] + [2 * RECORD_BYTES, len(OLD)]
    for _ in range(300):
        start, stop = sorted(chance.choices(edges, k=2))
        assert files.read(volume, ino, start, stop - start) == wanted[start:stop]
    assert len(volume.records.loose) == 2


def test_a_record_in_memory_that_takes_no_more_late_pages_is_changed_there() -> None:
    disk, volume, ino = stored_file(Limits(loose_from=0), features=USUAL_FEATURES)
    wanted = whole(volume, ino)
    for number in range(9):
        assert len(volume.records.loose) == (number > 0)
        files.write(volume, ino, RECORD_BYTES + number * PAGE_BYTES, noise(number))
        wanted = overwritten(wanted, RECORD_BYTES + number * PAGE_BYTES, noise(number))
    assert not len(volume.records.loose) and volume.records.dirty_count == 1
    reads = disk.read_count
    volume.commit()
    assert disk.read_count == reads and whole(volume, ino) == whole(after_a_crash(disk), ino) == wanted


def test_a_page_behind_a_record_that_cannot_be_read_is_there_once_it_can() -> None:
    disk, volume, ino = late_file()
    offset, undamaged = damage(disk, volume, ino)
    files.write(volume, ino, AT, PAGE)
    volume.commit()
    with pytest.raises(CorruptImage, match=f"inode {ino}, record 1 "):
        whole(volume, ino)
    disk.write(offset, undamaged)
    disk.flush()
    assert whole(volume, ino) == whole(after_a_crash(disk), ino) == overwritten()


def test_an_image_without_the_feature_gets_no_late_pages() -> None:
    _, volume, ino = stored_file()
    files.write(volume, ino, AT, PAGE)
    volume.commit()
    assert not late_places(volume, ino) and not any(record.flags & LATE for record in data_records(volume, ino).values())


def test_every_record_of_a_large_file_gets_its_pages_in_one_place() -> None:
    disk, volume, ino = late_file(record_bytes=16 * KIB)
    chance = random.Random(4711)
    print("seed 4711")
    wanted = bytearray(OLD)
    for number in range(24):
        at = number * 16 * KIB + chance.randrange(4) * PAGE_BYTES
        files.write(volume, ino, at, noise(at))
        wanted[at : at + PAGE_BYTES] = noise(at)
    writes = disk.write_count
    volume.commit()
    assert disk.write_count - writes <= 3, "pages, journal, and what the flush of it takes"
    assert whole(after_a_crash(disk), ino) == wanted


def test_a_wrong_list_of_late_pages_is_told_and_nothing_is_read_wrong() -> None:
    _, volume, ino = late_file()
    files.write(volume, ino, AT, PAGE)
    volume.checkpoint()
    record = data_records(volume, ino)[1]
    told = record.late_pages
    assert told is not None
    for place in range(len(record.more)):
        for bit in (1, 128):
            more = bytearray(record.more)
            more[place] ^= bit
            wrong = replace(record, more=bytes(more))
            try:
                raw = read_stored(volume.store, wrong, MIB)
            except (CorruptImage, DeviceFailed):
                continue
            assert raw == overwritten()[RECORD_BYTES : 2 * RECORD_BYTES]
            assert not 4 <= place < 4 + told.encoded_bytes, "the second checksum stands before it, runs behind it"


class BadSector(SimulatedDevice):
    """A disk with a place that cannot be read."""

    bad_at = -1

    def read(self, offset: int, length: int) -> bytes:
        if offset <= self.bad_at < offset + length:
            raise DeviceFailed("a bad sector")
        return super().read(offset, length)


def opened_image(disk: SimulatedDevice) -> Image:
    """Return an image as a repair sees it."""
    superblock = newest(disk)
    return Image(disk, superblock, geometry_of(superblock))


def acknowledged_over_old_damage() -> tuple[SimulatedDevice, int]:
    """Return a disk on which another file was synced while a page waited for a record that had gone bad, and where that is."""
    disk, volume, ino = late_file()
    at, _ = damage(disk, volume, ino)
    files.write(volume, ino, AT, PAGE)
    other = namespace.create(volume, ROOT_INODE, b"other", 0o644, 0, 0)
    files.write(volume, other, 0, b"was synced")
    files.fsync(volume, other)
    assert late_places(volume, ino) == {1: [5]}
    return SimulatedDevice.holding(disk.stable()), at


@pytest.mark.parametrize("is_readable", [True, False])
def test_old_damage_below_late_pages_takes_back_no_sync_that_was_acknowledged(is_readable: bool) -> None:
    """Recovery verified the whole record, took what it found for data that never arrived, and dropped the transaction."""
    disk, at = acknowledged_over_old_damage()
    broken = BadSector.holding(disk)
    assert isinstance(broken, BadSector)
    broken.bad_at = -1 if is_readable else at
    again = open_volume(broken, limits=LIMITS)
    assert (again.recovered.transactions, again.recovered.discarded) == (1, 0)
    assert files.read(again, namespace.lookup(again, ROOT_INODE, b"other"), 0, 100) == b"was synced"
    with pytest.raises((CorruptImage, DeviceFailed)):
        whole(again, namespace.lookup(again, ROOT_INODE, b"file"))


def test_a_repair_takes_back_no_sync_either() -> None:
    disk, _ = acknowledged_over_old_damage()
    image = opened_image(disk)
    assert [len(transactions) for transactions in (scanned(image).transactions, pending(image, scanned(image)))] == [1, 1]


@pytest.mark.parametrize("earlier", [0, 1])
def test_late_pages_that_never_arrived_are_noticed(earlier: int) -> None:
    """With late pages of earlier transactions before them, and without."""
    disk, volume, ino = late_file()
    for number in range(earlier):
        files.write(volume, ino, AT + (number + 1) * PAGE_BYTES, noise(number))
        volume.commit()
    files.write(volume, ino, AT, PAGE)
    volume.commit()
    start, _ = data_records(volume, ino)[1].runs(4096)[-1]
    cut = SimulatedDevice.holding(disk.stable())
    cut.write(start * 4096, bytes(4096))
    image = opened_image(cut)
    assert len(pending(image, scanned(image))) == earlier
    again = open_volume(cut, limits=LIMITS)
    assert (again.recovered.transactions, again.recovered.discarded) == (earlier, 1)
    wanted = OLD
    for number in range(earlier):
        wanted = overwritten(wanted, AT + (number + 1) * PAGE_BYTES, noise(number))
    assert whole(again, ino) == wanted


def test_pages_of_one_transaction_are_all_verified_however_many_parts_it_has() -> None:
    """A key that changes in several parts stands in several entries: what it was before the first of them counts."""
    disk, volume, ino = late_file()
    files.write(volume, ino, AT, PAGE)
    files.flush_all(volume)
    volume.store.journal.encode_part(volume.store.transaction)
    files.write(volume, ino, AT + PAGE_BYTES, PAGE)
    volume.commit()
    first, _ = data_records(volume, ino)[1].runs(4096)[1]
    cut = SimulatedDevice.holding(disk.stable())
    (transaction,) = scanned(opened_image(cut)).transactions
    assert [kind_of(entry.head.key) for entry in transaction.entries].count(Kind.DATA_RECORD) == 2
    cut.write(first * 4096, bytes(4096))
    assert not pending(opened_image(cut), scanned(opened_image(cut)))
    assert open_volume(cut, limits=LIMITS).recovered.discarded == 1
