"""What a superblock must say so that anything can be found, counted and written by it. Pure: one superblock in, a fault out.

It may carry the right checksum and make no sense all the same: after a bug, or from somebody who means harm.
"""

from razortools.format.data import RECORD_BYTES_MAX, RECORD_BYTES_MIN
from razortools.format.geometry import IMAGE_BLOCKS_MAX, IMAGE_BYTES_MIN, JOURNAL_BYTES_MAX, geometry_of
from razortools.format.spacemap import spacemap_shape
from razortools.format.superblock import BLOCK_BYTES_CHOICES, SLOT_COUNT, Superblock

NODE_BYTES_MAX = 65536  # the ends of values in a node are u16
COUNT_MAX = 1 << 62  # at a billion a second it takes a century to come here; a count beyond it would soon not fit any more
RISING = ("generation", "transaction", "journal_sequence", "journal_tail")  # counts that rise for ever


def layout_fault(superblock: Superblock) -> str:
    """Return why the layout is impossible, or an empty string. Assumes nothing about the fields."""
    s = superblock
    if s.block_bytes not in BLOCK_BYTES_CHOICES:
        return f"block size {s.block_bytes} does not exist"
    if s.node_bytes < s.block_bytes or s.node_bytes > NODE_BYTES_MAX or s.node_bytes % s.block_bytes:
        return f"node size {s.node_bytes} does not exist with blocks of {s.block_bytes} bytes"
    if not IMAGE_BYTES_MIN // s.block_bytes <= s.block_count <= IMAGE_BLOCKS_MAX:
        return f"an image of {s.block_count} blocks is not possible"
    if s.journal_blocks < 1:
        return "the journal has no blocks"
    if s.journal_blocks > JOURNAL_BYTES_MAX // s.block_bytes:  # an image that shrinks keeps its journal: its part may be any
        return f"a journal of {s.journal_blocks} blocks is not possible"
    pages = spacemap_shape(s.block_count, s.block_bytes).page_count
    parts = [(0, SLOT_COUNT), (s.spacemap_a, pages), (s.spacemap_b, pages), (s.journal_start, s.journal_blocks)]
    parts.sort()
    for (start, count), (following, _) in zip(parts, [*parts[1:], (s.block_count, 0)], strict=True):
        if start + count > following:
            return f"its fixed parts overlap at block {following}, or reach behind the end"
    backups = geometry_of(s).backups
    if any(start <= backup < start + count for backup in backups for start, count in parts):
        return "a backup superblock lies within another fixed part"
    return ""


def working_fault(superblock: Superblock) -> str:
    """Return why nobody can work with *superblock*, whose layout is possible, or an empty string."""
    s = superblock
    if s.metadata_copies not in (1, 2):
        return f"{s.metadata_copies} copies of the metadata are not possible"
    if s.spacemap_active not in (0, 1):
        return f"there is no space map {s.spacemap_active}"
    if not is_record_size(s.record_bytes):
        return f"records of {s.record_bytes} bytes are not possible"
    return next((f"its {name.replace('_', ' ')} is {getattr(s, name)}" for name in RISING if getattr(s, name) > COUNT_MAX), "")


def is_record_size(record_bytes: int) -> bool:
    """Return whether records of files can have this size: a power of two from 4 KiB to 1 MiB."""
    return RECORD_BYTES_MIN <= record_bytes <= RECORD_BYTES_MAX and not record_bytes & (record_bytes - 1)
