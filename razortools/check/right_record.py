"""A data record in which one bit is wrong while its data are whole: what it was, if that is certain.

Each bit of it is turned, and what it says then must be possible and agree with the blocks that it names: CRC32C, second checksum,
and what they decompress to; a list of late pages has a checksum of its own. Of records that are wrong in another way, one in ten
million seems right with another bit. The bit may be one of the CRC32C itself. Then the witness is the second checksum, or zlib's
own; without one, the padding has to show that no bit of the last four bytes has flipped, which is the only damage that does the
same to the CRC32C.
"""

from collections.abc import Iterator

import crc32c

from razortools.check.bitflip import turned
from razortools.check.image import Image
from razortools.check.record_rules import record_fault
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.compression import Algorithm
from razortools.format.data import CUT_OUT, LATE, RUN_BYTES, DataRecord, blocks_crc32
from razortools.format.inode import Inode
from razortools.format.keys import KIND_AT, Kind, offset_of
from razortools.format.unpacking import unpack_record

_CRC_BYTES = 4
_RUNS_MAX = 4  # further ones whose bits are turned: all of them are read for each


def right_record(
    image: Image, key: bytes, record: DataRecord, inode: Inode | None, *, elsewhere: bool
) -> tuple[DataRecord, bytes] | None:
    """Return what *record*, whose data do not verify, was before one bit of it flipped, and what it holds; None: it was not that.

    *key*: of its item; *inode*: whose it is; *elsewhere*: its data may lie where it does not name them, and each place where they
    might is read.
    """
    is_data = key[KIND_AT] == Kind.DATA_RECORD
    found: dict[bytes, list[DataRecord]] = {}  # by what it holds
    blocks = _Blocks(image)
    for candidate in _near(record, elsewhere=elsewhere):
        if not record_fault(image, candidate, inode, is_data=is_data):
            raw = blocks.held_by(candidate, record)
            if raw is not None:
                found.setdefault(raw, []).append(candidate)
    if len(found) > 1 and is_data and inode is not None:  # stored as it is, data are as long as either of two numbers says
        usual = inode.record_bytes, inode.size - offset_of(key) * inode.record_bytes
        found = {raw: candidates for raw, candidates in found.items() if len(raw) in usual}
    if len(found) != 1:
        return None
    ((raw, candidates),) = found.items()
    return min(candidates, key=lambda one: one.stored_bytes), raw  # more of the padding counts as stored: it says the same


def _near(record: DataRecord, *, elsewhere: bool) -> Iterator[DataRecord]:
    """Yield the records that differ in one bit of what decides about the data."""
    item = record.encode()
    for bit in range(8 * len(item)):
        candidate = DataRecord.decode(turned(item, bit))
        if candidate.birth != record.birth or (candidate.flags ^ record.flags) & CUT_OUT:
            continue
        run_bytes = _run_bytes(candidate)
        is_in_runs = bit >= 8 * (len(item) - run_bytes)
        if is_in_runs and run_bytes > _RUNS_MAX * RUN_BYTES:
            return
        if elsewhere or (candidate.address == record.address and not is_in_runs):
            yield candidate


def _run_bytes(record: DataRecord) -> int:
    """Return how many bytes of an item list its further runs."""
    try:
        return len(record.further_runs)
    except CorruptImage:
        return 0  # it will not be believed


class _Blocks:
    """What records hold by their blocks; the blocks that were read last are kept."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._runs: object = None
        self._bytes = b""
        self._crc32c = 0

    def held_by(self, candidate: DataRecord, record: DataRecord) -> bytes | None:
        """Return what *candidate* holds if that verifies. *record*: of which it differs in a bit."""
        try:
            self._read(candidate)
            is_padded = candidate.flags & LATE or not any(self._bytes[candidate.stored_bytes :])
            if is_padded and self._verifies(candidate, is_sum_wrong=candidate.crc32c != record.crc32c):
                return unpack_record(candidate, self._bytes)
        except (CorruptImage, DeviceFailed):
            pass
        return None

    def _read(self, candidate: DataRecord) -> None:
        runs = candidate.runs(self._image.block_bytes)
        if runs != self._runs:
            self._runs = None
            self._bytes = self._image.read_runs(runs)
            self._crc32c = crc32c.crc32c(self._bytes)
            self._runs = runs

    def _verifies(self, candidate: DataRecord, *, is_sum_wrong: bool) -> bool:
        if self._crc32c != candidate.crc32c:
            return False
        second = candidate.second_checksum
        if second is not None:
            return blocks_crc32(self._bytes) == second
        if not is_sum_wrong or candidate.algorithm == Algorithm.ZLIB:
            return not (is_sum_wrong and candidate.flags & LATE)
        is_padded = candidate.stored_bytes + _CRC_BYTES <= len(self._bytes)
        return is_padded and not candidate.flags & LATE and not any(self._bytes[-_CRC_BYTES:])
