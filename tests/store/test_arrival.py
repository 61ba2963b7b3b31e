"""What a replay reads again is what it was before, and what a transaction made of its records is told whole, in rounds or not."""

import random

import pytest

from razortools.engine import files, flush, namespace
from razortools.engine.store import arrival
from razortools.engine.store.journal_reader import LoggedTransaction
from razortools.engine.store.pages import MemoryDevice, OverlayDevice
from razortools.engine.store.recovery import open_store
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage
from razortools.format.inode import ROOT_INODE
from razortools.format.items import owned_record
from razortools.format.keys import KIND_AT, Kind
from razortools.units import KIB, MIB
from tests.workload import everything, formatted, opened

USUAL_BYTES = arrival.ROUND_BYTES


@pytest.fixture
def written() -> tuple[MemoryDevice, Volume]:
    """A device and its volume, with one transaction in the journal that stores some records twice, and takes some away."""
    device = formatted(MemoryDevice(16 * MIB))
    assert isinstance(device, MemoryDevice)
    volume = opened(device)
    chance = random.Random(1)
    inodes = [namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o600, 0, 0) for number in range(60)]
    for _ in range(2):
        for ino in inodes:
            files.write(volume, ino, 0, chance.randbytes(9 * KIB))
        flush.flush_all(volume, patched=False)
        volume.store.journal.encode_part(volume.store.transaction)
    for ino in inodes[::7]:
        files.truncate(volume, ino, 0)
    volume.commit()
    return device, volume


def logged(volume: Volume) -> LoggedTransaction:
    """Return the transaction."""
    (found,) = volume.verify_journal().transactions
    return found


def in_one_go(transaction: LoggedTransaction) -> dict[bytes, arrival.Change]:
    """Return what became of each record, put together at once."""
    changes: dict[bytes, arrival.Change] = {}
    for entry in transaction.entries:
        if entry.head.key[KIND_AT] in (Kind.DATA_RECORD, Kind.XATTR):
            before = changes[entry.head.key][0] if entry.head.key in changes else entry.undo
            changes[entry.head.key] = before, entry.redo
    return changes


@pytest.mark.parametrize("room_bytes", [500, 2000, 10_000, USUAL_BYTES])
def test_rounds_leave_no_record_out(
    room_bytes: int, written: tuple[MemoryDevice, Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction = logged(written[1])
    monkeypatch.setattr(arrival, "ROUND_BYTES", room_bytes)
    told: dict[bytes, arrival.Change] = {}
    rounds = 0
    for share, until, changes in arrival.owning_changes(transaction):
        assert 0 <= share <= until <= 1
        assert all(told.get(key, change) == change for key, change in changes.items())
        told |= changes
        rounds += until > share
    assert told == in_one_go(transaction) and len(told) > 20
    assert (rounds == 1) == (room_bytes == USUAL_BYTES)


@pytest.mark.parametrize("room_bytes", [500, USUAL_BYTES])
def test_data_that_never_arrived_is_missed_in_every_round(
    room_bytes: int, written: tuple[MemoryDevice, Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    device, volume = written
    monkeypatch.setattr(arrival, "ROUND_BYTES", room_bytes)
    assert open_store(device.copy())[1].transactions == 1
    for key, (_, after) in in_one_go(logged(volume)).items():
        record = owned_record(key, after) if after is not None else None
        if record is not None:
            lost = device.copy()
            ((start, count),) = record.runs(volume.block_bytes)
            lost.write(start * volume.block_bytes, bytes(count * volume.block_bytes))
            assert open_store(lost)[1].discarded == 1


class Flipping(OverlayDevice):
    """Of what is read of the byte *at* one bit is wrong, *once* or from then on, when it was read right *before* times."""

    def __init__(self, base: MemoryDevice, at: int, before: int, *, once: bool) -> None:
        super().__init__(base)
        self.at, self.left, self.once = at, before, once
        self.was_wrong = False

    def read(self, offset: int, length: int) -> bytes:
        data = super().read(offset, length)
        if not offset <= self.at < offset + length:
            return data
        self.left -= 1
        if self.left >= 0 or (self.once and self.was_wrong):
            return data
        self.was_wrong = True
        place = self.at - offset
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("before", range(4))
def test_a_bit_that_flips_on_its_way_is_looked_at_twice_in_each_pass(before: int, written: tuple[MemoryDevice, Volume]) -> None:
    device, volume = written
    middle = volume.store.journal.start_bytes + logged(volume).position + logged(volume).commit.total_bytes // 2
    flipping = Flipping(device, middle, before, once=True)
    recovered = opened(flipping)
    assert flipping.was_wrong
    assert recovered.recovered.transactions == 1
    assert everything(recovered) == everything(volume)


@pytest.mark.parametrize("before", [1, 2, 3])
def test_a_journal_that_changes_while_it_is_replayed_is_refused(before: int, written: tuple[MemoryDevice, Volume]) -> None:
    device, volume = written
    middle = volume.store.journal.start_bytes + logged(volume).position + logged(volume).commit.total_bytes // 2
    untouched = device.copy()
    with pytest.raises(CorruptImage, match="razorfsck"):
        open_store(Flipping(device, middle, before, once=False))
    assert list(device.written_pages()) == list(untouched.written_pages())
