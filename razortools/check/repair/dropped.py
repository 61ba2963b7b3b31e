"""What a repair drops of the journal: transactions that were safe, and stand behind damage or make no sense.

Who was told that a change is safe must be told that it is gone. So they are counted, and named as far as what verifies of them
tells: by the inodes that they change and the names that they give.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from razortools.check.image import Image
from razortools.check.inventory import Inventory
from razortools.check.journal_rules import Entry, Ring, following
from razortools.check.paths import join
from razortools.engine.store.journal_reader import JournalScan, LoggedTransaction
from razortools.errors import CorruptImage
from razortools.format.directory import DirectoryEntry
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import KIND_AT, Kind, Table, object_of
from razortools.format.name import Name

ENTRIES_MAX = 100_000  # that are looked at for names


@dataclass(slots=True)
class Dropped:
    """Transactions that are not replayed."""

    transactions: int = 0
    inodes: set[int] = field(default_factory=set)
    _names: dict[int, str] = field(default_factory=dict)  # name id -> name
    _entries: dict[int, tuple[int, int]] = field(default_factory=dict)  # inode -> directory, name id

    def note(self, key: bytes, redo: bytes | None) -> None:
        """Take in what an entry does."""
        try:
            if key[0] == Table.NAMES and key[KIND_AT] == Kind.NAME and redo is not None:
                self._names[object_of(key)] = Name.decode(redo).text.decode("utf-8", "surrogateescape")
            elif key[0] == Table.FILES and key[KIND_AT] == Kind.DIRECTORY_ENTRY and redo is not None:
                entry = DirectoryEntry.decode(redo)
                self._entries[entry.inode] = object_of(key), entry.name_id
                self.inodes.add(entry.inode)
            elif key[0] == Table.FILES:
                self.inodes.add(object_of(key))
        except (CorruptImage, IndexError):
            pass  # it makes no sense; what it was about is told by the others

    def paths(self, files: Inventory) -> list[str]:
        """Return what the transactions were about, with the help of the *files* that are there without them."""
        directories = {directory for directory, _ in self._entries.values()}
        told: set[str] = set()
        for number in self.inodes - directories - {0, ROOT_INODE}:
            if number in self._entries:
                directory, name_id = self._entries[number]
                name = self._names.get(name_id) or (files.paths.name(name_id) if files.facts is not None else "<name>")
                told.add(join(files.path(directory) if files.find(directory) >= 0 else f"<inode {directory}>", name))
            else:
                told.add(files.path(number) if files.find(number) >= 0 else f"<inode {number}>")
        return sorted(told)


def dropped_after(image: Image, scan: JournalScan, replayed: int) -> Dropped:
    """Return what is dropped if only the first *replayed* transactions of *scan*, the journal of *image*, are."""
    left = [one for one in scan.transactions[replayed:] if scan.damage or one.last_sequence <= scan.flushed_sequence]
    found = Dropped(len(left))
    for entry in _entries_of(left):
        found.note(*entry)
    if scan.damage:
        last = scan.transactions[-1].number if scan.transactions else image.superblock.transaction
        highest = last + 1  # the damaged one
        for number, behind in enumerate(_behind(image, scan.head, scan.next_sequence)):
            if behind.head.transaction - last < image.geometry.journal_bytes // image.block_bytes:
                highest = max(highest, behind.head.transaction)
            if number < ENTRIES_MAX:
                found.note(behind.head.key, behind.redo or None)
        found.transactions += highest - last
    return found


def _entries_of(transactions: Sequence[LoggedTransaction]) -> Iterator[tuple[bytes, bytes | None]]:
    for transaction in transactions:
        for entry in transaction.entries:
            yield entry.head.key, entry.redo


def _behind(image: Image, stop: int, sequence: int) -> Iterator[Entry]:
    """Yield the entries that verify from the place of the damage on, but for those of earlier rounds of the ring."""
    ring = Ring(image)
    for position in (stop, *ring.entry_starts(stop)):
        entry = ring.entry(position)
        if not isinstance(entry, str) and entry.head.sequence >= sequence:
            yield from (one for one in following(ring, position, entry.head.sequence) if any(one.head.key))
