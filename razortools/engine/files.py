"""Files: reading, writing and truncating their contents. The whole data path is reached through this module.

Invariants: a write or truncate happens completely or not at all (a write of more than STEP_BYTES in several such steps); its
data is dirty in memory when it returns and durable after the next commit, together with everything that was executed before
it. What was never written reads as zeros.
"""

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

from razortools.engine import truncation
from razortools.engine.entering import apply_flush, visit
from razortools.engine.flush import flush_all, make_room
from razortools.engine.flush_plan import FlushPlan, Packed, pack, plan_flush
from razortools.engine.placing import Placed, give_back, place, place_late, write_out
from razortools.engine.records import Buffer, Records
from razortools.engine.store.residence import NotResident
from razortools.engine.truncation import delete_contents, delete_step
from razortools.errors import PosixError
from razortools.format.data import FILE_BYTES_MAX, RECORD_BYTES_MIN
from razortools.format.inode import Inode
from razortools.format.journal import Operation
from razortools.units import MIB, InodeNo, RecordNo, divide_up

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

__all__ = [
    "FlushPlan", "Packed", "Placed", "apply_flush", "delete_contents", "delete_step", "flush_all", "fsync", "give_back", "pack",
    "place", "place_late", "plan_flush", "read", "read_parts", "truncate", "visit", "write", "write_out",
]  # fmt: skip

_WRITE = Operation.WRITE  # a member of an enumeration is found slowly
Base = tuple[RecordNo, bytes | bytearray, bool]  # a record that must become dirty, what it holds, whether the tree holds the same

STEP_RECORDS = 256  # the most records that one write makes dirty: what their items need in the tree is promised from this bound
STEP_BYTES = 4 * MIB  # the most that one write operation carries (less if limits.dirty_bytes is); FUSE sends 1 MiB at most


def read(volume: "Volume", ino: InodeNo, offset: int, size: int) -> bytes:
    """Return up to *size* bytes from *offset*: fewer only at the end of the file. Holes are zeros.

    Raises PosixError (ENOENT, EISDIR, EINVAL); CorruptImage if a record in the range cannot be trusted; DeviceFailed; in an
    attempt NotResident, with all of the range that is missing.
    """
    parts = read_parts(volume, ino, offset, size)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_parts(volume: "Volume", ino: InodeNo, offset: int, size: int) -> list[bytes]:
    """Return what read() does, in parts that follow one another: whoever hands them on need not put them together."""
    inode = volume.inodes.get(ino)
    if not inode.is_regular:
        _require_data(ino, inode)
    if offset < 0 or size < 0:
        raise PosixError(errno.EINVAL, f"cannot read {size} bytes from offset {offset}")
    end = min(offset + size, inode.size)
    if end <= offset:
        return []
    record_log2 = inode.record_log2
    part = volume.records.part
    record_no = offset >> record_log2
    start = record_no << record_log2
    if end <= start + (1 << record_log2):
        return [part(ino, inode, RecordNo(record_no), offset - start, end - start)]
    parts: list[bytes] = []  # no views: what is dirty cannot grow while an error keeps this frame, and with it a view
    while offset < end:
        stop = min(end, start + (1 << record_log2))
        try:
            parts.append(part(ino, inode, RecordNo(record_no), offset - start, stop - start))
        except NotResident:
            raise volume.records.missing(ino, inode, range(record_no, ((end - 1) >> record_log2) + 1)) from None
        record_no += 1
        offset = start = stop
    return parts


def write(volume: "Volume", ino: InodeNo, offset: int, data: Buffer) -> int:
    """Write *data* at *offset* and return its length; fewer only if a later step of a long write found no room.

    Raises PosixError (ENOENT, EISDIR, EINVAL, EFBIG), OutOfSpace, ReadOnly; CorruptImage or DeviceFailed if a record that is
    overwritten in part cannot be read. Then nothing has changed. Flushes older records when limits.dirty_bytes asks for it.
    """
    length = len(data)
    if offset < 0:
        raise PosixError(errno.EINVAL, f"cannot write at offset {offset}")
    if offset + length > FILE_BYTES_MAX:
        raise PosixError(errno.EFBIG, f"a file holds up to {FILE_BYTES_MAX} bytes")
    step_bytes = min(STEP_BYTES, volume.limits.dirty_bytes)
    if length > STEP_RECORDS * RECORD_BYTES_MIN:
        step_bytes = min(step_bytes, STEP_RECORDS << volume.inodes.get(ino).record_log2)
    if length <= step_bytes:
        if length:
            _write_step(volume, ino, offset, data)
        return length
    view = memoryview(data)
    written = 0
    while written < length:
        step = view[written : written + step_bytes]
        try:
            # Steps after the first wait in place: the operation before them is complete (store/residence.py).
            _write_step(volume, ino, offset + written, step)
        except Exception:
            if written:  # as POSIX has it: what was written is told, the error comes with the next call
                return written
            raise
        written += len(step)
    return written


def truncate(volume: "Volume", ino: InodeNo, size: int) -> None:
    """Set the size of a file: what lies beyond is deleted, what is new is a hole. Sets mtime and ctime even if nothing changes.

    Raises PosixError (ENOENT, EISDIR, EINVAL, EFBIG), ReadOnly; OutOfSpace, CorruptImage and DeviceFailed only when growing.
    """
    inode = volume.inodes.get(ino)
    _require_data(ino, inode)
    if size < 0:
        raise PosixError(errno.EINVAL, f"a file cannot have {size} bytes")
    if size > FILE_BYTES_MAX:
        raise PosixError(errno.EFBIG, f"a file holds up to {FILE_BYTES_MAX} bytes")
    if size > inode.size:
        truncation.grow(volume, ino, size)
    else:
        truncation.shrink(volume, ino, size)


def fsync(volume: "Volume", ino: InodeNo) -> None:
    """Make the file durable, and with it everything that was executed before. Raises PosixError(ENOENT), DeviceFailed."""
    volume.inodes.get(ino)
    volume.commit()


def _require_data(ino: InodeNo, inode: Inode) -> None:
    """Refuse what has no contents of its own."""
    if inode.is_directory:
        raise PosixError(errno.EISDIR, f"inode {ino} is a directory")
    if not inode.is_regular:
        raise PosixError(errno.EINVAL, f"inode {ino} is no regular file")


def _write_step(volume: "Volume", ino: InodeNo, offset: int, data: Buffer) -> None:
    """Do one atomic write of at least a byte: look and validate, then change."""
    records = volume.records
    end = offset + len(data)
    while True:
        inode = volume.inodes.get(ino)
        if not inode.is_regular:
            _require_data(ino, inode)
        record_log2 = inode.record_log2
        first, last = RecordNo(offset >> record_log2), (end - 1) >> record_log2
        touched_bytes = (last - first + 1) << record_log2
        if records.dirty_bytes + touched_bytes > volume.limits.dirty_bytes:
            make_room(volume, touched_bytes)
            inode = volume.inodes.get(ino)  # what it had to give up may have made the table forget its copies
        if end > inode.size and records.is_unfinished(ino):
            truncation.finish(volume, ino)
        loose = None
        if first == last and end <= inode.size:
            loose = records.loose.blocks_wanted(ino, inode, offset, end)
        bases, blocks = ((), loose) if loose is not None else _prepare(volume, ino, inode, offset, end)
        flushed = records.flush_count
        with volume.operation(_WRITE, ino, blocks=blocks) as now_ns:
            if records.flush_count != flushed:  # it had to flush before it could start: what was prepared is out of date
                continue
            if end > inode.size:
                inode.size = end
            inode.mtime_ns = inode.ctime_ns = now_ns
            volume.inodes.put(ino, inode)
            if loose is not None:
                records.loose.add(ino, first, offset - (first << record_log2), data)
                return
            for record_no, base, as_stored in bases:
                records.replace(ino, record_no, base, as_stored=as_stored)
            if first == last:
                records.overwrite(ino, first, offset - (first << record_log2), data)
                if end == (first + 1) << record_log2:
                    records.note_end(ino, first)
            else:
                _change(records, ino, record_log2, offset, data)
            return


def _prepare(volume: "Volume", ino: InodeNo, inode: Inode, offset: int, end: int) -> tuple[Sequence[Base], int]:
    """Return (records that must become dirty first, with what they hold; blocks that must be free for the whole write)."""
    records = volume.records
    record_log2 = inode.record_log2
    first, last = RecordNo(offset >> record_log2), (end - 1) >> record_log2
    if first == last and (inode.size == 0 or first == (inode.size - 1) >> record_log2):
        # Most writes: into the last record of a file, which is dirty as the file has it, or starts with this very write.
        dirty = records.find_dirty(ino, first)
        held = len(dirty.data) if dirty is not None else 0
        if held <= inode.size - (first << record_log2) and (dirty is not None or not inode.size):
            stop = end - (first << record_log2)
            wanted = divide_up(stop if stop > held else held, volume.block_bytes)
            return (), wanted if dirty is None else max(0, wanted - dirty.reserved_blocks)
    bases: list[Base] = []
    blocks = 0
    for number in range(first, last + 1):
        record_no = RecordNo(number)
        start = number << record_log2
        stop = min(end - start, 1 << record_log2)
        kept = min(inode.size - start, 1 << record_log2)
        dirty = records.find_dirty(ino, record_no)
        if dirty is not None and len(dirty.data) <= kept:
            blocks += records.blocks_wanted(ino, record_no, max(stop, len(dirty.data)))
            continue
        base: bytes | bytearray = b""
        as_stored = False
        if dirty is None and inode.size:
            records.find_item(ino, record_no)  # where it will stand: what cannot be read there could not be stored either
        if kept > 0 and (offset > start or stop < kept):  # else nothing of the old contents remains
            contents = records.contents(ino, inode, record_no)
            base = contents[:kept]
            is_whole = dirty is None and records.loose.find(ino, record_no) is None
            as_stored = is_whole and len(base) == len(contents) and (ino, record_no) not in records.patched
            stop = max(stop, len(base))
        if base or dirty is not None:
            bases.append((record_no, base, as_stored))
        blocks += records.blocks_wanted(ino, record_no, stop)
    if end > inode.size and not first <= (inode.size - 1) >> record_log2 <= last:
        for record_no, base in truncation.cut_before_growing(volume, ino, inode, end):
            bases.append((record_no, base, False))
            blocks += records.blocks_wanted(ino, record_no, len(base))
    return bases, blocks


def _change(records: Records, ino: InodeNo, record_log2: int, offset: int, data: Buffer) -> None:
    """Put *data* into several dirty records; those that do not exist become it. Cannot fail."""
    record_no = offset >> record_log2
    at = offset - (record_no << record_log2)
    view = memoryview(data)
    while view:
        piece = view[: (1 << record_log2) - at]
        records.overwrite(ino, RecordNo(record_no), at, piece)
        if at + len(piece) == 1 << record_log2:
            records.note_end(ino, RecordNo(record_no))
        view = view[len(piece) :]
        record_no, at = record_no + 1, 0
