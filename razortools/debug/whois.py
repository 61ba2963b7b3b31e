"""Places and paths: whois (an offset, or the bad areas of a ddrescue map), paths (of an inode)."""

import argparse
from pathlib import Path
from typing import Any

from razortools.debug.answers import Answer, Lines, Several, Table
from razortools.debug.arguments import number, size
from razortools.debug.ownership import Owner, Wanted, owners
from razortools.debug.session import Command, Session, Words
from razortools.engine import directories
from razortools.errors import UsageError
from razortools.printable import printable_name
from razortools.units import InodeNo


def who_is(session: Session, options: argparse.Namespace) -> Answer:
    """whois: what lies at a byte of the image, or in the areas that a map of ddrescue calls bad."""
    if (options.offset is None) == (options.ddrescue is None):
        raise UsageError(f"whois: name an offset, or a map with --ddrescue. {options.usage}")
    block_bytes = session.superblock().block_bytes
    if options.ddrescue is not None:
        areas = bad_areas(options.ddrescue)
    else:
        offset = options.offset * block_bytes if options.block else options.offset
        if offset >= session.device.size_bytes:
            raise UsageError(f"whois: byte {offset} lies behind the end of the image, at {session.device.size_bytes}")
        areas = [(offset, 1)]
    wanted = Wanted([(start // block_bytes, -(-(start + length) // block_bytes)) for start, length in areas])
    found = owners(session, wanted)
    rows, data = [], []
    for owner in found:
        first, end = owner.span
        path = ", ".join(map(printable_name, owner.paths)) or (f"inode {owner.inode}" if owner.inode else "")
        blocks = f"{first}-{end - 1}" if end - first > 1 else f"{first}"
        rows.append((blocks, first * block_bytes, owner.what, path, owner.loss))
        data.append(_owner_data(owner, block_bytes))
    table = Table(("blocks", "at byte", "what", "path", "what is lost with it"), rows, None, right=(1,))
    if options.ddrescue is None:
        return Several([table], {"owners": data})
    hurt = sorted({path for owner in found for path in owner.paths})
    summary = f"{len(areas)} bad areas in {sum(end - first for first, end in wanted.spans)} blocks; {len(hurt)} files are hurt"
    return Several([table, Lines(["", summary, *map(printable_name, hurt)])], {"owners": data, "hurt": hurt})


def _owner_data(owner: Owner, block_bytes: int) -> dict[str, Any]:
    return {
        "first_block": owner.span[0],
        "blocks": owner.span[1] - owner.span[0],
        "offset": owner.span[0] * block_bytes,
        "what": owner.what,
        "inode": owner.inode or None,
        "paths": list(owner.paths),
        "file_offset": owner.first if owner.end else None,
        "file_end": owner.end or None,
        "loss": owner.loss,
    }


def bad_areas(path: str) -> list[tuple[int, int]]:
    """Return (first byte, length) of the areas of a ddrescue map that were not rescued. Raises UsageError if it is none."""
    try:
        lines = Path(path).read_bytes().decode("ascii", "replace").split("\n")  # only there: a comment names the disk
    except OSError as failed:
        raise UsageError(f"{path}: {failed.strerror}; name a map that ddrescue wrote") from None
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    areas = []
    for row in rows[1:]:  # the first one tells where ddrescue stands
        try:
            start, length, status = int(row[0], 0), int(row[1], 0), row[2]
        except (ValueError, IndexError):
            raise UsageError(f"{path}: '{' '.join(row)}' is no line of a ddrescue map") from None
        if status not in "?*/-+":
            raise UsageError(f"{path}: the status {status} is unknown to ddrescue maps")
        if status != "+":
            areas.append((start, length))
    if not rows:
        raise UsageError(f"{path}: is empty; name a map that ddrescue wrote")
    return areas


def show_paths(session: Session, options: argparse.Namespace) -> Answer:
    """paths: every path that leads to an inode."""
    session.volume.inodes.get(InodeNo(options.inode))
    found = directories.paths(session.volume, InodeNo(options.inode))
    return Lines([printable_name(path) for path in found] or ["(no name leads to it)"], {"inode": options.inode, "paths": found})


_WHOIS = Words("whois")
_WHOIS.add_argument("offset", nargs="?", type=size, metavar="OFFSET", help="a byte of the image, such as 4096 or 12M")
_WHOIS.add_argument("-b", dest="block", action="store_true", help="OFFSET is the number of a block")
_WHOIS.add_argument("--ddrescue", metavar="HOST_PATH", help="what the areas that this map calls bad were")
_WHOIS.set_defaults(usage=_WHOIS.usage_line())
_PATHS = Words("paths")
_PATHS.add_argument("inode", type=number, metavar="INODE")

COMMANDS = (
    Command("whois", "tell what lies at a byte of the image, or in the bad areas of a ddrescue map", _WHOIS, who_is,
            ("whois 12M", "whois -b 1234", "whois --ddrescue disk.map")),
    Command("paths", "show every path that leads to an inode", _PATHS, show_paths, ("paths 12",)),
)  # fmt: skip
