"""A device for a filesystem in the making: it holds the superblocks back and keeps no journal.

Whatever is written, the device becomes a filesystem only at the end, so a making that is interrupted leaves nothing that could
be mistaken for a whole one. Until then there is nothing that a journal could protect: once it is wiped, what is written to its
place is dropped, which keeps the image small. Invariant: until release no place of a superblock has been written.
"""

from razortools.engine.store.device import Device
from razortools.format.geometry import Geometry
from razortools.format.superblock import SLOT_COUNT


class HeldDevice(Device):
    """Passes everything on to *base*, but for the superblocks, which are kept in memory, and the journal, which is dropped."""

    def __init__(self, base: Device, geometry: Geometry) -> None:
        """Hold back what lies at the fixed places of *geometry*. *base* stays the caller's: close() does not close it."""
        self.name = base.name
        self.size_bytes = base.size_bytes
        self.read_only = base.read_only
        self._base = base
        self._block_bytes = geometry.block_bytes
        self._places = [block * geometry.block_bytes for block in (*range(SLOT_COUNT), *geometry.backups)]
        start = geometry.journal_start * geometry.block_bytes
        self._journal = range(start, start + geometry.journal_bytes)
        self._drops_journal = False
        self._held: dict[int, bytearray] = {}

    def read(self, offset: int, length: int) -> bytes:
        """See Device."""
        data = self._base.read(offset, length)
        touched = [place for place in self._held if place < offset + length and offset < place + self._block_bytes]
        if not touched:
            return data
        made = bytearray(data)
        for place in touched:
            start, end = max(place, offset), min(place + self._block_bytes, offset + length)
            made[start - offset : end - offset] = self._held[place][start - place : end - place]
        return bytes(made)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """See Device. What is written never reaches from a held block into another one: superblocks are written alone."""
        if self._drops_journal and offset in self._journal:
            assert offset + len(data) <= self._journal.stop, "a write reaches over the end of the journal"
            return
        place = next((place for place in self._places if place <= offset < place + self._block_bytes), None)
        if place is None:
            self._base.write(offset, data)
            return
        assert offset + len(data) <= place + self._block_bytes, "a write reaches over the end of a superblock"
        if place not in self._held:
            self._held[place] = bytearray(self._base.read(place, self._block_bytes))
        self._held[place][offset - place : offset - place + len(data)] = data

    def drop_journal(self) -> None:
        """From now on drop what is written to the journal. The last thing before release must be a checkpoint."""
        self._drops_journal = True

    def flush(self) -> None:
        """Nothing needs to be stable before the end: until then the device holds no filesystem."""

    def release(self) -> None:
        """Write what was held, the first places last, after everything else is stable; return when all of it is.

        Raises DeviceFailed.
        """
        self._base.flush()
        for place in reversed(self._places):
            if place in self._held:
                self._base.write(place, self._held[place])
        self._base.flush()
        self._held.clear()
