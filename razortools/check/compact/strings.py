"""Strings: which entries of the string table nothing needs. Either no entry uses them, or another one holds the same name.

The table of recent names that finds duplicates while the filesystem is mounted is bounded, and empty after each mount, so a name
that is used often is stored a few times over the years.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from razortools.check.tree import TreeIndex, kinds_mask
from razortools.format.keys import Kind, Table, object_of
from razortools.format.name import Name
from razortools.format.node import ITEM_OVERHEAD_BYTES

REFERENCES_MAX = (1 << 32) - 1  # what the field holds


@dataclass(slots=True)
class Strings:
    """What is to become of the strings."""

    renumbered: dict[int, int] = field(default_factory=dict)  # id that goes -> id of the same name that stays
    counts: dict[int, int] = field(default_factory=dict)  # id that stays -> its users now
    unused: set[int] = field(default_factory=set)
    freed_bytes: int = 0  # in the tree

    @property
    def dropped_count(self) -> int:
        """Strings that go."""
        return len(self.renumbered) + len(self.unused)

    def drops(self, name_id: int) -> bool:
        """Return whether this one goes."""
        return name_id in self.renumbered or name_id in self.unused


def find_strings(tree: TreeIndex) -> Strings:
    """Return what can be dropped. Memory: 60 bytes a name, and each name that stands there twice."""
    seen: set[int] = set()
    twice: set[int] = set()
    for _, name in _names(tree):
        mark = hash(name.text)
        (twice if mark in seen else seen).add(mark)
    found = Strings()
    staying: dict[bytes, int] = {}
    for name_id, name in _names(tree):
        if not name.reference_count:
            found.unused.add(name_id)
        elif hash(name.text) in twice:
            stays = staying.setdefault(name.text, name_id)
            users = found.counts.get(stays, 0) + name.reference_count
            if users > REFERENCES_MAX:
                continue
            found.counts[stays] = users
            if stays == name_id:
                continue
            found.renumbered[name_id] = stays
        else:
            continue
        found.freed_bytes += len(name.text) + Name.FIXED_BYTES + ITEM_OVERHEAD_BYTES
    return found


def _names(tree: TreeIndex) -> Iterator[tuple[int, Name]]:
    for _, (keys, values) in tree.leaves(kinds_mask(Kind.NAME)):
        for key, value in zip(keys, values, strict=True):
            if key[0] == Table.NAMES and key[9] == Kind.NAME:
                yield object_of(key), Name.decode(value)
