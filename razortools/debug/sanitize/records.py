"""Data records of the copy: the blocks hold stand-ins, and each record judges its blocks as before.

A record whose blocks verify gets stand-ins that do. Of one whose blocks do not, the difference between the checksums told
and found stays what it was. A CRC is linear, so what can be told from that difference stays the same as well: that a single bit
has flipped, and which.
"""

from dataclasses import dataclass, field, replace

import crc32c

from razortools.check.bitflip import find_flipped_bit, turned
from razortools.check.claims import Claims
from razortools.check.image import BLOCK_MASK, Image
from razortools.debug.sanitize.frames import decompresses, stand_in
from razortools.debug.sanitize.standins import StandIns
from razortools.engine.store.device import Device
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.data import CUT_OUT, RECORD_BYTES_MAX, DataRecord, blocks_crc32

STORED_BYTES_MAX = 2 * RECORD_BYTES_MAX  # more, and the check does not read it either


@dataclass(frozen=True, slots=True)
class _Judged:
    """What became of a record. The differences are those between the checksums found and told."""

    algorithm: int
    difference: int
    second_difference: int
    checksums: tuple[int, int] | None  # of the blocks in the copy; None: read them


@dataclass(slots=True)
class Records:
    """The records of an image, and their blocks in the copy. Memory: about 300 bytes a record."""

    image: Image
    target: Device
    names: StandIns
    owned: Claims = field(init=False)  # blocks of records that verify
    count: int = 0
    _judged: dict[bytes, _Judged] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.owned = Claims(self.image.geometry.spacemap)

    def learn(self, record: DataRecord) -> None:
        """Judge a record, and write stand-ins to the copy if its blocks are its own."""
        known = record.encode()
        if known not in self._judged and (blocks := self._blocks(self.image.device, record)) is not None:
            self.count += 1
            self._judged[known] = self._judge(record, blocks)

    def new(self, record: DataRecord) -> DataRecord:
        """Return a record as it is in the copy. All that are there must have been learned."""
        judged = self._judged.get(record.encode())
        sums = judged.checksums if judged is not None else None
        if judged is not None and sums is None:
            blocks = self._blocks(self.target, record)
            sums = (crc32c.crc32c(blocks), blocks_crc32(blocks)) if blocks is not None else None
        if judged is None or sums is None:  # it cannot be read, so nothing can be told of it
            return replace(record, crc32c=int.from_bytes(self.names.digest(record.encode())[:4], "little"))
        new = replace(record, algorithm=judged.algorithm, crc32c=sums[0] ^ judged.difference)
        return new if record.second_checksum is None else new.checked_by(sums[1] ^ judged.second_difference)

    def _blocks(self, device: Device, record: DataRecord) -> bytes | None:
        """Return what lies in the blocks of *record* on *device*, or None."""
        if not 0 < record.stored_bytes <= STORED_BYTES_MAX or record.address > BLOCK_MASK:
            return None
        try:
            return replace(self.image, device=device).read_runs(record.runs(self.image.block_bytes))
        except (CorruptImage, DeviceFailed):
            return None

    def _judge(self, record: DataRecord, blocks: bytes) -> _Judged:
        difference = crc32c.crc32c(blocks) ^ record.crc32c
        second = record.second_checksum
        second_difference = 0 if second is None else blocks_crc32(blocks) ^ second
        bit = find_flipped_bit(blocks, record.crc32c) if difference else None
        if difference and (bit is None or record.flags & CUT_OUT):
            return _Judged(record.algorithm, difference, second_difference, None)
        whole = blocks if bit is None else turned(blocks, bit)
        late = record.late_pages  # zeros take their place
        length = record.stored_bytes if late is None else min(late.base_bytes, len(blocks))
        is_whole = decompresses(record.algorithm, whole[:length], record.raw_bytes)
        algorithm, stored = stand_in(record.algorithm, length, record.raw_bytes, whole=is_whole)
        made = stored.ljust(len(blocks), b"\0")
        self._write(record, made if bit is None else turned(made, bit))
        if bit is not None:
            made = turned(made, bit)
        return _Judged(algorithm, difference, second_difference, (crc32c.crc32c(made), blocks_crc32(made)))

    def _write(self, record: DataRecord, blocks: bytes) -> None:
        """Write what is not zeros."""
        size, at = self.image.block_bytes, 0
        for first, count in record.runs(size):
            self.owned.claim(first, count)
            for block in range(first, first + count):
                piece = blocks[at : at + size]
                if piece.count(0) != len(piece):
                    self.target.write(block * size, piece)
                at += size
