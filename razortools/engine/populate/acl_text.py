"""Access control lists as text, as tar archives hold them: what GNU tar, star, bsdtar and Solaris write (acl(5)).

Entries stand on lines or between commas: ``user:anna:rw-``, a tag, who, and what is allowed; star and bsdtar add who as a number.
A number counts more than a name, as with the owner of a file. A name alone is looked up on this machine, as tar(1) does.
"""

import grp
import pwd
import re

from razortools.format.acl import NOBODY, Acl, AclEntry, Tag, decode_acl, encode_acl

_SEPARATORS = re.compile(r"[,\n]")
_ENTRY = re.compile(
    r"(?:d(?:efault)?:)?(?P<kind>u(?:ser)?|g(?:roup)?|m(?:ask)?|o(?:ther)?):(?:(?P<who>[^:]*):)?(?P<bits>[r-][w-][x-])(?::(?P<number>\d+))?"
)
_ESCAPE = re.compile(r"\\([0-7]{3})")  # of a character that would end the name
_TAGS = {"u": (Tag.OWNER, Tag.USER), "g": (Tag.OWNING_GROUP, Tag.GROUP), "m": (Tag.MASK, None), "o": (Tag.OTHERS, None)}
_BITS = ((4, "r"), (2, "w"), (1, "x"))


def parse_acl(text: str) -> Acl:
    """Return the list that *text* writes, empty if it has no entries, in the order that a list must have.

    Raises ValueError if it is none, or names somebody whom this machine does not know.
    """
    lines = (line.partition("#")[0].strip() for line in _SEPARATORS.split(text))  # comments: "#effective:r--"
    entries = sorted((_entry(line) for line in lines if line), key=lambda entry: (entry.tag, entry.who))
    return decode_acl(encode_acl(tuple(entries))) if entries else ()


def _entry(line: str) -> AclEntry:
    match = _ENTRY.fullmatch(line)
    unnamed, named = _TAGS[match["kind"][0]] if match else (None, None)
    if match is None or unnamed is None or (match["who"] and named is None):
        raise ValueError(f"'{line}' cannot be in an access control list")
    permissions = sum(bit for bit, letter in _BITS if letter in match["bits"])
    if named is None or not match["who"]:
        return AclEntry(unnamed, permissions)
    number = int(match["number"]) if match["number"] else _number(named, match["who"])
    if number >= NOBODY:
        raise ValueError(f"'{line}' cannot be in an access control list: users and groups go up to {NOBODY - 1}")
    return AclEntry(named, permissions, number)


def _number(tag: Tag, who: str) -> int:
    """Return the uid or gid that *who* is, a number or a name. Raises ValueError if there is nobody of that name."""
    if who.isascii() and who.isdigit():
        return int(who)
    name = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), who)
    try:
        return pwd.getpwnam(name).pw_uid if tag is Tag.USER else grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):  # ValueError: it has a zero byte
        kind = "user" if tag is Tag.USER else "group"
        advice = f"make the {kind}, or an archive that has the numbers as well: tar --acls --xattrs --xattrs-include='*'"
        raise ValueError(f"there is no {kind} '{name}' here, whom its access control list names; {advice}") from None
