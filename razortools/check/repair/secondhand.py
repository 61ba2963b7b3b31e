"""Second-hand items: what an older leaf knows about a range whose current leaf is lost, as far as it may be believed.

Older is not current: what was deleted since must not come back, and old contents must not pass for new ones. So each item needs
a witness that is current. A name is never changed, an id never used twice: it is believed if an entry uses it. An inode is
believed if a current entry, or current items or data of its own, lead to it; an entry if the file's back link agrees. If that is
lost with it, the old one proves nothing, for both may be from before a renaming: then the string table must count a use more of
the name than there are. A data record is believed if its blocks verify, are in use by the current space map, and nobody else
names them: then nobody but this record can own them, and it has not changed. Where a record cannot be believed it is cut out.
A patch is believed if the record below it is older: it goes when that is stored anew. Attributes of an inode may be out of date.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from razortools.check.contents import sound_record
from razortools.check.image import Image
from razortools.check.repair.coverage import Open, Tile
from razortools.check.repair.current import Current
from razortools.check.repair.gaps import Gap, Owner, cut_out
from razortools.check.repair.name_uses import count_uses
from razortools.check.repair.stock import Stock, items_of
from razortools.check.repair.survey import item_verifies
from razortools.check.repair.used import UsedBlocks
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.data import CUT_OUT, DataRecord, InlineData, Patch, Run
from razortools.format.directory import BackLink, DirectoryEntry
from razortools.format.inode import ROOT_INODE, Inode, InodeFlag
from razortools.format.keys import (
    COUNTERS_KEY,
    KIND_AT,
    PROBE_WINDOW,
    Kind,
    back_link_key,
    entry_key,
    inode_key,
    name_key,
    object_of,
    offset_of,
    record_key,
)
from razortools.format.name import Name, hash_name
from razortools.format.record import Record
from razortools.format.xattr import Xattr, XattrFlag
from razortools.units import InodeNo, NameId

Kept = TypeVar("Kept", bound=Record)


@dataclass(slots=True)
class SecondHand:
    """What was believed of older leaves."""

    items: dict[bytes, bytes] = field(default_factory=dict)
    older_inodes: set[int] = field(default_factory=set)  # their attributes may be out of date
    cut_out: list[bytes] = field(default_factory=list)  # keys of records that older leaves knew and that are not current


def believe(image: Image, tiles: list[Tile], stock: Stock) -> SecondHand:
    """Return what older leaves may add to the gaps in *stock*; the blocks of believed records are claimed there."""
    return _Judge(image, tiles, stock).judge()


class _Judge:
    """Judges the items of older leaves. Inodes and entries bear witness to each other, so they are looked at more than once."""

    def __init__(self, image: Image, tiles: list[Tile], stock: Stock) -> None:
        self.image = image
        self.stock = stock
        self.tiles = tiles
        self.current = Current(image, tiles)
        self.found = SecondHand()
        self.used = UsedBlocks(image)
        self.old: dict[bytes, bytes] = {}
        self.written: dict[bytes, int] = {}  # generations of old contents and patches
        self.owners: dict[int, Owner] = {}
        self.uses: Counter[int] | None = None  # of names, by id; counted when that is asked for first
        for gap in stock.gaps.values():
            for key, value, generation in _newest_old(image, gap):
                self.old[key] = value
                if key[KIND_AT] in (Kind.INLINE_DATA, Kind.PATCH):
                    self.written[key] = generation
            self.owners.update({owner.number: owner for owner in (gap.before, gap.after) if owner is not None})

    def judge(self) -> SecondHand:
        """Believe what can be believed."""
        by_kind: dict[int, list[bytes]] = {}
        for key in self.old:
            by_kind.setdefault(key[KIND_AT], []).append(key)
        self._inodes(by_kind.get(Kind.INODE, []), by_kind.get(Kind.DIRECTORY_ENTRY, []))
        for key in by_kind.get(Kind.BACK_LINK, []):
            self._if(self._is_good_link(key), key)
        for key in by_kind.get(Kind.XATTR, []):
            self._if(self._is_good_attribute(key), key)
        for key in by_kind.get(Kind.INLINE_DATA, []):
            self._if(self._is_good_inline(key), key)
        by_file: dict[int, list[bytes]] = {}
        for key in by_kind.get(Kind.DATA_RECORD, []):
            by_file.setdefault(object_of(key), []).append(key)
        for number, keys in by_file.items():
            if self._exists(number):
                self._records(number, keys)
        used = self.stock.named | {DirectoryEntry.decode(value).name_id for value in self._believed(Kind.DIRECTORY_ENTRY)}
        used |= {BackLink.decode(value).name_id for value in self._believed(Kind.BACK_LINK)}
        for key in by_kind.get(Kind.NAME, []):
            self._if(object_of(key) in used, key)
        for key in by_kind.get(Kind.PATCH, []):
            self._if(self._is_good_patch(key), key)
        self._if(COUNTERS_KEY in self.old, COUNTERS_KEY)
        for number in self.found.older_inodes & self.owners.keys():
            self._stretch(self.owners[number])
            self.owners[number].value = self.found.items[inode_key(InodeNo(number))]
        return self.found

    def _believed(self, kind: int) -> Iterator[bytes]:
        return (value for key, value in self.found.items.items() if key[KIND_AT] == kind)

    def _if(self, is_good: bool, key: bytes) -> None:
        if is_good:
            self.found.items[key] = self.old[key]

    def _value(self, key: bytes) -> bytes | None:
        """Return what is current, or believed by now."""
        return self.current.get(key) or self.found.items.get(key)

    def _exists(self, number: int) -> bool:
        return self._value(inode_key(InodeNo(number))) is not None

    def _inodes(self, inodes: list[bytes], entries: list[bytes]) -> None:
        """Believe inodes that something current leads to, then the entries of believed directories, and what these lead to."""
        for key in inodes:
            if self._is_wanted(object_of(key)):
                self._take_inode(key)
        waiting = set(inodes) - self.found.items.keys()
        while True:
            for key in entries:
                entry = _decoded(DirectoryEntry, self.old[key])
                target = inode_key(InodeNo(entry.inode)) if entry is not None else b""
                if entry is None or key in self.found.items or not self._exists(object_of(key)):
                    continue
                if target in waiting or self._exists(entry.inode):
                    self._if(self._agrees(key, entry), key)
            led_to = {inode_key(InodeNo(DirectoryEntry.decode(value).inode)) for value in self._believed(Kind.DIRECTORY_ENTRY)}
            more = waiting & led_to
            if not more:
                break
            waiting -= more
            for key in more:
                self._take_inode(key)
        # Who still has data was not deleted, whatever name it has now.
        for key in (key for key in self.old if key[KIND_AT] == Kind.DATA_RECORD):
            place = inode_key(InodeNo(object_of(key)))
            if place in waiting and self._runs_of_its_own(key) is not None:
                self._take_inode(place)
                waiting.discard(place)

    def _is_wanted(self, number: int) -> bool:
        return number == ROOT_INODE or number in self.stock.wanted or number in self.owners

    def _take_inode(self, key: bytes) -> None:
        if _decoded(Inode, self.old[key]) is not None:
            self.found.items[key] = self.old[key]
            self.found.older_inodes.add(object_of(key))

    def _agrees(self, key: bytes, entry: DirectoryEntry) -> bool:
        """Whether the file's back link, current or as old as the entry, leads to this entry, and its name was not given up."""
        name = name_key(NameId(entry.name_id))
        if self.current.get(name) is None and not self.current.is_lost(name):
            return False
        place = back_link_key(InodeNo(entry.inode), entry.link_no)
        is_lost_too = self.current.is_lost(place)
        link = _decoded(BackLink, self.old.get(place) if is_lost_too else self.current.get(place))
        if link is None or (link.parent, link.name_id) != (object_of(key), entry.name_id):
            return False
        return not is_lost_too or self._has_spare_use(entry.name_id)

    def _has_spare_use(self, name_id: int) -> bool:
        """Whether the string table counts as many uses of a name as there are, those that older leaves tell of among them.

        Where the name is lost as well, nobody tells.
        """
        name = _decoded(Name, self.current.get(name_key(NameId(name_id))))
        if name is None:
            return True
        if self.uses is None:
            self.uses = count_uses(self.image, self.tiles, self._possible_entries())
        return self.uses[name_id] <= name.reference_count

    def _possible_entries(self) -> Iterator[DirectoryEntry]:
        """Yield the old entries whose files may still be there."""
        for key, value in self.old.items():
            entry = _decoded(DirectoryEntry, value) if key[KIND_AT] == Kind.DIRECTORY_ENTRY else None
            if entry is not None and (self.current.is_lost(inode_key(InodeNo(entry.inode))) or self._exists(entry.inode)):
                yield entry

    def _is_good_link(self, key: bytes) -> bool:
        """Whether an entry, current or believed, leads to this back link."""
        link = _decoded(BackLink, self.old[key])
        name = None
        if link is not None and self._exists(object_of(key)):
            place = name_key(NameId(link.name_id))
            name = _decoded(Name, self.current.get(place) or self.old.get(place))
        if link is None or name is None:
            return False
        first = hash_name(name.text, self.image.superblock.hash_seed)
        for offset in range(first, first + PROBE_WINDOW):
            entry = _decoded(DirectoryEntry, self._value(entry_key(InodeNo(link.parent), offset)))
            if entry is not None and (entry.inode, entry.link_no) == (object_of(key), offset_of(key)):
                return entry.name_id == link.name_id
        return False

    def _is_good_attribute(self, key: bytes) -> bool:
        inode = _decoded(Inode, self._value(inode_key(InodeNo(object_of(key)))))
        attribute = _decoded(Xattr, self.old[key])
        if inode is None or attribute is None or not inode.flags & InodeFlag.HAS_XATTRS:
            return False
        return not attribute.flags & XattrFlag.OUT_OF_LINE or self._is_current(key)

    def _is_good_inline(self, key: bytes) -> bool:
        """Old contents go with an old inode; with a current one only if that was not changed after they were written."""
        place = inode_key(InodeNo(object_of(key)))
        if self._value(place) is None or _decoded(InlineData, self.old[key]) is None:
            return False
        return place in self.found.items or self.current.generation(place) <= self.written[key]

    def _is_good_patch(self, key: bytes) -> bool:
        """Whether the record below has not been stored anew since: that would have removed the patch."""
        inode = _decoded(Inode, self._value(inode_key(InodeNo(object_of(key)))))
        if inode is None or not inode.is_regular or inode.record_log2 >= 32 or _decoded(Patch, self.old[key]) is None:
            return False
        value = self._value(record_key(InodeNo(object_of(key)), offset_of(key) >> inode.record_log2))
        record = _decoded(DataRecord, value)
        return record is not None and not record.flags & CUT_OUT and record.birth <= self.written[key]

    def _records(self, number: int, keys: list[bytes]) -> None:
        """Believe the records of a file whose blocks can belong to nothing else, unless late pages may be missing."""
        own = {key: runs for key in keys if (runs := self._runs_of_its_own(key)) is not None}
        is_doubtful = self._lacks_blocks(number, sum(count for runs in own.values() for _, count in runs))
        for key in keys:
            if key in own and not is_doubtful and self._is_current(key):  # which may have become another's meanwhile
                self.found.items[key] = self.old[key]
                continue
            record = _decoded(DataRecord, self.old[key])
            if record is not None and (number in self.found.older_inodes or key in own):
                self.found.items[key] = cut_out(record.raw_bytes or 1, self.image.superblock.generation)
                self.found.cut_out.append(key)

    def _lacks_blocks(self, number: int, old_blocks: int) -> bool:
        """Whether a file took more blocks than are known with *old_blocks*, so that old records may have had late pages since.

        Their blocks are their own either way, and verify: what was written later would be missing without a word.
        """
        owner = self.owners.get(number)
        inode = owner.inode if owner is not None else None
        if owner is None or inode is None or number in self.found.older_inodes or not inode.flags & InodeFlag.LATE_PAGES:
            return False
        return owner.blocks + old_blocks != inode.stored_blocks

    def _is_current(self, key: bytes) -> bool:
        """Whether the blocks that an old item names can belong to nothing else. Then they are claimed for it."""
        runs = self._runs_of_its_own(key)
        if runs is None:
            return False
        for first, count in runs:
            self.stock.data.claim(first, count)
        owner = self.owners.get(object_of(key))
        if owner is not None:
            owner.blocks += sum(count for _, count in runs)
            owner.has_records |= key[KIND_AT] == Kind.DATA_RECORD
        return True

    def _runs_of_its_own(self, key: bytes) -> list[Run] | None:
        """Return the blocks that an old item names if they can belong to nothing else, or None."""
        record = sound_record(self.image, key, self.old[key])
        if record is None:
            return None
        runs = record.runs(self.image.block_bytes)
        data = self.stock.data
        try:
            if not all(self.used.are_used(first, count) for first, count in runs):
                return None
            if any(data.holds(block) for first, count in runs for block in range(first, first + count)):
                return None
            if not item_verifies(self.image, key, self.old[key]):
                return None
        except (CorruptImage, DeviceFailed):
            return None
        return runs

    def _stretch(self, owner: Owner) -> None:
        """An old inode may know of less than the records that are current."""
        key = inode_key(InodeNo(owner.number))
        inode = _decoded(Inode, self.found.items[key])
        if inode is not None and inode.is_regular and inode.record_log2 < 32 and owner.last_record >= 0:
            end = owner.last_record * inode.record_bytes + owner.last_raw_bytes
            self.found.items[key] = replace(inode, size=max(inode.size, end)).encode()


def _newest_old(image: Image, gap: Gap) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield (key, value, generation) of what the newest of the older leaves say about each key of *gap*."""
    undecided = Open([gap.low], [gap.high])
    for leaf in gap.tile.older:
        for low, high in undecided.take(leaf.low, leaf.high):
            for key, value in items_of(image, replace(gap.tile, low=low, high=high), leaf):
                yield key, value, leaf.pointer.generation
        if undecided.is_empty:
            return


def _decoded(kind: type[Kept], value: bytes | None) -> Kept | None:
    """Return the record in *value*, None if there is none or it makes no sense."""
    try:
        return kind.decode(value) if value is not None else None
    except CorruptImage:
        return None
