"""Misfiled items: items that stand under a key with one wrong bit, and where they belong.

Memory was bad when the item got its key; what it holds is good. Where one bit of the key turned back gives a key at which nothing
stands, and those around tell that this item is missing there, it is put there. If more than one key fits, nobody knows, and none
is taken.
"""

from collections.abc import Callable, Iterator

from razortools.check.inode_rules import inode_faults, patch_fault, xattr_fault
from razortools.check.inventory import unpack_inline
from razortools.check.keynames import key_fault
from razortools.check.record_rules import record_fault
from razortools.check.repair.draft import Draft
from razortools.check.repair.file_contents import contents_of
from razortools.check.repair.naming import fits, is_confirmed
from razortools.check.repair.survey import item_verifies
from razortools.check.repair.surveying import owned
from razortools.errors import CorruptImage
from razortools.format.data import CUT_OUT
from razortools.format.directory import BackLink, DirectoryEntry
from razortools.format.inode import Inode, InodeFlag
from razortools.format.keys import (
    KEY_BYTES,
    KIND_AT,
    PROBE_WINDOW,
    Kind,
    Table,
    kind_range,
    object_of,
    object_range,
    offset_of,
    xattr_key,
)
from razortools.format.name import hash_name
from razortools.format.node import patch_bytes
from razortools.format.xattr import Xattr
from razortools.units import InodeNo

Judge = Callable[[Draft, bytes, bytes, bytes], bool]  # draft, key now, key it would get, value


def put_right(draft: Draft, key: bytes) -> bool:
    """Plan to put the item *key* where it belongs, if one place is known; return whether it is."""
    value = draft.get(key)
    place = place_of(draft, key, value) if value is not None else None
    if value is None or place is None:
        return False
    draft.delete(key, "take the item from under a key with one wrong bit")
    draft.put(place, value, "put it where it belongs")
    return True


def place_of(draft: Draft, key: bytes, value: bytes) -> bytes | None:
    """Return the only key that differs from *key* in one bit and at which *value* is missing, or None."""
    found = [place for place in _neighbours(key) if draft.get(place) is None and _is_missing(draft, key, place, value)]
    return found[0] if len(found) == 1 else None


def _neighbours(key: bytes) -> Iterator[bytes]:
    """Yield the keys that make sense and differ from *key* in one bit."""
    number = int.from_bytes(key, "big")
    for bit in range(8 * KEY_BYTES):
        place = (number ^ 1 << bit).to_bytes(KEY_BYTES, "big")
        if not key_fault(place):
            yield place


def _is_missing(draft: Draft, key: bytes, place: bytes, value: bytes) -> bool:
    judge = _JUDGES.get(place[KIND_AT])
    try:
        return judge is not None and judge(draft, key, place, value)
    except (CorruptImage, IndexError):
        return False


def _is_inode(draft: Draft, key: bytes, place: bytes, value: bytes) -> bool:
    """Whether the rest of a file is there, without an inode."""
    others = (other for other, _ in draft.items(*object_range(Table.FILES, object_of(place))) if other != key)
    return next(others, None) is not None and not any(inode_faults(Inode.decode(value)))


def _is_back_link(draft: Draft, key: bytes, place: bytes, value: bytes) -> bool:
    return is_confirmed(draft, object_of(place), offset_of(place), BackLink.decode(value))


def _is_entry(draft: Draft, key: bytes, place: bytes, value: bytes) -> bool:
    """Whether the back link of the file names this directory and this name."""
    entry, directory = DirectoryEntry.decode(value), draft.inode(object_of(place))
    link = draft.back_links(entry.inode).get(entry.link_no)
    if directory is None or not directory.is_directory or link is None:
        return False
    is_told = (link.parent, link.name_id) == (object_of(place), entry.name_id)
    return is_told and fits(draft, place, draft.text(entry.name_id))


def _is_xattr(draft: Draft, key: bytes, place: bytes, value: bytes) -> bool:
    """Whether the hash of its name leads there, and the inode has no such attribute."""
    xattr, number = Xattr.decode(value), InodeNo(object_of(place))
    inode, seed = draft.inode(number), draft.image.superblock.hash_seed
    if inode is None or not inode.flags & InodeFlag.HAS_XATTRS or xattr_fault(xattr, offset_of(place), seed):
        return False
    low = hash_name(xattr.name, seed)
    window = draft.items(xattr_key(number, low), xattr_key(number, low + PROBE_WINDOW - 1))
    is_there = any(other != key and Xattr.decode(held).name == xattr.name for other, held in window)
    return not is_there and (xattr.out_of_line is None or item_verifies(draft.image, place, value))


def _is_inline(draft: Draft, key: bytes, place: bytes, value: bytes) -> bool:
    """Whether the inode has a size, and no contents."""
    inode = draft.inode(object_of(place))
    if inode is None or not (inode.is_regular or inode.is_symlink):
        return False
    records = draft.items(*kind_range(InodeNo(object_of(place)), Kind.DATA_RECORD))
    is_empty = next((other for other, _ in records if other != key), None) is None
    return is_empty and 0 < len(unpack_inline(value)) <= inode.size


def _is_record(draft: Draft, key: bytes, place: bytes, value: bytes) -> bool:
    """Whether the inode counts its blocks, and its bytes lie within the size."""
    number = object_of(place)
    inode, record = draft.inode(number), owned(place, value)
    if inode is None or record is None or not (inode.is_regular or inode.is_symlink) or inode.record_log2 >= 32:
        return False
    if (offset_of(place) << inode.record_log2) + record.raw_bytes > inode.size:
        return False
    if record_fault(draft.image, record, inode, is_data=True) or not (
        record.flags & CUT_OUT or item_verifies(draft.image, place, value)
    ):
        return False
    is_counted = object_of(key) == number and not key_fault(key)
    blocks = contents_of(draft, number).blocks + (0 if is_counted else record.block_count(draft.image.block_bytes))
    return inode.stored_blocks == blocks


def _is_orphan(draft: Draft, key: bytes, place: bytes, value: bytes) -> bool:
    inode = draft.inode(object_of(place))
    return inode is not None and inode.link_count == 0


def _is_patch(draft: Draft, key: bytes, place: bytes, value: bytes) -> bool:
    inode, step = draft.inode(object_of(place)), patch_bytes(draft.image.geometry.node_bytes)
    return inode is not None and not patch_fault(offset_of(place), value, step, inode.file_type, inode.size)


_JUDGES: dict[int, Judge] = {
    Kind.INODE: _is_inode,
    Kind.BACK_LINK: _is_back_link,
    Kind.XATTR: _is_xattr,
    Kind.INLINE_DATA: _is_inline,
    Kind.DATA_RECORD: _is_record,
    Kind.DIRECTORY_ENTRY: _is_entry,
    Kind.ORPHAN: _is_orphan,
    Kind.PATCH: _is_patch,
}
