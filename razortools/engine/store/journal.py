"""The journal: a ring of transactions between the last checkpoint and now.

A transaction is written with one write (two where the ring ends) and one flush. Replay believes a transaction if all its
entries verify, their sequence numbers follow on without a gap and its commit entry agrees with them. What does not verify is a
tear if it was never acknowledged, and damage if a later transaction tells that it had been flushed. Invariant: [tail, head)
holds what the last checkpoint does not contain.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from struct import Struct

import crc32c

from razortools.engine.store.device import Device
from razortools.engine.store.journal_reader import JournalReader, JournalScan, journal_seed
from razortools.engine.store.transaction import Transaction
from razortools.format.geometry import Geometry
from razortools.format.journal import (
    COMMIT_BYTES,
    ENTRY_HEAD_BYTES,
    JOURNAL_MAGIC,
    EntryFlag,
    JournalCommit,
    JournalEntry,
    Operation,
)
from razortools.format.keys import LOWEST_KEY
from razortools.units import KIB, round_up

_HEAD = JournalEntry.STRUCT
_SEAL = Struct("<4sI")  # magic and checksum, which stand before what the checksum covers
SMALL_BYTES = 64 * KIB  # commits of programs that sync; in a larger one allocating is a small part
FILL_BYTES = 512 * KIB  # zeros written ahead of them: less than a millisecond, once in the life of each part of the ring
_CHECKED_FROM = _SEAL.size
# Plain numbers: combining members of a flag for each entry took longer than encoding it.
_UNDO, _REDO = int(EntryFlag.HAS_UNDO), int(EntryFlag.HAS_REDO)


class Journal:
    """Writer of the ring. One owner: the store."""

    def __init__(self, device: Device, geometry: Geometry, seed: int, tail: int, sequence: int) -> None:
        """Open an empty journal whose next entry goes to position *tail* with number *sequence*; *seed*: see journal_seed."""
        self.device = device
        self.seed = seed
        self._geometry = geometry
        self._reader = JournalReader(device, geometry, seed)
        self.block_bytes = geometry.block_bytes
        self.start_bytes = geometry.journal_start * geometry.block_bytes
        self.ring_bytes = geometry.journal_bytes
        self.tail = tail
        self.head = tail
        self.tail_sequence = sequence
        self.next_sequence = sequence
        self.flushed_sequence = sequence - 1
        self._filled = 0  # up to this position the host has allocated the ring

    @property
    def used_bytes(self) -> int:
        """Bytes between tail and head."""
        return self.head - self.tail

    def encode_part(self, transaction: Transaction) -> None:
        """Encode what *transaction* noted since its last part. Nothing else may be encoded before the rest of it."""
        entries: list[bytes] = []
        first = sequence = self.next_sequence + transaction.entry_count
        number, seed, pack, seal, checksum = transaction.number, self.seed, _HEAD.pack, _SEAL.pack, crc32c.crc32c
        noted = zip(transaction.redo.items(), transaction.before, strict=True)
        done = 0
        for operation, inode, until in transaction.origins:
            for (key, redo), undo in islice(noted, until - done):
                if undo is None:
                    if redo is None:
                        continue  # made and removed
                    body = pack(number, sequence, inode, operation, _REDO, 0, 0, len(redo), key) + redo
                elif undo == redo:
                    continue  # nothing has changed in the end
                elif redo is None:
                    body = pack(number, sequence, inode, operation, _UNDO, 0, len(undo), 0, key) + undo
                else:
                    body = pack(number, sequence, inode, operation, _UNDO | _REDO, 0, len(undo), len(redo), key) + undo + redo
                entries += seal(JOURNAL_MAGIC, checksum(body, seed)), body
                sequence += 1
            done = until
        transaction.end_part(b"".join(entries), sequence - first)

    def encode(self, transaction: Transaction, now_ns: int) -> tuple[bytes, ...]:
        """Return the bytes of *transaction*, in parts, padded to whole blocks, and count its sequence numbers as used.

        Not put together: a large transaction would be copied into memory that the system has to clear first.
        """
        self.encode_part(transaction)
        first, sequence = self.next_sequence, self.next_sequence + transaction.entry_count
        total = round_up(transaction.parts_bytes + COMMIT_BYTES, self.block_bytes)
        commit = JournalCommit(self.flushed_sequence, first, now_ns, total).encode()
        body = _HEAD.pack(transaction.number, sequence, 0, Operation.COMMIT, _REDO, 0, 0, len(commit), LOWEST_KEY) + commit
        seal = _SEAL.pack(JOURNAL_MAGIC, crc32c.crc32c(body, self.seed))
        self.next_sequence = sequence + 1
        return *transaction.parts, b"".join((seal, body, bytes(total - transaction.parts_bytes - COMMIT_BYTES)))

    def fits(self, length: int) -> bool:
        """Return whether *length* more bytes fit into the ring."""
        return self.used_bytes + length <= self.ring_bytes

    def place(self, length: int) -> int:
        """Take *length* bytes at the head; return their position."""
        assert self.fits(length)
        position = self.head
        self.head += length
        return position

    def write(self, position: int, parts: Sequence[bytes]) -> None:
        """Write *parts* as one at *position* of the ring. Durable after the device's next flush. For any thread."""
        length = sum(map(len, parts))
        if length <= SMALL_BYTES and position + length > self._filled:
            self._fill(position)
        offset = position % self.ring_bytes
        first = min(length, self.ring_bytes - offset)
        if first == length:
            self.device.write_parts(self.start_bytes + offset, parts)
            return
        data = memoryview(b"".join(parts))
        self.device.write(self.start_bytes + offset, data[:first])
        self.device.write(self.start_bytes, data[first:])

    def _fill(self, position: int) -> None:
        """Have the host allocate what the next commits will take: each would else wait for the host to do so for it alone."""
        offset = position % self.ring_bytes
        length = min(FILL_BYTES, self.ring_bytes - offset, self.ring_bytes - (position - self.tail))
        self.device.fill_holes(self.start_bytes + offset, length)
        self._filled = position + length

    def note_flushed(self, sequence: int) -> None:
        """Everything up to the entry *sequence* is on stable storage."""
        self.flushed_sequence = max(self.flushed_sequence, sequence)

    def verify(self) -> JournalScan:
        """Read back what lies between tail and head. *stopped* is empty if all of it verifies; *damage* tells what does not."""
        scan = self._reader.scan(self.tail, self.tail_sequence)
        if scan.head >= self.head:
            return replace(scan, stopped="", damage="")
        if self.flushed_sequence < scan.next_sequence:
            return scan
        missing = f"entry {scan.next_sequence} had been flushed, but does not verify: {scan.stopped}"
        return replace(scan, damage=scan.damage or missing)

    def compact(self) -> None:
        """Give the host back what an empty journal takes. Raises AssertionError unless a checkpoint has just emptied it."""
        assert self.tail == self.head, "only an empty journal can be compacted"
        self.device.discard(self.start_bytes, self.ring_bytes)

    def begin_anew(self) -> None:
        """Go on from the start of the ring. Only an empty journal can; checkpoints must say so before what it holds goes.

        Who reads a ring that has been written to expects something in it, see JournalReader.scanning().
        """
        assert self.tail == self.head, "only an empty journal can begin anew"
        self.tail = self.head = self._filled = 0

    def adopt(self, uuid: bytes) -> None:
        """Write for the filesystem *uuid* from now on. Only a journal that begins anew can: what it holds does not verify."""
        assert not self.head, "only a journal that begins anew can be adopted"
        self.seed = journal_seed(uuid)
        self._reader = JournalReader(self.device, self._geometry, self.seed)

    def release_until(self, position: int, sequence: int) -> None:
        """A stable checkpoint contains everything before *position*."""
        self.tail = position
        self.tail_sequence = sequence


def undo_values(part: bytes) -> list[tuple[bytes, bytes | None]]:
    """Return (key, value before) of each entry of *part*, which encode_part() made and memory kept."""
    found: list[tuple[bytes, bytes | None]] = []
    position = 0
    while position < len(part):
        head = JournalEntry(*_HEAD.unpack_from(part, position + _CHECKED_FROM))
        values = position + ENTRY_HEAD_BYTES
        found.append((head.key, part[values : values + head.undo_bytes] if head.flags & _UNDO else None))
        position = values + head.undo_bytes + head.redo_bytes
    return found
