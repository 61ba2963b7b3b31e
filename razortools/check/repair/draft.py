"""The draft: the tree as a round will leave it, and the edits that lead there.

Planners look at it instead of at the tree, so each sees what those before it have decided. Nothing is written here.
"""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

from razortools.check.findings import Finding
from razortools.check.image import BLOCK_MASK, Image
from razortools.check.paths import Paths
from razortools.check.repair.edits import Edit, Purpose, Value, Verb
from razortools.check.repair.fields import set_field
from razortools.check.repair.safety import Change, are_harmless
from razortools.check.tree import TreeIndex, walk
from razortools.errors import CorruptImage
from razortools.format.directory import BackLink, DirectoryEntry
from razortools.format.inode import Inode
from razortools.format.keys import (
    COUNTERS_KEY,
    KIND_AT,
    Kind,
    Table,
    inode_key,
    kind_range,
    name_key,
    object_of,
    object_range,
    offset_of,
)
from razortools.format.layout import COUNT_MAX
from razortools.format.name import Name
from razortools.format.node import ChildPointer
from razortools.format.record import Record
from razortools.format.volume import Counters
from razortools.units import InodeNo, NameId

LINK_NO_MAX = (1 << 32) - 2  # what an entry can name, and an inode count on from
_UNSAFE = frozenset((Verb.REBUILD, Verb.ADOPT, Verb.MOVE))
_ABSENT = b"\0absent"
Kept = TypeVar("Kept", bound=Record)


class Draft:
    """One round in the making."""

    def __init__(self, tree: TreeIndex, on_device: Image) -> None:
        """Plan over *tree*, the view that was checked; *on_device*: the same before its journal is replayed."""
        self.tree = tree
        self.on_device = on_device
        self.image: Image = tree.image
        self.paths = Paths(tree)
        self.edits: list[Edit] = []
        self.made: dict[int, str] = {}  # inodes that were given a name in this round, and which
        self.in_place_first = False  # what was turned back in its place must be looked at before anything else is done
        self.knows_what_was_meant = False  # by entries of the journal that make no sense
        self.is_careful = False  # answers that destroy anything are taken back
        self.is_rebuilt = False  # a part of the tree was lost, and what it held may be missing now
        self.lost_blocks = 0  # blocks of records that are proven to be there, and nobody's
        self.orphaned: tuple[range, ...] = ()  # blocks in use that are nobody's, as far as they are told one by one
        self.judged: set[bytes] = set()  # records that were decided upon already
        self.lost_names: dict[str, int] = {}  # paths that a back link alone tells of, and whose
        self.named: set[int] = set()  # name ids that entries were given in this round
        self._pointers: dict[int, ChildPointer] | None = None
        self._changed: dict[bytes, bytes | None] = {}
        self._answers: list[Change] = []  # what was changed for the finding that is being answered
        self._order: list[bytes] = []  # the keys of _changed, sorted
        self._finding: Finding | None = None
        self._next_inode = 0
        self._next_name = 0
        self._planned: Counter[tuple[Verb, str]] = Counter()  # edits by verb and code
        self._edits_before = 0  # the finding that is being answered
        self._links_of = -1  # the inode whose back links are in memory
        self._links: dict[int, BackLink] = {}

    def answer(self, finding: Finding) -> None:
        """The edits that follow answer *finding*."""
        self._finding = finding
        self._answers = []
        self._edits_before = len(self.edits)

    @property
    def is_harmless(self) -> bool:
        """Whether the answer to the finding destroys nothing."""
        verbs = {edit.verb for edit in self.edits[self._edits_before :]}
        return not verbs & _UNSAFE and are_harmless(self._answers)

    def take_back(self) -> None:
        """Forget the answer to the finding."""
        self._links_of = -1
        for key, before, _ in reversed(self._answers):
            if before == self.tree.get(key):
                if self._changed.pop(key, _ABSENT) is not _ABSENT:
                    del self._order[bisect_left(self._order, key)]
            else:
                if key not in self._changed:
                    insort(self._order, key)
                self._changed[key] = before
        self._planned.subtract((edit.verb, edit.code) for edit in self.edits[self._edits_before :])
        del self.edits[self._edits_before :]
        self._answers = []

    def has_planned(self, verb: Verb, code: str) -> bool:
        """Return whether such an edit answers a finding of this code already."""
        return self._planned[verb, code] > 0

    @property
    def pointers(self) -> dict[int, ChildPointer]:
        """The nodes on the device, by the first block of either copy."""
        if self._pointers is None:
            self._pointers = {}
            for visit in walk(self.on_device, TreeIndex(self.on_device)):
                for address in (visit.place.pointer.address, visit.place.pointer.mirror):
                    self._pointers.setdefault(address & BLOCK_MASK, visit.place.pointer)
        return self._pointers

    # What the round will find

    def get(self, key: bytes) -> bytes | None:
        """Return the value of an item, or None."""
        return self._changed[key] if key in self._changed else self.tree.get(key)

    def items(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items from *low* to *high*, both included, in order."""
        mine = self._order[bisect_left(self._order, low) : bisect_right(self._order, high)]
        at = 0
        for key, value in self.tree.range_items(low, high):
            while at < len(mine) and mine[at] < key:
                yield from self._own(mine[at])
                at += 1
            if at < len(mine) and mine[at] == key:
                yield from self._own(mine[at])
                at += 1
            else:
                yield key, value
        for late in mine[at:]:
            yield from self._own(late)

    def _own(self, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        value = self._changed[key]
        if value is not None:
            yield key, value

    def inode(self, number: int) -> Inode | None:
        """Return an inode, or None if it is not there or cannot be read."""
        return _decoded(Inode, self.get(inode_key(InodeNo(number))))

    def entry(self, key: bytes) -> DirectoryEntry | None:
        """Return a directory entry, or None."""
        return _decoded(DirectoryEntry, self.get(key))

    def text(self, name_id: int) -> bytes | None:
        """Return the string of a name, or None."""
        name = _decoded(Name, self.get(name_key(NameId(name_id))))
        return None if name is None else name.text

    def back_links(self, number: int) -> dict[int, BackLink]:
        """Return the back links of an inode that can be read: link number -> link."""
        if number != self._links_of:  # a file may have thousands of names, and as many findings
            self._links_of, self._links = number, self._read_back_links(number)
        return dict(self._links)

    def _read_back_links(self, number: int) -> dict[int, BackLink]:
        found: dict[int, BackLink] = {}
        for key, value in self.items(*kind_range(InodeNo(number), Kind.BACK_LINK)):
            link = _decoded(BackLink, value)
            if link is not None and offset_of(key) <= LINK_NO_MAX:
                found[offset_of(key)] = link
        return found

    def entries(self, directory: int) -> Iterator[tuple[bytes, DirectoryEntry]]:
        """Yield the entries of a directory that can be read."""
        for key, value in self.items(*kind_range(InodeNo(directory), Kind.DIRECTORY_ENTRY)):
            entry = _decoded(DirectoryEntry, value)
            if entry is not None:
                yield key, entry

    # Changes

    def put(self, key: bytes, value: bytes, why: str, path: str | None = None, *, purpose: Purpose = Purpose.MEND) -> None:
        """Plan to set an item."""
        self._note(key, value)
        self._add(Verb.PUT, why, path, key=key, value=value, purpose=purpose)

    def delete(self, key: bytes, why: str, path: str | None = None, *, purpose: Purpose = Purpose.MEND) -> None:
        """Plan to remove an item; an absent one is left alone."""
        if self.get(key) is not None:
            self._note(key, None)
            self._add(Verb.DELETE, why, path, key=key, purpose=purpose)

    def set(self, key: bytes, field: str, value: int | bytes, why: str, path: str | None = None) -> None:
        """Plan to change one field of an item, if it is there and has another value."""
        before = self.get(key)
        if before is None:
            return
        after = set_field(key, before, field, value)
        if after != before:
            self._note(key, after)
            self._add(Verb.SET, why, path, key=key, field=field, value=value)

    def move(self, key: bytes, why: str, path: str | None = None) -> None:
        """Plan to give a record blocks of its own."""
        self._add(Verb.MOVE, why, path, key=key)

    def other(self, verb: Verb, why: str, *, value: Value = None, field: str = "", block: int | None = None,
              source: int | None = None) -> None:  # fmt: skip
        """Plan what does not concern a single item."""
        self._add(verb, why, None, value=value, field=field, block=block, source=source)

    def new_inode_number(self) -> int:
        """Return an inode number that was never used."""
        self._next_inode = max(self._next_inode, self.new_inode_limit()) + 1
        return self._next_inode - 1

    def new_name_id(self) -> int:
        """Return a name id that was never used."""
        counters = self._counters()
        last = _last(self.tree, Table.NAMES)
        self._next_name = max(self._next_name, last + 1, _sane(counters.next_name_id if counters else 0))
        self._next_name += 1
        return self._next_name - 1

    def new_inode_limit(self) -> int:
        """Return the lowest number that certainly was never an inode's."""
        counters = self._counters()
        return max(_last(self.tree, Table.FILES) + 1, _sane(counters.next_inode if counters else 0))

    def _counters(self) -> Counters | None:
        return _decoded(Counters, self.get(COUNTERS_KEY))

    def _note(self, key: bytes, value: bytes | None) -> None:
        entry = _decoded(DirectoryEntry, value) if key[KIND_AT] == Kind.DIRECTORY_ENTRY else None
        if entry is not None:
            self.named.add(entry.name_id)
        self._answers.append((key, self.get(key), value))
        self._note_link(key, value)
        if key not in self._changed:
            insort(self._order, key)
        self._changed[key] = value

    def _note_link(self, key: bytes, value: bytes | None) -> None:
        """Keep the back links that are in memory as they are planned."""
        if key[KIND_AT] != Kind.BACK_LINK or object_of(key) != self._links_of:
            return
        link, link_no = _decoded(BackLink, value), offset_of(key)
        if link is not None and link_no <= LINK_NO_MAX and link_no > next(reversed(self._links), -1):
            self._links[link_no] = link  # it comes last there, too
        else:
            self._links_of = -1

    def _add(self, verb: Verb, why: str, path: str | None, *, key: bytes = b"", value: Value = None, field: str = "",
             block: int | None = None, source: int | None = None, purpose: Purpose = Purpose.MEND) -> None:  # fmt: skip
        finding = self._finding
        assert finding is not None
        self._planned[verb, finding.code] += 1
        self.edits.append(
            Edit(
                verb=verb, code=finding.code, why=why, path=path if path is not None else finding.path, key=key, value=value,
                field=field, block=block, source=source, purpose=purpose,
            )
        )  # fmt: skip


def _decoded(kind: type[Kept], value: bytes | None) -> Kept | None:
    try:
        return None if value is None else kind.decode(value)
    except CorruptImage:
        return None


def _last(tree: TreeIndex, table: Table) -> int:
    """Return the highest object number in a table, but for those that no counting leads to."""
    low, high = object_range(table, 0)[0], object_range(table, COUNT_MAX)[1]
    for leaf in range(bisect_right(tree.leaf_lows, high) - 1, -1, -1):
        keys = [key for key in tree.items_of(leaf)[0] if low <= key <= high]
        if keys:
            return object_of(keys[-1])
        if tree.leaf_lows[leaf] < low:
            break
    return 0


def _sane(number: int) -> int:
    return number if number < COUNT_MAX else 0
