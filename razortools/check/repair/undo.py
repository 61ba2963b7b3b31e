"""Undo: makes an image what it was before a repair, bit for bit, from the undo file that the repair has left.

It does not matter whether the repair came to its end, was cut off, or was taken back in part before. Invariants: nothing is
written unless the undo file is whole and every sector that it names holds what was there before the repair or what the repair
wrote; stages are taken back in the opposite order, with a flush behind each, so the image is the new filesystem or the old one at
every moment; cut off anywhere, running it again completes it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from razortools.check.repair.undo_file import UndoReader, contents_of, read_page, sector_checksums
from razortools.check.repair.undo_shelf import HostShelf, Shelf
from razortools.engine.store.device import Device
from razortools.errors import CannotUndo, DeviceFailed, RazorError
from razortools.format.undo import SECTORS_PER_PAGE, UNDO_SECTOR_BYTES, Fate, Stage, UndoPage


@dataclass(frozen=True, slots=True)
class UndoResult:
    """What taking a repair back did."""

    page_count: int  # that differed from what they had been
    undo_path: str
    older_paths: tuple[str, ...] = ()  # of repairs before this one that can be taken back now


def undo(image: Device, undo_path: str, before_writing: Callable[[], None] = lambda: None) -> UndoResult:
    """Take the repair back whose undo file is at *undo_path*; *before_writing* is called when nothing speaks against it.

    Raises CannotUndo if the file is missing, damaged or of another image, or if the image was changed since; ReadOnly,
    DeviceFailed. Unless it is a DeviceFailed in the middle, nothing was written; then running it again completes it.
    """
    shelf = HostShelf(undo_path, image.name)
    count = take_back(image, shelf, before_writing=before_writing)
    older = tuple(path for path in shelf.older() if applies(image, HostShelf(path, image.name)))
    return UndoResult(count, undo_path, older)


def applies(image: Device, shelf: Shelf) -> bool:
    """Return whether the undo file on *shelf* takes something back from *image* as it is now. Reads only, all that it names."""
    try:
        with shelf.open(writable=False) as file:
            return _Undo(image, UndoReader(file)).differs()
    except RazorError:
        return False


def take_back(
    image: Device, shelf: Shelf, clock: Callable[[], int] = time.time_ns, before_writing: Callable[[], None] = lambda: None
) -> int:
    """Take back the repair whose undo file is on *shelf*; return how many pages that changed."""
    with shelf.open(writable=True) as file:
        reader = UndoReader(file)
        count = _Undo(image, reader).run(before_writing)
        reader.note(Fate.TAKEN_BACK, clock())
        return count


def was_cut_off(image: Device, shelf: Shelf) -> bool:
    """Return whether the undo file on *shelf* belongs to something that was cut off, and still takes it back. Reads only."""
    return _is_begun_and(image, shelf, _Undo.differs)


def has_no_effect_yet(image: Device, shelf: Shelf) -> bool:
    """Return whether the undo file on *shelf* belongs to a change in place that was cut off before its superblock. Reads only."""
    return _is_begun_and(image, shelf, _Undo.is_before_the_truth)


def _is_begun_and(image: Device, shelf: Shelf, question: "Callable[[_Undo], bool]") -> bool:
    """Return the answer of the undo file on *shelf* if it belongs to something that was begun and not ended."""
    try:
        with shelf.open(writable=False) as file:
            reader = UndoReader(file)
            return reader.fate is Fate.BEGUN and question(_Undo(image, reader))
    except RazorError:
        return False


class _Undo:
    """An undo file and the image that it belongs to."""

    def __init__(self, image: Device, reader: UndoReader) -> None:
        self._image = image
        self._reader = reader
        self._mark: UndoPage | None = None  # the one page that may be written in two stages, as the first of them knows it

    def run(self, before_writing: Callable[[], None]) -> int:
        """Judge everything, then write; return how many pages were not as they had been. Raises CannotUndo before it writes."""
        image, header = self._image, self._reader.header
        count = self._judge()
        if not count and image.size_bytes == header.bytes_before:
            return 0
        before_writing()
        if image.size_bytes < header.bytes_before:
            image.resize(header.bytes_before)
        for stage in reversed(Stage):
            self._restore(stage)
        if image.size_bytes > header.bytes_before:
            image.resize(header.bytes_before)
            image.flush()
        return count

    def differs(self) -> bool:
        """Return whether there is anything to take back. Raises CannotUndo as run() does."""
        return self._judge() > 0 or self._image.size_bytes != self._reader.header.bytes_before

    def is_before_the_truth(self) -> bool:
        """Return whether something was written ahead, but not the superblock, by what sets no mark first: it changes in place."""
        if not self.differs() or self._mark is not None:
            return False
        return all(self._is_as_before(page) for page in self._reader.pages() if page.stage == Stage.TRUTH)

    def _judge(self) -> int:
        """Verify the whole undo file, and that nobody else has written to the pages that it names.

        Return how many of them do not hold what they did before the repair.
        """
        header, image = self._reader.header, self._image
        if image.size_bytes not in (header.bytes_before, header.bytes_after):
            raise CannotUndo(
                f"{image.name}: has {image.size_bytes} bytes, {self._reader.name} belongs to an image of {header.bytes_before}. "
                "Nothing was changed"
            )
        foreign = first = changed = 0
        for page in self._reader.pages():
            if page.offset + page.length > max(header.bytes_before, header.bytes_after):
                raise CannotUndo(f"{self._reader.name}: names byte {page.offset}, where the image has ended. Nothing was changed")
            if page.stage == Stage.MARK:
                self._mark = page  # the page comes again in a later stage, and is judged then
                continue
            changed += not self._is_as_before(page)
            if not self._is_known(page):
                first = first if foreign else page.offset
                foreign += 1
        if foreign:
            raise CannotUndo(
                f"{image.name}: was changed since the repair, or {self._reader.name} belongs to another image: {foreign} of its "
                f"pages, the first at byte {first}, hold neither what they held before the repair nor what it wrote. "
                "Nothing was changed"
            )
        return changed

    def _is_as_before(self, page: UndoPage) -> bool:
        """Return whether a page holds what it did before the first stage that writes it."""
        first = self._mark if self._mark is not None and self._mark.offset == page.offset else page
        return read_page(self._image, page.offset, page.length).contents == contents_of(first)

    def _is_known(self, page: UndoPage) -> bool:
        """Return whether every sector of a page holds what it did before the repair, or what the repair wrote to it."""
        read = read_page(self._image, page.offset)
        if read.unreadable & ~page.unreadable:
            raise DeviceFailed(f"{self._image.name}: byte {page.offset} and what follows cannot be read. Nothing was changed")
        before = contents_of(page)
        if read.contents == before:
            return True
        ours = sector_checksums(read.contents)
        versions = [sector_checksums(before), page.after]
        if self._mark is not None and self._mark.offset == page.offset:
            versions += [sector_checksums(contents_of(self._mark)), self._mark.after]
        return all(
            page.unreadable >> sector & 1
            or any(ours[4 * sector : 4 * sector + 4] == version[4 * sector : 4 * sector + 4] for version in versions)
            for sector in range(SECTORS_PER_PAGE)
        )

    def _restore(self, stage: Stage) -> None:
        """Take one stage back."""
        if sum(self._restore_page(page) for page in self._reader.pages() if page.stage == stage):
            self._image.flush()

    def _restore_page(self, page: UndoPage) -> bool:
        """Write what the page held; return whether it held anything else."""
        before, found = contents_of(page), read_page(self._image, page.offset, page.length).contents
        if found == before:
            return False
        if not page.unreadable:
            self._image.write(page.offset, before)
            return True
        # A sector that could not be read cannot be given back: what the repair wrote there stays.
        changed = False
        for number, at in enumerate(range(0, page.length, UNDO_SECTOR_BYTES)):
            sector = slice(at, at + UNDO_SECTOR_BYTES)
            if not page.unreadable >> number & 1 and found[sector] != before[sector]:
                self._image.write(page.offset + at, before[sector])
                changed = True
        return changed
