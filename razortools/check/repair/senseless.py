"""Senseless entries: journal entries whose checksum is right and whose key or flags cannot be; what they were meant to do.

No disk does that; memory or software was bad when the entry was sealed. What comes behind it in the journal is good all the same,
so it is replayed, as a mount does. A senseless key never gets into the tree. Where the entry belongs witnesses tell: the value
before the change stands in one place only; or one part of the key is wrong, and with the others the value fits where nothing
stands. Where nobody tells, new data of a file cannot be placed, and its holes must not pass for zeros.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from razortools.check.image import Image
from razortools.check.journal_rules import Entry, Ring
from razortools.check.keynames import TABLE_OF_KIND, key_fault
from razortools.check.repair.draft import Draft
from razortools.check.repair.journal import pending, scanned
from razortools.check.repair.survey import item_verifies
from razortools.errors import CorruptImage
from razortools.format.items import ITEMS, decode_item
from razortools.format.journal import EntryFlag
from razortools.format.keys import KIND_AT, Key, Kind, Table, inode_key, kind_of, object_of, offset_of
from razortools.units import InodeNo

UNLIKE_OTHERS_BYTES = 16  # shorter values may stand in many places
NUMBERED = frozenset((Kind.BACK_LINK, Kind.XATTR, Kind.DATA_RECORD, Kind.DIRECTORY_ENTRY, Kind.PATCH))
_SHAPELESS = frozenset((Kind.XATTR, Kind.INLINE_DATA))  # not even their table tells them from others


@dataclass(frozen=True, slots=True)
class Meant:
    """What an entry was meant to do. *key* None: nobody tells where; then *unplaced* is the file of which it held data, or 0."""

    key: bytes | None
    value: bytes | None = None  # None: remove the item
    unplaced: int = 0


def has_senseless_key(entry: Entry) -> bool:
    """Return whether nothing can stand where the entry says."""
    return bool(key_fault(entry.head.key))


def denies_its_value(entry: Entry) -> bool:
    """Return whether the flags of an entry say that there is no value after it, and there is one."""
    return bool(entry.redo) and not entry.head.flags & EntryFlag.HAS_REDO


def meant_by(draft: Draft) -> Iterator[Meant]:
    """Yield what the senseless entries of the waiting journal were meant to do, in order, unless a later entry does other."""
    if any(has_senseless_key(entry) or denies_its_value(entry) for entry in _entries(draft.on_device)):
        yield from _Judge(draft, list(_entries(draft.on_device))).judge()


def _entries(image: Image) -> Iterator[Entry]:
    """Return the entries that are replayed, with their values, whatever the flags say about these."""
    ring = Ring(image)
    logged = (entry for transaction in pending(image, scanned(image)) for entry in transaction.entries)
    read = (ring.entry(entry.position) for entry in logged)
    return (entry for entry in read if isinstance(entry, Entry))


class _Judge:
    """Knows the tree as the replay leaves it, whether or not the draft shows it so."""

    def __init__(self, draft: Draft, entries: list[Entry]) -> None:
        self.draft = draft
        self.entries = entries
        self.after: dict[bytes, bytes | None] = {}
        self.changed_by: dict[bytes, int] = {}  # number of the last entry for a key
        for number, entry in enumerate(entries):
            if not has_senseless_key(entry):
                self.after[entry.head.key] = entry.redo if entry.head.flags & EntryFlag.HAS_REDO else None
                self.changed_by[entry.head.key] = number

    def judge(self) -> Iterator[Meant]:
        for number, entry in enumerate(self.entries):
            if has_senseless_key(entry):
                yield from self._misplaced(number, entry)
            elif denies_its_value(entry) and _fits(entry.head.key, entry.redo):
                yield from self._meant(number, entry.head.key, entry.redo)

    def _misplaced(self, number: int, entry: Entry) -> Iterator[Meant]:
        value = entry.redo if entry.redo or entry.head.flags & EntryFlag.HAS_REDO else None
        key = self._place_before(entry) if entry.undo else self._place_of_new(entry)
        if key is not None:
            yield from self._meant(number, key, value)
        elif not entry.undo and self._is_data(entry):
            yield Meant(None, unplaced=entry.head.inode)

    def _meant(self, number: int, key: bytes, value: bytes | None) -> Iterator[Meant]:
        if self.changed_by.get(key, -1) <= number:
            self.after[key], self.changed_by[key] = value, number
            yield Meant(key, value)

    def _value(self, key: bytes) -> bytes | None:
        return self.after[key] if key in self.after else self.draft.get(key)

    def _place_before(self, entry: Entry) -> bytes | None:
        """Return the only key at which the value before the change stands."""
        if len(entry.undo) < UNLIKE_OTHERS_BYTES:
            return None
        found = {key for key, value in self.after.items() if value == entry.undo}
        for _, (keys, values) in self.draft.tree.leaves():
            for key, value in zip(keys, values, strict=True):
                if value == entry.undo and key not in self.after and not key_fault(key):
                    found.add(key)
        return found.pop() if len(found) == 1 else None

    def _place_of_new(self, entry: Entry) -> bytes | None:
        """Return the only key at which a new value makes sense, if one part of the entry's key is wrong."""
        found = {key for key in _candidates(entry) if self._value(key) is None and self._is_wanted(key, entry.redo)}
        return found.pop() if len(found) == 1 else None

    def _is_wanted(self, key: bytes, value: bytes) -> bool:
        if not _fits(key, value):
            return False
        if key[KIND_AT] == Kind.DATA_RECORD and not item_verifies(self._with_newborn(), key, value):
            return False
        owner = key[0] == Table.FILES and key[KIND_AT] != Kind.INODE
        return not owner or self._value(inode_key(InodeNo(object_of(key)))) is not None

    def _is_data(self, entry: Entry) -> bool:
        """Return whether an entry that nobody can place holds a record of file data that verifies."""
        place = Key(Table.FILES, max(entry.head.inode, 1), Kind.DATA_RECORD, 0).encode()
        return _fits(place, entry.redo) and item_verifies(self._with_newborn(), place, entry.redo)

    def _with_newborn(self) -> Image:
        """Return the image as one in which what the journal brings may have been born."""
        image = self.draft.on_device
        return Image(image.device, replace(image.superblock, generation=image.superblock.generation + 1), image.geometry)


def _candidates(entry: Entry) -> Iterator[bytes]:
    """Yield the keys that come of the entry's key if its kind, its table, its number or its place is put right."""
    told, table = kind_of(entry.head.key), entry.head.key[0]
    is_known = told in set(Kind)
    for kind in Kind:
        if kind != told and (is_known or table != TABLE_OF_KIND[kind] or kind in _SHAPELESS):
            continue
        numbers = (object_of(entry.head.key), entry.head.inode) if kind != Kind.COUNTERS else (0,)
        for number in numbers:
            offset = offset_of(entry.head.key) if kind in NUMBERED else 0
            key = Key(TABLE_OF_KIND[kind], number, kind, offset).encode()
            if not key_fault(key):
                yield key


def _fits(key: bytes, value: bytes) -> bool:
    """Return whether *value* has the shape of an item of that kind."""
    try:
        return ITEMS[kind_of(key)].FIXED_BYTES <= len(decode_item(key, value).encode()) == len(value)
    except (CorruptImage, KeyError, IndexError):
        return False
