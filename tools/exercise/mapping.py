"""A shared mapping that reaches beyond the end of its file, as mmap(2) allows and Python's module does not.

What lies behind the end in the file's last page reads as zeros; touching a page behind that one ends the process by SIGBUS, so
whoever uses a mapping keeps to the file's size.
"""

import ctypes
import mmap
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.msync.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_FAILED = ctypes.c_void_p(-1).value
_MS_SYNC = 4


class Mapping:
    """The first *length* bytes of a file, in memory."""

    def __init__(self, descriptor: int, length: int) -> None:
        """Map them for reading and writing. Raises OSError."""
        address = _libc.mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, descriptor, 0)
        if address == _FAILED:
            raise _failure()
        self._address: int = address
        self._length = length

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from *start* to *end*."""
        assert 0 <= start <= end <= self._length
        return ctypes.string_at(self._address + start, end - start)

    def write(self, start: int, data: bytes) -> None:
        """Change the bytes from *start* on."""
        assert 0 <= start <= start + len(data) <= self._length
        ctypes.memmove(self._address + start, data, len(data))

    def flush(self, start: int, end: int) -> None:
        """msync(2) the pages from *start*, the first byte of one, to *end*. Raises OSError."""
        if _libc.msync(self._address + start, end - start, _MS_SYNC) != 0:
            raise _failure()

    def close(self) -> None:
        """Unmap it."""
        _libc.munmap(self._address, self._length)


def _failure() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
