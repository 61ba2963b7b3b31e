"""Undo: makes an image what it was before a repair, bit for bit, from the undo file that the repair has left.

It does not matter whether the repair came to its end, was cut off, or was taken back in part before. Invariants: nothing is
written unless the undo file is whole and every sector that it names holds what was there before the repair or what the repair
wrote; stages are taken back in the opposite order, with a flush behind each, so the image is the new filesystem or the old one at
every moment; cut off anywhere, running it again completes it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from razortools.check.repair.undo_file import UndoReader, contents_of, sector_checksums
from razortools.check.repair.undo_shelf import HostShelf, Shelf
from razortools.engine.store.device import Device
from razortools.errors import CannotUndo
from razortools.format.undo import UNDO_PAGE_BYTES, UNDO_SECTOR_BYTES, Fate, Stage, UndoPage


@dataclass(frozen=True, slots=True)
class UndoResult:
    """What taking a repair back did."""

    page_count: int  # that differed from what they had been
    undo_path: str
    older_paths: tuple[str, ...] = ()  # of repairs before this one that were not taken back, the latest first


def undo(image: Device, undo_path: str) -> UndoResult:
    """Take the repair back whose undo file is at *undo_path*.

    Raises CannotUndo if the file is missing, damaged or of another image, or if the image was changed since; ReadOnly,
    DeviceFailed. Unless it is a DeviceFailed in the middle, nothing was written; then running it again completes it.
    """
    shelf = HostShelf(undo_path, image.name)
    count = take_back(image, shelf)
    return UndoResult(count, undo_path, tuple(shelf.older()))


def take_back(image: Device, shelf: Shelf, clock: Callable[[], int] = time.time_ns) -> int:
    """Take back the repair whose undo file is on *shelf*; return how many pages that changed."""
    with shelf.open(writable=True) as file:
        reader = UndoReader(file)
        count = _Undo(image, reader).run()
        reader.note(Fate.TAKEN_BACK, clock())
        return count


class _Undo:
    """An undo file and the image that it belongs to."""

    def __init__(self, image: Device, reader: UndoReader) -> None:
        self._image = image
        self._reader = reader
        self._mark: UndoPage | None = None  # the one page that may be written in two stages, as the first of them knows it

    def run(self) -> int:
        """Judge everything, then write. Raises CannotUndo before anything is written."""
        self._judge()
        image, header = self._image, self._reader.header
        if image.size_bytes < header.bytes_before:
            image.resize(header.bytes_before)
        count = sum(self._restore(stage) for stage in reversed(Stage))
        if image.size_bytes > header.bytes_before:
            image.resize(header.bytes_before)
            image.flush()
        return count

    def _judge(self) -> None:
        """Verify the whole undo file, and that nobody else has written to the pages that it names."""
        header, image = self._reader.header, self._image
        if image.size_bytes not in (header.bytes_before, header.bytes_after):
            raise CannotUndo(
                f"{image.name}: has {image.size_bytes} bytes, {self._reader.name} belongs to an image of {header.bytes_before}. "
                "Nothing was changed"
            )
        foreign = first = 0
        for page in self._reader.pages():
            if page.offset + page.length > max(header.bytes_before, header.bytes_after):
                raise CannotUndo(f"{self._reader.name}: names byte {page.offset}, where the image has ended. Nothing was changed")
            if page.stage == Stage.MARK:
                self._mark = page  # the page comes again in a later stage, and is judged then
            elif not self._is_known(page):
                first = first if foreign else page.offset
                foreign += 1
        if foreign:
            raise CannotUndo(
                f"{image.name}: was changed since the repair, or {self._reader.name} belongs to another image: {foreign} of its "
                f"pages, the first at byte {first}, hold neither what they held before the repair nor what it wrote. "
                "Nothing was changed"
            )

    def _is_known(self, page: UndoPage) -> bool:
        """Return whether every sector of a page holds what it did before the repair, or what the repair wrote to it."""
        found = self._found(page.offset, UNDO_PAGE_BYTES)
        # If the repair changed the length of the image, the page at its end is as long as the image is now.
        before = contents_of(page).ljust(len(found), b"\0")[: len(found)]
        if found == before:
            return True
        ours = sector_checksums(found)
        versions = [sector_checksums(before), page.after]
        if self._mark is not None and self._mark.offset == page.offset:
            versions += [sector_checksums(contents_of(self._mark)), self._mark.after]
        return all(
            any(ours[at : at + 4] == version[at : at + 4] for version in versions)
            for at in range(0, 4 * (-(-len(found) // UNDO_SECTOR_BYTES)), 4)
        )

    def _found(self, offset: int, length: int) -> bytes:
        """Return what the image holds there now, as much as it has."""
        length = min(length, max(self._image.size_bytes - offset, 0))
        return self._image.read(offset, length) if length else b""

    def _restore(self, stage: Stage) -> int:
        """Take one stage back; return how many pages that changed."""
        count = 0
        for page in self._pages_of(stage):
            before = contents_of(page)
            if self._found(page.offset, page.length) != before:
                self._image.write(page.offset, before)
                count += 1
        if count:
            self._image.flush()
        return count

    def _pages_of(self, stage: Stage) -> Iterator[UndoPage]:
        return (page for page in self._reader.pages() if page.stage == stage and page.length)
