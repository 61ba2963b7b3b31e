"""PAX headers: what a tar archive says beyond its fixed fields, as exact values."""

import base64
import binascii
import re
import urllib.parse
from collections.abc import Mapping

from razortools.engine.acls import says_more_than_a_mode
from razortools.engine.populate.acl_text import parse_acl
from razortools.engine.xattrs import ACCESS_ACL, DEFAULT_ACL
from razortools.format.acl import encode_acl
from razortools.units import NANOSECONDS

_SCHILY = "SCHILY.xattr."  # GNU tar, bsdtar, star: the value as it is
_LIBARCHIVE = "LIBARCHIVE.xattr."  # bsdtar: name URL-encoded, value in base64
_LISTS = {"SCHILY.acl.access": ACCESS_ACL, "SCHILY.acl.default": DEFAULT_ACL}  # tar --acls, star, bsdtar: as text
_NFS4_LIST = "SCHILY.acl.ace"
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


def pax_acls(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    """Return the access control lists that *headers* have as text, by the names of their attributes.

    Left out is what says no more than the mode, and what stands there as an attribute too, with numbers instead of names. Raises
    ValueError if one cannot be kept.
    """
    if _NFS4_LIST in headers:
        raise ValueError("it has an NFSv4 access control list, which has no place in RAZORFS; archive it with bsdtar --no-acls")
    found: dict[bytes, bytes] = {}
    for keyword, name in _LISTS.items():
        if keyword in headers and _SCHILY + name.decode() not in headers:
            acl = parse_acl(headers[keyword])
            if acl and (name == DEFAULT_ACL or says_more_than_a_mode(acl)):
                found[name] = encode_acl(acl)
    return found


def _base64(text: str) -> bytes:
    """Return what *text* encodes; bsdtar leaves the padding out."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"an extended attribute is not in base64: {error}") from None
