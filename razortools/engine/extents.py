"""Where a file has data and where it has holes, for lseek(2) with SEEK_DATA and SEEK_HOLE.

A hole is what is nowhere: neither in a dirty record nor in the tree. A record is data up to its last byte, and what follows in
it is a hole again; records of zeros are dropped when they are flushed, so what looks like data now may be a hole later, never the
other way round without a write.
"""

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from razortools.errors import PosixError
from razortools.format.data import DataRecord, InlineData
from razortools.format.keys import Kind, inline_key, kind_range, offset_of, record_key
from razortools.units import InodeNo, RecordNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume


def next_data(volume: "Volume", ino: InodeNo, offset: int) -> int:
    """Return the first place from *offset* on that has data. Raises PosixError: ENXIO if there is none, ENOENT, EINVAL."""
    size = _checked_size(volume, ino, offset)
    for start, end in _extents(volume, ino, offset, size):
        if end > offset:
            return max(start, offset)
    raise PosixError(errno.ENXIO, f"no data from offset {offset} on")


def next_hole(volume: "Volume", ino: InodeNo, offset: int) -> int:
    """Return the first place from *offset* on that is a hole; the end of the file counts as one. Raises as next_data does."""
    size = _checked_size(volume, ino, offset)
    for start, end in _extents(volume, ino, offset, size):
        if start > offset:
            break
        offset = max(offset, end)
    return offset


def _checked_size(volume: "Volume", ino: InodeNo, offset: int) -> int:
    inode = volume.inodes.get(ino)
    if not inode.is_regular:
        raise PosixError(errno.EINVAL, f"inode {ino} is no regular file")
    if not 0 <= offset < inode.size:
        raise PosixError(errno.ENXIO, f"offset {offset} is not within {inode.size} bytes")
    return inode.size


def _extents(volume: "Volume", ino: InodeNo, offset: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the data of each record from the one at *offset* on, in order, clipped to *size*."""
    record_log2 = volume.inodes.get(ino).record_log2
    first = RecordNo(offset >> record_log2)
    dirty = {number: len(record.data) for number, record in volume.records.dirty_of(ino).items() if number >= first}
    waiting = sorted(dirty, reverse=True)
    for number, length in _stored(volume, ino, first):
        while waiting and waiting[-1] < number:
            fresh = waiting.pop()
            yield _clipped(fresh, dirty[fresh], record_log2, size)
        if waiting and waiting[-1] == number:
            waiting.pop()
        yield _clipped(number, dirty.get(number, length), record_log2, size)
    for number in reversed(waiting):
        yield _clipped(number, dirty[number], record_log2, size)


def _stored(volume: "Volume", ino: InodeNo, first: RecordNo) -> Iterator[tuple[RecordNo, int]]:
    """Yield (number, bytes) of the records from *first* on that the tree holds."""
    if first == 0:
        inline = volume.store.get(inline_key(ino))
        if inline is not None:
            yield RecordNo(0), InlineData.decode(inline).raw_bytes
    for key, value in volume.store.items(record_key(ino, first), kind_range(ino, Kind.DATA_RECORD)[1]):
        yield RecordNo(offset_of(key)), DataRecord.decode(value).raw_bytes


def _clipped(number: RecordNo, length: int, record_log2: int, size: int) -> tuple[int, int]:
    start = number << record_log2
    return min(start, size), min(start + length, size)
