"""The journal of the copy: every entry that verifies, with its values replaced, and where the journal ends what it ends with.

What verifies stays at its place and verifies. Of an entry that does not, the head stays, for it tells a torn write from damage,
and letters stand for its values. Everything else in the ring becomes zeros: what earlier rounds have left there means nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import crc32c

from razortools.check.image import Image
from razortools.check.journal_rules import VALUE_BYTES_MAX, Entry, Ring
from razortools.debug.sanitize.items import Items
from razortools.engine.store.device import Device
from razortools.engine.store.journal_reader import journal_seed
from razortools.errors import DeviceFailed
from razortools.format.journal import ENTRY_HEAD_BYTES, JOURNAL_MAGIC, JournalEntry, Operation
from razortools.format.superblock import Superblock

_CHECKED_FROM = len(JOURNAL_MAGIC) + 4


@dataclass(frozen=True, slots=True)
class Chain:
    """Entries that follow one another. *stop*: where they end; *sequence*: of the entry that is expected there."""

    entries: tuple[Entry, ...]
    stop: int
    sequence: int

    @property
    def is_complete(self) -> bool:
        """Whether a commit entry closes it."""
        return bool(self.entries) and self.entries[-1].head.operation == Operation.COMMIT


class JournalCopy:
    """Reads the ring of an image and writes that of the copy."""

    def __init__(self, image: Image, superblocks: list[Superblock]) -> None:
        """*superblocks*: all that tell where a replay starts."""
        self._image = image
        self._ring = Ring(image)
        self._seed = journal_seed(image.superblock.uuid)
        self._start = image.geometry.journal_start * image.block_bytes
        believed_first = [image.superblock, *superblocks]
        self._starts = [(one.journal_tail % self._ring.bytes, one.journal_sequence) for one in believed_first]

    def chains(self) -> Iterator[Chain]:
        """Yield what is there, each entry once."""
        seen: set[int] = set()
        for position, sequence in self._starts:
            yield from self._chains_from(position, sequence, seen)
        for position in self._ring.entry_starts(0):
            entry = self._ring.entry(position)
            if isinstance(entry, Entry):
                yield from self._chains_from(position, entry.head.sequence, seen)

    def entries(self) -> Iterator[Entry]:
        """Yield the entries that verify."""
        for chain in self.chains():
            yield from chain.entries

    def all_keys(self) -> Iterator[bytes]:
        """Yield every key, that of an entry that does not verify included."""
        for chain in self.chains():
            yield from (entry.head.key for entry in chain.entries)
            broken = self._broken(chain)
            if broken is not None:
                yield JournalEntry(*JournalEntry.STRUCT.unpack_from(broken, _CHECKED_FROM)).key

    def write(self, target: Device, items: Items) -> int:
        """Write the copy's journal; return how many entries verify.

        What is broken goes first, and of that last what the newest superblock leads to: the length of the others may be a lie.
        """
        for chain in reversed([chain for chain in self.chains() if not chain.is_complete]):
            self._write_broken(target, items, chain)
        count = 0
        for chain in self.chains():
            for entry in chain.entries:
                self._put(target, entry.position, self._made(entry, items))
                count += 1
            if chain.is_complete:
                self._write_padding(target, chain.entries[-1])
        return count

    def _chains_from(self, position: int, sequence: int, seen: set[int]) -> Iterator[Chain]:
        """Yield the transactions from *position* on, up to what does not fit."""
        while position % self._ring.bytes not in seen:
            chain = self._chain(position, sequence)
            places = range(position, max(chain.stop, position + 1), self._ring.block_bytes)
            seen.update(place % self._ring.bytes for place in places)
            yield chain
            if not chain.is_complete:
                return
            position, sequence = self._ring.block_after(chain.entries[-1]), chain.sequence

    def _chain(self, start: int, sequence: int) -> Chain:
        found: list[Entry] = []
        position = start
        while position - start < self._ring.bytes:
            entry = self._ring.entry(position)
            if isinstance(entry, str):
                break
            sequence = sequence if found else entry.head.sequence
            found.append(entry)
            position = entry.end
            if entry.head.sequence != sequence or entry.head.operation == Operation.COMMIT:
                sequence = entry.head.sequence + 1
                break
            sequence += 1
        return Chain(tuple(found), position, sequence)

    def _made(self, entry: Entry, items: Items) -> bytes:
        """Return an entry as it is in the copy."""
        head, key = entry.head, entry.head.key
        is_commit = head.operation == Operation.COMMIT
        values = b"".join(value if is_commit or not value else items.value(key, value) for value in (entry.undo, entry.redo))
        body = _packed(replace(head, key=items.key(key)))
        return _sealed(body, values, self._checksum(body, values))

    def _broken(self, chain: Chain) -> bytes | None:
        """Return the head of the entry at which *chain* stops, if there is one that does not verify."""
        try:
            raw = self._ring.read(chain.stop, ENTRY_HEAD_BYTES)
        except DeviceFailed:
            return None
        is_entry = raw.startswith(JOURNAL_MAGIC) or self._ring.looks_like(chain.stop, chain.sequence)
        return raw if is_entry and isinstance(self._ring.entry(chain.stop), str) and not chain.is_complete else None

    def _write_broken(self, target: Device, items: Items, chain: Chain) -> None:
        """Write what stands for an entry that does not verify, if that is what it is."""
        raw = self._broken(chain)
        if raw is None:
            return
        head = JournalEntry(*JournalEntry.STRUCT.unpack_from(raw, _CHECKED_FROM))
        size = head.undo_bytes + head.redo_bytes
        values = b""
        if size <= min(2 * VALUE_BYTES_MAX, self._ring.bytes - ENTRY_HEAD_BYTES):
            try:
                values = self._ring.read(chain.stop + ENTRY_HEAD_BYTES, size)
            except DeviceFailed:
                values = b""
        told = int.from_bytes(raw[len(JOURNAL_MAGIC) : _CHECKED_FROM], "little")
        difference = told ^ self._checksum(raw[_CHECKED_FROM:], values)
        body, letters = _packed(replace(head, key=items.key(head.key))), items.letters(values)
        made = _sealed(body, letters, self._checksum(body, letters) ^ difference)
        if not raw.startswith(JOURNAL_MAGIC):
            made = bytes(len(JOURNAL_MAGIC)) + made[len(JOURNAL_MAGIC) :]
        self._put(target, chain.stop, made)

    def _write_padding(self, target: Device, last: Entry) -> None:
        """Mark the bytes that stand behind a commit entry where only zeros should."""
        stray = self._ring.read(last.end, self._ring.block_after(last) - last.end)
        self._put(target, last.end, bytes(map(bool, stray)))  # zeros too: what stands for a broken entry may reach here

    def _checksum(self, body: bytes, values: bytes) -> int:
        return int(crc32c.crc32c(values, crc32c.crc32c(body, self._seed)))

    def _put(self, target: Device, position: int, data: bytes) -> None:
        offset = position % self._ring.bytes
        first = min(len(data), self._ring.bytes - offset)
        for at, piece in ((offset, data[:first]), (0, data[first:])):
            if piece and self._start + at + len(piece) <= target.size_bytes:
                target.write(self._start + at, piece)


def _packed(head: JournalEntry) -> bytes:
    return JournalEntry.STRUCT.pack(*JournalEntry._FLATTEN(head))


def _sealed(body: bytes, values: bytes, checksum: int) -> bytes:
    return JOURNAL_MAGIC + checksum.to_bytes(4, "little") + body + values
