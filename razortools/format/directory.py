"""Directories: entries lead from a name to an inode, back links from an inode to its names.

Each is enough to rebuild the other: an entry names (inode, link number), a back link names (parent, name id).
"""

from typing import Annotated

from construct import Int8ul, Int32ul, Int64ul

from razortools.format.record import Record, record

NAME_BYTES_MAX = 255


def is_possible_name(name: bytes) -> bool:
    """Return whether *name*, if it is not too long, can be that of a file: one step of a path, leading below."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name


@record()
class DirectoryEntry(Record):
    """One name in a directory. The name itself is in the string table; the key holds its hash."""

    inode: Annotated[int, Int64ul * "where the name leads"]
    name_id: Annotated[int, Int64ul * "the name, in the string table"]
    link_no: Annotated[int, Int32ul * "the inode's back link for this name"]
    file_type: Annotated[int, Int8ul * "top four bits of the inode's mode"]


@record()
class BackLink(Record):
    """One name of an inode, seen from the inode."""

    parent: Annotated[int, Int64ul * "inode of the directory"]
    name_id: Annotated[int, Int64ul * "the name, in the string table"]
