"""Types of words that commands take, as argparse wants them: named for what its messages say, raising ValueError.

Where that would say too little they raise ArgumentTypeError, of which the message is shown.
"""

import re
from argparse import ArgumentTypeError

from razortools.units import NANOSECONDS, parse_size


def size(text: str) -> int:
    """Return the bytes that *text* means: 4096, 64K, 2G."""
    try:
        return parse_size(text)
    except ValueError as refused:
        raise ArgumentTypeError(str(refused)) from None


def octal(text: str) -> int:
    """Return the permission bits that *text* means."""
    bits = int(text, 8)
    if not 0 <= bits <= 0o7777:
        raise ValueError(text)
    return bits


def seconds(text: str) -> int:
    """Return nanoseconds since 1970 from seconds since then, with up to nine digits behind a dot."""
    match = re.fullmatch(r"(-?)(\d+)(?:\.(\d{1,9}))?", text)
    if match is None:
        raise ValueError(text)
    sign, whole, rest = match.groups()
    time_ns = int(whole) * NANOSECONDS + int((rest or "").ljust(9, "0"))
    return -time_ns if sign else time_ns


def number(text: str) -> int:
    """Return a number as the format holds it, 64 bits without a sign, written in decimal or as 0x1f, 0o17."""
    value = int(text, 0)
    if not 0 <= value < 1 << 64:
        raise ArgumentTypeError(f"{text} is not possible; give 0 to 2^64 - 1")
    return value


def count(text: str) -> int:
    """Return how many."""
    value = int(text)
    if not 0 <= value < 1 << 63:
        raise ArgumentTypeError(f"{text} is not possible; give 0 or more")
    return value
