"""Reading the journal: walks the ring as it lies on the device, as far as transactions follow on, and says why it ends there.

A transaction is found complete or not at all. Its entries are not kept: whoever wants them has them read again, since a ring may
be larger than memory. Invariants: nothing is changed; what does not verify is looked at twice before it counts as a tear.
"""

from collections.abc import Callable, Collection, Generator, Iterator
from copy import copy
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

import crc32c

from razortools.engine.store.device import Device
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.geometry import Geometry
from razortools.format.journal import (
    ENTRY_HEAD_BYTES,
    JOURNAL_MAGIC,
    EntryFlag,
    JournalCommit,
    JournalEntry,
    Operation,
)
from razortools.format.keys import KEY_BYTES, LOWEST_KEY
from razortools.format.superblock import State, Superblock
from razortools.steps import finished, mapped
from razortools.units import MIB, round_up

_HEAD = JournalEntry.STRUCT
_SEAL = Struct("<4sI")  # magic and checksum, which stand before what the checksum covers
AHEAD_BYTES_MIN = 512  # a sector: most transactions of a mount that syncs are not much larger
AHEAD_BYTES_MAX = 1 * MIB  # of the ring that are read at once: two reads for each entry took longer than everything else
STEP_ENTRIES = 4096  # are walked between two steps
SCAN_ROUNDS = 3  # what does not verify is looked at twice, and what lies behind it is searched
_CHECKED_FROM = _SEAL.size
# Plain numbers: combining members of a flag for each entry took longer than encoding it.
_UNDO, _REDO = int(EntryFlag.HAS_UNDO), int(EntryFlag.HAS_REDO)


class LoggedEntry(NamedTuple):
    """One entry as found in the journal. *undo*, *redo* None: the key was, is absent."""

    head: JournalEntry
    undo: bytes | None
    redo: bytes | None
    position: int


class LoggedEntries(Collection[LoggedEntry]):
    """The entries of a complete transaction, which are read from the ring each time: a ring may be larger than memory.

    Walking them raises CorruptImage if one does not verify any more, DeviceFailed.
    """

    __slots__ = ("_count", "_position", "_reader", "_sequence")

    def __init__(self, reader: "JournalReader", position: int, sequence: int, count: int) -> None:
        """*count* entries from *position* on, the first of which is *sequence*; *reader* has found them."""
        self._reader = reader
        self._position = position
        self._sequence = sequence
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[LoggedEntry]:
        return self._reader.entries(self._position, self._sequence, self._count)

    def __contains__(self, entry: object) -> bool:
        return any(one == entry for one in self)


@dataclass(frozen=True, slots=True)
class LoggedTransaction:
    """A complete transaction as found in the journal."""

    number: int
    position: int
    entries: Collection[LoggedEntry]  # without the commit entry
    commit: JournalCommit
    last_sequence: int  # of the commit entry


@dataclass(frozen=True, slots=True)
class JournalScan:
    """What a walk through the journal found."""

    transactions: tuple[LoggedTransaction, ...]
    head: int  # where the next transaction goes
    next_sequence: int
    flushed_sequence: int  # known to have been on stable storage
    stopped: str  # why the walk ended
    damage: str  # not empty: something that had been flushed does not verify


class _NoEntry(CorruptImage):
    """Where an entry is expected, at *position* of the ring, there is none that verifies and follows on."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"journal position {position}: {reason}")
        self.position = position


def journal_seed(uuid: bytes) -> int:
    """Return the value that the checksums of the journal of filesystem *uuid* start from.

    An earlier filesystem on the same device may have left entries with the sequence numbers that replay expects.
    """
    return int(crc32c.crc32c(uuid))


class ReadAhead:
    """Reads the ring ahead of one walk, which goes on and on: more from time to time. A second look needs another one."""

    def __init__(self, read: Callable[[int, int], bytes], ring_bytes: int) -> None:
        """*read* returns so many bytes of the ring, which has *ring_bytes*, from a position."""
        self._read = read
        self._ring_bytes = ring_bytes
        self._data = b""
        self._start = 0
        self._next_bytes = AHEAD_BYTES_MIN

    def read(self, position: int, length: int) -> bytes:
        """Return *length* bytes of the ring from *position*. Raises DeviceFailed."""
        at = position - self._start
        if at < 0 or at + length > len(self._data):
            try:
                self._data = self._read(position, min(max(length, self._next_bytes), self._ring_bytes))
            except DeviceFailed:  # perhaps of what nobody asked for
                self._data = self._read(position, length)
            self._start, at = position, 0
            self._next_bytes = min(2 * self._next_bytes, AHEAD_BYTES_MAX)
        return self._data[at : at + length]


class JournalReader:
    """Walks the ring as it lies on the device. It changes nothing."""

    def __init__(self, device: Device, geometry: Geometry, seed: int) -> None:
        """Read the journal of *geometry* on *device*; *seed*: see journal_seed."""
        self.device = device
        self.seed = seed
        self.block_bytes = geometry.block_bytes
        self.start_bytes = geometry.journal_start * geometry.block_bytes
        self.ring_bytes = geometry.journal_bytes
        self._value_bytes_max = geometry.node_bytes  # no value is larger than a node
        self._ahead = ReadAhead(self.read, self.ring_bytes)  # of the walk that is under way

    def scan(self, tail: int, sequence: int, *, was_in_use: bool = False) -> JournalScan:
        """Walk from *tail*, where the entry *sequence* is expected, to the end; tell a tear from damage.

        *was_in_use*: the image was not unmounted, so the journal matters. A ring that has been written to holds entries of
        whatever age. If there is none at all, what it held was taken from it, and nobody knows what was committed.
        """
        return finished(self.scanning(tail, sequence, was_in_use=was_in_use))

    def scanning(self, tail: int, sequence: int, *, was_in_use: bool = False) -> Generator[int, None, JournalScan]:
        """Do what scan() does; yield how far it is, in bytes of SCAN_ROUNDS times the ring."""
        found: list[LoggedTransaction] = []
        position, flushed = tail, sequence - 1
        stopped = "the ring is full"
        while position - tail < self.ring_bytes:
            try:
                walk = self._transaction_or_tear(position, sequence, self.ring_bytes - (position - tail))
                transaction = yield from mapped(walk, lambda reached: reached - tail)
            except CorruptImage as end:
                stopped = str(end)
                break
            found.append(transaction)
            flushed = max(flushed, transaction.commit.flushed_sequence)
            position += transaction.commit.total_bytes
            sequence = transaction.last_sequence + 1
            yield position - tail
        search = self._damage(position, tail, sequence)
        damage, is_blank = yield from mapped(search, lambda reached: 2 * self.ring_bytes + reached - tail)
        if is_blank and was_in_use and tail > self.block_bytes:  # the first block mkfs takes, and does not write
            damage = f"nothing is left in the journal, where {tail} bytes have been written"
        return JournalScan(tuple(found), position, sequence, flushed, stopped, damage)

    def scanning_from(self, superblock: Superblock) -> Generator[int, None, JournalScan]:
        """Do what scanning() does from where *superblock* says."""
        was_in_use = superblock.state != State.CLEAN
        return self.scanning(superblock.journal_tail, superblock.journal_sequence, was_in_use=was_in_use)

    def _transaction_or_tear(self, position: int, sequence: int, room: int) -> Generator[int, None, LoggedTransaction]:
        """Return the transaction at *position*. Raises CorruptImage if it does not verify, looked at twice.

        A bit that flipped on its way here must not pass for a tear: what had been acknowledged would be dropped for good.
        """
        try:
            return (yield from self._transaction(position, sequence, room))
        except CorruptImage:
            return (yield from mapped(self._transaction(position, sequence, room), lambda reached: self.ring_bytes + reached))

    def _transaction(self, position: int, sequence: int, room: int) -> Generator[int, None, LoggedTransaction]:
        """Return the transaction at *position*. Raises CorruptImage if there is no complete one."""
        self._ahead = ReadAhead(self.read, self.ring_bytes)
        first, start = sequence, position
        number = -1
        while True:
            entry = self._entry(position, room - (position - start))
            head = entry.head
            if head.sequence != sequence or (number not in (-1, head.transaction)):
                raise _NoEntry(position, f"entry {head.sequence} found, {sequence} expected")
            number = head.transaction
            position += ENTRY_HEAD_BYTES + head.undo_bytes + head.redo_bytes
            if head.operation == Operation.COMMIT:
                if len(entry.redo or b"") != JournalCommit.FIXED_BYTES:
                    raise _NoEntry(position, "the commit entry is of another size")
                commit = JournalCommit.decode(entry.redo or b"")
                total = round_up(position - start, self.block_bytes)
                if commit.first_sequence != first or commit.total_bytes != total or total > room:
                    raise _NoEntry(position, "the commit entry does not fit its transaction")
                entries = LoggedEntries(self, start, first, sequence - first)
                return LoggedTransaction(number, start, entries, commit, sequence)
            sequence += 1
            if not sequence % STEP_ENTRIES:
                yield position

    def entries(self, position: int, sequence: int, count: int) -> Iterator[LoggedEntry]:
        """Yield *count* entries from *position* on, the first of which is *sequence*. A walk has found them; others may go on.

        Raises CorruptImage if one does not verify, looked at twice, although it has; DeviceFailed.
        """
        walk = self._anew()
        for expected in range(sequence, sequence + count):
            try:
                entry = walk._following(position, expected)
            except _NoEntry:
                walk = self._anew()
                try:
                    entry = walk._following(position, expected)
                except _NoEntry as changed:
                    raise CorruptImage(
                        f"{self.device.name}: what verified in the journal a moment ago does not any more: {changed}; "
                        f"check the host's disk, then run razorfsck {self.device.name}"
                    ) from changed
            yield entry
            position += ENTRY_HEAD_BYTES + entry.head.undo_bytes + entry.head.redo_bytes

    def _anew(self) -> "JournalReader":
        """Return a reader that has read nothing ahead yet."""
        reader = copy(self)
        reader._ahead = ReadAhead(self.read, self.ring_bytes)
        return reader

    def _following(self, position: int, sequence: int) -> LoggedEntry:
        """Return the entry *sequence*, which is at *position*. Raises _NoEntry."""
        entry = self._entry(position, self.ring_bytes)
        if entry.head.sequence != sequence:
            raise _NoEntry(position, f"entry {entry.head.sequence} found, {sequence} expected")
        return entry

    def _entry(self, position: int, room: int) -> LoggedEntry:
        if room < ENTRY_HEAD_BYTES:
            raise _NoEntry(position, "the ring ends within an entry")
        raw = self._ahead.read(position, ENTRY_HEAD_BYTES)
        if raw[:4] != JOURNAL_MAGIC:
            raise _NoEntry(position, "no entry")
        head = JournalEntry(*_HEAD.unpack_from(raw, _CHECKED_FROM))
        undo_bytes, redo_bytes, flags = head.undo_bytes, head.redo_bytes, head.flags
        size = undo_bytes + redo_bytes
        if size > room - ENTRY_HEAD_BYTES or undo_bytes > self._value_bytes_max or redo_bytes > self._value_bytes_max:
            raise _NoEntry(position, f"an entry of {size} bytes does not fit")
        values = self._ahead.read(position + ENTRY_HEAD_BYTES, size)
        if crc32c.crc32c(values, crc32c.crc32c(raw[_CHECKED_FROM:], self.seed)) != int.from_bytes(raw[4:8], "little"):
            raise _NoEntry(position, "wrong checksum")
        undo = values[:undo_bytes] if flags & _UNDO else None
        redo = values[undo_bytes:] if flags & _REDO else None
        return LoggedEntry(head, undo, redo, position)

    def read(self, position: int, length: int) -> bytes:
        """Return *length* bytes of the ring from *position*."""
        offset = position % self.ring_bytes
        first = min(length, self.ring_bytes - offset)
        data = self.device.read(self.start_bytes + offset, first)
        return data if first == length else data + self.device.read(self.start_bytes, length - first)

    def _damage(self, stop: int, tail: int, sequence: int) -> Generator[int, None, tuple[str, bool]]:
        """Look behind *stop* for a transaction that proves that the entry *sequence* had been flushed.

        Return (the damage, whether no entry at all is left).
        """
        is_blank = stop == tail
        behind = stop  # what was read already: from an entry in the middle of it the walk would end where it ended before
        for position in self._entry_starts(stop, tail):
            yield max(position, behind)
            if position < behind:
                continue
            self._ahead = ReadAhead(self.read, self.ring_bytes)
            try:
                later = self._entry(position, self.ring_bytes)
                is_blank = False
                if later.head.sequence <= sequence:
                    continue
                proof = yield from self._transaction(position, later.head.sequence, self.ring_bytes)
            except _NoEntry as end:
                behind = end.position
                continue
            if proof.commit.flushed_sequence >= sequence:
                return (
                    f"journal entry {sequence} at position {stop} does not verify, but transaction {proof.number} "
                    f"was written after it had been flushed"
                ), is_blank
        return "", is_blank

    def _entry_starts(self, stop: int, tail: int) -> Iterator[int]:
        """Yield the block boundaries from *stop* to the end of the ring at which an entry may start."""
        chunk_bytes = 256 * self.block_bytes
        position = stop
        end = tail + self.ring_bytes
        while position < end:
            offset = position % self.ring_bytes
            length = min(chunk_bytes, end - position, self.ring_bytes - offset)
            starts = self.device.read_strided(self.start_bytes + offset, length, self.block_bytes, len(JOURNAL_MAGIC))
            for number, start in enumerate(starts):
                if start == JOURNAL_MAGIC:
                    yield position + number * self.block_bytes
            position += length


assert len(LOWEST_KEY) == KEY_BYTES
