"""The stored contents of files, read as far as they verify, with what is missing told by range.

Invariant: bytes that are returned were verified; a record in which one bit had flipped is returned as it was before, and
counted.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import crc32c

from razortools.check.contents import is_whole
from razortools.check.image import Image
from razortools.check.mended_record import mended
from razortools.check.record_rules import record_fault
from razortools.check.right_attribute import right_attribute
from razortools.check.right_inline import right_inline
from razortools.check.right_record import right_record
from razortools.check.tree import TreeIndex
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.data import CUT_OUT, RECORD_LOG2, DataRecord, InlineData, Patch, laid_over
from razortools.format.inode import Inode
from razortools.format.keys import KIND_AT, Kind, Table, inline_key, kind_range, object_range, offset_of, own_range
from razortools.format.unpacking import unpack_record
from razortools.format.xattr import Xattr
from razortools.units import InodeNo


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file: its bytes, or why they cannot be read. What lies between parts is a hole."""

    first: int
    behind: int
    data: bytes | None
    reason: str = ""
    mended: bool = False


def parts_of(tree: TreeIndex, number: InodeNo, inode: Inode) -> Iterator[Part]:
    """Yield the parts of a file or symlink, in order, cut at its size. Patches over what cannot be read come behind it."""
    if inode.record_log2 not in RECORD_LOG2:
        yield Part(0, inode.size, None, f"nobody knows where its data belong: its record size is 2^{inode.record_log2}")
        return
    patches = list(_patches_of(tree, number, inode.size))
    for part in _stored_parts(tree, number, inode):
        behind = part.first + inode.record_bytes
        over = [(first, data) for first, data in patches if part.first <= first < behind]
        if part.data is None:
            yield part
            yield from (Part(first, first + len(data), data) for first, data in over)
        elif over:
            data = laid_over(part.data, ((first - part.first, piece) for first, piece in over))
            yield Part(part.first, part.first + len(data), data, mended=part.mended)
        else:
            yield part


def _patches_of(tree: TreeIndex, number: InodeNo, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield (place in the file, bytes) of the patches of a file, cut at its size."""
    for key, value in tree.range_items(*object_range(Table.PATCHES, number)):
        first = offset_of(key)
        with suppress(CorruptImage):
            if first < size:
                yield first, Patch.decode(value).data[: size - first]


def _stored_parts(tree: TreeIndex, number: InodeNo, inode: Inode) -> Iterator[Part]:
    """Yield what the records of a file say, or its inline data."""
    value = tree.get(inline_key(number))
    if value is not None:
        yield _inline(value, inode)
    for key, value in tree.range_items(*kind_range(number, Kind.DATA_RECORD)):
        first = offset_of(key) * inode.record_bytes
        if first >= inode.size:
            return
        yield _record(tree.image, key, value, inode, first)


def _inline(value: bytes, inode: Inode) -> Part:
    try:
        item = InlineData.decode(value)
        right, data = right_inline(item, inode.size)
    except CorruptImage as broken:
        return Part(0, inode.size, None, str(broken))
    return _part(0, inode.size, data, mended=right is not item)


def _record(image: Image, key: bytes, value: bytes, inode: Inode, first: int) -> Part:
    behind = min(first + inode.record_bytes, inode.size)
    try:
        data, was_mended = _contents(image, key, DataRecord.decode(value), inode)
    except (CorruptImage, DeviceFailed) as broken:
        return Part(first, behind, None, str(broken))
    return _part(first, behind, data, mended=was_mended)


def _contents(image: Image, key: bytes, record: DataRecord, inode: Inode | None) -> tuple[bytes, bool]:
    """Return (what a record holds, whether a bit was turned back). Raises CorruptImage or DeviceFailed.

    *key*: of its item; *inode*: of the file whose data it holds.
    """
    reason = record_fault(image, record, inode, is_data=key[KIND_AT] == Kind.DATA_RECORD)
    if reason and (right := right_record(image, key, record, inode, elsewhere=True)) is not None:
        return right[1], True
    if record.flags & CUT_OUT and (reason or not _is_cut_out_for_nothing(image, record)):
        reason = "it was lost, or cut out by an earlier repair"
    if reason:
        raise CorruptImage(reason)
    return read_record(image, key, record, inode)


def _part(first: int, behind: int, data: bytes, *, mended: bool) -> Part:
    data = data[: behind - first]
    return Part(first, first + len(data), data, mended=mended)


def _is_cut_out_for_nothing(image: Image, record: DataRecord) -> bool:
    """Return whether the data of a record that is marked as cut out verify all the same."""
    return bool(record.stored_bytes) and is_whole(image, record)


def read_record(image: Image, key: bytes, record: DataRecord, inode: Inode | None) -> tuple[bytes, bool]:
    """Return (the decompressed bytes of a record, whether a bit was turned back). Raises CorruptImage or DeviceFailed.

    *key*: of its item; *inode*: whose it is.
    """
    raw = image.read_runs(record.runs(image.block_bytes))
    failure = CorruptImage("the stored bytes do not verify")
    if crc32c.crc32c(raw) == record.crc32c:
        try:
            return unpack_record(record, raw), False
        except CorruptImage as broken:
            failure = broken
    right = right_record(image, key, record, inode, elsewhere=True)
    if right is not None:
        return right[1], True
    whole = mended(record, raw)
    if whole is None:
        raise failure
    return whole.raw, True


def attributes_of(tree: TreeIndex, number: InodeNo, inode: Inode) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield (name, value) of the extended attributes; None for a value that cannot be read."""
    for key, value in tree.range_items(*kind_range(number, Kind.XATTR)):
        try:
            right = right_attribute(tree.image, key, value, tree.range_items(*own_range(number)), inode)
            attribute = Xattr.decode(right or value)
        except CorruptImage:
            continue
        try:
            outside = attribute.out_of_line
            yield attribute.name, attribute.value if outside is None else _contents(tree.image, key, outside, None)[0]
        except (CorruptImage, DeviceFailed):
            yield attribute.name, None
