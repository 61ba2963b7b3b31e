"""Devices: where an image lies. An image file or a block device here, memory or an overlay in pages.py.

Invariants: read returns exactly what was asked for or raises; after a failed flush nothing is known to be stored, so the caller
must stop trusting the device (it never retries a flush: kernels drop dirty pages when one fails).
"""

import ctypes
import errno
import fcntl
import os
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

from razortools.engine.store.durations import Durations
from razortools.engine.store.write_protection import refuse_protected
from razortools.errors import DeviceFailed, ImageBusy, NotAnImage, ReadOnly, UsageError
from razortools.units import format_size

PARTS_MAX = 1024  # of one write; more the system does not take
_SYNC_FILE_RANGE_WRITE = 2
_NEW_SHARE = 1 / 16  # of the newest read in the average


class Device(ABC):
    """A row of bytes that keeps what was flushed."""

    name: str
    size_bytes: int
    read_only: bool
    read_s = 0.0  # how long a read takes lately, a moving average in seconds; 0: nobody measures it

    @abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """Return *length* bytes from *offset*. Raises DeviceFailed if the device does not give them all."""

    @abstractmethod
    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of *data* at *offset*. It may be lost until flush has returned. Raises DeviceFailed."""

    def write_parts(self, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        """Write *parts* one behind the other, as one write. Otherwise as write()."""
        self.write(offset, parts[0] if len(parts) == 1 else b"".join(parts))

    def write_many(self, writes: Iterable[tuple[int, bytes]]) -> None:
        """Write each of *writes* (offset, bytes), in any order. Otherwise as write()."""
        for offset, data in writes:
            self.write(offset, data)

    @abstractmethod
    def flush(self) -> None:
        """Return when everything written is on stable storage. Raises DeviceFailed."""

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """Return the bytes if that takes no waiting, else None. Raises nothing: read() tells what is wrong."""
        return None

    def read_strided(self, offset: int, length: int, stride: int, head_bytes: int) -> list[bytes]:
        """Return the first *head_bytes* of every *stride* bytes in a range. Raises DeviceFailed."""
        data = self.read(offset, length)
        return [data[at : at + head_bytes] for at in range(0, length, stride)]

    def next_data(self, offset: int) -> int:
        """Return the first place from *offset* on that may hold anything but zeros, or the device's end. Raises nothing."""
        return offset

    def discard(self, offset: int, length: int) -> None:  # noqa: B027  (a device may ignore the hint)
        """Tell the device that these bytes are not needed any more. A hint: it may do nothing."""

    def start_flush(self, offset: int, length: int) -> None:  # noqa: B027  (memory has nothing to start)
        """Have what was written here stored from now on: the next flush then has less to wait for. A hint; promises nothing."""

    def fill_holes(self, offset: int, length: int) -> None:  # noqa: B027  (only an image file has holes)
        """Make the host allocate a range, if it can, without changing what it holds."""

    def set_read_only(self, read_only: bool) -> None:
        """Refuse writes from now on, or take them again. Raises ImageBusy, ReadOnly or DeviceFailed; then nothing has changed."""
        self.read_only = read_only

    def resize(self, size_bytes: int) -> None:
        """Make it longer, by zeros, or shorter. Raises DeviceFailed: few devices can, and then nothing has changed."""
        raise DeviceFailed(f"{self.name}: its length cannot be changed to {format_size(size_bytes)}")

    def close(self) -> None:  # noqa: B027
        """Release the device and its lock."""

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FileDevice(Device):
    """An image file or a block device on the host."""

    def __init__(self, descriptor: int, name: str, *, read_only: bool) -> None:
        """Take over *descriptor*, which close() will close."""
        self.name = name
        self.read_only = read_only
        self._descriptor = descriptor
        self._lock_descriptor = descriptor  # the lock belongs to what was opened first
        self.size_bytes = os.lseek(descriptor, 0, os.SEEK_END)
        self._tells_what_is_cached = True
        self.flush_times = Durations()

    def read(self, offset: int, length: int) -> bytes:
        """See Device."""
        started = time.perf_counter()
        try:
            data = os.pread(self._descriptor, length, offset)
            while len(data) < length:
                more = os.pread(self._descriptor, length - len(data), offset + len(data))
                if not more:
                    raise DeviceFailed(
                        f"{self.name}: {length} bytes at {offset} reach behind its end at {format_size(self.size_bytes)}"
                    )
                data += more
        except OverflowError:  # a damaged superblock may name any place; the host cannot even be asked for this one
            raise DeviceFailed(f"{self.name}: {length} bytes at {offset} lie behind any end") from None
        except OSError as failed:
            raise self._failed("read", offset, length, failed) from failed
        self.read_s += (time.perf_counter() - started - self.read_s) * _NEW_SHARE
        return data

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """Return what the host has in its page cache; some of its filesystems do not tell, and are not asked again."""
        if not self._tells_what_is_cached:
            return None
        buffer = bytearray(length)
        try:
            count = os.preadv(self._descriptor, [buffer], offset, os.RWF_NOWAIT)
        except (BlockingIOError, OverflowError):
            return None
        except OSError as refused:
            self._tells_what_is_cached = refused.errno != errno.EOPNOTSUPP
            return None
        return bytes(buffer) if count == length else None

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """See Device."""
        if self.read_only:
            raise ReadOnly(f"{self.name} was opened for reading only")
        view = memoryview(data)
        if offset + len(view) > self.size_bytes:
            raise DeviceFailed(f"{self.name}: a write of {len(view)} bytes at {offset} reaches behind its end")
        try:
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                view = view[written:]
                offset += written
        except OSError as failed:
            raise self._failed("write", offset, len(view), failed) from failed

    def write_parts(self, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        """See Device. They are not put together before."""
        total = sum(map(len, parts))
        if self.read_only or len(parts) > PARTS_MAX or offset + total > self.size_bytes:
            self.write(offset, b"".join(parts))
            return
        try:
            written = os.pwritev(self._descriptor, parts, offset)
        except OSError as failed:
            raise self._failed("write", offset, total, failed) from failed
        if written < total:
            self.write(offset + written, memoryview(b"".join(parts))[written:])

    def write_many(self, writes: Iterable[tuple[int, bytes]]) -> None:
        """See Device. What lies side by side is one write: each waits for the interpreter that requests want as well."""
        start, parts, length = 0, list[bytes](), 0
        for offset, data in sorted(writes, key=itemgetter(0)):
            if parts and (offset != start + length or len(parts) == PARTS_MAX):
                self.write_parts(start, parts)
                parts, length = [], 0
            start = start if parts else offset
            parts.append(data)
            length += len(data)
        if parts:
            self.write_parts(start, parts)

    def flush(self) -> None:
        """See Device."""
        started = time.perf_counter()
        try:
            os.fdatasync(self._descriptor)
        except OSError as failed:
            raise self._failed("flush", 0, 0, failed) from failed
        self.flush_times.note(time.perf_counter() - started)

    def next_data(self, offset: int) -> int:
        """See Device. Block devices and some filesystems of the host do not tell."""
        try:
            return os.lseek(self._descriptor, offset, os.SEEK_DATA)
        except OSError as refused:
            return self.size_bytes if refused.errno == errno.ENXIO else offset

    def discard(self, offset: int, length: int) -> None:
        """Punch a hole into an image file, so that the host gets its space back."""
        if stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            _punch_hole(self._descriptor, offset, length)

    def start_flush(self, offset: int, length: int) -> None:
        """See Device. It may have to wait for the disk's queue, and whatever goes wrong the flush will tell."""
        _libc().sync_file_range(self._descriptor, ctypes.c_long(offset), ctypes.c_long(length), _SYNC_FILE_RANGE_WRITE)

    def fill_holes(self, offset: int, length: int) -> None:
        """Write zeros into the holes of an image file: to overwrite is flushed faster than to allocate.

        Zeros that are only promised (fallocate) would have to be converted by the flush, which takes the host as long.
        """
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            return
        end = min(offset + length, self.size_bytes)
        with suppress(OSError):  # it is only for speed
            while offset < end and (hole := os.lseek(self._descriptor, offset, os.SEEK_HOLE)) < end:
                offset = min(self.next_data(hole), end)
                if offset <= hole:
                    return  # the host does not tell after all
                os.pwrite(self._descriptor, bytes(offset - hole), hole)

    def resize(self, size_bytes: int) -> None:
        """See Device: an image file can, a block device is as long as it is."""
        if self.read_only:
            raise ReadOnly(f"{self.name} was opened for reading only")
        try:
            os.ftruncate(self._descriptor, size_bytes)
        except OSError as failed:
            raise self._failed("changing its length", 0, 0, failed) from failed
        self.size_bytes = size_bytes

    def set_read_only(self, read_only: bool) -> None:
        """See Device. Whoever only reads shares the image with other readers."""
        if read_only == self.read_only:
            return
        try:
            _lock(self._lock_descriptor, self.name, exclusive=not read_only)
            if not read_only:
                refuse_protected(self._descriptor, self.name)
                self._open_for_writing()
        except BaseException:
            _lock(self._lock_descriptor, self.name, exclusive=False)  # Linux drops a shared lock that cannot become exclusive
            raise
        self.read_only = read_only

    def _open_for_writing(self) -> None:
        """Open the same file or device once more, if this descriptor is for reading only."""
        if fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            return
        try:
            self._descriptor = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDWR | os.O_CLOEXEC)
        except OSError as failed:
            if failed.errno == errno.EROFS:
                raise ReadOnly(f"{self.name}: lies on a read-only filesystem") from None
            raise DeviceFailed(f"{self.name}: cannot be opened for writing: {failed.strerror}") from None

    def close(self) -> None:
        """See Device."""
        for descriptor in {self._descriptor, self._lock_descriptor} - {-1}:
            os.close(descriptor)
        self._descriptor = self._lock_descriptor = -1

    def _failed(self, verb: str, offset: int, length: int, failed: OSError) -> DeviceFailed:
        where = f" of {length} bytes at {offset}" if length else ""
        advice = "free space on the host" if failed.errno == errno.ENOSPC else "check the host's disk and its log"
        return DeviceFailed(f"{self.name}: {verb}{where} failed: {failed.strerror}; {advice}")


def open_image(path: str | os.PathLike[str], *, writable: bool, lock: bool = True) -> FileDevice:
    """Open the image file or block device at *path*.

    A writer holds it exclusively, readers share it; *lock* False looks at an image that is in use. Raises NotAnImage, ImageBusy
    (with the holder's pid), ReadOnly or DeviceFailed, each with one sentence for the operator.
    """
    name = os.fspath(path)
    try:
        # A pipe, which a stranger may have put there, would keep whoever opens it waiting: it is to be judged first.
        descriptor = os.open(name, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotAnImage(f"{name}: no such file or device; check the path, and whether its disk is there") from None
    except PermissionError:
        verb = "write" if writable else "read"
        raise DeviceFailed(f"{name}: no permission to {verb} it; run as its owner or as root") from None
    except IsADirectoryError:
        raise NotAnImage(f"{name}: is a directory, not an image") from None
    except OSError as failed:
        if failed.errno == errno.EROFS:
            raise ReadOnly(f"{name}: lies on a read-only filesystem; open it read-only") from None
        raise DeviceFailed(f"{name}: cannot be opened: {failed.strerror}") from failed
    try:
        _judge(descriptor, name)
        if writable:
            refuse_protected(descriptor, name)
        if lock:
            _lock(descriptor, name, exclusive=writable)
        return FileDevice(descriptor, name, read_only=not writable)
    except BaseException:
        os.close(descriptor)
        raise


def create_image(path: str | os.PathLike[str], size_bytes: int) -> FileDevice:
    """Create a sparse image file of *size_bytes* at *path*, which must not exist, and open it for writing, locked."""
    name = os.fspath(path)
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"{name}: exists already") from None
    except OSError as failed:
        raise DeviceFailed(f"{name}: cannot be created: {failed.strerror}") from failed
    try:
        _lock(descriptor, name, exclusive=True)
        os.ftruncate(descriptor, size_bytes)
        return FileDevice(descriptor, name, read_only=False)
    except OSError as failed:
        os.close(descriptor)
        Path(name).unlink()
        raise DeviceFailed(f"{name}: the host refuses a file of {format_size(size_bytes)}: {failed.strerror}") from failed


def _judge(descriptor: int, name: str) -> None:
    """Raise NotAnImage for what can never be an image."""
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise NotAnImage(f"{name}: is neither a file nor a block device")


def _lock(descriptor: int, name: str, *, exclusive: bool) -> None:
    """Take the image's advisory lock, or change it. Raises ImageBusy if somebody else has it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as refused:
        if refused.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise DeviceFailed(f"{name}: cannot be locked: {refused.strerror}") from refused
        holders = lock_holders(descriptor)
        who = "pid " + ", ".join(map(str, holders)) if holders else "another process"
        raise ImageBusy(f"{name}: is in use by {who}; unmount it or wait until that is done") from None


def lock_holders(descriptor: int) -> list[int]:
    """Return the pids that hold a lock on the open file, as /proc/locks tells; empty if it does not."""
    status = os.fstat(descriptor)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    fields = [line.split() for line in lines if "->" not in line]
    return sorted({int(part[4]) for part in fields if len(part) > 5 and part[5] == place and int(part[4]) > 0})


def holds_lock(path: str, pid: int) -> bool:
    """Return whether a process holds a lock on the image at *path*, as far as that can be seen."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return pid in lock_holders(descriptor)
    finally:
        os.close(descriptor)


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _punch_hole(descriptor: int, offset: int, length: int) -> None:
    """fallocate(PUNCH_HOLE | KEEP_SIZE) through libc; Python has only posix_fallocate. Failure costs nothing but space."""
    _libc().fallocate(descriptor, 0x01 | 0x02, ctypes.c_long(offset), ctypes.c_long(length))
