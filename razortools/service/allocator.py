"""The C library's allocator, told what a mounted volume is like.

As it comes it gives memory back to the system as soon as a stretch of 128 KiB is free, which is what a record is, and asks for
it again for the next one. The system hands out pages that it has to clear, and each costs more, at its first touch, than to copy
what goes there. A mount that writes a large file wants the same megabytes over and over: they are kept. What may be in use at all
is bounded by the limits of the caches and of dirty data, so little more than these is kept.
"""

import ctypes
from contextlib import suppress

from razortools.units import MIB

MAPPED_FROM_BYTES = 32 * MIB  # what is larger is mapped on its own; the most that the library takes
GROWN_BY_BYTES = 4 * MIB  # asked for at a time; the system gives pages when they are touched

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)


def keep_memory(kept_bytes: int) -> None:
    """Have *kept_bytes* of what is freed kept for what comes, which is as much as may be dirty.

    For the whole process; does nothing where the C library has no such settings.
    """
    with suppress(AttributeError, OSError):
        set_option = ctypes.CDLL(None).mallopt
        for option, value in ((_TRIM_THRESHOLD, kept_bytes), (_TOP_PAD, GROWN_BY_BYTES), (_MMAP_THRESHOLD, MAPPED_FROM_BYTES)):
            set_option(option, value)


def give_back() -> None:
    """Give the system all that is free, wherever it lies. Takes milliseconds; does nothing where the C library cannot."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
