"""Read-ahead: loading records into the cache before they are asked for, and out of the way of everything else.

    plan_read     which records of a range are not in memory      the volume's thread
    load          read, verify, decompress                        any thread
    apply_read    put them into the cache                         the volume's thread

Then `files.read` finds them there. Invariants: what was written, cut or freed between the steps is not taken over: only a
record whose item in the tree is still the planned one goes into the cache. Errors are not reported here; the read that
follows meets them again and reports them, for a block that was freed and used anew meanwhile is no damage.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from razortools.engine.stored import unpack_item
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.data import DataRecord
from razortools.units import KIB, MIB, InodeNo, RecordNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

WINDOW_BYTES_MIN = 64 * KIB  # 16 blocks
WINDOW_BYTES_MAX = 4 * MIB
READERS_KEPT = 1024


@dataclass(frozen=True, slots=True)
class MissingRecord:
    """A stored record that is not in memory."""

    ino: InodeNo
    record_no: RecordNo
    record_bytes: int
    item: DataRecord


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """What a range of a file lacks in memory; a value, for any thread. Nothing is lacking: no records."""

    records: tuple[MissingRecord, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Contents of the records of a plan that could be read."""

    records: tuple[tuple[MissingRecord, bytes], ...]


def plan_read(volume: "Volume", ino: InodeNo, offset: int, size: int) -> ReadPlan:
    """Return the records of a range (clipped at the end of the file) that a read would fetch from the device.

    Reads the tree, not the data. Plans no more than a quarter of the cache holds. Raises PosixError(ENOENT), CorruptImage.
    """
    inode = volume.inodes.get(ino)
    end = min(offset + size, inode.size)
    if end <= offset or not inode.stored_blocks:
        return ReadPlan(())
    room = max(1, (volume.limits.record_cache_bytes // 4) >> inode.record_log2)
    first = offset >> inode.record_log2
    last = min((end - 1) >> inode.record_log2, first + room - 1)
    missing: list[MissingRecord] = []
    for number in range(first, last + 1):
        record_no = RecordNo(number)
        if not volume.records.is_in_memory(ino, record_no):
            item = volume.records.find_item(ino, record_no)
            if isinstance(item, DataRecord):
                missing.append(MissingRecord(ino, record_no, inode.record_bytes, item))
    return ReadPlan(tuple(missing))


def load(volume: "Volume", plan: ReadPlan) -> Loaded:
    """Read, verify and decompress the records of a plan. For any thread. What fails is left out."""
    loaded: list[tuple[MissingRecord, bytes]] = []
    for missing in plan.records:
        try:
            raw = unpack_item(volume.store, missing.item, missing.record_bytes)
        except (CorruptImage, DeviceFailed):
            continue
        loaded.append((missing, raw))
    return Loaded(tuple(loaded))


def apply_read(volume: "Volume", loaded: Loaded) -> None:
    """Put what was loaded into the cache, as far as it is still what the tree says."""
    records = volume.records
    for missing, raw in loaded.records:
        ino, record_no = missing.ino, missing.record_no
        if not records.is_in_memory(ino, record_no) and records.find_item(ino, record_no) == missing.item:
            records.keep(ino, record_no, raw)


class SequentialReaders:
    """Tells how much to load ahead of a reader: nothing before it reads on where it stopped, then twice as much each time."""

    def __init__(self) -> None:
        self._readers: OrderedDict[InodeNo, tuple[int, int, int]] = OrderedDict()  # next offset, window, loaded up to

    def ahead(self, ino: InodeNo, offset: int, size: int) -> tuple[int, int]:
        """Note a read and return (offset, size) of what to load ahead of it now; size 0: nothing.

        The answer comes half a window before the reader gets there, so that loading and reading overlap.
        """
        next_offset, window, loaded_to = self._readers.pop(ino, (0, 0, 0))
        end = offset + size
        answer = (end, 0)
        if offset != next_offset or size <= 0:
            window, loaded_to = 0, 0
        elif end + window // 2 >= loaded_to:
            window = min(max(WINDOW_BYTES_MIN, 2 * window), WINDOW_BYTES_MAX)
            start = max(end, loaded_to)
            loaded_to = end + window
            answer = (start, max(0, loaded_to - start))
        self._readers[ino] = (end, window, loaded_to)
        if len(self._readers) > READERS_KEPT:
            self._readers.popitem(last=False)
        return answer
