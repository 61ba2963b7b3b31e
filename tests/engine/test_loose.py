"""Loose pages: who overwrites pages of records that are not in memory does not wait for these, and loses nothing by it."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from razortools.check import runner
from razortools.engine import files, loose, namespace
from razortools.engine.create import ALL_FEATURES, Features, create, plan_create
from razortools.engine.limits import Limits
from razortools.engine.promises import Promises
from razortools.engine.store.simulated import SimulatedDevice
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage
from razortools.format.compression import Algorithm, Policy
from razortools.format.inode import ROOT_INODE
from razortools.format.superblock import Incompat
from razortools.units import KIB, MIB, InodeNo, RecordNo
from tests.engine.data_volumes import assert_memory_adds_up, assert_tree_adds_up, data_records

RECORD_BYTES, PAGE_BYTES = 128 * KIB, 4 * KIB
MERGING = Features(ALL_FEATURES & ~Incompat.LATE_PAGES)  # tests/engine/test_late.py has images with late pages
LIMITS = Limits(loose_from=0, record_cache_bytes=0)
OLD = random.Random(1).randbytes(3 * RECORD_BYTES)
PAGE = b"a page that is new" * 500
PAGE = PAGE[:PAGE_BYTES]
AT = RECORD_BYTES + 5 * PAGE_BYTES  # a page in the middle of the file's second record


def stored_file(
    limits: Limits = LIMITS, record_bytes: int = RECORD_BYTES, old: bytes = OLD, features: Features = MERGING
) -> tuple[SimulatedDevice, Volume, InodeNo]:
    """Return (disk, volume, file of three records, that is stored and not in memory)."""
    disk = SimulatedDevice(16 * MIB)
    plan = plan_create(disk.size_bytes, uuid=bytes(range(16)), hash_seed=bytes(16), record_bytes=record_bytes, features=features)
    create(disk, plan)
    volume = open_volume(disk, limits=limits)
    volume.default_policy = Policy(Algorithm.NONE)
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    files.write(volume, ino, 0, old)
    volume.checkpoint()
    return disk, volume, ino


def noise(seed: int) -> bytes:
    return random.Random(seed).randbytes(PAGE_BYTES)


def overwritten(old: bytes = OLD, at: int = AT, page: bytes = PAGE) -> bytes:
    return old[:at] + page + old[at + len(page) :]


def whole(volume: Volume, ino: InodeNo) -> bytes:
    return files.read(volume, ino, 0, 1 << 30)


def after_a_crash(disk: SimulatedDevice, limits: Limits = LIMITS) -> Volume:
    """Open what a power cut right now leaves if nothing that was not flushed is lost, or all of it."""
    return open_volume(SimulatedDevice.holding(disk.crash(3)), limits=limits)


def damage(disk: SimulatedDevice, volume: Volume, ino: InodeNo, number: int = 1) -> tuple[int, bytes]:
    """Write over a block of a stored record; return what makes that undone."""
    start, _ = data_records(volume, ino)[number].runs(4096)[0]
    before = start * 4096, disk.read(start * 4096, 4096)
    disk.write(before[0], b"damaged!" * 512)
    disk.flush()
    return before


def test_a_page_is_no_reason_to_read_its_record_and_is_seen_at_once() -> None:
    disk, volume, ino = stored_file()
    reads = disk.read_count
    files.write(volume, ino, AT, PAGE)
    files.write(volume, ino, AT + 3 * PAGE_BYTES, PAGE)
    files.write(volume, ino, AT, PAGE[::-1])
    assert disk.read_count == reads
    known = volume.records.loose.find(ino, RecordNo(1))
    assert known is not None and len(known.pages) == 2
    assert_memory_adds_up(volume)
    wanted = overwritten(overwritten(page=PAGE[::-1]), AT + 3 * PAGE_BYTES)
    assert whole(volume, ino) == wanted
    assert files.read(volume, ino, AT - 10, 20) == wanted[AT - 10 : AT + 10]


@pytest.mark.parametrize("ending", [Volume.commit, Volume.checkpoint, Volume.close])
def test_what_makes_durable_stores_the_record_with_its_pages(ending: Callable[[Volume], None]) -> None:
    disk, volume, ino = stored_file()
    files.write(volume, ino, AT, PAGE)
    ending(volume)
    assert not len(volume.records.loose) and not volume.records.dirty_count
    again = after_a_crash(disk)
    assert whole(again, ino) == overwritten()
    assert_tree_adds_up(again)


def test_a_commit_reads_each_record_once_for_all_its_pages() -> None:
    disk, volume, ino = stored_file()
    wanted = OLD
    for number in range(1, 90, 2):
        files.write(volume, ino, number * PAGE_BYTES, PAGE)
        wanted = overwritten(wanted, number * PAGE_BYTES)
    reads, flushed = disk.read_count, volume.records.flush_count
    volume.commit()
    assert disk.read_count - reads == 3
    assert volume.records.flush_count - flushed == 2 * 3, "three that are merged, three that are stored"
    assert whole(volume, ino) == wanted


def test_a_record_all_of_whose_pages_were_written_is_not_read_and_damage_to_it_is_nobodys_loss() -> None:
    disk, volume, ino = stored_file()
    damage(disk, volume, ino)
    reads = disk.read_count
    for at in range(RECORD_BYTES, 2 * RECORD_BYTES, 2 * PAGE_BYTES):
        files.write(volume, ino, at, PAGE * 2)
        assert_memory_adds_up(volume)
    assert not len(volume.records.loose)
    volume.commit()
    assert disk.read_count == reads
    assert whole(after_a_crash(disk), ino) == OLD[:RECORD_BYTES] + PAGE * 32 + OLD[2 * RECORD_BYTES :]


def test_flushing_one_file_leaves_the_pages_of_others_alone() -> None:
    _, volume, ino = stored_file()
    other = namespace.create(volume, ROOT_INODE, b"other", 0o644, 0, 0)
    files.write(volume, other, 0, OLD)
    volume.checkpoint()
    files.write(volume, ino, AT, PAGE)
    files.write(volume, other, AT, PAGE)
    files.flush_all(volume, [other])
    assert [place[0] for place in volume.records.loose.oldest(MIB)] == [ino]
    assert volume.records.dirty_count == 1


@pytest.mark.parametrize(
    ("offset", "size"),
    [(AT + 1, PAGE_BYTES), (AT, PAGE_BYTES - 1), (AT, 100), (RECORD_BYTES, RECORD_BYTES),
     (RECORD_BYTES - PAGE_BYTES, 2 * PAGE_BYTES), (3 * RECORD_BYTES, PAGE_BYTES)],
    ids=["no page's beginning", "no page's end", "part of a page", "all of a record", "two records", "behind the end"],
)  # fmt: skip
def test_what_is_no_page_inside_a_stored_record_is_written_as_ever(offset: int, size: int) -> None:
    _, volume, ino = stored_file()
    data = random.Random(2).randbytes(size)
    files.write(volume, ino, offset, data)
    assert not len(volume.records.loose)
    assert whole(volume, ino) == overwritten(at=offset, page=data)


def test_a_page_behind_what_the_record_holds_is_written_as_ever() -> None:
    _, volume, ino = stored_file()
    files.truncate(volume, ino, AT + 10)
    files.truncate(volume, ino, 3 * RECORD_BYTES)
    volume.checkpoint()
    files.write(volume, ino, AT + 2 * PAGE_BYTES, PAGE)
    assert not len(volume.records.loose)
    files.write(volume, ino, RECORD_BYTES, PAGE)
    volume.commit()
    kept = OLD[: AT + 10] + bytes(2 * RECORD_BYTES)
    wanted = overwritten(overwritten(kept[: 3 * RECORD_BYTES], AT + 2 * PAGE_BYTES), RECORD_BYTES)
    assert whole(volume, ino) == wanted


def test_a_few_changes_are_worth_a_patch_and_no_loose_page() -> None:
    _, volume, ino = stored_file(Limits(loose_from=2, record_cache_bytes=0))
    for number in range(3):
        files.write(volume, ino, number * RECORD_BYTES, PAGE)
    assert [place[1] for place in volume.records.loose.oldest(MIB)] == [2]
    assert len(volume.records.changed) == 2


def test_a_volume_without_patches_has_no_loose_pages() -> None:
    _, volume, ino = stored_file()
    superblock = volume.store.superblock
    volume.store.superblock = replace(superblock, incompat=superblock.incompat & ~Incompat.PATCHES)
    files.write(volume, ino, AT, PAGE)
    assert not len(volume.records.loose)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda volume, ino: files.write(volume, ino, AT + 1, b"in it"), overwritten(overwritten(), AT + 1, b"in it")),
        (lambda volume, ino: files.write(volume, ino, 0, OLD[::-1]), OLD[::-1]),
        (lambda volume, ino: files.truncate(volume, ino, AT + 100), overwritten()[: AT + 100]),
        (lambda volume, ino: files.truncate(volume, ino, RECORD_BYTES), OLD[:RECORD_BYTES]),
        (lambda volume, ino: files.truncate(volume, ino, 0), b""),
    ],
    ids=["a byte of the page", "everything", "cut in the page", "cut before", "emptied"],
)
def test_later_changes_of_the_record_find_the_page(change: Callable[[Volume, InodeNo], object], wanted: bytes) -> None:
    disk, volume, ino = stored_file()
    files.write(volume, ino, AT, PAGE)
    change(volume, ino)
    assert not len(volume.records.loose)
    assert_memory_adds_up(volume)
    assert whole(volume, ino) == wanted
    volume.commit()
    assert whole(after_a_crash(disk), ino) == wanted


def test_a_file_that_goes_takes_its_pages_along() -> None:
    _, volume, ino = stored_file()
    files.write(volume, ino, AT, PAGE)
    namespace.unlink(volume, ROOT_INODE, b"file")
    assert not len(volume.records.loose)
    assert_memory_adds_up(volume)
    volume.commit()


def test_what_is_not_committed_is_gone_after_an_abort() -> None:
    _, volume, ino = stored_file()
    files.write(volume, ino, AT, PAGE)
    volume.abort()
    assert whole(volume, ino) == OLD
    assert_memory_adds_up(volume)


def test_a_base_that_was_read_while_its_record_was_replaced_is_not_used() -> None:
    _, volume, ino = stored_file()
    files.write(volume, ino, AT, PAGE)
    bases = loose.read_bases(volume, loose.items_of(volume, [(ino, RecordNo(1))]))
    files.write(volume, ino, 0, OLD[::-1])
    volume.checkpoint()
    files.write(volume, ino, AT, PAGE)
    loose.merge(volume, bases)
    assert len(volume.records.loose) == 1
    volume.commit()
    assert whole(volume, ino) == overwritten(OLD[::-1])


def test_a_read_that_fails_once_is_tried_again() -> None:
    disk, volume, ino = stored_file()
    files.write(volume, ino, AT, PAGE)
    disk.faults = replace(disk.faults, fail_read_at=disk.read_count)
    volume.commit()
    assert whole(volume, ino) == overwritten()


def test_pages_over_a_record_that_cannot_be_read_are_kept_and_nothing_else_suffers() -> None:
    disk, volume, ino = stored_file()
    other = namespace.create(volume, ROOT_INODE, b"other", 0o644, 0, 0)
    files.write(volume, other, 0, b"something else")
    offset, undamaged = damage(disk, volume, ino)
    files.write(volume, ino, AT, PAGE)
    files.write(volume, ino, 2 * RECORD_BYTES, PAGE)
    volume.commit()
    for here in (volume, after_a_crash(disk)):
        with pytest.raises(CorruptImage, match=f"inode {ino}, record 1 "):
            files.read(here, ino, AT, 10)
        assert files.read(here, ino, 0, 100) == OLD[:100]
        assert files.read(here, ino, 2 * RECORD_BYTES, PAGE_BYTES) == PAGE
        assert files.read(here, other, 0, 100) == b"something else"
    assert not volume.read_only
    volume.close()
    found = [finding.code for finding in runner.check_quietly(disk).findings if finding.severity]
    assert found == ["E0801"], "its data do not verify"
    disk.write(offset, undamaged)
    disk.flush()
    healed = open_volume(disk, limits=LIMITS)
    assert whole(healed, ino) == overwritten(overwritten(), 2 * RECORD_BYTES)
    healed.close()
    assert not [finding for finding in runner.check_quietly(disk).findings if finding.severity]


def test_without_room_even_for_its_pages_who_syncs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, volume, ino = stored_file()
    damage(disk, volume, ino)
    files.write(volume, ino, AT, PAGE)
    with monkeypatch.context() as full, pytest.raises(CorruptImage, match=f"inode {ino}, record 1 .* delete the file"):
        full.setattr(Promises, "takes_nodes", lambda promises, nodes, given_up_blocks: False)
        volume.commit()
    assert len(volume.records.loose) == 1
    assert_memory_adds_up(volume)
    volume.commit()
    assert not len(volume.records.loose)


def test_more_pages_over_unreadable_records_than_the_journal_holds_are_committed_all_the_same() -> None:
    """No commit came about any more, of nothing on the image: the pages found no room in the journal, ever."""
    count = 70
    disk, volume, ino = stored_file(record_bytes=8 * KIB, old=random.Random(1).randbytes(count * 8 * KIB))
    before = [damage(disk, volume, ino, number) for number in range(count)]
    for number in range(count):
        files.write(volume, ino, number * 8 * KIB, PAGE)
    assert len(volume.records.loose) == count and count * PAGE_BYTES > volume.store.journal.ring_bytes
    volume.commit()
    assert not len(volume.records.loose) and not volume.read_only
    for offset, undamaged in before:
        disk.write(offset, undamaged)
    disk.flush()
    healed = after_a_crash(disk)
    assert all(files.read(healed, ino, number * 8 * KIB, PAGE_BYTES) == PAGE for number in range(count))
    healed.close()
    assert not [finding for finding in runner.check_quietly(disk.copy()).findings if finding.severity]


@pytest.mark.parametrize("blocks", [1, 60])
def test_pages_over_an_unreadable_record_take_no_room_that_others_were_promised(blocks: int) -> None:
    """No commit came about any more: patches took the blocks that had been promised to another file's data."""
    disk, volume, ino = stored_file(record_bytes=MIB, old=random.Random(1).randbytes(2 * MIB))
    damage(disk, volume, ino, 0)
    for number in range(254, -1, -1):
        files.write(volume, ino, number * PAGE_BYTES, PAGE)
    assert len(volume.records.loose) == 1
    other = namespace.create(volume, ROOT_INODE, b"other", 0o644, 0, 0)
    written = 0
    while volume._has_room(blocks, deleting=False):  # and not until OutOfSpace: there is no commit on the way to it
        written += files.write(volume, other, written, noise(written))
    assert len(volume.records.loose) == 1 and written > MIB
    volume.commit()
    assert not volume.read_only and (ino, RecordNo(0)) in volume.records.unreadable
    again = after_a_crash(disk)
    assert whole(again, other) == b"".join(noise(at) for at in range(0, written, PAGE_BYTES))


def test_what_was_cached_of_a_record_is_not_shown_once_its_pages_are_patches() -> None:
    _, volume, ino = stored_file(Limits(loose_from=0))
    volume.records.clean.drop(ino, RecordNo(1))
    files.write(volume, ino, AT, PAGE)
    assert whole(volume, ino) == overwritten()  # and the record without its page is in the cache now
    (base,) = loose.read_bases(volume, loose.items_of(volume, [(ino, RecordNo(1))]))
    loose.merge(volume, [replace(base, found=CorruptImage("a read that failed"))])
    assert (ino, RecordNo(1)) in volume.records.unreadable
    assert whole(volume, ino) == overwritten()


def test_a_second_page_behind_what_the_record_holds_is_written_as_ever() -> None:
    _, volume, ino = stored_file()
    files.truncate(volume, ino, AT + 10)
    files.truncate(volume, ino, 3 * RECORD_BYTES)
    volume.checkpoint()
    files.write(volume, ino, RECORD_BYTES, PAGE)
    assert len(volume.records.loose) == 1
    files.write(volume, ino, AT + 2 * PAGE_BYTES, PAGE)
    assert not len(volume.records.loose)
    kept = (OLD[: AT + 10] + bytes(2 * RECORD_BYTES))[: 3 * RECORD_BYTES]
    assert whole(volume, ino) == overwritten(overwritten(kept, RECORD_BYTES), AT + 2 * PAGE_BYTES)
