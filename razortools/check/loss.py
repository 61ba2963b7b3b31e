"""The loss statement: what became of every file between two views of an image, before a repair and after it.

A file is *unchanged* if its names and everything that can be read of it are the same; *renamed* if another path leads to it now;
*truncated* if bytes or attributes of it are unreadable or gone; *lost* if no path leads to it any more. A file may be renamed and
truncated at once; *changed* if its owner, mode or times are others, it has grown, or bytes of it were found again where nothing
was stored. What already could not be read before counts as well: the statement tells what damage and repair have cost together.
What the repair alone has cost stands in *harmed*: files that could be read better before. No repair that harms is kept. What no
comparison can show (dropped transactions, mended records, removed items) is added by whoever knows of it.

What was not seen before cannot be compared, and is never called nothing: where parts of the tree could not be read, files that
are found again are counted as *not compared*, and those that the superblock counts and nobody finds as lost, without a name.
Where no file at all was seen, the statement says nothing file by file.
"""

from dataclasses import dataclass, field

from razortools.printable import printable

LISTED_MAX = 100_000  # of a kind; more are counted only
UNKNOWN = ("owner", "group", "mode", "times")  # of an inode that was made anew
LOST_AND_FOUND = "/lost+found"  # which a repair makes: nobody has to have seen it before


@dataclass(frozen=True, slots=True)
class Renamed:
    """A path that leads nowhere now, and the one that leads to its file."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Truncated:
    """A file of which something is unreadable or gone: (first byte, first byte behind) each, and names of attributes."""

    path: str
    ranges: tuple[tuple[int, int], ...]
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changed:
    """A file that is there as a whole, but with another owner, mode or time: the names of these fields."""

    path: str
    fields: tuple[str, ...]


@dataclass(slots=True)
class Loss:
    """What became of the files. Paths keep bytes that are no UTF-8 as lone surrogates."""

    unchanged: int = 0  # files and everything else that is no directory
    renamed: list[Renamed] = field(default_factory=list)
    truncated: list[Truncated] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    harmed: list[str] = field(default_factory=list)  # what the repair, not the damage, has made worse
    unlisted: int = 0  # renamed, truncated, changed or lost as well, but too many to list
    harmed_ranges: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)  # of those that lost nothing but bytes
    _harmed_otherwise: set[str] = field(default_factory=set, repr=False)
    changed: list[Changed] = field(default_factory=list)
    dropped_transactions: int = 0  # that were safe in the journal and cannot be replayed
    dropped: list[str] = field(default_factory=list)  # what they were about
    mended: list[str] = field(default_factory=list)  # records in which one bit was turned: it fits the checksum
    is_compared: bool = True  # some of the files could be seen before; else the lists say nothing
    not_compared: int = 0  # files and directories that are there now, and could not be seen before
    told: int = 0  # files and directories that the superblock counts, where the tree had to be rebuilt
    missing: int = 0  # of these, what was not found
    older: int = 0  # files and directories that may be in an older state
    removed: int = 0  # items that made no sense: nobody knows to which file they belonged, or what they told
    unseen: int = 0  # lost files and directories of which only a name or contents could be seen

    @property
    def unnamed(self) -> int:
        """Lost files and directories that are not listed by name."""
        return max(self.missing - self.unseen, 0)

    @property
    def is_none(self) -> bool:
        """Whether every file is what it was, as far as the superblock can count them."""
        lists = self.renamed, self.truncated, self.lost, self.changed, self.mended
        numbers = self.dropped_transactions, self.unlisted, self.not_compared, self.unnamed, self.older, self.removed
        return self.is_compared and not any(lists) and not any(numbers)

    @property
    def sentences(self) -> list[str]:
        """What there is to tell beyond what was renamed, truncated and lost."""
        told = [f"lost: files and directories that are not listed by name: {self.unnamed}"] if self.unnamed else []
        told += [f"changed: {printable(one.path)}: {', '.join(one.fields)}" for one in self.changed]
        if self.dropped_transactions:
            told.append(f"dropped: transactions that were safe in the journal: {self.dropped_transactions}")
        told += [f"dropped: a change of {printable(path)}" for path in self.dropped]
        if self.removed:
            told.append(f"removed: items that made no sense: {self.removed}")
        if self.unlisted:
            told.append(f"and {self.unlisted} more of all these that are not listed")
        return told + [f"mended: {what}: one bit was turned, which makes its checksum right" for what in self.mended]

    def as_json(self) -> dict[str, object]:
        """Return the part "loss" of the document that --json prints."""
        document: dict[str, object] = {
            "unchanged": self.unchanged,
            "renamed": [{"old": one.old, "new": one.new} for one in self.renamed],
            "truncated": [
                {"path": one.path, "ranges": [list(pair) for pair in one.ranges], "attributes": list(one.attributes)}
                for one in self.truncated
            ],
            "lost": list(self.lost),
        }
        if not self.is_compared:
            document = dict.fromkeys(document)
        if self.told:
            document["lost_unnamed"] = self.unnamed
        if self.not_compared:
            document["not_compared"] = self.not_compared
        if self.changed:
            document["changed"] = [{"path": one.path, "fields": list(one.fields)} for one in self.changed]
        if self.dropped_transactions:
            document["dropped"] = {"transactions": self.dropped_transactions, "paths": list(self.dropped)}
        if self.mended:
            document["mended"] = list(self.mended)
        if self.removed:
            document["removed_items"] = self.removed
        if self.unlisted:
            document["unlisted"] = self.unlisted
        return document

    def harm(self, path: str, ranges: list[tuple[int, int]] | None = None) -> None:
        """Note that the repair would make a file worse: in these bytes, or in other ways."""
        if ranges is None:
            self.harmed_ranges.pop(path, None)
            self._harmed_otherwise.add(path)
        elif path not in self._harmed_otherwise and len(self.harmed) < LISTED_MAX:
            self.harmed_ranges[path] = tuple(ranges)
        self.add(self.harmed, path)

    def add(self, where: "list[Renamed] | list[Truncated] | list[Changed] | list[str]", what: object) -> None:
        """Add to one of the lists, as long as it is not too long."""
        if len(where) < LISTED_MAX:
            where.append(what)  # type: ignore[arg-type]
        elif where is not self.harmed:
            self.unlisted += 1
