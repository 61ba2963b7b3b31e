"""What --path selects: an inode found by its path, and the findings that lie in it."""

from razortools.check.facts import InodeFacts
from razortools.errors import CorruptImage
from razortools.format.directory import DirectoryEntry
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import PROBE_WINDOW, entry_key, name_key
from razortools.format.name import Name, hash_name
from razortools.units import InodeNo, NameId


def find_path(facts: InodeFacts, path: str) -> InodeNo | None:
    """Return the inode that an absolute *path* leads to, as far as the image's entries can be read; or None."""
    at: InodeNo | None = ROOT_INODE
    for part in path.encode("utf-8", "surrogateescape").split(b"/"):
        if part and at is not None:
            at = _child(facts, at, part)
    return at


def _child(facts: InodeFacts, directory: InodeNo, name: bytes) -> InodeNo | None:
    low = hash_name(name, facts.tree.image.superblock.hash_seed)
    for _, value in facts.tree.range_items(entry_key(directory, low), entry_key(directory, low + PROBE_WINDOW - 1)):
        try:
            entry = DirectoryEntry.decode(value)
            if Name.decode(facts.tree.get(name_key(NameId(entry.name_id))) or b"").text == name:
                return InodeNo(entry.inode)
        except CorruptImage:
            continue
    return None


def is_below(path: str | None, top: str) -> bool:
    """Return whether *path* is *top* or lies in it."""
    if path is None:
        return False
    wanted = "/" + top.strip("/")
    return wanted == "/" or path == wanted or path.startswith(wanted + "/")
