"""Late pages: pages of a record that were written after it, behind its other stored bytes.

A program that writes pages at random places of a large file changes little of each record. To store a record anew it must be
read, decompressed, compressed and written; a late page is written, and the item that names the record names it too. Reading puts
the pages over the record below.
"""

from collections.abc import Iterator
from typing import Annotated

from construct import GreedyBytes, Int16ul, Int32ul

from razortools.errors import CorruptImage
from razortools.format.record import Record, record

LATE_PAGE_BYTES = 4096


@record(magic=b"LATE")
class LatePages(Record):
    """Which pages of a record were written after it. They are its last stored bytes, one behind the other, not compressed.

    A page may be there several times: what lies further behind is newer. The checksum is of this list alone: nothing else tells
    which page is which.
    """

    base_bytes: Annotated[int, Int32ul * "bytes stored of the record below them, before padding with zeros to whole blocks"]
    page_count: Annotated[int, Int16ul * "late pages, of 4096 bytes each"]
    places: Annotated[bytes, GreedyBytes * "a byte for each: which page of the record it is, counted from 0"]

    @classmethod
    def at_start_of(cls, data: bytes) -> "LatePages | None":
        """Return what *data* begins with, or None if it is cut off. Raises CorruptImage if it does not verify."""
        fixed = cls.skipped_bytes() + cls.FIXED_BYTES
        if len(data) < fixed:
            return None
        _, page_count = cls.STRUCT.unpack_from(data, cls.skipped_bytes())
        return cls.decode(data[: fixed + page_count]) if len(data) >= fixed + page_count else None

    @property
    def encoded_bytes(self) -> int:
        """Its length in an item."""
        return self.skipped_bytes() + self.FIXED_BYTES + self.page_count

    def pages(self, stored: bytes | memoryview, raw_bytes: int) -> Iterator[tuple[int, bytes | memoryview]]:
        """Yield (place in the record in bytes, page) from all that is stored of a record of *raw_bytes*, oldest first.

        Raises CorruptImage if the pages are not all there, or one does not lie in the record.
        """
        start = len(stored) - self.page_count * LATE_PAGE_BYTES
        if start < self.base_bytes or len(self.places) != self.page_count:
            raise CorruptImage(f"{self.page_count} late pages behind {self.base_bytes} bytes do not fit into {len(stored)} bytes")
        for number, place in enumerate(self.places):
            at, begin = place * LATE_PAGE_BYTES, start + number * LATE_PAGE_BYTES
            if at + LATE_PAGE_BYTES > raw_bytes:
                raise CorruptImage(f"late page {place} lies behind the end of a record of {raw_bytes} bytes")
            yield at, stored[begin : begin + LATE_PAGE_BYTES]
