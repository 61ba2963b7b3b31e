"""Telling a tear from damage takes time with the size of the ring, however much of it is damaged. Bytes are counted, not time."""

from collections.abc import Callable

import crc32c
import pytest

from razortools.engine.store.journal_reader import JournalReader
from razortools.engine.store.pages import MemoryDevice
from razortools.format.geometry import plan_geometry
from razortools.format.journal import ENTRY_HEAD_BYTES, JOURNAL_MAGIC, EntryFlag, JournalCommit, JournalEntry, Operation
from razortools.format.keys import LOWEST_KEY
from razortools.units import MIB

BLOCK_BYTES = 4096
SEED = 4711
SEQUENCE = 100  # of the entry that is missing at the tail
ITEM = b"\x01" * len(LOWEST_KEY)


class CountingDevice(MemoryDevice):
    """Counts the bytes that are read."""

    read_bytes = 0

    def read(self, offset: int, length: int) -> bytes:
        self.read_bytes += length
        return super().read(offset, length)


def entry(sequence: int, redo: bytes, operation: Operation = Operation.WRITE, *, claimed: int | None = None) -> bytes:
    """Return an entry; *claimed*: what it says of its length, whatever it is."""
    key = LOWEST_KEY if operation is Operation.COMMIT else ITEM
    length = len(redo) if claimed is None else claimed
    body = JournalEntry(7, sequence, 0, operation, EntryFlag.HAS_REDO, 0, 0, length, key).encode()[8:] + redo
    return JOURNAL_MAGIC + crc32c.crc32c(body, SEED).to_bytes(4, "little") + body


def one_torn_chain(blocks: int) -> bytes:
    """A large transaction without its end, whose entries all happen to start at a block boundary."""
    return b"".join(entry(SEQUENCE + number, bytes(BLOCK_BYTES - ENTRY_HEAD_BYTES)) for number in range(1, blocks))


def one_whole_transaction(blocks: int) -> bytes:
    """The same with its commit entry, which proves nothing: it was never flushed either."""
    return _chain_to_commit(blocks, first=SEQUENCE + 1)


def one_chain_without_its_start(blocks: int) -> bytes:
    """All entries lead to a commit entry, and none is the first that it names."""
    return _chain_to_commit(blocks, first=SEQUENCE)


def _chain_to_commit(blocks: int, first: int) -> bytes:
    commit = JournalCommit(SEQUENCE - 1, first, 0, (blocks - 1) * BLOCK_BYTES).encode()
    last = entry(SEQUENCE + blocks - 1, commit, Operation.COMMIT)
    return one_torn_chain(blocks - 1) + last.ljust(BLOCK_BYTES, b"\0")


def heads_that_claim_the_ring(blocks: int) -> bytes:
    """Heads whose lengths were hit: each says that it takes all that there is."""
    one = entry(SEQUENCE + 1, b"", claimed=(blocks - 2) * BLOCK_BYTES)
    return one.ljust(BLOCK_BYTES, b"\0") * (blocks - 1)


def bytes_read(fill: Callable[[int], bytes], blocks: int) -> int:
    """Return how many bytes a look at a ring of so many blocks reads, in which nothing but its first block is missing."""
    geometry = plan_geometry(64 * MIB, BLOCK_BYTES, blocks * BLOCK_BYTES)
    device = CountingDevice(64 * MIB)
    start = geometry.journal_start * BLOCK_BYTES
    device.write(start + BLOCK_BYTES, fill(blocks))
    scan = JournalReader(device, geometry, SEED).scan(0, SEQUENCE)
    assert (scan.transactions, scan.head, scan.next_sequence, scan.damage) == ((), 0, SEQUENCE, "")
    return device.read_bytes


@pytest.mark.parametrize("fill", [one_torn_chain, one_whole_transaction, one_chain_without_its_start, heads_that_claim_the_ring])
def test_twice_the_damage_is_twice_the_work(fill: Callable[[int], bytes]) -> None:
    few, many = bytes_read(fill, 128), bytes_read(fill, 512)
    assert many < 4.5 * few
    assert many < 16 * 512 * BLOCK_BYTES


def test_what_proves_damage_is_found_behind_a_torn_chain() -> None:
    # A commit behind it, in a transaction of its own, that knows the missing entry as flushed.
    blocks = 128
    geometry = plan_geometry(64 * MIB, BLOCK_BYTES, blocks * BLOCK_BYTES)
    device = MemoryDevice(64 * MIB)
    start = geometry.journal_start * BLOCK_BYTES
    first = SEQUENCE + 50
    proof = entry(first, b"value") + entry(first + 1, JournalCommit(SEQUENCE, first, 0, BLOCK_BYTES).encode(), Operation.COMMIT)
    device.write(start + BLOCK_BYTES, one_torn_chain(32) + proof)
    assert "transaction 7 was written after it had been flushed" in JournalReader(device, geometry, SEED).scan(0, SEQUENCE).damage
