"""The journal's ring as bytes, and what its entries may hold. Reads with distrust; never raises for damage."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import crc32c

from razortools.check.image import Image
from razortools.check.keynames import item_words, key_fault
from razortools.engine.store.journal_reader import STEP_ENTRIES, ReadAhead, journal_seed
from razortools.engine.store.powercut import SECTOR_BYTES
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.items import decode_item
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
from razortools.steps import finished
from razortools.units import BlockNo, round_up

RING_END = "the journal ends here"
VALUE_BYTES_MAX = 65536  # no value is larger than a node
ENTRIES_KEPT = 10_000  # of a transaction: a ring holds 20 million small ones

_CHECKED_FROM = len(JOURNAL_MAGIC) + 4

Fault = tuple[str, object, object]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry whose checksum holds."""

    head: JournalEntry
    undo: bytes
    redo: bytes
    position: int

    @property
    def end(self) -> int:
        """Position behind it."""
        return self.position + ENTRY_HEAD_BYTES + len(self.undo) + len(self.redo)


class Ring:
    """The journal of an image, addressed by positions that rise for ever."""

    def __init__(self, image: Image) -> None:
        """Read the journal that the superblock of *image* names."""
        self._image = image
        self._seed = journal_seed(image.superblock.uuid)
        self._start = image.geometry.journal_start * image.block_bytes
        self.bytes = image.geometry.journal_bytes
        self.block_bytes = image.block_bytes

    def block_of(self, position: int) -> BlockNo:
        """Return the block of the image in which *position* lies."""
        return BlockNo((self._start + position % self.bytes) // self.block_bytes)

    def block_after(self, entry: Entry) -> int:
        """Return the position of the first block behind *entry*. Transactions start at the ring's own block boundaries."""
        return round_up(entry.end, self.block_bytes)

    def read(self, position: int, length: int) -> bytes:
        """Return *length* bytes, at most the whole ring. Raises DeviceFailed."""
        offset = position % self.bytes
        first = min(length, self.bytes - offset)
        data = self._image.device.read(self._start + offset, first)
        return data if first == length else data + self._image.device.read(self._start, length - first)

    def entry(self, position: int, ahead: ReadAhead | None = None) -> Entry | str:
        """Return the entry at *position*, or why there is none. *ahead*: of the walk that it belongs to."""
        read = self.read if ahead is None else ahead.read
        try:
            raw = read(position, ENTRY_HEAD_BYTES)
            if raw[: len(JOURNAL_MAGIC)] != JOURNAL_MAGIC:
                return RING_END
            head = JournalEntry(*JournalEntry.STRUCT.unpack_from(raw, _CHECKED_FROM))
            size = head.undo_bytes + head.redo_bytes
            if size > min(2 * VALUE_BYTES_MAX, self.bytes - ENTRY_HEAD_BYTES):
                return f"an entry of {size} bytes is not possible"
            values = read(position + ENTRY_HEAD_BYTES, size)
        except DeviceFailed as failed:
            return str(failed)
        found = crc32c.crc32c(values, crc32c.crc32c(raw[_CHECKED_FROM:], self._seed))
        expected = int.from_bytes(raw[len(JOURNAL_MAGIC) : _CHECKED_FROM], "little")
        if found != expected:
            return f"checksum {found:#010x} found, {expected:#010x} expected"
        return Entry(head, values[: head.undo_bytes], values[head.undo_bytes :], position)

    def looks_like(self, position: int, sequence: int) -> bool:
        """Return whether what lies at *position* claims to be the entry *sequence*, whatever its checksum."""
        try:
            raw = self.read(position, ENTRY_HEAD_BYTES)
        except DeviceFailed:
            return False
        head = JournalEntry(*JournalEntry.STRUCT.unpack_from(raw, _CHECKED_FROM))
        alike = (raw[: len(JOURNAL_MAGIC)] == JOURNAL_MAGIC, head.sequence == sequence, not key_fault(head.key))
        return sum(alike) >= 2

    def is_rotten(self, position: int, sequence: int, before: Entry | None) -> bool:
        """Return whether the entry *sequence* arrived at *position* and changed afterwards: no crash can leave that.

        A crash leaves each sector old or new. An entry within one sector whose head is new is new as a whole. A sector that holds
        all of the entry *before* it in its transaction is new, so what follows in it must be the head of the next one.
        """
        try:
            raw = self.read(position, ENTRY_HEAD_BYTES)
        except DeviceFailed:
            return True
        head = JournalEntry(*JournalEntry.STRUCT.unpack_from(raw, _CHECKED_FROM))
        end = position % SECTOR_BYTES + ENTRY_HEAD_BYTES + head.undo_bytes + head.redo_bytes
        has_magic = raw[: len(JOURNAL_MAGIC)] == JOURNAL_MAGIC
        if before is not None and before.position // SECTOR_BYTES == position // SECTOR_BYTES:
            new_bytes = SECTOR_BYTES - position % SECTOR_BYTES
            if new_bytes >= len(JOURNAL_MAGIC) and not has_magic:
                return True
            if new_bytes >= ENTRY_HEAD_BYTES and (
                head.sequence != sequence or head.undo_bytes + head.redo_bytes > 2 * VALUE_BYTES_MAX
            ):
                return True
        return has_magic and head.sequence == sequence and end <= SECTOR_BYTES and isinstance(self.entry(position), str)

    def entry_starts(self, stop: int) -> Iterator[int]:
        """Yield the block boundaries in the whole ring from *stop* on at which a transaction may start."""
        chunk_bytes = 256 * self.block_bytes
        for start in range(stop, stop + self.bytes, chunk_bytes):
            length = min(chunk_bytes, stop + self.bytes - start)
            try:
                data = self.read(start, length)
            except DeviceFailed:
                continue
            for at in range(0, length, self.block_bytes):
                if data[at : at + len(JOURNAL_MAGIC)] == JOURNAL_MAGIC:
                    yield start + at


def read_entries(ring: Ring, position: int, sequence: int) -> tuple[list[Entry], str]:
    """Return (entries from *position* on up to a commit entry or as far as they follow on, why it ended there).

    Of a transaction that is long only the first ENTRIES_KEPT entries are returned, and the last one; following() has all.
    """
    return finished(reading(ring, position, sequence))


def reading(ring: Ring, position: int, sequence: int) -> Generator[int, None, tuple[list[Entry], str]]:
    """Do what read_entries() does; yield from time to time the position that is reached."""
    found: list[Entry] = []
    walk = following(ring, position, sequence)
    while True:
        try:
            entry = next(walk)
        except StopIteration as end:
            return found, end.value
        if len(found) > ENTRIES_KEPT:
            found.pop()
        found.append(entry)
        if not (entry.head.sequence + 1) % STEP_ENTRIES:
            yield entry.end


def following(ring: Ring, position: int, sequence: int) -> Generator[Entry, None, str]:
    """Yield the entries from *position* on up to a commit entry or as far as they follow on; return why it ended there."""
    start, ahead = position, ReadAhead(ring.read, ring.bytes)
    while position - start < ring.bytes:
        entry = ring.entry(position, ahead)
        if isinstance(entry, str):
            return entry if entry != RING_END or position == start else "the rest of the transaction is missing"
        if entry.head.sequence != sequence:
            return f"entry {entry.head.sequence} found, {sequence} expected" if position > start else RING_END
        yield entry
        if entry.head.operation == Operation.COMMIT:
            return ""
        position = entry.end
        sequence += 1
    return "the transaction is longer than the journal"


def entry_faults(entry: Entry) -> Iterator[str]:
    """Yield what is senseless about an entry whose checksum holds."""
    head = entry.head
    if head.operation not in set(Operation):
        yield f"operation {head.operation} does not exist"
    if head.flags & ~int(EntryFlag.HAS_UNDO | EntryFlag.HAS_REDO) or head.reserved:
        yield f"flags {head.flags:#x} and reserved field {head.reserved} hold unknown bits"
    undo_denied = head.undo_bytes and not head.flags & EntryFlag.HAS_UNDO
    redo_denied = head.redo_bytes and not head.flags & EntryFlag.HAS_REDO
    if undo_denied or redo_denied:
        yield "a value that its flags deny"
    fault = key_fault(head.key)
    if fault:
        yield f"a senseless key: {fault}"
        return
    for flag, value in ((EntryFlag.HAS_UNDO, entry.undo), (EntryFlag.HAS_REDO, entry.redo)):
        if head.flags & flag:
            try:
                decode_item(head.key, value)
            except CorruptImage as broken:
                yield f"the value of {item_words(head.key)} cannot be read: {broken}"


_ABSENT = -1  # no value has this hash


class Chain:
    """The changes of a key follow one another: what an entry calls the value before is what the entry before it left.

    For each key 8 bytes of a hash are kept, for so many keys that memory stays bounded; the others are not judged.
    """

    KEYS_MAX = 500_000

    def __init__(self) -> None:
        self._left: dict[bytes, int] = {}

    def faults(self, entry: Entry) -> Iterator[str]:
        """Yield what is wrong with the value before; note the value after."""
        head = entry.head
        before = hash(entry.undo) if head.flags & EntryFlag.HAS_UNDO else _ABSENT
        known = self._left.get(head.key)
        if known is None and len(self._left) >= self.KEYS_MAX:
            return
        self._left[head.key] = hash(entry.redo) if head.flags & EntryFlag.HAS_REDO else _ABSENT
        if known is not None and known != before:
            yield f"its value of {item_words(head.key)} before the change is not what an earlier entry left"


def commit_faults(ring: Ring, first: Entry, last: Entry, number: int, *, is_one: bool) -> Iterator[Fault]:
    """Yield what the commit entry of a complete transaction says wrongly; *number*: transaction before it.

    *is_one*: all entries from *first* to *last*, which is that entry, say that they belong to the same transaction.
    """
    if len(last.redo) != JournalCommit.FIXED_BYTES or last.head.key != LOWEST_KEY or last.undo:
        yield "shape", f"{len(last.undo)}+{len(last.redo)} bytes", f"{COMMIT_BYTES - ENTRY_HEAD_BYTES} bytes"
        return
    commit = JournalCommit.decode(last.redo)
    if commit.first_sequence != first.head.sequence:
        yield "first sequence", commit.first_sequence, first.head.sequence
    total = round_up(last.end - first.position, ring.block_bytes)
    if commit.total_bytes != total:
        yield "length", commit.total_bytes, total
    if commit.flushed_sequence >= first.head.sequence:
        yield "flushed sequence", commit.flushed_sequence, f"below {first.head.sequence}"
    if (last.head.flags, last.head.reserved, last.head.inode) != (EntryFlag.HAS_REDO, 0, 0):
        yield "head", f"flags {last.head.flags:#x}, inode {last.head.inode}", "only a value after, no inode"
    if not is_one or last.head.transaction <= number:
        yield "transaction", last.head.transaction, f"the same in all its entries, above {number}"
