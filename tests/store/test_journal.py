"""The journal: what is torn is dropped, what is damaged is told, what is old is never replayed."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.check.runner import check_quietly
from razortools.engine import files, flush, namespace
from razortools.engine.store import store as store_module
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.recovery import open_store
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage
from razortools.format.data import DataRecord
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import HIGHEST_KEY, LOWEST_KEY, record_key
from razortools.units import MIB
from tests.workload import Clock, Workload, everything, formatted, opened


def copy_of(device: MemoryDevice) -> MemoryDevice:
    """Return an independent copy, as a crash of the process alone leaves it."""
    copy = MemoryDevice(device.size_bytes)
    for offset in range(0, device.size_bytes, MIB):
        copy.write(offset, device.read(offset, MIB))
    return copy


def with_commits(count: int, data_bytes: int = 10) -> tuple[MemoryDevice, Volume, list[int]]:
    """Return (device, volume, journal position behind each commit) with *count* commits since the last checkpoint."""
    device = formatted(MemoryDevice(4 * MIB))
    assert isinstance(device, MemoryDevice)
    volume = opened(device)
    heads = [volume.store.journal.head]
    for number in range(count):
        ino = namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o600, 0, 0)
        files.write(volume, ino, 0, bytes([number + 1]) * data_bytes)
        volume.commit()
        heads.append(volume.store.journal.head)
    return device, volume, heads


def flip(device: MemoryDevice, offset: int) -> None:
    """Change one byte."""
    device.write(offset, bytes([device.read(offset, 1)[0] ^ 0x40]))


def names(device: MemoryDevice) -> set[bytes]:
    """Return the paths that a recovery of *device* finds."""
    return set(everything(opened(device))) - {b"/"}


def test_every_commit_is_replayed_and_verifies() -> None:
    device, volume, _ = with_commits(5)
    scan = volume.verify_journal()
    assert (len(scan.transactions), scan.stopped, scan.damage) == (5, "", "")
    assert names(copy_of(device)) == {b"/file %d" % number for number in range(5)}


def test_abort_drops_what_was_done_since_the_last_commit() -> None:
    _, volume, _ = with_commits(2)
    before = everything(volume)
    ino = namespace.create(volume, ROOT_INODE, b"regretted", 0o600, 0, 0)
    files.write(volume, ino, 0, b"x" * 50_000)
    files.write(volume, namespace.lookup(volume, ROOT_INODE, b"file 0"), 3, b"overwritten")
    volume.abort()
    assert everything(volume) == before


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operation ends a part of its transaction."""
    monkeypatch.setattr(store_module, "PART_KEYS", 1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.usefixtures("small_parts")
def test_transactions_of_many_parts_are_replayed_as_a_whole(seed: int) -> None:
    device = formatted(MemoryDevice(16 * MIB))
    assert isinstance(device, MemoryDevice)
    volume = opened(device)
    workload = Workload(volume, seed, file_bytes_max=50_000)
    for _ in range(3):
        for _ in range(60):
            workload.step()
        volume.commit()
        recovered = opened(copy_of(device))
        assert everything(recovered) == everything(volume)
    assert recovered.recovered.transactions == 3
    entries = [entry.head.key for entry in volume.verify_journal().transactions[0].entries]
    assert len(set(entries)) < len(entries), "no key stands in two parts"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.usefixtures("small_parts")
def test_abort_drops_parts_too(seed: int) -> None:
    device = formatted(MemoryDevice(16 * MIB))
    volume = opened(device)
    workload = Workload(volume, seed, file_bytes_max=50_000)
    for _ in range(40):
        workload.step()
    volume.commit()
    before = dict(volume.store.items(LOWEST_KEY, HIGHEST_KEY))
    for _ in range(60):
        workload.step()
    assert volume.store.transaction.parts
    volume.abort()
    assert dict(volume.store.items(LOWEST_KEY, HIGHEST_KEY)) == before
    volume.close()
    assert check_quietly(device).exit_code == 0


@pytest.mark.usefixtures("small_parts")
def test_data_that_a_transaction_replaced_itself_need_not_have_arrived() -> None:
    device, volume, _ = with_commits(1)
    ino = namespace.lookup(volume, ROOT_INODE, b"file 0")
    files.write(volume, ino, 0, random.Random(1).randbytes(50_000))
    flush.flush_all(volume)
    replaced = volume.store.get(record_key(ino, 0))
    assert replaced is not None
    data = random.Random(2).randbytes(50_000)
    files.write(volume, ino, 0, data)
    volume.commit()
    flip(device, DataRecord.decode(replaced).address * volume.block_bytes)
    recovered = opened(copy_of(device))
    assert (recovered.recovered.transactions, recovered.recovered.discarded) == (2, 0)
    assert files.read(recovered, ino, 0, 50_000) == data


def test_compacting_leaves_an_empty_journal_that_goes_on() -> None:
    device, volume, _ = with_commits(5)
    volume.compact_journal()
    assert volume.statistics().journal_used_bytes == 0
    assert volume.verify_journal().transactions == ()
    namespace.create(volume, ROOT_INODE, b"later", 0o600, 0, 0)
    volume.commit()
    assert b"/later" in names(copy_of(device))


@settings(max_examples=40)
@given(data=st.data())
def test_a_flipped_byte_in_the_last_commit_is_taken_for_a_tear(data: st.DataObject) -> None:
    device, volume, heads = with_commits(3)
    start = volume.store.journal.start_bytes
    written = volume.verify_journal().transactions[2]
    *_, last = written.entries
    end = last.position + 62 + last.head.undo_bytes + last.head.redo_bytes
    at = data.draw(st.integers(heads[2], end - 1))
    flip(device, start + at)
    assert names(device) == {b"/file 0", b"/file 1"}


@settings(max_examples=40)
@given(data=st.data())
def test_a_flipped_byte_in_a_commit_that_had_been_flushed_is_damage(data: st.DataObject) -> None:
    device, volume, heads = with_commits(3)
    start = volume.store.journal.start_bytes
    written = volume.verify_journal().transactions[1]
    *_, last = written.entries
    end = last.position + 62 + last.head.undo_bytes + last.head.redo_bytes
    flip(device, start + data.draw(st.integers(heads[1], end - 1)))
    assert volume.verify_journal().damage
    with pytest.raises(CorruptImage, match="had been flushed"):
        opened(device)
    looked = opened(device, read_only=True, recover=False)
    assert set(everything(looked)) == {b"/"}


def test_a_commit_whose_data_never_arrived_is_not_believed() -> None:
    device, volume, _ = with_commits(2, data_bytes=0)
    before = copy_of(device)
    ino = namespace.lookup(volume, ROOT_INODE, b"file 0")
    files.write(volume, ino, 0, random.Random(1).randbytes(50_000))
    volume.commit()
    after = copy_of(device)
    start = volume.store.journal.start_bytes
    for offset in range(0, device.size_bytes, volume.block_bytes):
        if not start <= offset < start + volume.store.journal.ring_bytes:
            after.write(offset, before.read(offset, volume.block_bytes))
    recovered = opened(after)
    assert recovered.recovered.discarded == 1
    assert recovered.inodes.get(ino).size == 0


def test_the_ring_goes_round_and_round() -> None:
    device = formatted(MemoryDevice(4 * MIB))
    assert isinstance(device, MemoryDevice)
    volume = opened(device)
    ring = volume.store.journal.ring_bytes
    rounds = 0
    while volume.store.journal.head < 5 * ring:
        namespace.create(volume, ROOT_INODE, b"name %d" % rounds, 0o600, 0, 0)
        if rounds >= 20:
            namespace.unlink(volume, ROOT_INODE, b"name %d" % (rounds - 20))
        volume.commit()
        rounds += 1
        if rounds % 37 == 0:
            assert names(copy_of(device)) == set(everything(volume)) - {b"/"}
    assert rounds > 37


def test_the_journal_of_an_earlier_filesystem_is_never_replayed() -> None:
    device, _, _ = with_commits(4)
    stale = copy_of(device)
    formatted(device, uuid=bytes(range(1, 17)))
    volume = opened(device)
    start = volume.store.journal.start_bytes
    # Even where mkfs could not wipe the old entries: they start from another seed.
    clean = copy_of(device)
    clean.write(start, stale.read(start, volume.store.journal.ring_bytes))
    assert names(clean) == set()


def test_a_transaction_larger_than_the_journal_becomes_a_checkpoint() -> None:
    device = formatted(MemoryDevice(4 * MIB))
    assert isinstance(device, MemoryDevice)
    volume = opened(device, Clock())
    ring = volume.store.journal.ring_bytes
    for number in range(5):
        namespace.mkdir(volume, ROOT_INODE, b"directory %d" % number, 0o755, 0, 0)
    with volume.store.operation(3, 1):  # type: ignore[arg-type]
        for number in range(ring // 500):
            volume.store.put(b"\x01" + (1000 + number).to_bytes(8, "big") + b"\x40" + bytes(8), bytes(600))
    generation = volume.store.superblock.generation
    volume.commit()
    superblock = volume.store.superblock
    assert superblock.generation == generation + 1
    assert (superblock.inode_count, superblock.directory_count) == (6, 6)  # it once told those of the checkpoint before
    recovered, _ = open_store(copy_of(device))
    assert sum(1 for _ in recovered.items(LOWEST_KEY, HIGHEST_KEY)) > ring // 500
