"""Loose pages: pages that were overwritten in stored records, which nobody has in memory or which can take them behind.

A program that writes pages at random places of a large file touches more records than may be dirty. To read each of them, and to
write it out when the next ones want its memory, would compress most records several times. A write of whole pages need not know
what else the record holds: the pages wait here, in a hundredth of the memory, and the record is read when it is time to store it,
once for all of its pages, and not while a request waits for it.

That holds for records that are in memory, too, where the image may have late pages (engine/late.py): to write a page behind its
record is far less than to compress it.

Invariants: a record has loose pages or dirty data, never both, and no patches; its item in the tree reaches as far as its pages,
so its length does not change by them; nobody else changes that item but who deletes it, and the pages go first, and who writes
pages behind it (engine/late.py). They count in the
figures of the dirty records: their own bytes, and the blocks of the whole record. Loose pages over a record that cannot be read
become patches (engine/patches.py): reading tells why, and whoever can read it later gets it with them. Room for that is promised
too, so that one bad record keeps nothing else from being committed. Pages that are all of a record need nothing of it.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from razortools.engine.stored import unpack_item
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.data import READABLE, DataRecord, InlineData, Patch
from razortools.format.inode import Inode
from razortools.format.journal import Operation
from razortools.format.keys import patch_key
from razortools.format.late_pages import LATE_PAGE_BYTES
from razortools.format.node import ITEM_OVERHEAD_BYTES, node_capacity, patch_bytes
from razortools.format.superblock import Incompat
from razortools.units import InodeNo, RecordNo, divide_up

if TYPE_CHECKING:
    from razortools.engine.records import Buffer, Place, Records
    from razortools.engine.volume import Volume

_PATCHES, _LATE_PAGES = int(Incompat.PATCHES), int(Incompat.LATE_PAGES)  # plain numbers: the arithmetic of flags is slow
PAGE_BYTES = LATE_PAGE_BYTES
PATCH_OVERHEAD_BYTES = ITEM_OVERHEAD_BYTES + Patch.FIXED_BYTES
FREE_SHARE = 2  # of the free blocks a half may be claimed: without room an operation stores everything while others wait


class LooseRecord:
    """The loose pages of one record by their place in it, in bytes; the record itself has *raw_bytes*."""

    __slots__ = ("pages", "raw_bytes", "reserved_blocks")

    def __init__(self, raw_bytes: int, reserved_blocks: int) -> None:
        self.pages: dict[int, bytes] = {}
        self.raw_bytes = raw_bytes
        self.reserved_blocks = reserved_blocks

    def laid_over(self, base: bytes | bytearray) -> bytes:
        """Return *base* with the pages over it."""
        data = bytearray(base)
        for at, page in self.pages.items():
            data[at : at + PAGE_BYTES] = page
        return bytes(data)

    def part(self, start: int, part: bytes) -> bytes:
        """Return *part*, bytes of the record from *start* on, with the pages over it that reach into it."""
        stop = start + len(part)
        data: bytearray | None = None
        for at in range(start - start % PAGE_BYTES, stop, PAGE_BYTES):
            page = self.pages.get(at)
            if page is None:
                continue
            if at == start and at + PAGE_BYTES == stop:
                return page
            data = data if data is not None else bytearray(part)
            low, high = max(at, start), min(at + PAGE_BYTES, stop)
            data[low - start : high - start] = page[low - at : high - at]
        return part if data is None else bytes(data)


@dataclass(frozen=True, slots=True)
class Base:
    """What a record with loose pages holds without them, as *item* names it, or why that cannot be told."""

    ino: InodeNo
    record_no: RecordNo
    item: DataRecord
    found: bytes | CorruptImage | DeviceFailed


class LoosePages:
    """Owner of the loose pages of a volume. *raw_bytes*: of the records that have some."""

    def __init__(self, volume: "Volume", records: "Records") -> None:
        """Count in the figures of *records*."""
        self._volume = volume
        self._records = records
        self._of: dict[Place, LooseRecord] = {}  # in the order in which they got their first one
        self._numbers_of: dict[InodeNo, set[RecordNo]] = {}
        self._found: tuple[Place | None, DataRecord | InlineData | None] = None, None  # what was looked at for the next `add`
        self.raw_bytes = 0
        geometry, step = volume.store.geometry, patch_bytes(volume.store.geometry.node_bytes)
        self._patches_per_page = divide_up(PAGE_BYTES, step)
        self._patches_per_leaf = max(1, node_capacity(geometry.node_bytes) // (step + PATCH_OVERHEAD_BYTES) // 2)  # after a split

    def __len__(self) -> int:
        """How many records have loose pages."""
        return len(self._of)

    def find(self, ino: InodeNo, record_no: RecordNo) -> LooseRecord | None:
        """Return a record's loose pages, or None."""
        return self._of.get((ino, record_no))

    def has(self, ino: InodeNo) -> bool:
        """Tell whether a file has loose pages."""
        return ino in self._numbers_of

    def oldest(self, bytes_max: int, *, but: Container["Place"] = (), of: Container[InodeNo] | None = None) -> list["Place"]:
        """Return the records (*of* these files) that have had loose pages for longest, about *bytes_max* bytes, none of *but*."""
        found: list[Place] = []
        for place, known in self._of.items():
            if bytes_max <= 0:
                break
            if place not in but and (of is None or place[0] in of):
                found.append(place)
                bytes_max -= known.raw_bytes
        return found

    def patch_nodes_max(self, page_count: int) -> int:
        """Return how many more nodes the tree takes at worst for so many pages of one record as patches."""
        return page_count * self._patches_per_page // self._patches_per_leaf + 2

    def _claim(self, raw_bytes: int, page_count: int) -> int:
        """Return the blocks that a record with so many loose pages takes at worst: as a record, or as patches over one."""
        store = self._volume.store
        node_blocks = store.geometry.node_blocks * store.superblock.metadata_copies
        return max(divide_up(raw_bytes, self._volume.block_bytes), self.patch_nodes_max(page_count) * node_blocks)

    def blocks_wanted(self, ino: InodeNo, inode: Inode, offset: int, end: int) -> int | None:
        """Return how many blocks more must be free before bytes *offset* to *end* may become loose pages; None: they cannot.

        They may if they are whole pages of one record, but not all of it, that is stored, not dirty, and reaches as far; and
        if so much has changed that a commit would store it anew anyway, not its changes alone. Raises NotResident, CorruptImage.
        """
        records, volume = self._records, self._volume
        if len(records.changed) + len(self._of) < volume.limits.loose_from or (offset | end) % PAGE_BYTES:
            return None
        if not volume.store.superblock.incompat & _PATCHES:  # nowhere to go if the record cannot be read
            return None
        record_no = RecordNo(offset >> inode.record_log2)
        here = ino, record_no
        start = record_no << inode.record_log2
        end -= start
        known = self._of.get(here)
        if known is not None:
            return self._growth_wanted(here, known, offset - start, end)
        if inode.size <= inode.record_bytes:  # it may become inline data, for which room would have to be promised
            return None
        if records.find_dirty(ino, record_no) is not None or here in records.patched or here in records.unreadable:
            return None
        if here in records.clean and not has_late_pages(volume):  # it need not be read to be stored anew
            return None
        item = records.find_item(ino, record_no)
        self._found = here, item
        if not isinstance(item, DataRecord) or item.flags & ~READABLE or not end <= item.raw_bytes <= inode.record_bytes:
            return None
        if offset == start and end == item.raw_bytes:
            return None
        return self._if_free(self._claim(item.raw_bytes, (end - (offset - start)) // PAGE_BYTES))

    def _growth_wanted(self, here: "Place", known: LooseRecord, start: int, end: int) -> int | None:
        """Like blocks_wanted, for bytes *start* to *end* of a record that has loose pages."""
        if end > known.raw_bytes:
            return None
        count = len(known.pages) + sum(at not in known.pages for at in range(start, end, PAGE_BYTES))
        if count * PAGE_BYTES * self._volume.limits.late_share > known.raw_bytes and here in self._records.clean:
            return None  # it will be stored anew, and need not be read for it
        return self._if_free(self._claim(known.raw_bytes, count) - known.reserved_blocks)

    def _if_free(self, blocks: int) -> int | None:
        """Return *blocks* if loose pages may claim as many more."""
        if blocks and (self._records.reserved_blocks + blocks) * FREE_SHARE > self._volume.store.maps.free_blocks:
            return None
        return blocks

    def add(self, ino: InodeNo, record_no: RecordNo, at: int, data: "Buffer") -> None:
        """Make *data* loose pages from byte *at* of a record on. `blocks_wanted` must have told that this can be.

        A record all of whose pages that are becomes dirty.
        """
        records, here = self._records, (ino, record_no)
        known = self._of.get(here)
        if known is None:
            place, item = self._found
            assert place == here and isinstance(item, DataRecord)
            known = self._of[here] = LooseRecord(item.raw_bytes, 0)
            self._numbers_of.setdefault(ino, set()).add(record_no)
            self.raw_bytes += item.raw_bytes
            records.dirty_count += 1
        before = len(known.pages)
        for start in range(0, len(data), PAGE_BYTES):
            known.pages[at + start] = bytes(data[start : start + PAGE_BYTES])
        records.dirty_bytes += (len(known.pages) - before) * PAGE_BYTES
        self.claim(known)
        if len(known.pages) * PAGE_BYTES == known.raw_bytes:  # nothing of the record remains: it need not be read
            records.replace(ino, record_no, known.laid_over(bytes(known.raw_bytes)))

    def claim(self, known: LooseRecord) -> None:
        """Claim the blocks that a record takes at worst with its loose pages."""
        self.give_up_claim(known, known.reserved_blocks - self._claim(known.raw_bytes, len(known.pages)))

    def give_up_claim(self, known: LooseRecord, blocks: int) -> None:
        """Claim so many blocks less: they have been placed."""
        self._records.reserved_blocks -= blocks
        known.reserved_blocks -= blocks

    def settle(self, place: "Place", stored: Iterable[tuple[int, bytes]]) -> None:
        """The tree has the pages *stored* of a record. Those of them that have changed meanwhile stay loose."""
        known, found = self._of[place], dict(stored)
        kept = {at: page for at, page in known.pages.items() if found.get(at) is not page}
        if not kept:
            self.drop(*place)
            return
        self._records.dirty_bytes -= (len(known.pages) - len(kept)) * PAGE_BYTES
        known.pages = kept
        self.claim(known)

    def drop(self, ino: InodeNo, record_no: RecordNo) -> None:
        """Forget the loose pages of a record, if it has any."""
        known = self._of.pop((ino, record_no), None)
        if known is None:
            return
        records = self._records
        self.raw_bytes -= known.raw_bytes
        records.dirty_bytes -= len(known.pages) * PAGE_BYTES
        records.dirty_count -= 1
        records.reserved_blocks -= known.reserved_blocks
        numbers = self._numbers_of[ino]
        numbers.remove(record_no)
        if not numbers:
            del self._numbers_of[ino]

    def drop_beyond(self, ino: InodeNo, first: int) -> None:
        """Forget the loose pages of a file's records from number *first* on."""
        for record_no in [number for number in self._numbers_of.get(ino, ()) if number >= first]:
            self.drop(ino, record_no)

    def clear(self) -> None:
        """Forget everything; the figures are whoever's who does that."""
        self._of.clear()
        self._numbers_of.clear()
        self.raw_bytes = 0


def has_late_pages(volume: "Volume") -> bool:
    """Tell whether records of this image may have late pages."""
    return bool(volume.store.superblock.incompat & _LATE_PAGES) and LATE_PAGE_BYTES % volume.block_bytes == 0


def items_of(volume: "Volume", places: Iterable["Place"]) -> list[tuple["Place", DataRecord]]:
    """Return the items of those of *places* that still have loose pages. Raises NotResident, CorruptImage, DeviceFailed."""
    loose, found = volume.records.loose, []
    for place in places:
        item = volume.records.find_item(*place) if loose.find(*place) is not None else None
        if isinstance(item, DataRecord):
            found.append((place, item))
    return found


def read_bases(volume: "Volume", items: Sequence[tuple["Place", DataRecord]]) -> list[Base]:
    """Read the records that *items* name. For any thread. A read that fails once is tried again."""
    return [Base(*place, item, _read(volume, item)) for place, item in items]


def _read(volume: "Volume", item: DataRecord) -> bytes | CorruptImage | DeviceFailed:
    for is_last in (False, True):
        try:
            return unpack_item(volume.store, item, item.raw_bytes)
        except (CorruptImage, DeviceFailed) as failed:
            if is_last:
                return failed
    raise AssertionError("the last try returns")


def merge(volume: "Volume", bases: Iterable[Base]) -> int:
    """Make the records dirty whose bases were read: with their loose pages over them, for the next flush.

    What has changed meanwhile stays as it is; returns how many have no loose pages any more. Raises what kept a base from being
    read if even its pages find no room.
    """
    records = volume.records
    before = len(records.loose)
    for base in bases:
        known = records.loose.find(base.ino, base.record_no)
        if known is None or records.find_item(base.ino, base.record_no) != base.item:
            continue
        records.flush_count += 1  # who prepared a write before prepares it anew
        if isinstance(base.found, bytes):
            records.replace(base.ino, base.record_no, known.laid_over(base.found))
        else:
            _enter_as_patches(volume, base, known, base.found)
    return before - len(records.loose)


def _enter_as_patches(volume: "Volume", base: Base, known: LooseRecord, failed: CorruptImage | DeviceFailed) -> None:
    """Keep the loose pages of a record that cannot be read where a mount after a crash would look for them."""
    ino, record_no, records = base.ino, base.record_no, volume.records
    start = record_no << volume.inodes.peek(ino).record_log2
    # The journal need not have room: a commit that is too large for it is a checkpoint.
    if not volume.promises.takes_nodes(records.loose.patch_nodes_max(len(known.pages)), known.reserved_blocks):
        raise type(failed)(
            f"inode {ino}, record {record_no} (bytes {start} to {start + known.raw_bytes - 1}): {failed}; what was written to it "
            f"since finds no room beside it: free some space, or delete the file"
        ) from failed
    step = patch_bytes(volume.store.geometry.node_bytes)
    places = []
    with volume.operation(Operation.FLUSH_DATA, ino):
        for at, page in sorted(known.pages.items()):
            for part in range(0, PAGE_BYTES, step):
                places.append(start + at + part)
                volume.store.put(patch_key(ino, places[-1]), Patch(0, page[part : part + step]).encode())
    records.loose.drop(ino, record_no)
    records.clean.drop(ino, record_no)
    records.patched.setdefault((ino, record_no), set()).update(places)
    records.unreadable[ino, record_no] = base.item
