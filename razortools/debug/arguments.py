"""Types of words that commands take, as argparse wants them: named for what its messages say, raising ValueError."""

import re

from razortools.units import NANOSECONDS, parse_size


def size(text: str) -> int:
    """Return the bytes that *text* means: 4096, 64K, 2G."""
    return parse_size(text)


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
    """Return a number that is written in decimal or as 0x1f, 0o17."""
    return int(text, 0)
