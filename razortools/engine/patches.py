"""Patches: small changes of large records become durable as items of the tree, which the journal carries, and records later.

A log that is synced after each line, or a database that syncs a page, changes some bytes of a record of 128 KiB. To compress and
write all of it each time would cost many times the change. So a commit enters the pieces that changed as patches, 2 KiB each; the
record stays dirty in memory, and is stored anew when it is full, when memory asks, or at the next checkpoint. That removes its
patches.

Invariants: the tree's records with the patches over them are what the files hold, at every commit; a record with patches is dirty
in memory, so readers never look at a patch; the volume, when it opens, makes those dirty that a crash has left behind; no
checkpoint holds a patch, but for one that took the place of a commit too large for the journal.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from razortools.engine.flush_plan import inode_or_none, is_placed
from razortools.engine.records import DirtyRecord, Place
from razortools.errors import CorruptImage, DeviceFailed, OutOfSpace
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
SPARE_NODES = 64  # patches take room that nobody has promised; where there is little of it, records are stored at once


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
        try:
            _enter_record(volume, ino, inode, record_no, dirty)
        except OutOfSpace:
            return


def _is_wise(volume: "Volume") -> bool:
    """Whether there is room in the journal, the tree and the memory to put off storing records."""
    store, records = volume.store, volume.records
    if not store.superblock.incompat & Incompat.PATCHES or records.dirty_bytes > volume.limits.dirty_bytes // 2:
        return False
    spare_blocks = SPARE_NODES * store.geometry.node_blocks * store.superblock.metadata_copies
    return store.journal.used_bytes <= store.journal.ring_bytes // 2 and (
        store.free_blocks_for_data() > records.reserved_blocks + spare_blocks
    )


def _is_small_change(volume: "Volume", ino: InodeNo, record_no: RecordNo, dirty: DirtyRecord) -> bool:
    if not dirty.is_based or is_placed(volume, ino, record_no):
        return False
    changed = dirty.changed_to - dirty.changed_from
    if not 0 < changed <= volume.store.geometry.node_bytes or changed * volume.limits.patch_share > len(dirty.data):
        return False
    patched = volume.records.patched
    return (ino, record_no) in patched or len(patched) < RECORDS_MAX


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
    """Remove the patches whose records are gone: cut off, or of a file that was deleted. Raises DeviceFailed, CorruptImage."""
    records = volume.records
    for ino, record_no in [place for place in records.patched if records.find_dirty(*place) is None]:
        damaged = records.unreadable.get((ino, record_no))
        if damaged is not None and records.find_item(ino, record_no) == damaged:
            continue  # the patches over it are all there is of these bytes
        with volume.operation(Operation.FLUSH_DATA, ino):
            remove(volume, ino, record_no)
        del records.patched[ino, record_no]
        records.unreadable.pop((ino, record_no), None)


def load(volume: "Volume") -> None:
    """Make the records dirty that have patches: after a crash, or a transaction that was dropped. Raises DeviceFailed.

    A record that cannot be read stays as it is, with its patches: reading it tells why.
    """
    found: dict[Place, list[tuple[int, bytes]]] = {}
    for key, value in volume.store.items(*table_range(Table.PATCHES)):
        inode = inode_or_none(volume, ino := InodeNo(object_of(key)))
        record_no = RecordNo(offset_of(key) >> inode.record_log2 if inode is not None else 0)
        found.setdefault((ino, record_no), []).append((offset_of(key), Patch.decode(value).data))
    for (ino, record_no), pieces in found.items():
        volume.records.patched[ino, record_no] = {offset for offset, _ in pieces}
        inode = inode_or_none(volume, ino)
        if inode is not None and inode.is_regular and record_no << inode.record_log2 < inode.size:
            _load_record(volume, ino, inode, record_no, pieces)


def _load_record(volume: "Volume", ino: InodeNo, inode: Inode, record_no: RecordNo, pieces: list[tuple[int, bytes]]) -> None:
    try:
        base = volume.records.contents(ino, inode, record_no)
    except (CorruptImage, DeviceFailed):
        damaged = volume.records.find_item(ino, record_no)
        if damaged is not None:
            volume.records.unreadable[ino, record_no] = damaged
        return
    start = record_no << inode.record_log2
    data = _overlaid(base, ((offset - start, piece) for offset, piece in pieces))
    kept = inode.size - start
    # What lies beyond the size, a tail that could not be cut, must not reappear when the file grows: it is stored without it.
    volume.records.replace(ino, record_no, data[:kept], as_stored=len(data) <= kept)


def _overlaid(base: bytes | bytearray, pieces: Iterable[tuple[int, bytes]]) -> bytearray:
    """Return *base* with the pieces over it, each at its place; what lies between is zeros."""
    data = bytearray(base)
    for at, piece in pieces:
        if at > len(data):
            data.extend(bytes(at - len(data)))
        data[at : at + len(piece)] = piece
    return data
