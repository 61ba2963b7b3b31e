"""A simulated disk: it loses, reorders and tears what was not flushed, and fails when told to, all by a seed.

Fault model, in prose. *Calls* of each kind (read, write, flush) are counted from 0; a fault is told at which call it strikes.

A **write** reaches the disk's cache at once: later reads see it. It is stable after the next flush that succeeds. A **crash**
keeps everything stable; of the writes since then each may have arrived whole, in part or not at all, in any order,
independently of the others. A write is torn at sectors of 512 bytes: each sector is old or new, never a mixture.

**Loud faults** raise DeviceFailed. A read or write that fails does nothing, unless it is *short*: then its first bytes arrive (on
the disk; who reads gets nothing, for a device gives all or raises). A **flush** that fails drops what was not stable, as kernels
do: all of it, or each sector with a chance of its own. The next flush may well succeed, with nothing to tell that something
is missing. A loud fault strikes once, or at each later call of its kind too. A disk that is **truncated** loses what lies
behind its new end, for good; calls that reach there fail.

**Silent faults** return normally: that is their point. A *misdirected* write lands at another place and leaves its own as it
was; a misdirected read returns what lies elsewhere. A *flipped* bit is written, or read, wrong; a read flips it on the way,
the disk keeps it right.

Nothing here is left to chance: the calls, the `Faults` and the seed make the run.
"""

import errno
import os
import random
from dataclasses import dataclass

from razortools.engine.store.pages import PAGE_BYTES, MemoryDevice
from razortools.engine.store.powercut import SECTOR_BYTES, Unflushed, Write, whole_sectors
from razortools.errors import DeviceFailed

NEVER = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong and when. ``*_at`` is the number of a call of that kind, counted from 0; NEVER: not at all."""

    fail_read_at: int = NEVER
    fail_write_at: int = NEVER
    fail_flush_at: int = NEVER
    error: int = errno.EIO  # what failing calls give as their reason
    for_ever: bool = False  # each later call of the kind fails as well
    short_bytes: int = 0  # of the write or read that fails: so many bytes at its beginning arrive
    flush_keeps: float = 0.0  # chance of each sector that a failing flush should have made stable to be so, 0.0 to 1.0
    misdirect_read_at: int = NEVER
    misdirect_write_at: int = NEVER
    misdirect_bytes: int = PAGE_BYTES  # how far behind its place it goes; beyond the end it starts again at 0
    flip_read_at: int = NEVER
    flip_write_at: int = NEVER
    flip_bit: int = 0  # number of the bit in the data of that call, the lowest of the first byte is 0; modulo their length
    truncate_at: int = NEVER  # number of the call of any kind before which the disk is truncated
    truncate_to_bytes: int = 0  # rounded down to whole sectors
    seed: int = 0


NO_FAULTS = Faults()


class SimulatedDevice(MemoryDevice):
    """A disk in memory with a cache that a crash loses. `faults` may be replaced at any time; the counts go on."""

    def __init__(self, size_bytes: int, faults: Faults = NO_FAULTS) -> None:
        """Make a disk of zeros."""
        super().__init__(size_bytes)
        self.name = "simulated disk"
        self.faults = faults
        self.pending: list[Write] = []  # what no flush has covered yet
        self.read_count = 0
        self.write_count = 0
        self.flush_count = 0

    @property
    def call_count(self) -> int:
        """Calls of all kinds so far."""
        return self.read_count + self.write_count + self.flush_count

    def read(self, offset: int, length: int) -> bytes:
        """See Device; a fault strikes when its number has come."""
        faults = self.faults
        self._truncate_if_due()
        number, self.read_count = self.read_count, self.read_count + 1
        if self._fails(number, faults.fail_read_at):
            arrived = min(faults.short_bytes, length)
            raise self._failure("read", number, f" of {length} bytes at {offset}", f" after {arrived} bytes" if arrived else "")
        if number == faults.misdirect_read_at:
            offset = self._elsewhere(offset, length)
        data = super().read(offset, length)
        return _flipped(data, faults.flip_bit) if number == faults.flip_read_at else data

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """See Device; a fault strikes when its number has come."""
        faults = self.faults
        self._truncate_if_due()
        number, self.write_count = self.write_count, self.write_count + 1
        if self._fails(number, faults.fail_write_at):
            arrived = min(faults.short_bytes, len(data))
            self._arrive(offset, bytes(data[:arrived]))
            raise self._failure(
                "write", number, f" of {len(data)} bytes at {offset}", f" after {arrived} bytes" if arrived else ""
            )
        if number == faults.misdirect_write_at:
            offset = self._elsewhere(offset, len(data))
        self._arrive(offset, _flipped(data, faults.flip_bit) if number == faults.flip_write_at else bytes(data))

    def flush(self) -> None:
        """See Device; fails when its number has come, and then what was not stable is gone."""
        self._truncate_if_due()
        number, self.flush_count = self.flush_count, self.flush_count + 1
        if self._fails(number, self.faults.fail_flush_at):
            self._drop_pending(number)
            raise self._failure("flush", number)
        self.pending.clear()

    def stable(self) -> MemoryDevice:
        """Return a disk that holds only what was flushed."""
        disk = self.copy()
        for lost in reversed(self.pending):
            disk.write(lost.offset, lost.before)
        return disk

    def crash(self, seed: int) -> MemoryDevice:
        """Return a disk as a power cut now may leave it; *seed* decides which sectors of which writes arrived."""
        disk = self.stable()
        unflushed = Unflushed(self.pending)
        for offset, sector in unflushed.contents(unflushed.sample(random.Random(seed))):
            disk.write(offset, sector)
        return disk

    @classmethod
    def holding(cls, other: MemoryDevice, faults: Faults = NO_FAULTS) -> "SimulatedDevice":
        """Return a disk with its own copy of what *other* holds, all of it stable, and no call counted yet."""
        disk = cls(other.size_bytes, faults)
        disk._pages = other.copy()._pages
        return disk

    def _fails(self, number: int, at: int) -> bool:
        return at != NEVER and (number >= at if self.faults.for_ever else number == at)

    def _failure(self, verb: str, number: int, where: str = "", arrived: str = "") -> DeviceFailed:
        reason = os.strerror(self.faults.error)
        return DeviceFailed(f"{self.name}: {verb} {number}{where} failed{arrived}, as the test asked: {reason}")

    def _elsewhere(self, offset: int, length: int) -> int:
        return (offset + self.faults.misdirect_bytes) % (self.size_bytes - length + 1)

    def _arrive(self, offset: int, data: bytes) -> None:
        """Let *data* reach the cache."""
        if not data:
            return
        start, length = whole_sectors(offset, len(data))
        before = super().read(start, length)
        super().write(offset, data)
        self.pending.append(Write(start, before, super().read(start, length)))

    def _drop_pending(self, number: int) -> None:
        """Lose what was not stable, but for the sectors that are lucky."""
        for lost in reversed(self.pending):
            super().write(lost.offset, lost.before)
        chance = random.Random(f"{self.faults.seed} {number}")
        unflushed = Unflushed(self.pending)
        lucky = {sector: number for sector, number in unflushed.everything().items() if chance.random() < self.faults.flush_keeps}
        for offset, sector in unflushed.contents(lucky):
            super().write(offset, sector)
        self.pending.clear()

    def _truncate_if_due(self) -> None:
        end = self.faults.truncate_to_bytes // SECTOR_BYTES * SECTOR_BYTES
        if not 0 <= self.faults.truncate_at <= self.call_count or self.size_bytes <= end:
            return
        super().write(end, bytes(min(PAGE_BYTES - end % PAGE_BYTES, self.size_bytes - end)))
        self._pages = {number: page for number, page in self._pages.items() if number * PAGE_BYTES < end}
        self.size_bytes = end
        self.pending = [
            Write(write.offset, write.before[: end - write.offset], write.after[: end - write.offset])
            for write in self.pending
            if write.offset < end
        ]


def _flipped(data: bytes | bytearray | memoryview, bit: int) -> bytes:
    """Return *data* with one bit the other way."""
    changed = bytearray(data)
    if changed:
        at, shift = divmod(bit % (8 * len(changed)), 8)
        changed[at] ^= 1 << shift
    return bytes(changed)
