"""Phase 4: the directory structure. Verifies that entries and back links confirm each other, and that every inode is reached.

Both sides are summed up per inode: each entry adds a number made from (directory, name, link), each back link takes the same
number away. What is left over where the two sides disagree is looked at closely in a second round, so a million inodes cost 8
bytes each instead of a lookup per name. The numbers are 64 bits of a good hash; that a disagreement cancels out by chance happens
once in 2^64.
"""

from array import array
from collections.abc import Generator, Iterator

from razortools.check import problems
from razortools.check.facts import DirectoryFacts, InodeFacts, find_number
from razortools.check.findings import Event, Finding, Progress
from razortools.check.keynames import item_words
from razortools.check.paths import Paths
from razortools.check.tree import kinds_mask
from razortools.errors import CorruptImage
from razortools.format.directory import BackLink, DirectoryEntry
from razortools.format.inode import ROOT_INODE, FileType
from razortools.format.keys import PROBE_WINDOW, Kind, Table, entry_key, kind_range, object_of, offset_of
from razortools.format.name import Name, hash_name
from razortools.units import InodeNo

PROGRESS_STEP = 64  # leaves
SUSPECTS_MAX = 20_000  # looked at closely; where more names are wrong, more of the same findings would tell nothing new
INODES_STEP = 8192  # some 10 ms
_NAMES, _ENTRIES, _LINKS, _SECOND, _SUSPECTS, _WAY_UP = range(6)  # the rounds; the second look at the entries is rarely needed
_ROUNDS = 6
_SUM = (1 << 64) - 1

_entry_values = DirectoryEntry.STRUCT.unpack
_link_values = BackLink.STRUCT.unpack


def check(facts: InodeFacts) -> Generator[Event, None, DirectoryFacts]:
    """Judge entries, back links, link counts and the way to the root."""
    paths = Paths(facts.tree)
    links = _Links(facts, paths)
    yield from links.read_names()
    yield from links.read_links()
    yield from links.judge_inodes()
    yield from _unreachable(facts, links, paths)
    directories = facts.types.count(FileType.DIRECTORY)
    files = len(facts.numbers) - directories
    return DirectoryFacts(facts, links.parents, links.name_ids, links.name_uses, files, directories)


class _Links:
    """The sums of both sides while the items go by."""

    def __init__(self, facts: InodeFacts, paths: Paths) -> None:
        count = len(facts.numbers)
        self.facts = facts
        self.paths = paths
        self.seed = facts.tree.image.superblock.hash_seed
        self.name_ids = array("Q")
        self.name_hashes = array("Q")
        self.name_uses = array("I")
        self.sums = array("Q", bytes(8 * count))
        self.parents = array("Q", bytes(8 * count))
        self.names = array("I", bytes(4 * count))  # entries that lead to the inode
        self.link_backs = array("I", bytes(4 * count))
        self.subdirectories = array("I", bytes(4 * count))
        self.entries = array("I", bytes(4 * count))  # entries in the directory

    def read_names(self) -> Iterator[Event]:
        """Learn the hash of every string. The string pass judges the strings themselves."""
        tree = self.facts.tree
        for leaf, (keys, values) in tree.leaves(kinds_mask(Kind.NAME)):
            if leaf % PROGRESS_STEP == 0:
                yield _far(_NAMES, leaf, tree.leaf_count)
            for key, value in zip(keys, values, strict=True):
                number = object_of(key)
                if key[0] != Table.NAMES or key[9] != Kind.NAME or (self.name_ids and number <= self.name_ids[-1]):
                    continue
                try:
                    text = Name.decode(value).text
                except CorruptImage:
                    continue
                self.name_ids.append(number)
                self.name_hashes.append(hash_name(text, self.seed))
        self.name_uses.extend([0] * len(self.name_ids))

    def read_links(self) -> Iterator[Event]:
        """Add up entries and back links; judge each entry by itself."""
        tree = self.facts.tree
        previous = b""
        for leaf, (keys, values) in tree.leaves(kinds_mask(Kind.BACK_LINK, Kind.DIRECTORY_ENTRY)):
            if leaf % PROGRESS_STEP == 0:
                yield _far(_ENTRIES, leaf, tree.leaf_count)
            for key, value in zip(keys, values, strict=True):
                if key[0] != Table.FILES:
                    continue
                try:
                    if key[9] == Kind.BACK_LINK:
                        self._add_back_link(key, value)
                    elif key[9] == Kind.DIRECTORY_ENTRY:
                        yield from self._add_entry(key, value)
                        if _are_near(previous, key):
                            yield from self._judge_neighbours(key, value)
                        previous = key
                except CorruptImage as broken:
                    number = object_of(key)
                    yield problems.ITEM_SHAPE.found(
                        inode=number, what=item_words(key), reason=broken, path=self.paths.of(number), key=key
                    )

    def _add_back_link(self, key: bytes, value: bytes) -> None:
        parent, name_id = _values(_link_values, BackLink, value)
        number = object_of(key)
        at = self.facts.find(number)
        if at < 0:
            return  # the inode pass has said that the inode is missing
        self.link_backs[at] += 1
        if not self.parents[at]:
            self.parents[at] = parent
        self.sums[at] = (self.sums[at] - _mix(parent, name_id, offset_of(key))) & _SUM

    def _add_entry(self, key: bytes, value: bytes) -> Iterator[Finding]:
        inode, name_id, link_no, file_type = _values(_entry_values, DirectoryEntry, value)
        facts, directory = self.facts, object_of(key)
        place = facts.find(directory)
        if place >= 0:
            self.entries[place] += 1
        name = find_number(self.name_ids, name_id)
        if name < 0:
            yield problems.ENTRY_NAME_MISSING.found(
                inode=inode, name_id=name_id, path=self.paths.of(directory), key=key, where=f"inode {directory}"
            )
        else:
            self.name_uses[name] += 1
            wanted = self.name_hashes[name]
            if not wanted <= offset_of(key) < wanted + PROBE_WINDOW:
                path = self.paths.child(directory, name_id)
                yield problems.ENTRY_HASH.found(inode=inode, value=offset_of(key), expected=wanted, path=path, key=key)
        at = facts.find(inode)
        if at < 0:
            yield problems.DANGLING_ENTRY.found(inode=inode, path=self.paths.child(directory, name_id), key=key)
            return
        self.names[at] += 1
        self.sums[at] = (self.sums[at] + _mix(directory, name_id, link_no)) & _SUM
        if file_type == FileType.DIRECTORY and place >= 0:
            self.subdirectories[place] += 1
        if facts.types[at] and file_type != facts.types[at]:
            path = self.paths.child(directory, name_id)
            value_words, expected = _type_word(file_type), _type_word(facts.types[at])
            yield problems.ENTRY_TYPE.found(inode=inode, value=value_words, expected=expected, path=path, key=key)

    def _judge_neighbours(self, key: bytes, value: bytes) -> Iterator[Finding]:
        """Look for the name of this entry among those that are filed close before it."""
        directory, offset = object_of(key), offset_of(key)
        text = self.paths.text(DirectoryEntry.decode(value).name_id)
        low = entry_key(InodeNo(directory), max(offset - PROBE_WINDOW, 0))
        for other, other_value in self.facts.tree.range_items(low, key):
            if other == key or len(other_value) != DirectoryEntry.FIXED_BYTES:
                continue
            if text is not None and self.paths.text(DirectoryEntry.decode(other_value).name_id) == text:
                entry = DirectoryEntry.decode(value)
                path = self.paths.child(directory, entry.name_id)
                yield problems.DUPLICATE_NAME.found(inode=entry.inode, path=path, key=key)
                return

    def judge_inodes(self) -> Iterator[Event]:
        """Compare both sides, the link counts and the sizes of directories."""
        facts = self.facts
        suspects: set[int] = set()
        more = 0
        for at, number in enumerate(facts.numbers):
            if at % INODES_STEP == 0:
                yield _far(_LINKS, at, len(facts.numbers))
            if self.sums[at] and len(suspects) < SUSPECTS_MAX:
                suspects.add(number)
            elif self.sums[at]:
                more += 1
            is_directory = facts.types[at] == FileType.DIRECTORY
            if self.entries[at] and not is_directory:
                yield problems.NOT_A_DIRECTORY.found(inode=number, path=self.paths.of(number))
            if is_directory and self.entries[at] != facts.sizes[at]:
                yield problems.DIRECTORY_SIZE.found(
                    inode=number, value=facts.sizes[at], counted=self.entries[at], path=self.paths.of(number)
                )
            yield from self._judge_count(at, number, is_directory=is_directory)
        if suspects:
            yield from self._judge_suspects(suspects)
        if more:
            yield problems.further(4, "E0403 or E0404", more, problems.ENTRY_UNCONFIRMED.severity)

    def _judge_count(self, at: int, number: int, *, is_directory: bool) -> Iterator[Finding]:
        facts = self.facts
        value = facts.link_counts[at]
        has_name = self.names[at] or number == ROOT_INODE
        if is_directory and self.names[at] > (0 if number == ROOT_INODE else 1):
            yield problems.TWO_PARENTS.found(inode=number, counted=self.names[at], path=self.paths.of(number))
        counted = self.names[at]
        if is_directory:
            counted = 2 + self.subdirectories[at] if has_name else 0
        if not has_name and value and number not in facts.orphans:
            yield problems.UNREACHABLE.found(inode=number, path=self.paths.of(number))
        elif value != counted:
            yield problems.LINK_COUNT.found(inode=number, value=value, counted=counted, path=self.paths.of(number))

    def _judge_suspects(self, suspects: set[int]) -> Iterator[Event]:
        """Find out which entries and back links of these inodes have no counterpart."""
        tree = self.facts.tree
        entries: dict[int, dict[tuple[int, int, int], bytes]] = {}
        for leaf, (keys, values) in tree.leaves(kinds_mask(Kind.DIRECTORY_ENTRY)):
            if leaf % PROGRESS_STEP == 0:
                yield _far(_SECOND, leaf, tree.leaf_count)
            for key, value in zip(keys, values, strict=True):
                if key[9] == Kind.DIRECTORY_ENTRY and len(value) == DirectoryEntry.FIXED_BYTES:
                    inode, name_id, link_no, _ = _entry_values(value)
                    if inode in suspects:
                        entries.setdefault(inode, {})[object_of(key), name_id, link_no] = key
        for done, number in enumerate(sorted(suspects)):
            if done % PROGRESS_STEP == 0:
                yield _far(_SUSPECTS, done, len(suspects))
            yield from self._compare(number, entries.get(number, {}))

    def _compare(self, number: int, forward: dict[tuple[int, int, int], bytes]) -> Iterator[Finding]:
        backward: set[tuple[int, int, int]] = set()
        for key, value in self.facts.tree.range_items(*kind_range(InodeNo(number), Kind.BACK_LINK)):
            if len(value) == BackLink.FIXED_BYTES:
                backward.add((*_link_values(value), offset_of(key)))
        for directory, name_id, link_no in sorted(forward.keys() - backward):
            path = self.paths.child(directory, name_id)
            key = forward[directory, name_id, link_no]
            yield problems.ENTRY_UNCONFIRMED.found(inode=number, link_no=link_no, path=path, key=key)
        for directory, name_id, link_no in sorted(backward - forward.keys()):
            path = self.paths.child(directory, name_id)
            yield problems.BACK_LINK_UNCONFIRMED.found(inode=number, link_no=link_no, path=path)


def _far(number: int, done: int, total: int) -> Progress:
    """Return how far the pass is in round *number*."""
    return Progress(number * total + done, _ROUNDS * total)


def _unreachable(facts: InodeFacts, links: _Links, paths: Paths) -> Iterator[Event]:
    """Yield the directories whose way up never comes to the root, once for each cycle."""
    unknown, on_the_way, done = 0, 1, 2
    state = bytearray(len(facts.numbers))
    for place, kind in enumerate(facts.types):
        if place % INODES_STEP == 0:
            yield _far(_WAY_UP, place, len(facts.types))
        if kind != FileType.DIRECTORY:
            continue
        trail: list[int] = []
        at = place
        while at >= 0 and state[at] == unknown:
            state[at] = on_the_way
            trail.append(at)
            at = facts.find(links.parents[at]) if facts.numbers[at] != ROOT_INODE else -1
        if at >= 0 and state[at] == on_the_way:
            number = facts.numbers[at]
            yield problems.DIRECTORY_CYCLE.found(inode=number, path=paths.of(number))
        for passed in trail:
            state[passed] = done


def _mix(directory: int, name_id: int, link_no: int) -> int:
    """Return 64 bits that stand for one name of one inode. hash() of a tuple of numbers is xxHash, the same in every run.

    hash() of a number is that number modulo 2^61 - 1: what is lost by that, the high bits tell.
    """
    return hash((directory, name_id, link_no, 0x9E37 + (directory >> 60 << 4 | name_id >> 60))) & _SUM


def _values(unpack: object, kind: type[BackLink] | type[DirectoryEntry], value: bytes) -> tuple[int, ...]:
    """Return the fields of a small record; its class is asked only for the reason if the length is wrong."""
    if len(value) != kind.FIXED_BYTES:
        kind.decode(value)
    fields: tuple[int, ...] = unpack(value)  # type: ignore[operator]
    return fields


def _are_near(previous: bytes, key: bytes) -> bool:
    """Return whether two keys are entries of one directory in reach of one hash."""
    return previous[:10] == key[:10] and offset_of(key) - offset_of(previous) < PROBE_WINDOW


def _type_word(file_type: int) -> str:
    try:
        return FileType(file_type).name.lower()
    except ValueError:
        return f"file of unknown type {file_type}"
