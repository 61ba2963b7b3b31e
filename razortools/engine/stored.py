"""Stored values: the bytes of a file's record, a large attribute or a long link target, as the tree's items name them.

Reading is pure but for the device. Whoever reads waits in place, unless an attempt runs (store/residence.py): then what is small
and in the host's memory is read at once, and the rest is told as missing.
"""

import os
import threading
import time
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from razortools.engine.store.reading import Outcome, Stored
from razortools.engine.store.residence import INLINE_BYTES, Fetched, Missing, NotResident
from razortools.errors import CorruptImage
from razortools.format import compression
from razortools.format.compression import Algorithm
from razortools.format.data import READABLE, DataRecord, InlineData
from razortools.format.unpacking import unpack_record

if TYPE_CHECKING:
    from razortools.engine.store.store import Store


def unpacking_threads(processors: int) -> int:
    """Return how many threads may decompress at a time: many may wait for the disk, but a processor is left to who serves.

    Of two processors it is not: one would stand idle while the other one decompresses what a program reads in order, and who
    serves has to wait for a processor as long as before (`python -m bench.waiting`).
    """
    return min(processors, max(2, processors - 1))


_UNPACKING = threading.BoundedSemaphore(unpacking_threads(len(os.sched_getaffinity(0))))


class MissingValue(Missing):
    """Bytes that a record names and nobody has read."""

    def __init__(self, store: "Store", record: DataRecord, bytes_max: int) -> None:
        self.key = record_key(record)
        self._store = store
        self._record = record
        self._bytes_max = bytes_max

    def fetch(self) -> bytes:
        """See Missing."""
        stored = self._store.read_record(self._record)
        with _UNPACKING:
            return unpack_item(self._store, self._record, self._bytes_max, stored)

    @classmethod
    def fetch_all(cls, several: Sequence[Missing]) -> list[Fetched]:
        """See Missing. All are read before the first is decompressed.

        Each way out of the interpreter and back is one more wait for its lock, of this thread and of the one that serves.
        """
        values = [one for one in several if isinstance(one, MissingValue)]
        stored = values[0]._store.read_records([one._record for one in values])
        with _UNPACKING:
            return [one._unpacked(found) for one, found in zip(values, stored, strict=True)]

    def _unpacked(self, found: Outcome) -> bytes | Exception:
        """Return the decompressed bytes of what was read, or why there are none."""
        if isinstance(found, Exception):
            return found
        try:
            return unpack_item(self._store, self._record, self._bytes_max, found)
        except Exception as failure:
            return failure


def read_stored(store: "Store", item: DataRecord | InlineData, bytes_max: int) -> bytes:
    """Return the decompressed bytes of an item, at most *bytes_max*. Raises CorruptImage, DeviceFailed, NotResident."""
    residence = store.residence
    if isinstance(item, InlineData) or item.flags & ~READABLE or item.raw_bytes > bytes_max:
        return unpack_item(store, item, bytes_max)  # in memory, or refused
    if residence.waits:
        with residence.timed():
            return unpack_item(store, item, bytes_max)
    found = residence.handed(record_key(item))
    if found is not None:
        assert isinstance(found, bytes)
        return found
    if item.stored_bytes + item.raw_bytes < INLINE_BYTES:
        stored = store.read_record_cached(item)
        if stored is not None:
            return unpack_item(store, item, bytes_max, stored)
    raise NotResident(MissingValue(store, item, bytes_max))


def record_key(record: DataRecord) -> Hashable:
    """Return what tells the bytes of this record from all that lie, or will ever lie, elsewhere or in the same blocks."""
    return ("value", record.address, record.birth, record.crc32c, record.stored_bytes, record.raw_bytes, record.more)


def unpack_item(store: "Store", item: DataRecord | InlineData, bytes_max: int, stored: Stored | None = None) -> bytes:
    """Return the decompressed bytes of an item; *stored*: those that it names, if they were read. For any thread.

    Raises CorruptImage, DeviceFailed.
    """
    if item.raw_bytes > bytes_max:
        raise CorruptImage(f"its item claims {item.raw_bytes} bytes, more than a record of this file holds; run razorfsck")
    if isinstance(item, InlineData):
        return compression.unpack(item.stored, item.algorithm, item.raw_bytes)
    if item.flags & ~READABLE:
        raise CorruptImage("its bytes were given up as unreadable by an earlier repair; write it anew")
    if stored is None:
        stored = store.read_record(item)
    if item.algorithm == Algorithm.NONE:
        return unpack_record(item, stored)
    started = time.perf_counter()
    raw = unpack_record(item, stored)
    store.unpacked.note(item.algorithm, len(raw), item.stored_bytes, time.perf_counter() - started)
    return raw
