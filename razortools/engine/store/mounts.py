"""The kernel's mount table: the one place that reads it.

Users choose names in it, with fusermount3 among others: mount points, sources, the end of a type. The kernel writes blanks, tabs,
newlines and backslashes as octal numbers, and everything else as it is, whatever other programs take for the end of a line or of
a word, in no encoding. So lines end at a newline only and fields at a blank only, and all is bytes until it has been split.
Invariant: a line that cannot be understood hides no other.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    mount_id: int
    parent_id: int
    device: tuple[int, int]  # major, minor
    path: bytes
    filesystem: str
    source: bytes
    options: frozenset[str] = frozenset()  # of this mount
    shared_options: frozenset[str] = frozenset()  # of the filesystem, at whatever places it is mounted
    root: bytes = b"/"  # of the mount, within the filesystem

    @property
    def is_read_only(self) -> bool:
        """Whether the kernel refuses changes, here or anywhere."""
        return "ro" in self.options or "ro" in self.shared_options

    @property
    def is_fuse(self) -> bool:
        """Whether a FUSE daemon serves it."""
        return self.filesystem == "fuse" or self.filesystem.startswith("fuse.")


def mounts(table: Path = MOUNTINFO) -> list[Mount]:
    """Return everything that is mounted in a namespace, in the order of mounting. Raises OSError if *table* cannot be read."""
    return parsed(table.read_bytes())


def parsed(text: bytes) -> list[Mount]:
    """Return what the text of a mount table tells."""
    return [mount for line in lines_of(text) if (mount := _mount(line)) is not None]


def lines_of(text: bytes) -> Iterator[bytes]:
    """Yield the lines of a table of the kernel's."""
    return (line for line in text.split(b"\n") if line)


def unescaped(field: bytes) -> bytes:
    """Return a field of a table of the kernel's with its octal numbers undone."""
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field)


def _mount(line: bytes) -> Mount | None:
    """Return what a line tells; None if it is none."""
    head, _, tail = line.partition(b" - ")
    fields, rest = head.split(b" "), tail.split(b" ")
    try:
        major, minor = fields[2].split(b":")
        return Mount(
            int(fields[0]),
            int(fields[1]),
            (int(major), int(minor)),
            unescaped(fields[4]),
            os.fsdecode(unescaped(rest[0])),
            unescaped(rest[1]) if len(rest) > 1 else b"",
            _words(fields[5]),
            _words(rest[-1]),
            unescaped(fields[3]),
        )
    except (IndexError, ValueError):
        return None


def _words(options: bytes) -> frozenset[str]:
    return frozenset(os.fsdecode(options).split(","))
