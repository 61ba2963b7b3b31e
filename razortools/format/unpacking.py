"""Unpacking: from the stored bytes of a record to what it holds. Pure; the only way there."""

from razortools.format.compression import unpack
from razortools.format.data import DataRecord, laid_over


def unpack_record(record: DataRecord, stored: bytes | memoryview) -> bytes:
    """Return the raw_bytes that *record* holds. *stored*: what lies in its blocks, verified, with padding or without.

    Raises CorruptImage if they do not decompress to that.
    """
    late = record.late_pages
    if late is None:
        return unpack(stored[: record.stored_bytes], record.algorithm, record.raw_bytes)
    base = unpack(stored[: late.base_bytes], record.algorithm, record.raw_bytes)
    return laid_over(base, late.pages(stored[: record.stored_bytes], record.raw_bytes))
