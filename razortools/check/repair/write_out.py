"""Writing out: from an overlay that holds the repaired filesystem to the image, the means to take it back first.

    undo file, flushed, named | MARK | flush | AHEAD | flush | TRUTH | flush | BEHIND | flush | undo file marked as complete

Invariants: the image is not touched before the undo file is whole and stable under its name; what a page held is kept for each of
its writes, so the stages can be taken back one by one; memory does not grow with the image, only with the pages that change (10
bytes each). Whatever stops the writing, the image is put back as it was if the device still allows it.
"""

import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from razortools.check.repair.undo import take_back
from razortools.check.repair.undo_file import PageRead, UndoReader, UndoWriter, read_page, undo_file_bytes
from razortools.check.repair.undo_shelf import NOTHING_WAS_CHANGED, HostShelf, Shelf
from razortools.check.repair.write_order import Order, WriteOrder
from razortools.engine.store.device import Device
from razortools.engine.store.pages import PAGE_BYTES, OverlayDevice
from razortools.errors import DeviceFailed, RazorError
from razortools.format.undo import UNDO_PAGE_BYTES, UNDO_VERSION, Fate, Stage, UndoHeader

WRITE_BYTES_MAX = 1 << 20  # pages side by side are written together

assert UNDO_PAGE_BYTES == PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Written:
    """What writing out did. *undo_path* is empty if nothing had to be written."""

    page_count: int
    undo_path: str


@dataclass(slots=True)
class _Change:
    """A page that is written in one stage."""

    offset: int
    stage: int
    before: PageRead
    after: bytes

    @property
    def differs(self) -> bool:
        """Whether it has to be written."""
        return self.before.contents != self.after or self.before.unreadable != 0


def write_out(
    overlay: OverlayDevice,
    image: Device,
    undo_path: str,
    before_writing: Callable[[], None] = lambda: None,
    *,
    is_sound: bool = False,
    order: Order | None = None,
) -> Written:
    """Make *image* hold what *overlay*, which lies over it, shows. Raises a RazorError; the image is as it was then.

    *before_writing* is called when the undo file is complete, before it gets its name and the image is changed. Only if the
    device refuses even to be put back, the image is left half written; the sentence then says so, and undo() helps.
    *is_sound*: this is no repair; what is written over was sound, and a power cut in the middle is no reason for a check.
    *order*: in which it is written, if it is no new filesystem beside the old one.
    """
    shelf = HostShelf(undo_path, image.name)
    return write_out_keeping(overlay, image, shelf, before_writing=before_writing, is_sound=is_sound, order=order)


def write_out_keeping(
    overlay: OverlayDevice,
    image: Device,
    shelf: Shelf,
    clock: Callable[[], int] = time.time_ns,
    before_writing: Callable[[], None] = lambda: None,
    *,
    is_sound: bool = False,
    order: Order | None = None,
) -> Written:
    """As write_out(), with the undo file on *shelf*."""
    writing = _WriteOut(overlay, image, order or WriteOrder(overlay), is_sound=is_sound)
    if not writing.changes_anything:
        return Written(0, "")
    _keep(writing, shelf, clock, before_writing)
    try:
        writing.write()
    except BaseException as stopped:
        _put_back(image, shelf, clock, stopped)
        raise
    _note_complete(shelf, clock)
    return Written(writing.page_count, shelf.name)


class _WriteOut:
    """The pages that differ, stage by stage."""

    def __init__(self, overlay: OverlayDevice, image: Device, order: Order, *, is_sound: bool) -> None:
        """Find out what differs; nothing is written."""
        self._overlay = overlay
        self._image = image
        self.order = order
        self._mark = order.mark(image, is_sound=is_sound)
        self._offsets = array("Q")
        self._stages = bytearray()
        self.kept_bytes = 0
        self.page_count = 0
        self.changes_anything = overlay.size_bytes != image.size_bytes
        self._compare()

    def _compare(self) -> None:
        # The slots are always among the pages, changed or not: whoever changes the filesystem later changes one of them, and
        # taking back has to notice that.
        always = {*self.order.slots, *([self._mark[0]] if self._mark else [])}
        cut_off = range(self._overlay.size_bytes // PAGE_BYTES * PAGE_BYTES, self._image.size_bytes, PAGE_BYTES)
        for offset in sorted({*always, *cut_off, *(offset for offset, _ in self._overlay.written_pages())}):
            change = _Change(offset, self.order.stage(offset), read_page(self._image, offset), self._after(offset))
            self.changes_anything |= change.differs
            if change.differs or offset in always:
                self._offsets.append(offset)
                self._stages.append(change.stage)
        self.page_count = len(self._offsets) + (self._mark is not None)
        self.kept_bytes = sum(len(kept) for kept in (change.before.contents for change in self.changes()) if any(kept))

    def _after(self, offset: int) -> bytes:
        length = min(PAGE_BYTES, max(self._overlay.size_bytes - offset, 0))
        return self._overlay.read(offset, length) if length else b""

    def changes(self, only: Stage | None = None) -> Iterator[_Change]:
        """Yield the pages of each stage, or of one, in order, with what they hold when the stage begins."""
        for stage in Stage if only is None else (only,):
            if stage is Stage.MARK:
                if self._mark is not None:
                    yield _Change(self._mark[0], stage, read_page(self._image, self._mark[0]), self._mark[1])
                continue
            for offset, its_stage in zip(self._offsets, self._stages, strict=True):
                if its_stage == stage:
                    is_marked = self._mark is not None and offset == self._mark[0]
                    before = PageRead(self._mark[1]) if is_marked and self._mark else read_page(self._image, offset)
                    yield _Change(offset, stage, before, self._after(offset))

    def header(self, now_ns: int) -> UndoHeader:
        """Return the head of the undo file."""
        truth = self.order.superblock
        return UndoHeader(
            UNDO_VERSION, UNDO_PAGE_BYTES, truth.uuid, truth.generation, now_ns, self._image.size_bytes,
            self._overlay.size_bytes, undo_file_bytes(self.page_count, self.kept_bytes), bytes(UndoHeader.FIELDS[-1].size_bytes),
        )  # fmt: skip

    def write(self) -> None:
        """Write all stages, each with a flush behind it."""
        image, size_after = self._image, self._overlay.size_bytes
        if size_after > image.size_bytes:
            image.resize(size_after)
        for stage in Stage:
            wrote = False
            for offset, data in _gathered(self.changes(stage)):
                image.write(offset, data)
                wrote = True
            if wrote:
                image.flush()
        if size_after < image.size_bytes:
            image.resize(size_after)
            image.flush()


def _gathered(changes: Iterator[_Change]) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, contents) of what has to be written, neighbours together."""
    start, data = 0, bytearray()
    for change in changes:
        if not change.differs or not change.after:
            continue
        if data and (change.offset != start + len(data) or len(data) >= WRITE_BYTES_MAX):
            yield start, bytes(data)
            data.clear()
        if not data:
            start = change.offset
        data += change.after
    if data:
        yield start, bytes(data)


def _keep(writing: _WriteOut, shelf: Shelf, clock: Callable[[], int], before_writing: Callable[[], None]) -> None:
    """Put the undo file on the shelf. Raises a RazorError; then nothing was changed."""
    header = writing.header(clock())
    file = shelf.create(header.file_bytes)
    try:
        with file:
            undo_file = UndoWriter(file, header)
            for change in writing.changes():
                undo_file.add(change.offset, change.before, change.after, change.stage)
            undo_file.finish(clock())
        before_writing()
        shelf.publish()
    except DeviceFailed as failed:
        shelf.drop()
        if NOTHING_WAS_CHANGED in str(failed):
            raise
        raise DeviceFailed(f"the undo file cannot be written: {failed}. {NOTHING_WAS_CHANGED}") from failed
    except BaseException:
        shelf.drop()
        raise


def _put_back(image: Device, shelf: Shelf, clock: Callable[[], int], stopped: BaseException) -> None:
    """The writing was stopped: make the image what it was, or say how that can be done."""
    try:
        take_back(image, shelf, clock)
    except RazorError as failed:
        raise DeviceFailed(
            f"the repair was cut off while it was written: {stopped or type(stopped).__name__}; and the image cannot be put back "
            f"as it was now: {failed}. It is half written, and {shelf.name} takes that back: see to the device, then run "
            f"razorfsck --undo"
        ) from stopped
    if isinstance(stopped, RazorError):
        raise type(stopped)(f"{stopped}. The image was put back as it was") from stopped


def _note_complete(shelf: Shelf, clock: Callable[[], int]) -> None:
    """Mark the undo file. That is for people; taking back does not depend on it, so a host that refuses is no reason to fail."""
    try:
        with shelf.open(writable=True) as file:
            UndoReader(file).note(Fate.WRITTEN, clock())
    except RazorError:
        pass
