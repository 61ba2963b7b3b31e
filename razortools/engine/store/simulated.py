"""A simulated disk: it loses, reorders and tears what was not flushed, and fails when told to, all by a seed.

Fault model. A write reaches the disk's cache at once: later reads see it. It is stable after the next flush that succeeds. A
crash keeps everything stable; of the writes since then each may have arrived whole, in part or not at all, in any order,
independently of the others. A write is torn at sectors of 512 bytes: each sector is old or new, never a mixture. Calls may be
told to fail: the k-th write or flush from now raises DeviceFailed, once or for ever; a flush that fails drops what was not
stable, as kernels do.
"""

import random
from dataclasses import dataclass

from razortools.engine.store.device import MemoryDevice
from razortools.errors import DeviceFailed

SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """A write that no flush has covered yet, with what it replaced."""

    offset: int
    before: bytes
    after: bytes


class SimulatedDevice(MemoryDevice):
    """A disk in memory with a cache that a crash loses."""

    def __init__(self, size_bytes: int) -> None:
        """Make a disk of zeros."""
        super().__init__(size_bytes)
        self.name = "simulated disk"
        self.pending: list[PendingWrite] = []
        self.write_count = 0
        self.flush_count = 0
        self.fail_write_at = -1  # number of the write that fails, as write_count counts
        self.fail_flush_at = -1
        self.fails_for_ever = False

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """See Device; fails when its number has come."""
        number, self.write_count = self.write_count, self.write_count + 1
        if number == self.fail_write_at or (self.fails_for_ever and 0 <= self.fail_write_at < number):
            raise DeviceFailed(f"{self.name}: write {number} at {offset} failed, as the test asked")
        before = self.read(offset, len(data))
        super().write(offset, data)
        self.pending.append(PendingWrite(offset, before, bytes(data)))

    def flush(self) -> None:
        """See Device; fails when its number has come, and then what was not stable is gone."""
        number, self.flush_count = self.flush_count, self.flush_count + 1
        if number == self.fail_flush_at or (self.fails_for_ever and 0 <= self.fail_flush_at < number):
            for lost in reversed(self.pending):
                super().write(lost.offset, lost.before)
            self.pending.clear()
            raise DeviceFailed(f"{self.name}: flush {number} failed, as the test asked")
        self.pending.clear()

    def stable(self) -> MemoryDevice:
        """Return a disk that holds only what was flushed."""
        disk = self._copy()
        for lost in reversed(self.pending):
            disk.write(lost.offset, lost.before)
        return disk

    def crash(self, seed: int) -> MemoryDevice:
        """Return a disk as a power cut now may leave it; *seed* decides which sectors of which writes arrived."""
        chance = random.Random(seed)
        disk = self.stable()
        # Extremes are the likeliest to hurt: nothing arrived, everything did, one write was lost, one sector was.
        likely = chance.choice((0.0, 0.05, 0.5, 0.95, 1.0))
        tearing = chance.random() < 0.5
        writes = list(self.pending)
        if chance.random() < 0.3:
            chance.shuffle(writes)
        for write in writes:
            if not tearing:
                if chance.random() < likely:
                    disk.write(write.offset, write.after)
                continue
            for at in range(0, len(write.after), SECTOR_BYTES):
                if chance.random() < likely:
                    disk.write(write.offset + at, write.after[at : at + SECTOR_BYTES])
        return disk

    def _copy(self) -> MemoryDevice:
        disk = MemoryDevice(self.size_bytes)
        disk._pages = {number: bytearray(page) for number, page in self._pages.items()}
        return disk
