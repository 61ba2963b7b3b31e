"""Recordings: every write and flush of a device, in order, in a file. For tests that ask what a power cut may leave.

The file is append-only, and each event is one write of the host, so its length at any moment tells how far the device was then.

    head    magic "RZREC001", size of the device in bytes (u64)
    event   kind "WRIT", "FLSH" or "SYNC", length (u32), offset (u64), CRC32C of the data (u32) and of all these (u32), the data

An event is recorded when the device has done it, and before whoever asked for it is told: what a flush in the recording covers
was stable, and what was acknowledged stands in the recording. "SYNC" is no event of the device: whoever uses it notes that a
program is told that everything is durable.
"""

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from struct import Struct
from threading import Lock

import crc32c

from razortools.engine.store.device import Device
from razortools.errors import CorruptImage, DeviceFailed, NotAnImage

MAGIC = b"RZREC001"
_HEAD = Struct("<8sQ")
_EVENT = Struct("<4sIQI")
_CHECKSUM = Struct("<I")


class Kind(Enum):
    """What an event is; the values stand in the file."""

    WRITE = b"WRIT"
    FLUSH = b"FLSH"
    SYNC = b"SYNC"  # a program was promised that everything before is durable


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the device."""

    kind: Kind
    offset: int  # in bytes, on the device; 0 unless it is a write
    data: bytes
    end: int  # length in bytes of the recording when it stood there


class RecordingDevice(Device):
    """Another device, whose writes and flushes are recorded. It closes the other one too."""

    def __init__(self, device: Device, path: str | os.PathLike[str]) -> None:
        """Record what happens to *device* in the file at *path*, behind what is there. Raises DeviceFailed, NotAnImage."""
        self.device = device
        self.name = device.name
        self.size_bytes = device.size_bytes
        self.read_only = device.read_only
        self.path = os.fspath(path)
        self._lock = Lock()  # the order of the recording is that of the device
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as failed:
            raise DeviceFailed(f"{self.path}: cannot be opened for recording: {failed.strerror}") from failed
        self._begin()

    def _begin(self) -> None:
        head = _HEAD.pack(MAGIC, self.size_bytes)
        found = os.pread(self._file, _HEAD.size, 0)
        if not found:
            self._append(head)
        elif found != head:
            os.close(self._file)
            raise NotAnImage(f"{self.path}: is not a recording of a device of {self.size_bytes} bytes; name another file")

    def read(self, offset: int, length: int) -> bytes:
        """See Device."""
        return self.device.read(offset, length)

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """See Device."""
        return self.device.read_cached(offset, length)

    def read_strided(self, offset: int, length: int, stride: int, head_bytes: int) -> list[bytes]:
        """See Device."""
        return self.device.read_strided(offset, length, stride, head_bytes)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """See Device."""
        with self._lock:
            self.device.write(offset, data)
            self._note(Kind.WRITE, offset, bytes(data))

    def flush(self) -> None:
        """See Device."""
        with self._lock:
            self.device.flush()
            self._note(Kind.FLUSH)

    def note_synced(self) -> None:
        """Note that somebody is told now that everything before is durable. Raises DeviceFailed."""
        with self._lock:
            self._note(Kind.SYNC)

    def set_read_only(self, read_only: bool) -> None:
        """See Device."""
        self.device.set_read_only(read_only)
        self.read_only = read_only

    # discard() is left out: a device may ignore the hint, and what is recorded must be all that has changed.

    def close(self) -> None:
        """See Device."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self.device.close()

    def _note(self, kind: Kind, offset: int = 0, data: bytes = b"") -> None:
        event = _EVENT.pack(kind.value, len(data), offset, crc32c.crc32c(data))
        self._append(event + _CHECKSUM.pack(crc32c.crc32c(event)) + data)

    def _append(self, record: bytes) -> None:
        try:
            written = os.write(self._file, record)
        except OSError as failed:
            raise DeviceFailed(f"{self.path}: recording failed: {failed.strerror}") from failed
        if written != len(record):
            raise DeviceFailed(f"{self.path}: recording failed: no space left on the host")


def read_recording(path: str | os.PathLike[str]) -> list[Event]:
    """Return the events of a recording, in order. One that is cut off at the end is left out: whoever recorded was stopped.

    Raises NotAnImage if it is no recording, CorruptImage if an event does not verify.
    """
    raw = Path(path).read_bytes()
    if raw[: len(MAGIC)] != MAGIC or len(raw) < _HEAD.size:
        raise NotAnImage(f"{os.fspath(path)}: is not a recording")
    events = []
    at = _HEAD.size
    start = _EVENT.size + _CHECKSUM.size
    while at + start <= len(raw):
        kind, length, offset, of_data = _EVENT.unpack_from(raw, at)
        (of_event,) = _CHECKSUM.unpack_from(raw, at + _EVENT.size)
        data = raw[at + start : at + start + length]
        is_whole = of_event == crc32c.crc32c(raw[at : at + _EVENT.size])
        if is_whole and len(data) < length:
            break
        if not is_whole or of_data != crc32c.crc32c(data):
            raise CorruptImage(f"{os.fspath(path)}: the event at byte {at} of the recording is damaged; record anew")
        at += start + length
        events.append(Event(Kind(kind), offset, data, at))
    return events
