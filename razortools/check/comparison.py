"""The comparison of two views of an image, file by file, before and after: what loss.py states.

Sums of an inventory tell most files apart without a look at them; only those whose sums differ, or that are hurt, are compared
byte for byte. The devices of both inventories must still show what they did when these were taken.
"""

from collections.abc import Generator, Iterator

from razortools.check.findings import Progress
from razortools.check.inventory import SUM, Inventory, identity_of, lost_places
from razortools.check.loss import LOST_AND_FOUND, Changed, Loss, Renamed, Truncated
from razortools.check.pieces import differences, inode_of, is_partly_readable
from razortools.check.steps import PARTS, finished, scaled
from razortools.check.tree import kinds_mask
from razortools.format.directory import DirectoryEntry
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Kind, kind_range, object_of
from razortools.format.xattr import Xattr
from razortools.printable import printable
from razortools.units import InodeNo

STEP = 500  # files are compared between two signs: less than a second, even if each has to be looked at closely
JUDGED, NAMED = 800, 900  # of PARTS, once every inode was judged, and once the names were that differ
_ATTRIBUTES = {
    "mode": "mode", "uid": "owner", "gid": "group", "mtime_ns": "time of change", "atime_ns": "time of access",
    "ctime_ns": "time of status", "btime_ns": "time of birth", "rdev": "device number",
}  # fmt: skip


def loss(before: Inventory, after: Inventory) -> Loss:
    """Compare two inventories, whose devices must still show what they did when these were taken."""
    return finished(comparing(before, after))


def comparing(before: Inventory, after: Inventory) -> Generator[Progress, None, Loss]:
    """Do what loss() does; yield how far it is."""
    found = Loss()
    _count_unseen(before, after, found)
    if not found.is_compared:
        return found  # whatever there is now was gained
    if after.facts is None:
        _lose_everything(before, found)
        return found
    comparison = _Comparing(before, after, found)
    yield from scaled(comparison.judge_all(), 0, JUDGED)
    yield from scaled(comparison.judge_names(), JUDGED, NAMED)
    comparison.judge_headless()
    yield from scaled(comparison.judge_dangling(), NAMED, PARTS)
    return found


def _count_unseen(before: Inventory, after: Inventory, found: Loss) -> None:
    """Count what nobody could see before, where parts of the tree could not be read."""
    if before.facts is not None and not lost_places(before.facts):
        return
    found.is_compared = bool(before.numbers or before.headless or before.dangling)
    for place, number in enumerate(after.numbers):
        if before.find(number) < 0 and not after.is_deleted(place):
            found.not_compared += not (after.is_directory(place) and after.path(number) == LOST_AND_FOUND)


def _lose_everything(before: Inventory, found: Loss) -> None:
    for place, number in enumerate(before.numbers):
        if not before.is_deleted(place):
            path = before.path(number)
            found.add(found.lost, path)
            found.harm(path)


class _Comparing:
    """Both inventories, and what has to be looked at closely."""

    def __init__(self, before: Inventory, after: Inventory, found: Loss) -> None:
        self.before = before
        self.after = after
        self.found = found
        self._other_names: set[int] = set()  # inodes whose names differ
        self._cut: set[int] = set()  # those of them that are truncated as well
        self._altered: set[int] = set()  # inodes with other attributes
        self._gained: set[int] = set()  # inodes with bytes that were found again where nothing was stored

    def judge_all(self) -> Generator[Progress, None, None]:
        """Judge every inode that a user saw before."""
        before = self.before
        for place, number in enumerate(before.numbers):
            if not place % STEP:
                yield Progress(place, len(before.numbers))
            if not before.is_deleted(place):
                self.judge(place, number)

    def judge(self, place: int, number: int) -> None:
        """Say what became of one inode, unless only its names differ."""
        before, after, found = self.before, self.after, self.found
        other = after.find(number)
        if other < 0 or after.is_deleted(other):
            path = before.path(number)
            found.add(found.lost, path)
            if is_partly_readable(before, number):
                found.harm(path)
            return
        is_same = self._is_same(place, other) or not self._judge_contents(place, number)
        fields = _changed_fields(before, after, number) if self._may_differ(place, other) else ()
        if number in self._gained:
            fields = (*fields, "contents")
        if fields:
            found.add(found.changed, Changed(before.path(number), fields))
            is_same &= before.is_directory(place)
            self._altered.add(number)
        if number != ROOT_INODE and (before.names[place] != after.names[other] or not before.names[place]):
            self._other_names.add(number)
            if not is_same:
                self._cut.add(number)
        elif is_same and not before.is_directory(place):
            found.unchanged += 1

    def _may_differ(self, place: int, other: int) -> bool:
        """Return whether owner, mode or times differ, or a file has grown."""
        before, after = self.before, self.after
        assert before.facts is not None and after.facts is not None
        grew = after.facts.sizes[other] > before.facts.sizes[place] and not before.is_directory(place)
        return grew or before.attributes[place] != after.attributes[other]

    def _is_same(self, place: int, other: int) -> bool:
        """Return whether the sums say that contents and attributes are the same."""
        before, after = self.before, self.after
        assert before.facts is not None and after.facts is not None
        return (
            not before.hurt[place]
            and not after.hurt[other]
            and before.contents[place] == after.contents[other]
            and before.facts.types[place] == after.facts.types[other]
            and (before.is_directory(place) or before.facts.sizes[place] == after.facts.sizes[other])
        )

    def _judge_contents(self, place: int, number: int) -> bool:
        """Compare a file byte for byte and attribute for attribute; return whether something is missing."""
        before, after = self.before, self.after
        ranges: list[tuple[int, int]] = []
        harmed: list[tuple[int, int]] = []
        if not before.is_directory(place) and not after.is_directory(after.find(number)):
            for difference in differences(before, after, number, number):
                if difference.is_gain:
                    self._gained.add(number)
                    continue
                if difference.was_readable:
                    harmed.append((difference.first, difference.behind))
                if ranges and ranges[-1][1] == difference.first:
                    ranges[-1] = ranges[-1][0], difference.behind
                else:
                    ranges.append((difference.first, difference.behind))
        attributes, worse = _attributes_lost(before, after, number)
        if not ranges and not attributes:
            return False
        path = before.path(number)
        self.found.add(self.found.truncated, Truncated(path, tuple(ranges), tuple(attributes)))
        if worse:
            self.found.harm(path)
        elif harmed:
            self.found.harm(path, harmed)
        return True

    def judge_names(self) -> Generator[Progress, None, None]:
        """Say which of the names that differ lead elsewhere."""
        old_names = yield from scaled(_names_of(self.before, self._other_names), 0, 350)
        new_names = yield from scaled(_names_of(self.after, self._other_names), 350, 700)
        for done, number in enumerate(sorted(self._other_names)):
            if not done % STEP:
                yield Progress(700 + 300 * done // len(self._other_names), PARTS)
            old, new = old_names.get(number, []), new_names.get(number, [])
            old_set, new_set = set(old), set(new)
            gone, come = [name for name in old if name not in new_set], [name for name in new if name not in old_set]
            if not new:  # it is there, but no path leads to it
                path = self.before.path(number)
                self.found.add(self.found.lost, path)
                if old:
                    self.found.harm(path)
            elif not old and self.before.path(number) != self._new_path(new[0]):
                self.found.add(self.found.renamed, Renamed(self.before.path(number), self._new_path(new[0])))
            elif gone:
                targets = [*come, *[new[0]] * len(gone)]
                for name, target in zip(gone, targets, strict=False):
                    old_path = join_name(self.before, name)
                    self.found.add(self.found.renamed, Renamed(old_path, self._new_path(target)))
            elif number not in self._cut | self._altered and not self.before.is_directory(self.before.find(number)):
                self.found.unchanged += 1

    def _new_path(self, name: tuple[int, str]) -> str:
        return join_name(self.after, name)

    def judge_headless(self) -> None:
        """Say what became of contents whose inode was missing."""
        before, after = self.before, self.after
        if not before.headless:
            return
        gained = {after.contents[place]: number for place, number in enumerate(after.numbers) if before.find(number) < 0}
        regained = {self._regained(number) for number in self._gained}
        for number, contents in zip(before.headless, before.headless_contents, strict=True):
            if contents and contents in regained:
                continue  # they are a part of another file again, of which that is told
            found = number if after.find(number) >= 0 else gained.get(contents, 0) if contents else 0
            old = before.paths.of(number)
            if not found:
                self.found.add(self.found.lost, old)
                self.found.unseen += 1
            elif after.path(found) != old:
                self.found.add(self.found.renamed, Renamed(old, after.path(found)))

    def _regained(self, number: int) -> int:
        """Return the sum of what a file has now and had not before."""
        before, after = self.before, self.after
        return (after.contents[after.find(number)] - before.contents[before.find(number)]) & SUM

    def judge_dangling(self) -> Generator[Progress, None, None]:
        """Names that led to no inode are lost, unless they lead to one now."""
        after = self.after
        assert after.facts is not None
        headless = set(self.before.headless)
        told: set[str] = set()
        gone: set[int] = set()
        for done, key in enumerate(self.before.dangling):
            if not done % STEP:
                yield Progress(done, len(self.before.dangling))
            value, old = after.facts.tree.get(key), self.before.facts.tree.get(key) if self.before.facts else None
            target = DirectoryEntry.decode(old).inode if old is not None and len(old) == DirectoryEntry.FIXED_BYTES else 0
            leads = value is not None and len(value) == DirectoryEntry.FIXED_BYTES
            if target not in headless and not (leads and after.find(DirectoryEntry.decode(value or b"").inode) >= 0):
                told.add(self.before.path_at(key))
                gone.add(target)
        for path in sorted(told - set(self.found.lost)):
            self.found.add(self.found.lost, path)
        self.found.unlisted += self.before.more_dangling
        self.found.unseen += len(gone)


def _names_of(inventory: Inventory, numbers: set[int]) -> Generator[Progress, None, dict[int, list[tuple[int, str]]]]:
    """Return the names (directory, name) of each of these inodes, in order."""
    names: dict[int, list[tuple[int, str]]] = {}
    assert inventory.facts is not None
    tree = inventory.facts.tree
    for leaf, (keys, values) in tree.leaves(kinds_mask(Kind.DIRECTORY_ENTRY)) if numbers else ():
        yield Progress(leaf, tree.leaf_count)
        for key, target in _entries(keys, values):
            if target in numbers:
                names.setdefault(target, []).append((object_of(key), inventory.name_at(key)))
    return names


def _entries(keys: list[bytes], values: list[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield (key, inode) of every directory entry of a leaf."""
    for key, value in zip(keys, values, strict=True):
        if key[9] == Kind.DIRECTORY_ENTRY and len(value) == DirectoryEntry.FIXED_BYTES:
            yield key, int.from_bytes(value[:8], "little")


def join_name(inventory: Inventory, name: tuple[int, str]) -> str:
    """Return the path of a (directory, name)."""
    directory, text = name
    return inventory.path(directory).rstrip("/") + "/" + text


def _changed_fields(before: Inventory, after: Inventory, number: int) -> tuple[str, ...]:
    """Return what of owner, mode and times differs, and "size" if the file has grown."""
    old, new = inode_of(before, number), inode_of(after, number)
    if old is None or new is None:
        return ()
    changed = tuple(words for name, words in _ATTRIBUTES.items() if getattr(old, name) != getattr(new, name))
    return (*changed, "size") if not old.is_directory and new.size > old.size else changed


def _attributes_lost(before: Inventory, after: Inventory, number: int) -> tuple[list[str], bool]:
    """Return (names of the extended attributes that are unreadable, gone or different, whether one was readable before)."""
    assert before.facts is not None and after.facts is not None
    lost: list[str] = []
    worse = False
    for key, value in before.facts.tree.range_items(*kind_range(InodeNo(number), Kind.XATTR)):
        was = identity_of(before.facts, before.broken, key, value)
        there = after.facts.tree.get(key)
        now = identity_of(after.facts, after.broken, key, there) if there is not None else None
        if now is None or (was is not None and was != now):
            name = Xattr.decode(value).name if len(value) > 2 else b"?"
            lost.append(printable(name.decode("utf-8", "surrogateescape")))
            worse |= was is not None
    return lost, worse
