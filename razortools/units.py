"""Units and identities: the number types that the whole package speaks.

Indexes, counts and sizes are three different things here: ``*No`` types are indexes, ``*_count`` are counts,
``*_bytes`` are sizes. Sizes are written by people as ``4096``, ``64K``, ``2G``, ``1T`` (powers of 1024).
"""

import re
from typing import NewType

BlockNo = NewType("BlockNo", int)  # index of a block in the image
InodeNo = NewType("InodeNo", int)  # identity of a file, never used twice in one image
NameId = NewType("NameId", int)  # identity of a string in the string table
RecordNo = NewType("RecordNo", int)  # index of a data record in its file

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

NANOSECONDS = 1_000_000_000  # in a second

SIZE_BYTES_MAX = (1 << 63) - 1  # of anything that has a size on Linux
_SHOWN_MAX = 40  # characters of what is no size

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtpe]?)(?:i?b)?", re.IGNORECASE)
_SHIFT = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}


def parse_size(text: str) -> int:
    """Return the number of bytes that *text* means: ``4096``, ``64K``, ``1.5G``.

    Raises ValueError if it means none, or more than SIZE_BYTES_MAX.
    """
    match = _SIZE.fullmatch(text.strip())
    shown = text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}.."
    if match is None:
        raise ValueError(f"'{shown}' is not a size; write it as 4096, 64K, 2G or 1T")
    number, suffix = match.groups()
    factor = 1 << _SHIFT[suffix.lower()]
    try:
        size_bytes = int(float(number) * factor) if "." in number else int(number) * factor
    except (ValueError, OverflowError):  # so many digits that Python does not count them
        size_bytes = SIZE_BYTES_MAX + 1
    if size_bytes > SIZE_BYTES_MAX:
        raise ValueError(f"'{shown}' is more than any file or device can hold; the most is a byte less than 8E")
    return size_bytes


def format_size(size_bytes: int) -> str:
    """Return *size_bytes* for people, three digits at the most: ``512 B``, ``1.5 KiB``, ``120 MiB``."""
    if size_bytes < KIB:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        value /= KIB
        if value < KIB:
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
    return f"{value:.0f} EiB"


def format_duration(duration_s: float) -> str:
    """Return *duration_s* for people, in one unit: ``0 s``, ``59 s``, ``12 min``, ``3 h``, ``5 days``."""
    for limit, unit_s, unit in ((60, 1, "s"), (3600, 60, "min"), (48 * 3600, 3600, "h")):
        if duration_s < limit:
            return f"{int(duration_s / unit_s)} {unit}"
    return f"{int(duration_s / 86_400)} days"


def round_up(number: int, multiple: int) -> int:
    """Return the smallest multiple of *multiple* that is not below *number*."""
    return -(-number // multiple) * multiple


def divide_up(number: int, divisor: int) -> int:
    """Return how many pieces of *divisor* hold *number*."""
    return -(-number // divisor)


def plural(count: int, noun: str) -> str:
    """Return the number with its noun: ``3 orphaned blocks``, ``1 dangling entry``."""
    if count == 1:
        return f"1 {noun}"
    ends_in_y = noun.endswith("y") and noun[-2] not in "aeiou"
    return f"{count:,} {noun[:-1] + 'ies' if ends_in_y else noun + 's'}"
