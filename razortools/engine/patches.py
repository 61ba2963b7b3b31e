"""Patches: small changes of large records become durable as items of the tree, which the journal carries, and records later.

A log that is synced after each line, or a database that syncs a page, changes some bytes of a record of 128 KiB. To compress and
write all of it each time would cost many times the change. So a commit enters the pieces that changed as patches, 2 KiB each; the
record stays dirty in memory, and is stored anew when it is full, when memory asks, or at the next checkpoint. That removes its
patches.

Invariants: the tree's records with the patches over them are what the files hold, at every commit; a record with patches is dirty
in memory, so readers never look at a patch; the volume, when it opens, makes those dirty that a crash has left behind; no
checkpoint holds a patch, but for that of a recovery and one that took the place of a commit too large for the journal.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from razortools.engine.flush_plan import inode_or_none, is_placed
from razortools.engine.records import DirtyRecord
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.data import Patch
from razortools.format.inode import Inode
from razortools.format.journal import Operation
from razortools.format.keys import Table, object_of, offset_of, patch_key, table_range
from razortools.format.node import patch_bytes
from razortools.format.superblock import Incompat
from razortools.units import InodeNo, RecordNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

RECORDS_MAX = 64  # bounds what is dirty for long, and what a mount after a crash has to read


def enter(volume: "Volume") -> None:
    """Enter the small changes of dirty records as patches. What is too large for that, or new, stays for the flush.

    Must follow a settled flight, with nothing placed. Raises DeviceFailed, CorruptImage.
    """
    records = volume.records
    # Many changed records: a flood of data, which is compressed in bulk.
    if len(records.changed) > RECORDS_MAX or not _is_wise(volume):
        return
    for (ino, record_no), dirty in list(records.changed.items()):
        if not _is_small_change(volume, ino, record_no, dirty):
            continue
        inode = inode_or_none(volume, ino)
        if inode is None or not inode.is_regular:
            continue
        if not volume.has_room_now():  # patches take room in tree and journal beside what is promised for storing the record
            return
        _enter_record(volume, ino, inode, record_no, dirty)


def _is_wise(volume: "Volume") -> bool:
    """Whether there is room in the journal and the memory to put off storing records."""
    store = volume.store
    if not store.superblock.incompat & Incompat.PATCHES:
        return False
    return store.journal.used_bytes <= store.journal.ring_bytes // 2 and (
        volume.records.dirty_bytes <= volume.limits.dirty_bytes // 2
    )


def _is_small_change(volume: "Volume", ino: InodeNo, record_no: RecordNo, dirty: DirtyRecord) -> bool:
    if not dirty.is_based or is_placed(volume, ino, record_no):
        return False
    changed = dirty.changed_to - dirty.changed_from
    if not 0 < changed <= volume.store.geometry.node_bytes or changed * volume.limits.patch_share > len(dirty.data):
        return False
    patched = volume.records.patched
    return (ino, record_no) in patched or len(patched) < min(RECORDS_MAX, volume.promises.dirty_records_max // 8)


def _enter_record(volume: "Volume", ino: InodeNo, inode: Inode, record_no: RecordNo, dirty: DirtyRecord) -> None:
    """Enter the changes of one record, unless that is full now: nothing more will be appended to it."""
    if dirty.changed_to == inode.record_bytes:
        return
    start = record_no << inode.record_log2
    step = patch_bytes(volume.store.geometry.node_bytes)
    places = range(dirty.changed_from // step * step, dirty.changed_to, step)
    with memoryview(dirty.data) as data, volume.operation(Operation.FLUSH_DATA, ino):
        for place in places:
            piece = bytes(data[place : place + step])
            volume.store.put(patch_key(ino, start + place), Patch(0, piece).encode())
    volume.records.note_patched(ino, record_no, (start + place for place in places))


def remove(volume: "Volume", ino: InodeNo, record_no: RecordNo) -> None:
    """Remove the patches over a record that is stored anew. Part of the running operation."""
    for place in volume.records.patched.get((ino, record_no), ()):
        volume.store.delete(patch_key(ino, place))


def sweep(volume: "Volume") -> None:
    """Remove the patches whose records are gone: cut off, or of a file that was deleted. Raises DeviceFailed."""
    records = volume.records
    for ino, record_no in [place for place in records.patched if records.find_dirty(*place) is None]:
        if (ino, record_no) in records.unreadable and _is_still_there(volume, ino, record_no):
            continue  # the patches over it are all there is of these bytes
        with volume.operation(Operation.FLUSH_DATA, ino):
            remove(volume, ino, record_no)
        del records.patched[ino, record_no]
        records.unreadable.pop((ino, record_no), None)


def _is_still_there(volume: "Volume", ino: InodeNo, record_no: RecordNo) -> bool:
    """Whether a record that load() could not read is still what it was, as far as can be told."""
    known = volume.records.unreadable[ino, record_no]
    try:
        item = volume.records.find_item(ino, record_no) if inode_or_none(volume, ino) is not None else None
    except (CorruptImage, DeviceFailed):
        return True
    return item is not None and (known is None or item == known)


def load(volume: "Volume") -> None:
    """Make the records dirty that have patches: after a crash, or a transaction that was dropped.

    A record that cannot be read stays as it is, with its patches: reading it tells why, and whoever can read it later gets it
    with the patches over it. Raises CorruptImage or DeviceFailed only if the patches themselves cannot be found.
    """
    records = volume.records
    for key, _ in volume.store.items(*table_range(Table.PATCHES)):
        ino, offset = InodeNo(object_of(key)), offset_of(key)
        try:
            inode = inode_or_none(volume, ino)
        except (CorruptImage, DeviceFailed):
            inode = None
            records.unreadable[ino, RecordNo(0)] = None
        record_no = RecordNo(offset >> inode.record_log2 if inode is not None else 0)
        records.patched.setdefault((ino, record_no), set()).add(offset)
    for ino, record_no in list(records.patched):
        if (ino, record_no) not in records.unreadable:
            _load_record(volume, ino, record_no)


def _load_record(volume: "Volume", ino: InodeNo, record_no: RecordNo) -> None:
    """Make a record with patches dirty, unless it lies beyond its file. A read that fails once is tried again."""
    for _ in range(2):
        try:
            inode = inode_or_none(volume, ino)
            if inode is None or not inode.is_regular or record_no << inode.record_log2 >= inode.size:
                return
            data = volume.records.laid_over(ino, inode, record_no, volume.records.contents(ino, inode, record_no))
        except (CorruptImage, DeviceFailed):
            continue
        kept = inode.size - (record_no << inode.record_log2)
        # What lies beyond the size, a tail that could not be cut, must not reappear when the file grows: it is stored without it.
        volume.records.replace(ino, record_no, data[:kept], as_stored=len(data) <= kept)
        return
    volume.records.unreadable[ino, record_no] = None
    with suppress(CorruptImage, DeviceFailed):
        volume.records.unreadable[ino, record_no] = volume.records.find_item(ino, record_no)
