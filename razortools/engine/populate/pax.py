"""PAX headers: what a tar archive says beyond its fixed fields, as exact values."""

import base64
import binascii
import re
import urllib.parse
from collections.abc import Mapping

from razortools.units import NANOSECONDS

_SCHILY = "SCHILY.xattr."  # GNU tar, bsdtar, star: the value as it is
_LIBARCHIVE = "LIBARCHIVE.xattr."  # bsdtar: name URL-encoded, value in base64
_TIME = re.compile(r"(-?)(\d+)(?:\.(\d*))?")
_DIGITS = 9  # of a second, in nanoseconds


def raw_bytes(text: str) -> bytes:
    """Return the bytes that tarfile read *text* from; it is opened with errors="surrogateescape"."""
    return text.encode("utf-8", "surrogateescape")


def pax_time_ns(text: str) -> int:
    """Return the nanoseconds that a decimal number of seconds means, cut after the ninth digit. Raises ValueError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not a time")
    sign, seconds, fraction = match.groups()
    value = int(seconds) * NANOSECONDS + int((fraction or "")[:_DIGITS].ljust(_DIGITS, "0"))
    return -value if sign else value


def pax_xattrs(headers: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the extended attributes in *headers*, sorted by name. Raises ValueError if one is not encoded rightly."""
    found: dict[bytes, bytes] = {}
    for keyword, value in headers.items():
        if keyword.startswith(_LIBARCHIVE):
            name = urllib.parse.unquote_to_bytes(raw_bytes(keyword.removeprefix(_LIBARCHIVE)))
            found.setdefault(name, _base64(value))
        elif keyword.startswith(_SCHILY):
            # GNU tar writes "=" as %3D, because it would end the keyword, and therefore "%" as %25.
            text = keyword.removeprefix(_SCHILY).replace("%3D", "=").replace("%25", "%")
            found[raw_bytes(text)] = raw_bytes(value)
    return tuple(sorted(found.items()))


def _base64(text: str) -> bytes:
    """Return what *text* encodes; bsdtar leaves the padding out."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"an extended attribute is not in base64: {error}") from None
