"""A damaged copy of an image that knows where it differs from the undamaged one."""

from razortools.engine.store.device import Device
from razortools.engine.store.pages import PAGE_BYTES
from tests.check.samples import Copy


class Damaged(Copy):
    """An overlay over an image. *is_changed*: the image below is damaged already."""

    def __init__(self, base: Device, *, is_changed: bool = False) -> None:
        super().__init__(base)
        self._is_changed = is_changed

    def changed_pages(self) -> list[int]:
        """Return the numbers of the pages (4 KiB each) that differ from what lies below."""
        return sorted(number for number, page in self._pages.items() if page != self._before(number))

    def differs(self) -> bool:
        """Return whether anything differs."""
        return self._is_changed or bool(self.changed_pages())

    def _before(self, number: int) -> bytes:
        length = min(PAGE_BYTES, self.size_bytes - number * PAGE_BYTES)
        return self.base.read(number * PAGE_BYTES, length).ljust(PAGE_BYTES, b"\0")
