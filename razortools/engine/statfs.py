"""How full the volume is, as statfs(2) shows it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from razortools.format.directory import NAME_BYTES_MAX

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

INODE_BYTES = 512  # room in the tree that a file with its name takes, generously


@dataclass(frozen=True, slots=True, kw_only=True)
class Statfs:
    """Space and files of a volume, in blocks of the image. No table of inodes can run full before the space does."""

    block_bytes: int
    block_count: int
    free_blocks: int  # that nobody uses
    available_blocks: int  # that new data may take, the superuser's as well: some room is kept so that deleting always works
    inode_count: int  # that exist
    free_inodes: int  # how many more there is room for, if they are empty
    name_bytes_max: int


def statfs(volume: "Volume") -> Statfs:
    """Return how full the volume is now, data that is not flushed yet included."""
    geometry = volume.store.geometry
    figures = volume.statistics()
    return Statfs(
        block_bytes=volume.block_bytes,
        block_count=geometry.block_count - sum(count for _, count in geometry.fixed_extents()),
        free_blocks=figures.free_blocks + figures.reserve_blocks,
        available_blocks=figures.free_blocks,
        inode_count=figures.inode_count,
        free_inodes=figures.free_blocks * volume.block_bytes // INODE_BYTES,
        name_bytes_max=NAME_BYTES_MAX,
    )
