"""Truncation: a file's size changes first, atomically; what lies beyond it is deleted in bounded steps.

Invariants: a file that may still have records beyond its size stands in the orphan table (reason TRUNCATING, or UNLINKED if
no name leads to it either), and these records are deleted before it grows again, at the latest by the next mount. Growing
never lets old bytes reappear: the tail of the last record is cut when the file shrinks, or, where that was not possible (no
room to store it anew, or it cannot be read), when it grows.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from razortools.engine.flush import make_room
from razortools.errors import CorruptImage, DeviceFailed, OutOfSpace
from razortools.format.data import DataRecord, InlineData
from razortools.format.inode import Inode, Orphan, OrphanReason
from razortools.format.journal import Operation
from razortools.format.keys import Kind, inline_key, kind_of, kind_range, offset_of, orphan_key, record_key
from razortools.units import InodeNo, RecordNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

STEP_RECORDS = 128  # records deleted in one operation: with their values, they take 12 KiB of journal

Piece = tuple[RecordNo, bytes | bytearray]  # a record that must become dirty, and what it is to hold


def grow(volume: "Volume", ino: InodeNo, size: int) -> None:
    """Make a file larger; the new part is a hole. Raises OutOfSpace, CorruptImage, before anything changed."""
    finish(volume, ino)
    records = volume.records
    while True:
        inode = volume.inodes.get(ino)
        make_room(volume, inode.record_bytes)
        pieces = cut_before_growing(volume, ino, inode, size)
        blocks = sum(records.blocks_wanted(ino, record_no, len(data)) for record_no, data in pieces)
        flushed = records.flush_count
        with volume.operation(Operation.TRUNCATE, ino, blocks=blocks) as now_ns:
            if records.flush_count == flushed:  # else it had to flush before it could start: prepare anew
                _set_size(volume, ino, size, now_ns)
                for record_no, data in pieces:
                    records.replace(ino, record_no, data)
                return


def shrink(volume: "Volume", ino: InodeNo, size: int) -> None:
    """Make a file smaller, or leave its size as it is; then delete what lies beyond. Works on a full image too.

    Raises CorruptImage, DeviceFailed before anything changed. Once the size has, it has been done: what cannot be deleted now
    stays noted.
    """
    volume.records.is_unfinished(ino)  # which may have to look in the tree
    with_tail = True
    while True:
        try:
            if _shrink(volume, ino, size, with_tail):
                break
        except OutOfSpace:  # no room to store the tail anew: it is cut when the file grows
            if not with_tail:
                raise
            with_tail = False
    with suppress(CorruptImage, DeviceFailed):
        finish(volume, ino)


def finish(volume: "Volume", ino: InodeNo) -> None:
    """Delete what an earlier truncation of this file has left over, if anything."""
    if volume.records.is_unfinished(ino):
        delete_contents(volume, ino, volume.inodes.get(ino).size)


def delete_contents(volume: "Volume", ino: InodeNo, keep_bytes: int) -> None:
    """Delete all data of a file that lies wholly beyond *keep_bytes*, in as many operations as it takes.

    Dirty data goes too. Ends a pending truncation (its orphan item is deleted); an unlinked file's item stays.
    """
    while delete_step(volume, ino, keep_bytes):
        pass


def delete_step(volume: "Volume", ino: InodeNo, keep_bytes: int) -> bool:
    """Do one bounded step of delete_contents; return whether there is more to do."""
    inode = volume.inodes.get(ino)
    volume.records.drop_dirty_beyond(
        ino, keep_bytes, inode.record_log2
    )  # first: the operation may have to flush before it starts
    keys, is_last = _keys_beyond(volume, ino, inode, keep_bytes)
    ends_truncation = is_last and inode.link_count > 0 and _orphan_reason(volume, ino) == OrphanReason.TRUNCATING
    if keys or ends_truncation:
        with volume.operation(Operation.FINISH_ORPHAN, ino, deleting=True):
            _delete_items(volume, ino, keys)
            if ends_truncation:
                volume.store.delete(orphan_key(ino))
    if is_last:
        volume.records.note_unfinished(ino, False)
    return not is_last


def cut_before_growing(volume: "Volume", ino: InodeNo, inode: Inode, new_size: int) -> list[Piece]:
    """Return the records that must become dirty, and how, before a file may grow to *new_size*: two reasons, at most one record.

    A tail beyond the old size would reappear; inline data is only for files of one record. Raises CorruptImage, DeviceFailed.
    """
    size = inode.size
    if size == 0 or (size & (inode.record_bytes - 1) == 0 and size != inode.record_bytes):
        return []  # nothing there, or the last record is full and stands in blocks
    last = RecordNo((size - 1) >> inode.record_log2)
    kept = size - (last << inode.record_log2)
    dirty = volume.records.find_dirty(ino, last)
    if dirty is not None:
        # One with patches may stay dirty for long, and may be based on inline data.
        leaves_inline = dirty.is_based and last == 0 and new_size > inode.record_bytes
        return [(last, dirty.data[:kept])] if len(dirty.data) > kept or leaves_inline else []
    item = volume.records.find_item(ino, last)
    if item is None:
        return []
    leaves_inline = isinstance(item, InlineData) and new_size > inode.record_bytes
    if volume.records.stored_length(ino, last) <= kept and not leaves_inline:
        return []
    return [(last, volume.records.contents(ino, inode, last)[:kept])]


def _shrink(volume: "Volume", ino: InodeNo, size: int, with_tail: bool) -> bool:
    """Set the size and delete the first bounded part in one operation; leave a note in the tree if there is more.

    Return False, with nothing changed, if a flush came between preparing and starting the operation.
    """
    records = volume.records
    inode = volume.inodes.get(ino)
    if with_tail:
        make_room(volume, inode.record_bytes)
    tail = _tail_to_cut(volume, ino, inode, size) if with_tail else None
    keys, is_all = _keys_beyond(volume, ino, inode, size)
    needs_note = not is_all and _orphan_reason(volume, ino) is None
    blocks = records.blocks_wanted(ino, tail[0], len(tail[1])) if tail else 0
    flushed = records.flush_count
    with volume.operation(Operation.TRUNCATE, ino, blocks=blocks, deleting=not blocks) as now_ns:
        if records.flush_count != flushed:
            return False
        _set_size(volume, ino, size, now_ns)
        _delete_items(volume, ino, keys)
        if needs_note:
            volume.store.put(orphan_key(ino), Orphan(OrphanReason.TRUNCATING).encode())
        if not is_all:
            records.note_unfinished(ino, True)
        records.drop_dirty_beyond(ino, size, inode.record_log2)
        if tail is not None:
            records.replace(ino, *tail)
    return True


def _tail_to_cut(volume: "Volume", ino: InodeNo, inode: Inode, size: int) -> Piece | None:
    """Return the record that a new, smaller size cuts through, cut. None: there is nothing to cut, or it is unreadable."""
    last = RecordNo(size >> inode.record_log2)
    kept = size & (inode.record_bytes - 1)
    dirty = volume.records.find_dirty(ino, last)
    length = len(dirty.data) if dirty is not None else volume.records.stored_length(ino, last)
    if not kept or length <= kept:
        return None
    try:
        return last, volume.records.contents(ino, inode, last)[:kept]
    except (CorruptImage, DeviceFailed):  # deleting works on damaged files too; growing will complain
        return None


def _set_size(volume: "Volume", ino: InodeNo, size: int, now_ns: int) -> None:
    inode = volume.inodes.get(ino)
    inode.size = size
    inode.mtime_ns = inode.ctime_ns = now_ns
    volume.inodes.put(ino, inode)


def _keys_beyond(volume: "Volume", ino: InodeNo, inode: Inode, keep_bytes: int) -> tuple[list[bytes], bool]:
    """Return (keys of stored data wholly beyond *keep_bytes*, at most STEP_RECORDS; whether these are all)."""
    keys = [] if keep_bytes or volume.store.get(inline_key(ino)) is None else [inline_key(ino)]
    first = -(-keep_bytes >> inode.record_log2)
    for key, _ in volume.store.items(record_key(ino, first), kind_range(ino, Kind.DATA_RECORD)[1]):
        if len(keys) == STEP_RECORDS:
            return keys, False
        keys.append(key)
    return keys, True


def _orphan_reason(volume: "Volume", ino: InodeNo) -> int | None:
    if ino in volume.inodes.nameless:
        return OrphanReason.UNLINKED
    value = volume.store.get(orphan_key(ino))
    return None if value is None else Orphan.decode(value).reason


def uncount(volume: "Volume", inode: Inode, raw_bytes: int, blocks: int) -> None:
    """Count data that are gone. Part of the running operation; changes *inode* in memory.

    Counts that damage has made too low must not keep anything from being deleted: they stop at zero, the check puts them right.
    """
    volume.counters.raw_bytes = max(volume.counters.raw_bytes - raw_bytes, 0)
    volume.counters.data_blocks = max(volume.counters.data_blocks - blocks, 0)
    inode.stored_blocks = max(inode.stored_blocks - blocks, 0)


def _delete_items(volume: "Volume", ino: InodeNo, keys: list[bytes]) -> None:
    """Delete items of file data and account for them. Part of the running operation."""
    blocks = raw_bytes = 0
    for key in keys:
        if kind_of(key) == Kind.DATA_RECORD:
            value = volume.store.get(key)
            if value is not None:
                record = DataRecord.decode(value)
                blocks += record.block_count(volume.block_bytes)
                raw_bytes += record.raw_bytes
        volume.store.delete(key)
        volume.records.clean.drop(ino, RecordNo(offset_of(key)))
    inode = volume.inodes.get(ino)
    uncount(volume, inode, raw_bytes, blocks)
    if blocks:
        volume.inodes.put(ino, inode)
