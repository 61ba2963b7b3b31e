"""Undo files: written page by page, read back page by page. What the bytes mean stands in format/undo.py.

Invariants: nothing here knows names on the host (undo_shelf.py does); a file of any size passes through a few pages of
memory; what pages() has yielded to its end was verified, every byte of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import crc32c

from razortools.engine.store.device import Device
from razortools.errors import CannotUndo, CorruptImage, DeviceFailed
from razortools.format.undo import (
    UNDO_END_BYTES,
    UNDO_HEAD_BYTES,
    UNDO_MAGIC,
    UNDO_MARK_BYTES,
    UNDO_PAGE_BYTES,
    UNDO_PAGE_HEAD_BYTES,
    UNDO_SECTOR_BYTES,
    UNDO_VERSION,
    Fate,
    PageFlag,
    UndoEnd,
    UndoHeader,
    UndoMark,
    UndoPage,
)
from razortools.units import round_up

GATHERED_BYTES = 1 << 20  # handed to the host at once


def undo_file_bytes(page_count: int, kept_bytes: int) -> int:
    """Return the length of an undo file of so many pages, which hold *kept_bytes* that are no zeros."""
    body = UNDO_HEAD_BYTES + page_count * UNDO_PAGE_HEAD_BYTES + kept_bytes + UNDO_END_BYTES
    return round_up(body, UNDO_SECTOR_BYTES) + UNDO_SECTOR_BYTES


def sector_checksums(contents: bytes) -> bytes:
    """Return the CRC32C of each sector of a page, as UndoPage.after holds them.

    What lies behind the end of the image counts as zeros, which is what a longer one would hold there.
    """
    starts = range(0, UNDO_PAGE_BYTES, UNDO_SECTOR_BYTES)
    contents = contents.ljust(UNDO_PAGE_BYTES, b"\0")
    return b"".join(crc32c.crc32c(contents[at : at + UNDO_SECTOR_BYTES]).to_bytes(4, "little") for at in starts)


def contents_of(page: UndoPage) -> bytes:
    """Return what *page* held."""
    return bytes(page.length) if page.flags & PageFlag.ZEROS else page.before


@dataclass(frozen=True, slots=True)
class PageRead:
    """What a device gave of a page. *unreadable* has a bit for each sector that it did not give; zeros stand for those."""

    contents: bytes
    unreadable: int = 0


def read_page(device: Device, offset: int, length: int = UNDO_PAGE_BYTES) -> PageRead:
    """Read a page, or as much of it as the device has. A sector that cannot be read raises nothing: it is told."""
    length = min(length, max(device.size_bytes - offset, 0))
    if not length:
        return PageRead(b"")
    try:
        return PageRead(device.read(offset, length))
    except DeviceFailed:
        pass
    parts: list[bytes] = []
    unreadable = 0
    for number, at in enumerate(range(0, length, UNDO_SECTOR_BYTES)):
        count = min(UNDO_SECTOR_BYTES, length - at)
        try:
            parts.append(device.read(offset + at, count))
        except DeviceFailed:
            parts.append(bytes(count))
            unreadable |= 1 << number
    return PageRead(b"".join(parts), unreadable)


class UndoWriter:
    """Writes an undo file from its start to its end. Raises DeviceFailed where the host does."""

    def __init__(self, file: Device, header: UndoHeader) -> None:
        """Begin; *file* has the length that the header tells."""
        self._file = file
        self._gathered = bytearray(header.encode())
        self._at = 0
        self._count = 0
        self._checksums = 0

    def add(self, offset: int, before: "PageRead", after: bytes, stage: int) -> None:
        """Keep what a page held *before*; *after* is what it will hold."""
        flags, kept = (0, before.contents) if any(before.contents) else (int(PageFlag.ZEROS), b"")
        length = len(before.contents)
        page = UndoPage(self._count, offset, length, stage, flags, before.unreadable, 0, sector_checksums(after), kept)
        raw = page.encode()
        self._checksums = crc32c.crc32c(raw[len(page.MAGIC) : page.skipped_bytes()], self._checksums)
        self._count += 1
        self._gathered += raw
        if len(self._gathered) >= GATHERED_BYTES:
            self._hand_over(len(self._gathered) // UNDO_PAGE_BYTES * UNDO_PAGE_BYTES)

    def finish(self, now_ns: int) -> None:
        """Write the end and the mark, and return when all of it is on stable storage."""
        self._gathered += UndoEnd(self._count, self._checksums).encode()
        self._gathered += bytes(-(self._at + len(self._gathered)) % UNDO_SECTOR_BYTES)
        self._gathered += _mark(Fate.BEGUN, now_ns)
        assert self._at + len(self._gathered) == self._file.size_bytes, "the undo file has another length than was planned"
        self._hand_over(len(self._gathered))
        self._file.flush()

    def _hand_over(self, count: int) -> None:
        self._file.write(self._at, self._gathered[:count])
        self._at += count
        del self._gathered[:count]


class UndoReader:
    """A whole undo file. Raises CannotUndo with a sentence if it is none, or not whole."""

    def __init__(self, file: Device) -> None:
        """Read and verify the header."""
        self.file = file
        self.name = file.name
        head = file.read(0, min(UNDO_HEAD_BYTES, file.size_bytes))
        if head[: len(UNDO_MAGIC)] != UNDO_MAGIC:
            raise CannotUndo(f"{self.name}: is no undo file; nothing was changed")
        try:
            self.header = UndoHeader.decode(head)
        except CorruptImage as broken:
            raise self._damaged(str(broken)) from None
        if self.header.version != UNDO_VERSION or self.header.page_bytes != UNDO_PAGE_BYTES:
            raise CannotUndo(f"{self.name}: was made by another version of razorfsck; use that one. Nothing was changed")
        if self.header.file_bytes != file.size_bytes:
            raise self._damaged(f"it has {file.size_bytes} bytes, {self.header.file_bytes} expected")

    @property
    def fate(self) -> Fate:
        """What became of the repair, as far as the file tells."""
        raw = self.file.read(self.file.size_bytes - UNDO_SECTOR_BYTES, UNDO_MARK_BYTES)
        try:
            return Fate(UndoMark.decode(raw).fate)
        except (CorruptImage, ValueError):
            return Fate.BEGUN

    def note(self, fate: Fate, now_ns: int) -> None:
        """Note what became of the repair; stable when this returns. Raises DeviceFailed."""
        self.file.write(self.file.size_bytes - UNDO_SECTOR_BYTES, _mark(fate, now_ns))
        self.file.flush()

    def pages(self) -> Iterator[UndoPage]:
        """Yield the pages in their order, each verified, and verify at the end that none is missing. Raises CannotUndo."""
        at, count, checksums = UNDO_HEAD_BYTES, 0, 0
        try:
            while (raw := self._read_page(at)) is not None:
                page = UndoPage.decode(raw)
                if page.number != count or len(contents_of(page)) != page.length:
                    raise CorruptImage(f"page {count} is not where it should be")
                checksums = crc32c.crc32c(raw[len(page.MAGIC) : page.skipped_bytes()], checksums)
                count += 1
                at += len(raw)
                yield page
            end = UndoEnd.decode(self.file.read(at, UNDO_END_BYTES))
        except CorruptImage as broken:
            raise self._damaged(str(broken)) from None
        if (end.page_count, end.checksums) != (count, checksums):
            raise self._damaged(f"{count} pages found, {end.page_count} expected")

    def _read_page(self, at: int) -> bytes | None:
        """Return the bytes of the page at *at*, or None where the pages end."""
        end = self.file.size_bytes - UNDO_SECTOR_BYTES
        head = self.file.read(at, min(UNDO_PAGE_HEAD_BYTES, end - at))
        if head[: len(UndoPage.MAGIC)] != UndoPage.MAGIC:
            return None
        if len(head) < UNDO_PAGE_HEAD_BYTES:
            raise CorruptImage(f"the page at byte {at} is cut off")
        length, flags = int.from_bytes(head[24:28], "little"), head[29]
        kept = 0 if flags & PageFlag.ZEROS else length
        if kept > UNDO_PAGE_BYTES or at + len(head) + kept > end:
            raise CorruptImage(f"the page at byte {at} has a senseless length, {length}")
        return head + self.file.read(at + len(head), kept)

    def _damaged(self, reason: str) -> CannotUndo:
        return CannotUndo(f"{self.name}: the undo file is damaged: {reason}. Nothing was changed")


def _mark(fate: Fate, now_ns: int) -> bytes:
    return UndoMark(fate, now_ns).encode().ljust(UNDO_SECTOR_BYTES, b"\0")
