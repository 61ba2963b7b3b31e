"""Superblocks that tell the size from before a resizing: what one that a power cut has stopped leaves, told from damage.

A resizing writes one superblock, two generations later than the one it began with: the same but for geometry, tree and space
map. Between the two stands its mark, a copy of the old one in the other slot. Once it is complete, that slot and every backup is
a copy of the new one. So what tells another size, but has another generation than these, or differs in anything else, is damaged.
"""

from razortools.format.superblock import Superblock

FIXED_FOR_EVER = (
    "uuid", "hash_seed", "block_bytes", "node_bytes", "block_count", "spacemap_a", "spacemap_b", "journal_start",
    "journal_blocks", "made_at_ns",
)  # fmt: skip
ALL_BUT_PLACE = tuple(
    field.name
    for field in Superblock.FIELDS
    if field.name not in ("magic", "crc32c", "slot", "address", "reserved", "admin_history")
)
# What a resizing makes anew, see resize/write.py.
_GEOMETRY = ("block_count", "spacemap_a", "spacemap_b")
_MADE_ANEW = (*_GEOMETRY, "generation", "root", "root_level", "node_count", "spacemap_active", "spacemap_top", "free_blocks")
_KEPT = tuple(name for name in ALL_BUT_PLACE if name not in _MADE_ANEW)
_GENERATIONS = 2  # from the superblock that it began with to the one that it wrote


def is_mark_of_resizing(other: Superblock, truth: Superblock) -> bool:
    """Return whether *other*, in the slot that is not the truth's, is the mark of the resizing that made *truth*."""
    return other.generation == truth.generation - 1 and other.block_count != truth.block_count and _agree(other, truth, _KEPT)


def is_backup_from_before(backup: Superblock, truth: Superblock, other: Superblock | None) -> bool:
    """Return whether *backup* tells the size from before the resizing that made *truth*, which had no time to write it.

    *other*: the superblock in the slot that is not the truth's, None if it is damaged: then it cannot contradict.
    """
    generations = truth.generation - backup.generation
    if generations < _GENERATIONS or backup.block_count == truth.block_count or not _fits(other, truth):
        return False
    # An older one is of a checkpoint whose backups were cut off in their turn: of that one only what never changes is known.
    kept = _KEPT if generations == _GENERATIONS else tuple(name for name in FIXED_FOR_EVER if name not in _GEOMETRY)
    return _agree(backup, truth, kept)


def _fits(other: Superblock | None, truth: Superblock) -> bool:
    """Return whether a resizing that has not written all backups can have left this in the other slot."""
    if other is None or is_mark_of_resizing(other, truth):
        return True
    is_settled = _agree(other, truth, tuple(name for name in ALL_BUT_PLACE if name != "generation"))
    return other.generation == truth.generation - 1 and is_settled


def _agree(one: Superblock, other: Superblock, names: tuple[str, ...]) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in names)
