"""Orphans: files without a name that still exist, because somebody holds them or because deleting them takes several operations.

Invariants: an inode whose link count is 0 stands in the orphan table, or will stand there with the next commit, being nameless
(engine/inodes.py) or in limbo (engine/limbo.py); and nothing but this module takes it from there. Whatever happens, the next
mount finishes what it finds in the table. No operation deletes more than a few hundred items or two nodes' worth, so a file of
millions of records goes in many small operations, each of which leaves a valid image.
"""

import errno
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from razortools.engine import truncation
from razortools.engine.limbo import UNLINKED
from razortools.errors import CorruptImage, DeviceFailed, OutOfSpace, PosixError
from razortools.format.inode import Inode, Orphan, OrphanReason
from razortools.format.items import owned_record
from razortools.format.journal import Operation
from razortools.format.keys import (
    KIND_AT,
    Kind,
    Table,
    back_link_key,
    kind_range,
    object_of,
    offset_of,
    orphan_key,
    own_range,
    table_range,
    xattr_key,
)
from razortools.units import InodeNo, RecordNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

ITEMS_AT_ONCE = 256  # a millisecond or two, and about 40 KiB of journal
TOGETHER_MAX = 8  # small files: their leaves are dirty, so at the worst a neighbour of each becomes so, too

_DATA_RECORD = int(Kind.DATA_RECORD)
_BACK_LINK = int(Kind.BACK_LINK)  # only the inode stands before its back links
_OWNING_NOTHING = frozenset((int(Kind.INODE), _BACK_LINK, int(Kind.INLINE_DATA)))


def hold(volume: "Volume", ino: InodeNo, count: int = 1) -> None:
    """Keep an inode in existence although its last name may go. Raises nothing; costs nothing on disk."""
    volume.inodes.hold(ino, count)


def release(volume: "Volume", ino: InodeNo, count: int = 1, *, finish_now: bool = True) -> bool:
    """Give *count* holds back; with the last hold an orphan is deleted. Return whether it is left to the caller to delete it.

    With *finish_now* the answer is always False. Without it, a caller that must not be kept waiting gets True and calls
    `finish_step` until that returns False, with as much time in between as it likes; holding the inode again meanwhile is not
    possible, for no name leads to it.
    """
    if not volume.inodes.release(ino, count):
        return False
    if ino in volume.inodes.limbo.files:
        volume.inodes.limbo.drop(ino)
        return False
    if volume.read_only:
        return False
    # The kernel forgets inodes by the thousand that nobody has used for long. The table is small and in memory, they are not.
    if ino not in volume.inodes.nameless and (volume.store.get(orphan_key(ino)) is None or volume.inodes.get(ino).link_count):
        return False
    if not finish_now:
        return True
    settle(volume, ino)
    return False


def drop_link(volume: "Volume", ino: InodeNo, inode: Inode, link_no: int, now_ns: int) -> bool:
    """Count one name less (a directory has no other), after its entry went; its back link goes here. Puts the inode.

    With its last name a small file that nobody holds goes at once, one that is held goes to limbo; any other becomes an orphan.
    Part of the running operation. Return whether the caller is to call `settle` after it.
    """
    left = 0 if inode.link_count == 1 or inode.is_directory else inode.link_count - 1
    held = volume.inodes.is_held(ino)
    is_unfinished = volume.records.is_unfinished(ino)  # it stands in the orphan table as a file that was being truncated
    if left == 0 and not is_unfinished and _cut_out(volume, ino, inode, link_no, now_ns, held=held):
        return not held
    volume.store.delete(back_link_key(ino, link_no))
    if left == 0 and not held and _delete_items(volume, ino, inode, volume.store.geometry.node_bytes // 4):
        if is_unfinished:
            volume.store.delete(orphan_key(ino))
        volume.inodes.remove(ino)
        return True
    inode.link_count = left
    inode.ctime_ns = now_ns
    if left == 0 and not is_unfinished:
        volume.inodes.put_unlinked(ino, inode)
    else:
        if left == 0:
            volume.store.put(orphan_key(ino), UNLINKED)  # who finishes the truncation must not take it from the table
        volume.inodes.put(ino, inode)
    return left == 0 and not held


def _cut_out(volume: "Volume", ino: InodeNo, inode: Inode, link_no: int, now_ns: int, *, held: bool) -> bool:
    """Cut a file that loses its last name out of the tree, as a whole, if it is small; if it is held it goes to limbo.

    Part of the running operation. False, nothing having changed, if that cannot be done.
    """
    inodes, store = volume.inodes, volume.store
    if held and (inode.flags or inode.stored_blocks or volume.records.is_dirty(ino) or not inodes.limbo.has_room):
        return False
    low, high = own_range(ino)
    gone = store.cut(low, high, ITEMS_AT_ONCE, _OWNING_NOTHING if held else None)
    if gone is None:
        return False
    contents = gone[2:]  # behind the inode and its back link
    if (contents and contents[0][0][KIND_AT] == _BACK_LINK) or len(gone) < 2 or offset_of(gone[1][0]) != link_no:
        contents = _with_other_links(volume, gone, link_no)
    inodes.note_removed(ino, inode)
    if held:
        inode.link_count = 0
        inode.ctime_ns = now_ns
        inodes.limbo.take_in(ino, inode, contents)
    elif contents:
        _uncount(volume, ino, inode, contents)
    return True


def _with_other_links(volume: "Volume", gone: list[tuple[bytes, bytes]], link_no: int) -> list[tuple[bytes, bytes]]:
    """Put the other links of an inode back whose count of links was wrong: these names must still lead back to their places.

    Part of the running operation. Return the contents among what is *gone*.
    """
    for key, value in gone:
        if key[KIND_AT] == _BACK_LINK and offset_of(key) != link_no:
            volume.store.put(key, value)
    return [item for item in gone if item[0][KIND_AT] > _BACK_LINK]


def settle(volume: "Volume", ino: InodeNo) -> None:
    """Do what is left to do after the last name of a file, or the last hold of an orphan, went.

    That it went is done and stays done: what damage, a device that does not read, or a full image keeps from being deleted now is
    left in the orphan table, for the next mount or razorfsck.
    """
    volume.records.discard(ino)
    try:
        finish(volume, ino)
    except (CorruptImage, DeviceFailed, OutOfSpace):
        return


def finish(volume: "Volume", ino: InodeNo) -> None:
    """Do all the work that is left for an orphan, in as many operations as it takes. Nothing happens if it is no orphan."""
    while finish_step(volume, ino):
        pass


def finish_step(volume: "Volume", ino: InodeNo) -> bool:
    """Do one operation's worth of the work that is left for an orphan. Return whether there is more."""
    if ino in volume.inodes.limbo.files:
        volume.inodes.limbo.drop(ino)
        return False
    value = UNLINKED if ino in volume.inodes.nameless else volume.store.get(orphan_key(ino))
    if value is None:
        return False
    inode = volume.inodes.get(ino)
    if inode.link_count == 0:
        volume.records.discard(ino)
    elif Orphan.decode(value).reason == OrphanReason.TRUNCATING:
        return truncation.delete_step(volume, ino, inode.size)
    with volume.operation(Operation.FINISH_ORPHAN, ino, deleting=True):
        is_nameless = ino in volume.inodes.nameless  # now: making room for the operation may have been a checkpoint
        done = inode.link_count == 0 and _delete_whole(volume, ino, inode) is not None
        if not done:
            done = _delete_items(volume, ino, inode, 2 * volume.store.geometry.node_bytes)
            if done:
                volume.inodes.remove(ino)
            else:
                volume.inodes.put(ino, inode)
        if done and not is_nameless:
            volume.store.delete(orphan_key(ino))
    return not done


def finish_together(volume: "Volume", inodes: Sequence[InodeNo]) -> list[InodeNo]:
    """Delete files that lost their last name lately and own little, in one operation for all; return the others, which are left.

    An operation costs as much as what it takes to delete one such file. What fails leaves all of them. Needs nothing that is not
    in memory. For no more than TOGETHER_MAX files.
    """
    assert len(inodes) <= TOGETHER_MAX
    nameless = volume.inodes.nameless
    some = [ino for ino in inodes if ino in nameless]
    left = [ino for ino in inodes if ino not in nameless]
    if not some:
        return left
    for ino in some:
        volume.records.discard(ino)
    deleted_bytes, bytes_max = 0, volume.store.geometry.node_bytes
    with volume.operation(Operation.FINISH_ORPHAN, some[0], deleting=True):
        for ino in some:
            # Asked anew: making room for the operation may have been a checkpoint, which puts all of them into the table.
            is_small = ino in nameless and deleted_bytes < bytes_max
            gone = _delete_whole(volume, ino, volume.inodes.get(ino)) if is_small else None
            if gone is None:
                left.append(ino)
            else:
                deleted_bytes += sum([len(value) for _, value in gone])
    return left


def standing(volume: "Volume") -> Iterator[InodeNo]:
    """Yield the inodes that are to be finished: those in the orphan table and those that have no name and are not there yet."""
    yield from sorted(volume.inodes.nameless | volume.inodes.limbo.files.keys())
    for key, _ in volume.store.items(*table_range(Table.ORPHANS)):
        yield InodeNo(object_of(key))


def finish_orphans(volume: "Volume") -> list[InodeNo]:
    """Finish every orphan that nobody holds; a mount starts with it. Return those that damage keeps from being finished.

    What a full image keeps from being finished waits for the next mount: it must not keep the volume from being opened.
    """
    damaged: list[InodeNo] = []
    for ino in standing(volume):
        if volume.inodes.is_held(ino):
            continue
        try:
            finish(volume, ino)
        except CorruptImage:
            damaged.append(ino)
        except OutOfSpace:
            continue
        except PosixError as refused:
            if refused.mount_errno != errno.ENOENT:
                raise
            damaged.append(ino)
    return damaged


def _delete_items(volume: "Volume", ino: InodeNo, inode: Inode, bytes_max: int) -> bool:
    """Delete up to ITEMS_AT_ONCE items, or *bytes_max* bytes of them, of an inode's contents and attributes.

    Return whether none is left. Part of the running operation. Changes *inode* in memory; the caller puts or removes it.
    """
    if _owns_nothing(inode):
        return True
    gone: list[tuple[bytes, bytes]] = []
    item_bytes = 0
    done = True
    for key, value in volume.store.items(xattr_key(ino, 0), kind_range(ino, Kind.DATA_RECORD)[1]):
        if len(gone) == ITEMS_AT_ONCE or item_bytes >= bytes_max:
            done = False
            break
        volume.store.delete(key)
        gone.append((key, value))
        item_bytes += len(key) + len(value)
    _uncount(volume, ino, inode, gone)
    return done


def _owns_nothing(inode: Inode) -> bool:
    """Whether an inode without names has no other item than its own: a directory's size counts its entries."""
    return not inode.flags and (inode.is_directory or not (inode.size or inode.stored_blocks))


def _delete_whole(volume: "Volume", ino: InodeNo, inode: Inode) -> list[tuple[bytes, bytes]] | None:
    """Delete an inode without names with all that it owns, if that is little and lies in one leaf; return the items, else None.

    Part of the running operation.
    """
    if _owns_nothing(inode):
        volume.inodes.remove(ino)
        return []
    gone = volume.store.cut(*own_range(ino), ITEMS_AT_ONCE)
    if gone is not None:
        _uncount(volume, ino, inode, gone)
        volume.inodes.note_removed(ino, inode)
    return gone


def _uncount(volume: "Volume", ino: InodeNo, inode: Inode, gone: list[tuple[bytes, bytes]]) -> None:
    """Count what an inode's deleted items held out of the volume and of *inode*."""
    raw_bytes = data_blocks = 0
    for key, value in gone:
        if key[KIND_AT] in _OWNING_NOTHING:  # all that the usual small file has
            continue
        record = owned_record(key, value)
        if record is not None:
            data_blocks += record.block_count(volume.block_bytes)
            if key[KIND_AT] == _DATA_RECORD:
                raw_bytes += record.raw_bytes
                volume.records.clean.drop(ino, RecordNo(offset_of(key)))
    if raw_bytes or data_blocks:
        truncation.uncount(volume, inode, raw_bytes, data_blocks)
