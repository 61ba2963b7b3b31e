"""Clean records: a bounded cache of what records hold, decompressed, as the tree has them.

Whoever writes a large file does not empty the cache: records that were written and have not been looked at since take no more
than a share of it. Invariants: the bytes that all this takes, overhead included, are at most limits.record_cache_bytes, but for
the moment after that sank; a record that is here is what its item names, and whoever changes the item drops or replaces it.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING

from razortools.units import InodeNo, RecordNo

if TYPE_CHECKING:
    from razortools.engine.records import Place
    from razortools.engine.volume import Volume

# What a clean record takes besides its bytes: the objects for its key, its place in an ordered dictionary, and the set of its
# file's records, which most files have to themselves. Small files would fill many times the limit unseen.
RECORD_OVERHEAD_BYTES = 512
UNREAD_SHARE = 4  # of the cache, for records that were written and have not been looked at since


class CleanRecords:
    """Owner of the clean records of a volume. *total_bytes*: memory that they take, with all that keeps them."""

    def __init__(self, volume: "Volume") -> None:
        """Keep to the limits of *volume*, whatever they are at the moment."""
        self._volume = volume
        self._of: OrderedDict[Place, bytes] = OrderedDict()  # what was used last is at the end
        self._numbers_of: dict[InodeNo, set[RecordNo]] = {}
        self._unread: OrderedDict[Place, None] = OrderedDict()  # written and not looked at since
        self._unread_bytes = 0
        self.total_bytes = 0

    def __len__(self) -> int:
        """How many records are here."""
        return len(self._of)

    def __contains__(self, place: "Place") -> bool:
        """Whether a record is here."""
        return place in self._of

    def has(self, ino: InodeNo) -> bool:
        """Tell whether any record of a file is here."""
        return ino in self._numbers_of

    def find(self, ino: InodeNo, record_no: RecordNo) -> bytes | None:
        """Return a record because somebody wants it, or None."""
        place = ino, record_no
        raw = self._of.get(place)
        if raw is not None:
            self._of.move_to_end(place)
            if self._unread:
                self._note_read(place, raw)
        return raw

    def keep(self, ino: InodeNo, record_no: RecordNo, raw: bytes) -> None:
        """Put a record in, in place of what was known of it. The empty one, a hole, is not worth it."""
        limit = self._volume.limits.record_cache_bytes
        self.drop(ino, record_no)
        if not raw or len(raw) + RECORD_OVERHEAD_BYTES > limit:
            return
        self._of[ino, record_no] = raw
        self._numbers_of.setdefault(ino, set()).add(record_no)
        self.total_bytes += len(raw) + RECORD_OVERHEAD_BYTES
        while self.total_bytes > limit:
            self.drop(*next(iter(self._of)))

    def keep_unread(self, ino: InodeNo, record_no: RecordNo, raw: bytes) -> None:
        """Put in what was just written and stored, where such records take no more than a share.

        The kernel has it, too. Who writes a large file takes the same memory over and over by that: memory of which the system
        makes pages anew takes longer to fill than to copy.
        """
        self.keep(ino, record_no, raw)
        if (ino, record_no) not in self._of:
            return
        self._unread[ino, record_no] = None
        self._unread_bytes += len(raw) + RECORD_OVERHEAD_BYTES
        while self._unread_bytes > self._volume.limits.record_cache_bytes // UNREAD_SHARE:
            self.drop(*next(iter(self._unread)))

    def replace(self, ino: InodeNo, record_no: RecordNo, raw: bytes) -> None:
        """A record holds *raw* now: whoever has it here has that."""
        if (ino, record_no) in self._of:
            self.keep(ino, record_no, raw)

    def drop(self, ino: InodeNo, record_no: RecordNo) -> None:
        """Forget a record, if it is here."""
        raw = self._of.pop((ino, record_no), None)
        if raw is None:
            return
        self._note_read((ino, record_no), raw)
        self.total_bytes -= len(raw) + RECORD_OVERHEAD_BYTES
        numbers = self._numbers_of[ino]
        numbers.remove(record_no)
        if not numbers:
            del self._numbers_of[ino]

    def drop_file(self, ino: InodeNo) -> None:
        """Forget all records of a file."""
        for record_no in list(self._numbers_of.get(ino, ())):
            self.drop(ino, record_no)

    def shrink(self, count_max: int) -> bool:
        """Drop records, what was not used lately first, until the limit holds or *count_max* are dropped.

        Returns whether there is more to drop.
        """
        limit = self._volume.limits.record_cache_bytes
        for _ in range(count_max):
            if self.total_bytes <= limit:
                return False
            self.drop(*next(iter(self._of)))
        return self.total_bytes > limit

    def clear(self) -> None:
        """Forget everything."""
        self._of.clear()
        self._numbers_of.clear()
        self._unread.clear()
        self.total_bytes = self._unread_bytes = 0

    def _note_read(self, place: "Place", raw: bytes) -> None:
        """A record is wanted, or goes: it does not count among the unread ones any more."""
        if self._unread.pop(place, self) is None:
            self._unread_bytes -= len(raw) + RECORD_OVERHEAD_BYTES
