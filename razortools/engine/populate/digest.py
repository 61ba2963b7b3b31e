"""Digest of a source: an identity that follows from what is put in, whoever reads it and in whatever order.

A directory, a tarball of it and the same tar on stdin have one digest, if they tell the same of each file. Holes count as the
zeros they read as; access times and the order of names do not count.
"""

import hashlib
import stat
from collections.abc import Iterable

from razortools.engine.populate.entry import Entry, SourceFailed, show_path

DIGEST_BYTES = 32


def digest_entries(entries: Iterable[Entry]) -> bytes:
    """Return the digest of all *entries*, reading their contents. Raises SourceFailed for a link to what did not come."""
    files: list[bytes] = []  # digest of everything but its names, for each file
    names: dict[bytes, int] = {}  # path -> which file; a later entry of the same path takes it over
    for entry in entries:
        if entry.link_to is None:
            names[entry.path] = len(files)
            files.append(_digest_file(entry))
            continue
        if entry.link_to not in names:
            where = f"{show_path(entry.path)} is a hard link to {show_path(entry.link_to)}"
            raise SourceFailed(f"{where}, which does not come before it")
        names[entry.path] = names[entry.link_to]
    together: dict[int, list[bytes]] = {}
    for path in sorted(names):
        together.setdefault(names[path], []).append(path)
    whole = _hash()
    for paths, number in sorted((paths, number) for number, paths in together.items()):
        _add(whole, files[number], *paths)
    return whole.digest()


def _digest_file(entry: Entry) -> bytes:
    """Return the digest of one file without its names."""
    made = _hash()
    # Nobody can set the permissions of a symlink, and hosts and archives disagree about what they are.
    mode = stat.S_IFLNK if stat.S_ISLNK(entry.mode) else entry.mode
    for number in (mode, entry.uid, entry.gid, entry.mtime_ns, entry.rdev, entry.size):
        _add(made, b"%d" % number)
    _add(made, entry.target, *(part for pair in entry.xattrs for part in pair))
    if stat.S_ISREG(entry.mode):
        for offset, data in entry.chunks():
            made.update(b"%d %d:" % (offset, len(data)))
            made.update(data)
    return made.digest()


def _hash() -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=DIGEST_BYTES)


def _add(made: "hashlib.blake2b", *parts: bytes) -> None:
    """Add *parts* and their number, each with its length before it, so that no two lists are taken for one another."""
    made.update(b"%d;" % len(parts))
    for part in parts:
        made.update(b"%d:" % len(part))
        made.update(part)
