"""Names, times and values for people: nothing in an image can do things to a terminal."""

import datetime
import os

from razortools.units import NANOSECONDS


def show_name(name: bytes) -> str:
    """Return *name* for people: control characters, which could do things to a terminal, come out as escapes."""
    return "".join(f"\\x{ord(char):02x}" if ord(char) < 32 or ord(char) == 127 else char for char in os.fsdecode(name))


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
