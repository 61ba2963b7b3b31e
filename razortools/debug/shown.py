"""Times and values for people."""

import datetime

from razortools.units import NANOSECONDS


def show_time(time_ns: int) -> str:
    """Return a time in UTC with all nine digits, as far as calendars go."""
    seconds, rest = divmod(time_ns, NANOSECONDS)
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return f"{seconds}.{rest:09} s since 1970"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{rest:09} UTC"


def show_value(value: bytes) -> str:
    """Return an attribute's value for people: text as text, other bytes as hexadecimal."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return f"0x{value.hex()}"
    return text if text.isprintable() else f"0x{value.hex()}"
