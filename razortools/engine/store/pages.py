"""Devices in memory: what was written is kept page by page, alone or over another device that is never changed."""

from bisect import bisect_left
from collections.abc import Iterator

from razortools.engine.store.device import Device
from razortools.errors import DeviceFailed

PAGE_BYTES = 4096


class PagedDevice(Device):
    """A device whose written pages are kept in memory; what was never written comes from below."""

    def __init__(self, name: str, size_bytes: int) -> None:
        """Make a device of *size_bytes* that holds nothing yet."""
        self.name = name
        self.size_bytes = size_bytes
        self.read_only = False
        self._pages: dict[int, bytearray] = {}
        self._in_order: list[int] = []  # the pages that there were when somebody last asked for the next one

    def resize(self, size_bytes: int) -> None:
        """See Device."""
        kept = -(-size_bytes // PAGE_BYTES)
        self._pages = {number: page for number, page in self._pages.items() if number < kept}
        self._in_order = []
        last, used = divmod(size_bytes, PAGE_BYTES)
        if used and size_bytes < self.size_bytes:
            page = bytearray(self.read(last * PAGE_BYTES, used).ljust(PAGE_BYTES, b"\0"))
            self._pages[last] = page
        self.size_bytes = size_bytes

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """See Device: unless something lies below, all of it is in memory."""
        try:
            return self.read(offset, length)
        except DeviceFailed:
            return None

    def next_data(self, offset: int) -> int:
        """See Device."""
        if len(self._in_order) != len(self._pages):  # a scan asks again and again, and writes nothing meanwhile
            self._in_order = sorted(self._pages)
        place = bisect_left(self._in_order, offset // PAGE_BYTES)
        page = self._in_order[place] if place < len(self._in_order) else self.size_bytes // PAGE_BYTES + 1
        return max(offset, min(page * PAGE_BYTES, self._data_below(offset)))

    def _below(self, offset: int, length: int) -> bytes:
        """Return the bytes under the pages."""
        return bytes(length)

    def _data_below(self, offset: int) -> int:
        """Return where the next data under the pages may lie."""
        return self.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """See Device."""
        if offset < 0 or offset + length > self.size_bytes:
            raise DeviceFailed(f"{self.name}: {length} bytes at {offset} reach behind its end at {self.size_bytes}")
        pages = self._pages
        first, last = offset // PAGE_BYTES, (offset + length - 1) // PAGE_BYTES
        if first == last:
            page = pages.get(first)
            start = offset - first * PAGE_BYTES
            return self._below(offset, length) if page is None else bytes(page[start : start + length])
        if not pages or pages.keys().isdisjoint(range(first, last + 1)):
            return self._below(offset, length)
        end = offset + length
        parts: list[bytes | bytearray] = []
        for number in range(first, last + 1):
            base = number * PAGE_BYTES
            start, stop = max(offset, base), min(end, base + PAGE_BYTES)
            page = pages.get(number)
            parts.append(self._below(start, stop - start) if page is None else page[start - base : stop - base])
        return b"".join(parts)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """See Device."""
        view = memoryview(data)
        if offset < 0 or offset + len(view) > self.size_bytes:
            raise DeviceFailed(f"{self.name}: a write of {len(view)} bytes at {offset} reaches behind its end")
        while view:
            number, start = divmod(offset, PAGE_BYTES)
            count = min(PAGE_BYTES - start, len(view))
            if count == PAGE_BYTES:
                self._pages[number] = bytearray(view[:count])
                view, offset = view[count:], offset + count
                continue
            if number not in self._pages:
                base = number * PAGE_BYTES
                known = min(PAGE_BYTES, self.size_bytes - base)
                self._pages[number] = bytearray(self._below(base, known).ljust(PAGE_BYTES, b"\0"))
            self._pages[number][start : start + count] = view[:count]
            view = view[count:]
            offset += count

    def flush(self) -> None:
        """See Device: memory is as stable as it gets here."""

    def written_pages(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, contents) of the pages that were written, in the order of their places."""
        for number in sorted(self._pages):
            offset = number * PAGE_BYTES
            yield offset, bytes(self._pages[number][: self.size_bytes - offset])

    @property
    def written_bytes(self) -> int:
        """Bytes of memory that the pages take."""
        return len(self._pages) * PAGE_BYTES


class MemoryDevice(PagedDevice):
    """A device in memory, all zeros at first. Sparse: only what was written takes memory."""

    def __init__(self, size_bytes: int) -> None:
        """Make a device of *size_bytes*."""
        super().__init__("memory", size_bytes)

    def copy(self) -> "MemoryDevice":
        """Return a device of its own that holds what this one shows now."""
        copied = MemoryDevice(self.size_bytes)
        copied._pages = {number: bytearray(page) for number, page in self._pages.items()}
        return copied


class OverlayDevice(PagedDevice):
    """A device over another one: reads show what was written here, the one below is never changed."""

    def __init__(self, base: Device) -> None:
        """Lay the overlay over *base*, which close() closes too."""
        super().__init__(base.name, base.size_bytes)
        self.base = base
        self._shown: dict[int, int] = {}  # page -> page below that is shown there

    def show(self, offset: int, source: int, length: int) -> None:
        """Show at *offset* what lies below at *source*, in whole pages: a copy that takes no memory to speak of.

        Whoever writes the overlay out must not have overwritten *source* before it has copied *offset*.
        """
        first, below = offset // PAGE_BYTES, source // PAGE_BYTES
        for number in range(length // PAGE_BYTES):
            self._pages.pop(first + number, None)
            self._shown[first + number] = below + number

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """See Device: it does not look which pages are its own."""
        return None

    def forget(self, offset: int, length: int) -> None:
        """Show what lies below again, in whole pages: what was written there was not needed after all."""
        for number in range(offset // PAGE_BYTES, (offset + length) // PAGE_BYTES):
            self._pages.pop(number, None)
            self._shown.pop(number, None)
        self._in_order = []

    def resize(self, size_bytes: int) -> None:
        """See Device."""
        super().resize(size_bytes)
        kept = -(-size_bytes // PAGE_BYTES)
        self._shown = {number: below for number, below in self._shown.items() if number < kept}

    def next_data(self, offset: int) -> int:
        """See Device."""
        first = offset // PAGE_BYTES
        page = min((number for number in self._shown if number >= first), default=self.size_bytes // PAGE_BYTES + 1)
        return max(offset, min(page * PAGE_BYTES, super().next_data(offset)))

    def written_pages(self) -> Iterator[tuple[int, bytes]]:
        """See PagedDevice: what is shown from elsewhere is among them."""
        for number in sorted({*self._pages, *self._shown}):
            offset = number * PAGE_BYTES
            yield offset, self.read(offset, min(PAGE_BYTES, self.size_bytes - offset))

    def _below(self, offset: int, length: int) -> bytes:
        if not self._shown:
            return self._from_below(offset, length)
        parts: list[bytes] = []
        end = offset + length
        start, delta = offset, 0  # of what is read together
        while offset < end:
            number = offset // PAGE_BYTES
            away = (self._shown.get(number, number) - number) * PAGE_BYTES
            if away != delta:
                if offset > start:
                    parts.append(self._from_below(start + delta, offset - start))
                start, delta = offset, away
            offset = (number + 1) * PAGE_BYTES
        parts.append(self._from_below(start + delta, end - start))
        return b"".join(parts)

    def _from_below(self, offset: int, length: int) -> bytes:
        there = self.base.size_bytes - offset
        if there >= length:
            return self.base.read(offset, length) if length else b""
        below = self.base.read(offset, there) if there > 0 else b""
        return below.ljust(length, b"\0")  # what resize() has added lies behind the end

    def _data_below(self, offset: int) -> int:
        return self.base.next_data(offset)

    def close(self) -> None:
        """See Device."""
        self.base.close()
