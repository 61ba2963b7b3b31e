"""Reading what records name: the blocks in which they lie, verified.

Invariants: no byte is returned whose checksum was not compared; what cannot be read together with its neighbours is read by
itself, so that nobody is refused for what happened to another.
"""

from collections.abc import Sequence

import crc32c

from razortools.engine.store.device import Device
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.compression import Algorithm
from razortools.format.data import CUT_OUT, DataRecord, Run
from razortools.units import KIB

# The checksum of so much takes some microseconds. To let go of the interpreter's lock meanwhile would cost more: the thread that
# serves requests takes it, whoever wants it back waits, and is waited for.
HELD_BYTES_MAX = 128 * KIB
_HOLD, _LET_GO = 0, 1

Stored = bytes | memoryview
Outcome = Stored | CorruptImage | DeviceFailed  # of reading one among several


def read_record(device: Device, record: DataRecord, block_bytes: int) -> bytes:
    """Return the stored bytes of *record*, without padding. Raises CorruptImage, DeviceFailed."""
    runs = readable_runs(record, block_bytes)
    if len(runs) == 1:
        raw = device.read(runs[0][0] * block_bytes, runs[0][1] * block_bytes)
    else:
        raw = b"".join(device.read(start * block_bytes, count * block_bytes) for start, count in runs)
    verify(record, runs, raw)
    return raw if len(raw) == record.stored_bytes else raw[: record.stored_bytes]


def read_cached(device: Device, record: DataRecord, block_bytes: int) -> bytes | None:
    """Return what read_record() does if the host has all of it in memory. Raises CorruptImage."""
    runs = readable_runs(record, block_bytes)
    parts: list[bytes] = []
    for start, count in runs:
        part = device.read_cached(start * block_bytes, count * block_bytes)
        if part is None:
            return None
        parts.append(part)
    raw = b"".join(parts)
    verify(record, runs, raw)
    return raw if len(raw) == record.stored_bytes else raw[: record.stored_bytes]


def read_records(device: Device, records: Sequence[DataRecord], block_bytes: int) -> list[Outcome]:
    """Return what read_record() does of each, or raises. What lies side by side, in this order, is read in one go."""
    outcomes: list[Outcome] = []
    places = [_place(record, block_bytes) for record in records]
    first = 0
    while first < len(records):
        end, place = first + 1, places[first]
        while place is not None and end < len(records) and (after := places[end]) is not None and sum(place) == after[0]:
            end, place = end + 1, after
        some = records[first:end]
        together = _read_neighbours(device, some, block_bytes) if len(some) > 1 else None
        outcomes += _read_each(device, some, block_bytes) if together is None else together
        first = end
    return outcomes


def _place(record: DataRecord, block_bytes: int) -> Run | None:
    """Return the one run in which *record* lies; None if it is to be read by itself.

    What is not compressed is used as it is read: of what was read together it would have to be copied.
    """
    if record.flags & CUT_OUT or record.algorithm == Algorithm.NONE:
        return None
    try:
        runs = record.runs(block_bytes)
    except CorruptImage:
        return None
    return runs[0] if len(runs) == 1 else None


def _read_neighbours(device: Device, records: Sequence[DataRecord], block_bytes: int) -> list[Outcome] | None:
    """Return the outcomes of records that lie side by side; None if the device does not give all of it."""
    counts = [record.block_count(block_bytes) for record in records]
    (first, _) = records[0].runs(block_bytes)[0]
    try:
        view = memoryview(device.read(first * block_bytes, sum(counts) * block_bytes))
    except DeviceFailed:
        return None
    outcomes: list[Outcome] = []
    for record, count in zip(records, counts, strict=True):
        raw, view = view[: count * block_bytes], view[count * block_bytes :]
        try:
            verify(record, record.runs(block_bytes), raw)
        except CorruptImage as broken:
            outcomes.append(broken)
        else:
            outcomes.append(raw[: record.stored_bytes])
    return outcomes


def _read_each(device: Device, records: Sequence[DataRecord], block_bytes: int) -> list[Outcome]:
    """Return the outcomes of records, each read by itself."""
    outcomes: list[Outcome] = []
    for record in records:
        try:
            outcomes.append(read_record(device, record, block_bytes))
        except (CorruptImage, DeviceFailed) as failed:
            outcomes.append(failed)
    return outcomes


def readable_runs(record: DataRecord, block_bytes: int) -> list[Run]:
    """Return where *record* lies. Raises CorruptImage if a repair has cut it out: what lies there is not what was written."""
    if record.flags & CUT_OUT:
        raise CorruptImage("these bytes were lost when razorfsck repaired the image; restore the file from elsewhere")
    return record.runs(block_bytes)


def verify(record: DataRecord, runs: list[Run], raw: Stored) -> None:
    """Compare *raw*, the whole blocks of *record*, with its checksum. Raises CorruptImage."""
    checksum = crc32c.crc32c(raw, gil_release_mode=_HOLD if len(raw) <= HELD_BYTES_MAX else _LET_GO)
    if checksum != record.crc32c:
        raise CorruptImage(f"data at block {runs[0][0]}: checksum {checksum:#010x} found, {record.crc32c:#010x} expected")
