"""Records in memory: dirty ones that wait for a flush; the clean ones have a module of their own (engine/clean.py).

Invariants: a dirty record holds the whole record from its first byte on, and what lies behind its last byte is zeros; but for
loose pages (engine/loose.py), which count among what is dirty. `dirty_bytes` is the sum of the sizes and `reserved_blocks` the
blocks that all this takes at worst, if nothing can be compressed, less what has been placed for it already. A record may reach
beyond the file's size (a tail that could not be cut when the file shrank): readers clip at the size, and whoever lets a file grow
cuts first. Data of type bytes is a snapshot that may be on its way to the device and is never changed in place.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from razortools.engine.clean import CleanRecords
from razortools.engine.loose import LoosePages
from razortools.engine.losses import Losses
from razortools.engine.store.residence import Missing, NotResident
from razortools.engine.stored import read_stored
from razortools.engine.tallies import Tallies
from razortools.errors import CorruptImage
from razortools.format.data import DataRecord, InlineData, Patch, laid_over
from razortools.format.inode import Inode, Orphan, OrphanReason
from razortools.format.keys import Kind, Table, inline_key, kind_of, object_of, offset_of, patch_key, record_key, table_range
from razortools.units import InodeNo, RecordNo, divide_up

if TYPE_CHECKING:
    from razortools.engine.adaptive import Packing
    from razortools.engine.placing import Placed
    from razortools.engine.volume import Volume

Buffer = bytes | bytearray | memoryview
Place = tuple[InodeNo, RecordNo]


class DirtyRecord:
    """What one record is to become. bytes: a snapshot, replaced at the next change; bytearray: changed in place.

    Bytes *changed_from* to *changed_to* (not included) are not in the tree yet. *is_based*: all others are, in the record or in
    the patches over it. *in_order*: it was written from its first byte on, each write where the one before had ended.
    *packed*: contents and how to store them, for it became dirty as the tree has it, to be stored better. Of other contents it
    tells nothing, and it goes with the first change.
    """

    __slots__ = ("changed_from", "changed_to", "data", "in_order", "is_based", "packed", "reserved_blocks")

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data
        self.reserved_blocks = 0
        self.changed_from = self.changed_to = 0
        self.in_order = False
        self.is_based = False
        self.packed: tuple[bytes, Packing] | None = None


class Records:
    """Owner of the volume's file data in memory. The counts of what is dirty, and `reserved_blocks`, are exact at any time."""

    def __init__(self, volume: "Volume") -> None:
        self._volume = volume
        self._dirty: dict[InodeNo, dict[RecordNo, DirtyRecord]] = {}  # both in the order in which they became dirty
        self.clean = CleanRecords(volume)
        self.dirty_bytes = 0
        self.dirty_count = 0
        self.reserved_blocks = 0
        # Those of the dirty ones that the tree does not have in patches, in the order in which they changed.
        self.changed: dict[Place, DirtyRecord] = {}
        # Dirty ones that were written in order up to their end, in the order in which they got there: more is hardly to come.
        self.complete: dict[Place, DirtyRecord] = {}
        self.complete_bytes = 0
        self.flush_count = 0  # records that a flush has made clean: who prepared a change before sees whether to prepare it anew
        self.losses = Losses()
        self.loose = LoosePages(volume, self)
        self.in_flight: dict[Placed, None] = {}  # flushes that hold blocks, in the order of placing
        self.patched: dict[Place, set[int]] = {}  # records with patches in the tree, and where in the file these start
        # Of those the ones that could not be read when the volume was opened, as the tree has them; None: not even that is known.
        self.unreadable: dict[Place, DataRecord | InlineData | None] = {}
        self._residence = volume.store.residence  # counts what was found and what was read; what is a hole counts as neither
        self._unfinished: set[InodeNo] = set()  # files being truncated; some may not be any more
        self._unfinished_is_whole = False  # whether all that the orphan table has are among them
        self.tallies = Tallies()  # of the records flushed since the volume was opened

    # What a record holds

    def contents(self, ino: InodeNo, inode: Inode, record_no: RecordNo) -> bytes | bytearray:
        """Return what is known of a record: dirty, cached, or read and decompressed now; b"" for a hole. Not to be changed.

        Shorter than the record: zeros follow. Raises CorruptImage, naming file and place, if it cannot be trusted; DeviceFailed;
        NotResident.
        """
        raw = self._held(ino, inode, record_no)
        loose = self.loose.find(ino, record_no)
        return raw if loose is None else loose.laid_over(raw)

    def part(self, ino: InodeNo, inode: Inode, record_no: RecordNo, start: int, stop: int) -> bytes:
        """Return bytes *start* to *stop* of `contents`, zeros behind its end. Raises as that does."""
        raw = self._held(ino, inode, record_no)
        part = raw[start:stop] if type(raw) is bytes else bytes(memoryview(raw)[start:stop])
        if len(part) < stop - start:
            part += bytes(stop - start - len(part))
        loose = self.loose.find(ino, record_no)
        return part if loose is None else loose.part(start, part)

    def _held(self, ino: InodeNo, inode: Inode, record_no: RecordNo) -> bytes | bytearray:
        """Return what a record holds but for its loose pages."""
        dirty = self.find_dirty(ino, record_no)
        if dirty is not None:
            self._residence.found_count += 1
            return dirty.data
        raw = self.clean.find(ino, record_no)
        if raw is None:
            return self._load(ino, inode, record_no)
        self._residence.found_count += 1
        return raw

    def is_in_memory(self, ino: InodeNo, record_no: RecordNo) -> bool:
        """Tell whether `contents` would answer without the device (a hole aside)."""
        return (ino, record_no) in self.clean or self.find_dirty(ino, record_no) is not None

    def missing(self, ino: InodeNo, inode: Inode, numbers: range) -> NotResident:
        """Return all that keeps `contents` of some records from being told, so that it is fetched together."""
        missing: list[Missing] = []
        for number in numbers:
            try:
                self.contents(ino, inode, RecordNo(number))
            except NotResident as told:
                missing += told.missing
        return NotResident(*missing)

    def stored_length(self, ino: InodeNo, record_no: RecordNo) -> int:
        """Return how many bytes the tree holds for a record, 0 for a hole, without reading them."""
        item = self.find_item(ino, record_no)
        length = item.raw_bytes if item is not None else 0
        if item is not None and (ino, record_no) in self.unreadable:
            start = record_no << self._volume.inodes.peek(ino).record_log2
            length = max([length, *(place - start + len(piece) for place, piece in self._patches(ino, record_no))])
        return length

    def find_item(self, ino: InodeNo, record_no: RecordNo) -> DataRecord | InlineData | None:
        """Return what the tree says of a record; None: it is a hole, or not flushed yet."""
        store = self._volume.store
        if record_no == 0:
            value = store.get(inline_key(ino))
            if value is not None:
                return InlineData.decode(value)
        value = store.get(record_key(ino, record_no))
        return None if value is None else DataRecord.decode(value)

    def _load(self, ino: InodeNo, inode: Inode, record_no: RecordNo) -> bytes:
        """Return a record from the tree and the device, and keep it."""
        item = self.find_item(ino, record_no)
        if item is None:
            return b""
        try:
            raw = read_stored(self._volume.store, item, inode.record_bytes)
        except CorruptImage as broken:
            first = record_no << inode.record_log2
            raise CorruptImage(
                f"inode {ino}, record {record_no} (bytes {first} to {first + item.raw_bytes - 1}): {broken}"
            ) from broken
        self._residence.read_count += 1
        if (ino, record_no) in self.unreadable:  # it can be read after all
            return self.laid_over(ino, inode, record_no, raw)
        self.keep(ino, record_no, raw)
        return raw

    def laid_over(self, ino: InodeNo, inode: Inode, record_no: RecordNo, raw: bytes | bytearray) -> bytes:
        """Return a record with the patches over it that the tree has. Raises CorruptImage, DeviceFailed."""
        start = record_no << inode.record_log2
        return laid_over(raw, ((place - start, piece) for place, piece in self._patches(ino, record_no)))

    def _patches(self, ino: InodeNo, record_no: RecordNo) -> Iterator[tuple[int, bytes]]:
        """Yield (place in the file, bytes) of the patches over a record."""
        for place in sorted(self.patched.get((ino, record_no), ())):
            value = self._volume.store.get(patch_key(ino, place))
            if value is not None:
                yield place, Patch.decode(value).data

    def keep(self, ino: InodeNo, record_no: RecordNo, raw: bytes) -> None:
        """Put the contents of a record that was read into the cache, unless patches lie over it."""
        if (ino, record_no) in self.unreadable:
            self.clean.drop(ino, record_no)
        else:
            self.clean.keep(ino, record_no, raw)

    # Dirty records

    def find_dirty(self, ino: InodeNo, record_no: RecordNo) -> DirtyRecord | None:
        """Return a record's dirty data, or None."""
        of_file = self._dirty.get(ino)
        return None if of_file is None else of_file.get(record_no)

    def dirty_of(self, ino: InodeNo) -> dict[RecordNo, DirtyRecord]:
        """Return the dirty records of a file, oldest first. To be read only."""
        return self._dirty.get(ino, {})

    def is_dirty(self, ino: InodeNo) -> bool:
        """Tell whether a flush may change how a file is stored."""
        return ino in self._dirty or self.loose.has(ino)

    def dirty_inodes(self) -> list[InodeNo]:
        """Return the files that have dirty records, oldest first."""
        return list(self._dirty)

    def blocks_wanted(self, ino: InodeNo, record_no: RecordNo, new_bytes: int) -> int:
        """Return how many blocks more must be free before the record may become dirty with *new_bytes* bytes."""
        dirty = self.find_dirty(ino, record_no)
        wanted = divide_up(new_bytes, self._volume.block_bytes)
        return wanted if dirty is None else max(0, wanted - dirty.reserved_blocks)

    def replace(self, ino: InodeNo, record_no: RecordNo, data: bytes | bytearray, *, as_stored: bool = False) -> None:
        """Make *data* the dirty contents of a record, whatever it held. The record belongs to the table now.

        *as_stored*: it is what the tree has; a change will follow.
        """
        of_file = self._dirty.get(ino)
        if of_file is None:
            of_file = self._dirty[ino] = {}
        dirty = of_file.get(record_no)
        if dirty is None:
            dirty = of_file[record_no] = DirtyRecord(b"")
            self.dirty_count += 1
            if self.clean.has(ino):
                self.clean.drop(ino, record_no)
            self.loose.drop(ino, record_no)
        if dirty.in_order:
            self._note_disorder(ino, record_no, dirty)
        self.dirty_bytes += len(data) - len(dirty.data)
        dirty.data = data
        dirty.packed = None
        dirty.is_based = as_stored
        dirty.changed_from, dirty.changed_to = 0, 0 if as_stored else len(data)
        if not as_stored:
            self.changed[ino, record_no] = dirty
        self.reserve(dirty)

    def store_anew(self, ino: InodeNo, record_no: RecordNo, raw: bytes, packing: "Packing") -> None:
        """Make a record dirty with *raw*, which is what the tree has, to be stored as *packing* unless it changes before."""
        self.flush_count += 1  # who prepared a write before prepares it anew
        self.replace(ino, record_no, raw, as_stored=True)
        self._dirty[ino][record_no].packed = raw, packing

    def packing_of(self, ino: InodeNo, record_no: RecordNo, raw: bytes) -> "Packing | None":
        """Return how the snapshot *raw* of a dirty record is to be stored, if that is known: it is what it became dirty with."""
        packed = self._dirty[ino][record_no].packed
        return packed[1] if packed is not None and packed[0] is raw else None

    def overwrite(self, ino: InodeNo, record_no: RecordNo, at: int, piece: Buffer) -> None:
        """Change the bytes from *at* on of a record that is dirty, or of which nothing remains; a gap becomes zeros."""
        dirty = self.find_dirty(ino, record_no)
        if dirty is None:
            self.replace(ino, record_no, bytes(at) + piece if at else bytes(piece))
            self._dirty[ino][record_no].in_order = not at
            return
        data = dirty.data
        before = len(data)
        if at == 0 and len(piece) >= before:
            self.replace(ino, record_no, bytes(piece))
            dirty.in_order = True
            return
        if at != before and dirty.in_order:
            self._note_disorder(ino, record_no, dirty)
        start, stop = at if at < before else before, at + len(piece)
        if dirty.changed_from >= dirty.changed_to:
            dirty.changed_from, dirty.changed_to = start, stop
            self.changed[ino, record_no] = dirty
        else:
            if start < dirty.changed_from:
                dirty.changed_from = start
            if stop > dirty.changed_to:
                dirty.changed_to = stop
        if type(data) is not bytearray:
            data = dirty.data = bytearray(data)
            dirty.packed = None
        if at >= before:
            if at > before:
                data.extend(bytes(at - before))
            data += piece
        else:
            data[at : at + len(piece)] = piece
        if len(data) != before:
            self.dirty_bytes += len(data) - before
            self.reserve(dirty)
        elif not dirty.reserved_blocks:  # a flush has placed it meanwhile, with the old bytes
            self.reserve(dirty)

    def note_end(self, ino: InodeNo, record_no: RecordNo) -> None:
        """A write has just reached the end of a record."""
        dirty = self._dirty[ino][record_no]
        if dirty.in_order:
            self.complete[ino, record_no] = dirty
            self.complete_bytes += len(dirty.data)

    def _note_disorder(self, ino: InodeNo, record_no: RecordNo, dirty: DirtyRecord) -> None:
        """A record is being changed otherwise than at its end, or is not dirty any more."""
        dirty.in_order = False
        if self.complete.pop((ino, record_no), None) is not None:
            self.complete_bytes -= len(dirty.data)

    def drop_dirty_beyond(self, ino: InodeNo, size: int, record_log2: int) -> None:
        """Drop the dirty records of a file that lie wholly beyond *size* bytes."""
        first = divide_up(size, 1 << record_log2)
        for record_no in [number for number in self.dirty_of(ino) if number >= first]:
            self.drop_dirty(ino, record_no)
        self.loose.drop_beyond(ino, first)
        self.losses.note_cut(ino, first)

    def drop_dirty(self, ino: InodeNo, record_no: RecordNo) -> None:
        """Forget a record's dirty data: it was flushed, or is not wanted any more."""
        of_file = self._dirty[ino]
        dirty = of_file.pop(record_no)
        self.dirty_bytes -= len(dirty.data)
        self.dirty_count -= 1
        self.reserved_blocks -= dirty.reserved_blocks
        self.changed.pop((ino, record_no), None)
        if dirty.in_order:
            self._note_disorder(ino, record_no, dirty)
        if not of_file:
            del self._dirty[ino]

    def note_flushed(self, ino: InodeNo, record_no: RecordNo, raw: bytes) -> None:
        """A dirty record is in the tree now, with the contents *raw*; b"" for a hole. The patches over it are not any more."""
        self.drop_dirty(ino, record_no)
        self.patched.pop((ino, record_no), None)
        self.unreadable.pop((ino, record_no), None)
        self.clean.keep_unread(ino, record_no, raw)
        self.flush_count += 1
        if self.losses:
            self.losses.note_stored(ino, record_no)

    def lose(self, ino: InodeNo, record_no: RecordNo, failure: CorruptImage) -> None:
        """Give up a dirty record that can never be stored, because the tree is damaged where it would stand.

        Whoever syncs the file is told (`losses`); nobody else's data waits for it.
        """
        self.drop_dirty(ino, record_no)
        self.flush_count += 1
        self.losses.note(ino, record_no, failure)

    def note_late(self, ino: InodeNo, record_no: RecordNo, pages: Sequence[tuple[int, bytes]]) -> None:
        """Loose *pages* of a record are in the tree now, as late pages. What was read of the record gets them."""
        self.loose.settle((ino, record_no), pages)
        raw = self.clean.find(ino, record_no)
        if raw is not None:
            self.clean.replace(ino, record_no, laid_over(raw, pages))
        self.flush_count += 1

    def discard(self, ino: InodeNo) -> None:
        """Forget all data of a file that is being deleted, dirty data too."""
        if self.is_dirty(ino):
            self.drop_dirty_beyond(ino, 0, 0)
        self.losses.note_cut(ino)
        self.clean.drop_file(ino)

    def reserve(self, dirty: DirtyRecord) -> None:
        """Claim the blocks that the record takes at worst."""
        wanted = divide_up(len(dirty.data), self._volume.block_bytes)
        self.reserved_blocks += wanted - dirty.reserved_blocks
        dirty.reserved_blocks = wanted

    def unreserve(self, dirty: DirtyRecord) -> None:
        """Give up the claim: blocks have been placed for the record."""
        self.reserved_blocks -= dirty.reserved_blocks
        dirty.reserved_blocks = 0

    def snapshots(
        self, inodes: Iterable[InodeNo] | None = None, *, some: Mapping[Place, DirtyRecord] | None = None
    ) -> Iterator[tuple[InodeNo, RecordNo, bytes]]:
        """Yield (inode, record, contents) of dirty records, oldest first. Changes after this replace the bytes object.

        With *some* of these alone: `changed` without those that the tree has in patches, or `complete`; *inodes* is None then.
        """
        if some is not None:
            for (ino, record_no), dirty in list(some.items()):
                raw = dirty.data = bytes(dirty.data)
                yield ino, record_no, raw
            return
        for ino in self.dirty_inodes() if inodes is None else inodes:
            for record_no, dirty in list(self.dirty_of(ino).items()):
                raw = dirty.data = bytes(dirty.data)
                yield ino, record_no, raw

    def note_patched(self, ino: InodeNo, record_no: RecordNo, places: Iterable[int]) -> None:
        """All that has changed in a dirty record is in the tree, the patches at *places* of the file among others."""
        dirty = self.changed.pop((ino, record_no))
        dirty.changed_from = dirty.changed_to = 0
        self.patched.setdefault((ino, record_no), set()).update(places)

    @property
    def changed_bytes(self) -> int:
        """Bytes of the dirty records that the tree does not have in patches, and of what has loose pages."""
        if not self.patched:
            return self.flush_bytes
        return sum(len(dirty.data) for dirty in self.changed.values()) + self.loose.raw_bytes

    @property
    def flush_bytes(self) -> int:
        """Bytes to compress when all that is dirty is flushed: loose pages take their whole records along."""
        return self.dirty_bytes + self.loose.raw_bytes

    # Being told

    def is_unfinished(self, ino: InodeNo) -> bool:
        """Tell whether this file was truncated and may still have records beyond its size."""
        if not self._unfinished_is_whole:
            orphans = self._volume.store.items(*table_range(Table.ORPHANS))
            self._unfinished |= {
                InodeNo(object_of(key)) for key, value in orphans if Orphan.decode(value).reason == OrphanReason.TRUNCATING
            }
            self._unfinished_is_whole = True
        return ino in self._unfinished

    def note_unfinished(self, ino: InodeNo, unfinished: bool) -> None:
        """Tell whether records beyond the file's size are left to delete."""
        (self._unfinished.add if unfinished else self._unfinished.discard)(ino)

    def forget_key(self, key: bytes) -> None:
        """Drop what was read of an item: its change was taken back. Dirty data stays."""
        kind = kind_of(key)
        if kind in (Kind.DATA_RECORD, Kind.INLINE_DATA):
            self.clean.drop(InodeNo(object_of(key)), RecordNo(offset_of(key)))
        elif kind == Kind.ORPHAN:
            self._unfinished_is_whole = False  # what is known stays: of files without a name the table does not tell

    def forget_all(self) -> None:
        """Drop everything, dirty data included: the volume went back to its last commit."""
        self._dirty.clear()
        self.clean.clear()
        self.patched.clear()
        self.unreadable.clear()
        self.changed.clear()
        self.complete.clear()
        self.loose.clear()
        self._unfinished_is_whole = False
        self.dirty_bytes = self.dirty_count = self.reserved_blocks = self.complete_bytes = 0
