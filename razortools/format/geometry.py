"""Geometry: where the fixed parts of an image lie. Everything follows from a few numbers in the superblock."""

from dataclasses import dataclass

from razortools.errors import UsageError
from razortools.format.spacemap import SpaceMapShape, spacemap_shape
from razortools.format.superblock import SLOT_COUNT, SUPERBLOCK_BYTES, Superblock
from razortools.units import GIB, KIB, MIB, BlockNo, format_size

IMAGE_BYTES_MIN = 1 * MIB
IMAGE_BLOCKS_MAX = (1 << 48) - 1  # what the 48 bits of a block number tell apart
SMALL_IMAGE_BYTES = 16 * MIB  # below: nodes of one block, so that a checkpoint's copies find room
NODE_BYTES = 16 * KIB
JOURNAL_BYTES_MIN = 64 * KIB
JOURNAL_BYTES_MAX = 1 * GIB
BACKUP_SPACING = 16  # backups lie at 1/16 of the image, 1/4, 1/2 and in its last block


@dataclass(frozen=True, slots=True)
class Geometry:
    """Places of the fixed parts, in blocks."""

    block_bytes: int
    block_count: int
    node_bytes: int
    journal_start: BlockNo
    journal_blocks: int
    spacemap_starts: tuple[BlockNo, BlockNo]
    spacemap: SpaceMapShape
    backups: tuple[BlockNo, ...]

    @property
    def node_blocks(self) -> int:
        """Blocks of a tree node."""
        return self.node_bytes // self.block_bytes

    @property
    def journal_bytes(self) -> int:
        """Size of the journal's ring."""
        return self.journal_blocks * self.block_bytes

    def fixed_extents(self) -> list[tuple[BlockNo, int]]:
        """Return (first block, block count) of every fixed part, in order of place; they never move."""
        parts = [
            (BlockNo(0), SLOT_COUNT),
            (self.spacemap_starts[0], self.spacemap.page_count),
            (self.spacemap_starts[1], self.spacemap.page_count),
            (self.journal_start, self.journal_blocks),
            *((backup, 1) for backup in self.backups),
        ]
        return sorted(parts)


def plan_geometry(image_bytes: int, block_bytes: int, journal_bytes: int | None = None) -> Geometry:
    """Return the geometry of a new image. Raises UsageError for sizes that cannot work."""
    if image_bytes < IMAGE_BYTES_MIN:
        raise UsageError(f"{format_size(image_bytes)} is too small; an image needs at least {format_size(IMAGE_BYTES_MIN)}")
    block_count = image_bytes // block_bytes
    judge_block_count(block_count, block_bytes)
    journal = default_journal_bytes(image_bytes) if journal_bytes is None else journal_bytes
    if not JOURNAL_BYTES_MIN <= journal <= min(JOURNAL_BYTES_MAX, image_bytes // 4):
        raise UsageError(
            f"a journal of {format_size(journal)} does not fit; it takes {format_size(JOURNAL_BYTES_MIN)} to "
            f"{format_size(min(JOURNAL_BYTES_MAX, image_bytes // 4))} in an image of {format_size(image_bytes)}"
        )
    node_bytes = max(block_bytes, NODE_BYTES if image_bytes >= SMALL_IMAGE_BYTES else block_bytes)
    shape = spacemap_shape(block_count, block_bytes)
    map_a = BlockNo(SLOT_COUNT)
    map_b = BlockNo(map_a + shape.page_count)
    journal_start = BlockNo(map_b + shape.page_count)
    journal_blocks = journal // block_bytes
    return _geometry(block_bytes, block_count, node_bytes, journal_start, journal_blocks, (map_a, map_b))


def judge_block_count(block_count: int, block_bytes: int) -> None:
    """Raise UsageError for more blocks than the format has numbers for."""
    if block_count > IMAGE_BLOCKS_MAX:
        raise UsageError(
            f"{format_size(block_count * block_bytes)} is too large; with blocks of {format_size(block_bytes)} an image has less "
            f"than {format_size((IMAGE_BLOCKS_MAX + 1) * block_bytes)}"
        )


def geometry_of(superblock: Superblock) -> Geometry:
    """Return the geometry that *superblock* describes."""
    return _geometry(
        superblock.block_bytes,
        superblock.block_count,
        superblock.node_bytes,
        BlockNo(superblock.journal_start),
        superblock.journal_blocks,
        (BlockNo(superblock.spacemap_a), BlockNo(superblock.spacemap_b)),
    )


def default_journal_bytes(image_bytes: int) -> int:
    """Return the usual journal size: 1/64 of the image, from 128 KiB to 256 MiB."""
    size = image_bytes // 64
    return max(128 * KIB, min(256 * MIB, size // (64 * KIB) * (64 * KIB)))


def backup_places(block_count: int, first_usable: int) -> tuple[BlockNo, ...]:
    """Return the blocks of the backup superblocks. They do not depend on anything but the image's size and its head."""
    wanted = [block_count // BACKUP_SPACING, block_count // 4, block_count // 2, block_count - 1]
    return tuple(BlockNo(place) for place in sorted(set(wanted)) if place >= first_usable)


def _geometry(
    block_bytes: int,
    block_count: int,
    node_bytes: int,
    journal_start: BlockNo,
    journal_blocks: int,
    maps: tuple[BlockNo, BlockNo],
) -> Geometry:
    backups = backup_places(block_count, journal_start + journal_blocks)
    shape = spacemap_shape(block_count, block_bytes)
    return Geometry(block_bytes, block_count, node_bytes, journal_start, journal_blocks, maps, shape, backups)


assert SUPERBLOCK_BYTES <= 4096
