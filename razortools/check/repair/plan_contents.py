"""The contents of a file as a whole: data behind its end, data that are there twice or not at all, data that lie in the tree."""

from razortools.check.findings import Finding
from razortools.check.repair import misfiled
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Purpose
from razortools.check.repair.file_contents import contents_of
from razortools.check.repair.plan_attributes import find_records
from razortools.check.repair.plan_data import CUT_OUT_WORDS, blocks_at
from razortools.check.right_inline import right_inline
from razortools.errors import CorruptImage
from razortools.format.data import (
    CUT_OUT,
    FILE_BYTES_MAX,
    RECORD_BYTES_MAX,
    RECORD_BYTES_MIN,
    DataRecord,
    InlineData,
)
from razortools.format.inode import Inode, InodeFlag
from razortools.format.keys import Kind, inode_key, kind_range, object_of, offset_of, record_key
from razortools.units import InodeNo, divide_up

HOLES_MAX = 1 << 16  # of a file, in which lost records may have been: beyond that it is a sparse file with a wrong count


def beyond_end(draft: Draft, finding: Finding) -> None:
    """Data behind the end of a file: either they are old, or the size is wrong. The number of blocks tells which."""
    key = finding.key
    number = int(finding.inode or 0)
    inode = draft.inode(number)
    if key is None or inode is None or draft.get(key) is None or offset_of(key) * inode.record_bytes < inode.size:
        return
    if misfiled.put_right(draft, key):
        return
    contents = contents_of(draft, number)
    is_possible = (offset_of(key) + 1) * inode.record_bytes <= FILE_BYTES_MAX and not _lies_far(draft, key, inode)
    if is_possible and inode.stored_blocks == contents.blocks and inode.is_regular:
        size = contents.end(inode.record_log2)
        draft.set(
            inode_key(InodeNo(number)), "size", size, f"set its size to {size}: the inode counts the blocks of all its data"
        )
    else:
        draft.delete(key, "remove data behind the end of the file", purpose=Purpose.DISCARD)


def _lies_far(draft: Draft, key: bytes, inode: Inode) -> bool:
    """Return whether a record, alone behind the end, lies further from it than the image is large: its number is wrong."""
    first = record_key(InodeNo(object_of(key)), divide_up(inode.size, inode.record_bytes))
    others = (other for other, _ in draft.items(first, kind_range(InodeNo(object_of(key)), Kind.DATA_RECORD)[1]) if other != key)
    image_bytes = draft.image.geometry.block_count * draft.image.block_bytes
    return next(others, None) is None and offset_of(key) * inode.record_bytes - inode.size > image_bytes


def wrong_content(draft: Draft, finding: Finding) -> None:
    """Contents that a file of its type cannot have, or that are there twice, or not at all."""
    number = int(finding.inode or 0)
    inode = draft.inode(number)
    if inode is None:
        return
    if finding.key is not None:
        _put_inline_right(draft, finding.key)
        return
    contents = contents_of(draft, number)
    items = [key for kind in (Kind.INLINE_DATA, Kind.DATA_RECORD) for key, _ in draft.items(*kind_range(InodeNo(number), kind))]
    if not (inode.is_regular or inode.is_symlink):
        for key in items:
            draft.delete(key, "remove file data from what can have none")
    elif Kind.INLINE_DATA in contents.kinds and draft.get(record_key(InodeNo(number), 0)) is not None:
        counted_without = contents.blocks - blocks_at(draft, record_key(InodeNo(number), 0))
        if inode.stored_blocks == counted_without and inode.size == contents.lengths.inline_bytes:
            draft.delete(record_key(InodeNo(number), 0), "remove the copy in blocks: the inode does not count it")
        else:
            draft.delete(items[0], "remove the copy in the tree: the inode counts the one in blocks")
    elif inode.is_symlink and not contents.kinds:
        draft.delete(inode_key(InodeNo(number)), "remove the symbolic link: where it led is lost")
    elif inode.is_symlink:
        draft.set(inode_key(InodeNo(number)), "size", contents.end(inode.record_log2), "set its size to the length of its target")


def inline_broken(draft: Draft, finding: Finding) -> None:
    """Inline data do not decompress as they say; perhaps they do another way."""
    if finding.key is not None:
        _put_inline_right(draft, finding.key)


def _put_inline_right(draft: Draft, key: bytes) -> None:
    """Let inline data say how they are compressed and how long they are, if they can be read at all; else they are cut out."""
    try:
        inline = InlineData.decode(draft.get(key) or b"")
    except CorruptImage:
        return
    inode = draft.inode(object_of(key))
    try:
        right, _ = right_inline(inline, inode.size if inode is not None else 0)
    except CorruptImage:
        cut_inline(draft, key)
        return
    if right is inline:
        _let_fit(draft, object_of(key))
    elif right.algorithm != inline.algorithm:
        draft.set(key, "algorithm", right.algorithm, "let it say how it is compressed")
    else:
        draft.set(key, "raw_bytes", right.raw_bytes, f"let it say that it holds {right.raw_bytes} bytes")


def _let_fit(draft: Draft, number: int) -> None:
    """Let an inode tell a record size that what it holds fits into, if it does not."""
    inode, lengths = draft.inode(number), contents_of(draft, number).lengths
    if inode is not None and lengths.contradict(inode.record_log2, inode.size):
        wanted = lengths.fitting_log2(inode.size)
        why = f"set its record size to {1 << wanted} bytes: what it holds fits"
        draft.set(inode_key(InodeNo(number)), "record_log2", wanted, why)


def cut_inline(draft: Draft, key: bytes) -> None:
    """Plan to let a record that is cut out take the place of inline data."""
    number = InodeNo(object_of(key))
    inode = draft.inode(number)
    size = inode.size if inode is not None else 1
    record_bytes = inode.record_bytes if inode is not None and inode.record_log2 < 32 else draft.image.superblock.record_bytes
    draft.delete(key, CUT_OUT_WORDS)
    for start in range(0, max(size, 1), record_bytes):
        raw_bytes = max(min(record_bytes, size - start), 1)
        record = DataRecord(0, 0, raw_bytes, 0, 0, CUT_OUT, 0)
        if draft.get(record_key(number, start // record_bytes)) is None:
            draft.put(record_key(number, start // record_bytes), record.encode(), CUT_OUT_WORDS)
        if start >= RECORD_BYTES_MAX:
            break  # inline data are shorter than this: the rest of the size never was in them


def stored_blocks(draft: Draft, finding: Finding) -> None:
    """An inode counts its blocks wrongly; or it counts rightly, and records of it are gone, of which the volume knows, too."""
    inode = draft.inode(finding.inode) if finding.inode is not None else None
    if finding.inode is not None and inode is not None:
        counted = finding.values["counted"]
        missing = finding.values["value"] - counted
        if 0 < missing <= draft.lost_blocks:
            find_records(draft, finding.inode, missing)
        if contents_of(draft, finding.inode).blocks == inode.stored_blocks:
            return  # what was missing has been found
        if missing > 0 and (draft.is_rebuilt or missing <= draft.lost_blocks):
            cut_out_holes(draft, finding.inode)
        draft.set(inode_key(finding.inode), "stored_blocks", counted, f"set its count of blocks to {counted}")


def late_flag(draft: Draft, finding: Finding) -> None:
    """Let the inode's flag say that records of it have late pages."""
    inode = draft.inode(finding.inode) if finding.inode is not None else None
    if inode is not None and finding.inode is not None:
        flags = inode.flags | int(InodeFlag.LATE_PAGES)
        draft.set(inode_key(finding.inode), "flags", flags, "let its flag say that records of it have late pages")


def cut_out_holes(draft: Draft, number: InodeNo) -> None:
    """Plan that what may have been in lost records does not read as zeros."""
    inode = draft.inode(number)
    if inode is None or not inode.is_regular or not RECORD_BYTES_MIN <= inode.record_bytes <= RECORD_BYTES_MAX:
        return
    there = {offset_of(key) for key, _ in draft.items(*kind_range(number, Kind.DATA_RECORD))}
    inline = next(draft.items(*kind_range(number, Kind.INLINE_DATA)), None)
    count = divide_up(inode.size, inode.record_bytes)
    if inline is not None or count - len(there) > HOLES_MAX:
        return
    for record_no in range(count):
        if record_no not in there:
            raw_bytes = min(inode.record_bytes, inode.size - record_no * inode.record_bytes)
            record = DataRecord(0, 0, raw_bytes, 0, 0, CUT_OUT, 0)
            draft.put(record_key(number, record_no), record.encode(), "cut out where a lost record may have been")
