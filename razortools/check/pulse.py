"""A pulse: whoever works on a device shows that it goes on, also where the work tells no progress of its own.

A repair plans, applies, compares and writes between the checks, and all of that reads or writes the device all the time. So that
is where it can be felt. The figure that is told only grows.
"""

from collections.abc import Callable

from razortools.engine.store.device import Device


class PulsingDevice(Device):
    """A device that tells how many bytes went through it so far. Reads may come from several threads."""

    def __init__(self, below: Device, pulse: Callable[[int], None]) -> None:
        """Work on *below*, which close() closes; call *pulse* after each read and write."""
        self._below = below
        self._pulse = pulse
        self._bytes = 0
        self.name = below.name

    @property
    def size_bytes(self) -> int:  # type: ignore[override]
        """See Device."""
        return self._below.size_bytes

    @property
    def read_only(self) -> bool:  # type: ignore[override]
        """See Device."""
        return self._below.read_only

    def _beat(self, length: int) -> None:
        self._bytes += length  # two threads at once may lose one: it is for people
        self._pulse(self._bytes)

    def read(self, offset: int, length: int) -> bytes:
        """See Device."""
        data = self._below.read(offset, length)
        self._beat(length)
        return data

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """See Device."""
        return self._below.read_cached(offset, length)

    def read_strided(self, offset: int, length: int, stride: int, head_bytes: int) -> list[bytes]:
        """See Device."""
        heads = self._below.read_strided(offset, length, stride, head_bytes)
        self._beat(length)
        return heads

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """See Device."""
        self._below.write(offset, data)
        self._beat(len(data))

    def flush(self) -> None:
        """See Device."""
        self._below.flush()

    def next_data(self, offset: int) -> int:
        """See Device."""
        return self._below.next_data(offset)

    def discard(self, offset: int, length: int) -> None:
        """See Device."""
        self._below.discard(offset, length)

    def resize(self, size_bytes: int) -> None:
        """See Device."""
        self._below.resize(size_bytes)

    def close(self) -> None:
        """See Device."""
        self._below.close()
