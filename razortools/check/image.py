"""The image under judgement: raw reads that never leave the device, and the numbers of the superblock that was chosen.

Invariants: nothing here writes; a place that lies outside the device or the filesystem raises CorruptImage instead of being read.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from razortools.engine.store.device import Device
from razortools.errors import CorruptImage
from razortools.format.geometry import Geometry
from razortools.format.superblock import Superblock

BLOCK_MASK = 0xFFFF_FFFF_FFFF  # an address is a device number (16 bits) and a block number (48 bits)


@dataclass(frozen=True, slots=True)
class Image:
    """A device seen through one superblock. After the journal phase it is the recovered view."""

    device: Device
    superblock: Superblock
    geometry: Geometry

    @property
    def block_bytes(self) -> int:
        """Size of a block in bytes."""
        return self.geometry.block_bytes

    @property
    def tag(self) -> int:
        """What every tree node of this filesystem carries."""
        return int.from_bytes(self.superblock.uuid[:8], "little")

    def holds(self, first: int, count: int) -> bool:
        """Return whether the blocks lie in the filesystem."""
        return first >= 0 and count > 0 and first + count <= self.geometry.block_count

    def read_blocks(self, first: int, count: int) -> bytes:
        """Return *count* blocks from block *first*. Raises CorruptImage for places outside, DeviceFailed."""
        if not self.holds(first, count):
            raise CorruptImage(f"blocks {first} to {first + count - 1} lie outside the filesystem")
        return self.device.read(first * self.block_bytes, count * self.block_bytes)

    def read_runs(self, runs: Iterable[tuple[int, int]]) -> bytes:
        """Return what lies in *runs* (first block, blocks), one behind the other. Raises as read_blocks()."""
        return b"".join(self.read_blocks(first, count) for first, count in runs)
