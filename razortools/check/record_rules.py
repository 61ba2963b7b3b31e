"""What a data record may hold, and which contents a type of file may have. Pure: records in, faults out."""

from razortools.check.image import BLOCK_MASK, Image
from razortools.errors import CorruptImage
from razortools.format.data import CUT_OUT, LATE, READABLE, RECORD_BYTES_MAX, DataRecord
from razortools.format.inode import Inode
from razortools.format.keys import Kind
from razortools.format.late_pages import LATE_PAGE_BYTES
from razortools.format.xattr import XATTR_VALUE_BYTES_MAX
from razortools.units import divide_up

KNOWN_FLAGS = READABLE | CUT_OUT


def record_fault(image: Image, record: DataRecord, inode: Inode | None, *, is_data: bool) -> str:
    """Return what is wrong with a record's fields, or an empty string. Its contents are not read."""
    limit = XATTR_VALUE_BYTES_MAX
    if is_data:
        limit = min(inode.record_bytes, RECORD_BYTES_MAX) if inode is not None else RECORD_BYTES_MAX
    if record.flags & ~KNOWN_FLAGS:
        return f"flags {record.flags:#x} are unknown"
    if not 0 < record.raw_bytes <= limit:
        return f"it says that it holds {record.raw_bytes} bytes, 1 to {limit} are possible"
    if record.flags == CUT_OUT and not record.stored_bytes and not record.more:
        return ""  # it owns nothing
    if not 0 < record.stored_bytes <= 2 * RECORD_BYTES_MAX:
        return f"it says that {record.stored_bytes} bytes are stored, which is not possible"
    if record.birth > image.superblock.generation:
        return f"it was written in generation {record.birth}, which is not over yet ({image.superblock.generation})"
    if record.address > BLOCK_MASK:
        return f"its address names device {record.address >> 48}, which does not exist"
    try:
        runs = record.runs(image.block_bytes)
    except CorruptImage as broken:
        return str(broken)
    if record.flags & LATE and (fault := _late_fault(record, image.block_bytes, is_data=is_data)):
        return fault
    for first, count in runs:
        if not image.holds(first, count):
            return f"blocks {first} to {first + count - 1} lie outside the filesystem"
    return ""


def _late_fault(record: DataRecord, block_bytes: int, *, is_data: bool) -> str:
    """Return what is wrong with the late pages of a record, or an empty string."""
    late = record.late_pages
    assert late is not None
    if not is_data:
        return "it has late pages, which only data of files have"
    base_blocks = divide_up(late.base_bytes, block_bytes)
    if not late.page_count or not late.base_bytes or LATE_PAGE_BYTES % block_bytes:
        return f"{late.page_count} late pages behind {late.base_bytes} bytes are not possible"
    if record.stored_bytes != base_blocks * block_bytes + late.page_count * LATE_PAGE_BYTES:
        return f"{record.stored_bytes} bytes are stored, which are not {late.base_bytes} and {late.page_count} late pages"
    if (max(late.places) + 1) * LATE_PAGE_BYTES > record.raw_bytes:
        return f"late page {max(late.places)} lies behind its {record.raw_bytes} bytes"
    return ""


def content_fault(inode: Inode, kinds: set[int], raw_bytes: int, *, has_first_record: bool) -> str:
    """Return why *kinds* of contents, *raw_bytes* in all, do not go together with the type of file, or an empty string."""
    if kinds and not (inode.is_regular or inode.is_symlink):
        return "it has file data, but it is neither a file nor a symbolic link"
    if Kind.INLINE_DATA in kinds and has_first_record:
        return "its first bytes are kept twice, in the tree and in blocks"
    if inode.is_symlink and Kind.INLINE_DATA not in kinds and not has_first_record:
        return "it is a symbolic link without a target"
    if inode.is_symlink and raw_bytes != inode.size:
        return f"it is a symbolic link to {raw_bytes} bytes, but its size is {inode.size}"
    return ""
