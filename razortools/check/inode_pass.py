"""Phase 3: the inode table. Walks the whole tree and verifies every node, then every inode, its attributes and the orphans.

Hands on the index of the tree's leaves and what the later phases need of each inode. Findings about nodes come after the walk,
because a path can only be told when the tree's index is complete.
"""

from array import array
from collections.abc import Generator, Iterator
from dataclasses import replace

from razortools.check import problems
from razortools.check.facts import InodeFacts, JournalFacts, find_number
from razortools.check.findings import Event, Finding, Progress, Severity
from razortools.check.image import Image
from razortools.check.inode_rules import inode_faults, patch_fault, xattr_fault
from razortools.check.keynames import item_words, key_fault, range_words, record_range
from razortools.check.paths import Paths
from razortools.check.tree import TreeIndex, Visit, walk
from razortools.errors import CorruptImage
from razortools.format.inode import ROOT_INODE, FileType, Inode, InodeFlag, Orphan, OrphanReason
from razortools.format.keys import COUNTERS_KEY, Kind, Table, inode_key, object_of, offset_of, table_range
from razortools.format.layout import COUNT_MAX
from razortools.format.node import patch_bytes
from razortools.format.volume import Counters
from razortools.format.xattr import Xattr
from razortools.printable import printable
from razortools.units import InodeNo

PROGRESS_STEP = 64  # nodes
INODES_STEP = 65_536  # of a look at two numbers each
EVERYTHING = 0xFFFF
FINDINGS_KEPT = 10_000  # of the walk, until it is over
_TYPES = frozenset(FileType)
_HAS_XATTRS = int(InodeFlag.HAS_XATTRS)


def check(facts: JournalFacts) -> Generator[Event, None, InodeFacts]:
    """Walk the tree, then judge the inodes in it."""
    image = facts.image
    tree = TreeIndex(image)
    kept: list[Visit] = []
    more, worst = 0, Severity.NOTE
    for number, visit in enumerate(walk(image, tree)):
        if number % PROGRESS_STEP == 0:
            yield Progress(number, 2 * image.superblock.node_count)
        if not (visit.header is None or visit.read.faults or visit.wrong or visit.disorder):
            continue
        if len(kept) >= FINDINGS_KEPT:
            more += 1
            worst = max(worst, _severity(visit))
        else:
            # The contents are in the index already; a damaged image must not fill the memory.
            kept.append(replace(visit, read=replace(visit.read, raw=None), keys=[], values=[]))
    paths = Paths(tree)
    for number, visit in enumerate(kept):
        if number % PROGRESS_STEP == 0:
            yield Progress(tree.leaf_count, 2 * tree.leaf_count)
        yield from _judge_node(tree, paths, visit)
    if more:
        yield problems.further(3, "E0301 to E0305", more, worst)
    found = _Table()
    yield from _read_orphans(tree, found)
    yield from _judge_items(tree, paths, found)
    result = InodeFacts(tree, found.numbers, found.types, found.link_counts, found.sizes, found.orphans, found.counters)
    yield from _judge_whole(facts, result, paths)
    return result


class _Table:
    """What is gathered while the items go by."""

    def __init__(self) -> None:
        self.numbers = array("Q")
        self.types = array("B")
        self.link_counts = array("I")
        self.sizes = array("Q")
        self.orphans: dict[int, int] = {}
        self.counters: Counters | None = None

    def add(self, number: int, inode: Inode) -> None:
        """Note an inode. They come in rising order; what does not is noted by nobody."""
        if self.numbers and number <= self.numbers[-1]:
            return
        self.numbers.append(number)
        self.types.append(inode.file_type if inode.file_type in _TYPES else 0)
        self.link_counts.append(inode.link_count)
        self.sizes.append(inode.size)


class _Current:
    """The inode whose items are going by."""

    __slots__ = ("bytes", "highest_link", "inode", "number", "reported", "xattrs")

    def __init__(self, key: bytes, inode: Inode | None) -> None:
        self.bytes = key[1:9]
        self.number = object_of(key)
        self.inode = inode
        self.xattrs = 0
        self.highest_link = -1
        self.reported = inode is not None


def _severity(visit: Visit) -> Severity:
    """Return the severity of the worst that there is to say about a damaged node."""
    is_lost = visit.header is None or visit.wrong or visit.disorder
    return (problems.NODE_LOST if is_lost else problems.NODE_COPY_DAMAGED).severity


def _judge_node(tree: TreeIndex, paths: Paths, visit: Visit) -> Iterator[Finding]:
    """Yield the findings about one node."""
    place, block = visit.place, visit.place.pointer.address
    if visit.shared:
        yield problems.NODE_SHARED.found(block=block)
        return
    if visit.header is None:
        reason = "; ".join(fault.reason for fault in visit.read.faults)
        path, inode, byte_range = _hurt(tree, paths, visit)
        held = range_words(place.low, place.high)
        yield problems.NODE_LOST.found(
            block=block, reason=reason, held=held, path=path, inode=inode, byte_range=byte_range, key=place.low
        )
        return
    for fault in visit.read.faults:
        yield problems.NODE_COPY_DAMAGED.found(block=fault.address, reason=fault.reason)
    for field, value, expected in visit.wrong:
        yield problems.NODE_FIELD.found(block=block, field=field, value=value, expected=expected)
    for reason in visit.disorder:
        yield problems.NODE_KEYS.found(block=block, reason=reason)


def _hurt(tree: TreeIndex, paths: Paths, visit: Visit) -> tuple[str | None, int | None, tuple[int, int] | None]:
    """Return (path, inode, byte range) of the first file that the loss of a node hurts, as far as they can be told."""
    low, high = visit.place.low, visit.place.high
    if low[0] > Table.FILES:
        return None, None, None
    for number in dict.fromkeys((max(object_of(low), ROOT_INODE), object_of(high) if high[0] == Table.FILES else 0)):
        value = tree.get(inode_key(InodeNo(number)))
        if value is None or len(value) != Inode.FIXED_BYTES:
            continue
        inode = Inode.decode(value)
        byte_range = None
        if low[:10] == high[:10] and low[9] == Kind.DATA_RECORD and inode.record_log2 < 64:
            byte_range = record_range(inode, offset_of(low))[0], record_range(inode, offset_of(high))[0]
        return paths.of(number), number, byte_range
    return None, None, None


def _read_orphans(tree: TreeIndex, found: _Table) -> Iterator[Finding]:
    """Learn the orphans before the inodes go by: what is being deleted may be half gone."""
    for key, value in tree.range_items(*table_range(Table.ORPHANS)):
        number = object_of(key)
        found.orphans[number] = 0
        try:
            found.orphans[number] = Orphan.decode(value).reason
        except CorruptImage as broken:
            yield problems.ITEM_SHAPE.found(inode=number, what=item_words(key), reason=broken, key=key)


def _judge_items(tree: TreeIndex, paths: Paths, found: _Table) -> Iterator[Event]:
    """Judge every inode and xattr, and fill *found*."""
    current: _Current | None = None
    for leaf, (keys, values) in tree.leaves(EVERYTHING):
        if leaf % PROGRESS_STEP == 0:
            yield Progress(tree.leaf_count + leaf, 2 * tree.leaf_count)
        for key, value in zip(keys, values, strict=True):
            kind = key[9]
            fault = _quick_key_fault(key)
            if fault:
                yield problems.ITEM_UNKNOWN.found(block=tree.leaf_addresses[leaf], reason=fault, key=key)
            elif key[0] != Table.FILES:
                yield from _judge_other(tree, paths, found, key, value)
            elif kind == Kind.INODE:
                if current is not None:
                    yield from _finish_inode(paths, found, current)
                current = yield from _judge_inode(tree, paths, found, key, value)
            else:
                if current is None or current.bytes != key[1:9]:
                    if current is not None:
                        yield from _finish_inode(paths, found, current)
                    current = _Current(key, None)
                yield from _judge_part(tree, paths, current, key, value)
    if current is not None:
        yield from _finish_inode(paths, found, current)


_USUAL_KINDS = frozenset((Kind.BACK_LINK, Kind.XATTR, Kind.DATA_RECORD, Kind.DIRECTORY_ENTRY))


_ALONE_KINDS = frozenset((Kind.INODE, Kind.INLINE_DATA))
_ZERO = bytes(8)
_OBJECT_END = COUNT_MAX >> 56  # of the first byte of an object's number


def _quick_key_fault(key: bytes) -> str:
    """As key_fault, without a call for the keys that are by far the most."""
    kind = key[9]
    is_usual = kind in _USUAL_KINDS or (kind in _ALONE_KINDS and key[10:] == _ZERO)
    return "" if is_usual and key[0] == Table.FILES and key[1:9] != _ZERO and key[1] < _OBJECT_END else key_fault(key)


def _judge_inode(tree: TreeIndex, paths: Paths, found: _Table, key: bytes, value: bytes) -> Generator[Finding, None, _Current]:
    number = object_of(key)
    try:
        inode = Inode.decode(value)
    except CorruptImage as broken:
        yield problems.ITEM_SHAPE.found(inode=number, what="the inode", reason=broken, path=paths.of(number), key=key)
        current = _Current(key, None)
        current.reported = True
        return current
    found.add(number, inode)
    for field, seen, expected in inode_faults(inode):
        yield problems.INODE_FIELD.found(inode=number, field=field, value=seen, expected=expected, path=paths.of(number), key=key)
    return _Current(key, inode)


def _judge_part(tree: TreeIndex, paths: Paths, current: _Current, key: bytes, value: bytes) -> Iterator[Finding]:
    """Judge an item that belongs to an inode and is no inode."""
    kind = key[9]
    if not current.reported:
        current.reported = True
        number = current.number
        yield problems.INODE_MISSING.found(inode=number, what=item_words(key), path=paths.of(number), key=key)
    if kind == Kind.BACK_LINK:
        current.highest_link = offset_of(key)
    elif kind == Kind.XATTR:
        current.xattrs += 1
        try:
            xattr = Xattr.decode(value)
            reason = xattr_fault(xattr, offset_of(key), tree.image.superblock.hash_seed)
            name = printable(xattr.name.decode("utf-8", "surrogateescape"))
        except CorruptImage as broken:
            reason, name = str(broken), f"{offset_of(key):#x}"
        if reason:
            path = paths.of(current.number)
            yield problems.XATTR_WRONG.found(inode=current.number, name=name, reason=reason, path=path, key=key)


def _judge_other(tree: TreeIndex, paths: Paths, found: _Table, key: bytes, value: bytes) -> Iterator[Finding]:
    """Judge an item that is not of the table of files. Orphans were read before; names have a phase of their own."""
    if key == COUNTERS_KEY:
        yield from _read_counters(found, value)
    elif key[0] == Table.PATCHES:
        yield from _judge_patch(tree, paths, found, key, value)


def _judge_patch(tree: TreeIndex, paths: Paths, found: _Table, key: bytes, value: bytes) -> Iterator[Finding]:
    """Judge a patch. All inodes went by before."""
    number = object_of(key)
    place = find_number(found.numbers, number)
    file_type, size = (found.types[place], found.sizes[place]) if place >= 0 else (None, 0)
    step = patch_bytes(tree.image.geometry.node_bytes)
    reason = patch_fault(offset_of(key), value, step, file_type, size)
    if reason:
        hurt = (offset_of(key), max(min(offset_of(key) + max(len(value), step), size), offset_of(key)))
        yield problems.PATCH_WRONG.found(
            inode=number, what=item_words(key), reason=reason, path=paths.of(number), key=key, byte_range=hurt
        )


def _finish_inode(paths: Paths, found: _Table, current: _Current) -> Iterator[Finding]:
    """Judge what can be told once all items of an inode were seen."""
    inode, number = current.inode, current.number
    if inode is None or found.orphans.get(number) == OrphanReason.UNLINKED:
        return
    marked = bool(inode.flags & _HAS_XATTRS)
    if marked != bool(current.xattrs):
        yield problems.XATTR_FLAG.found(
            inode=number, found=current.xattrs, flag="there are some" if marked else "none", path=paths.of(number)
        )
    if current.highest_link >= inode.next_link_no:
        yield problems.LINK_NUMBER.found(
            inode=number, link_no=current.highest_link, next_link_no=inode.next_link_no, path=paths.of(number)
        )


def _read_counters(found: _Table, value: bytes) -> Iterator[Finding]:
    try:
        found.counters = Counters.decode(value)
    except CorruptImage as broken:
        yield problems.ITEM_SHAPE.found(inode=0, what="the counters", reason=broken, key=COUNTERS_KEY, where="counters")


def _judge_whole(journal: JournalFacts, facts: InodeFacts, paths: Paths) -> Iterator[Event]:
    """Judge the root, the orphans and the counters."""
    root = facts.find(ROOT_INODE)
    if root < 0:
        yield problems.ROOT_WRONG.found(inode=ROOT_INODE, reason="missing", path="/")
    elif facts.types[root] != FileType.DIRECTORY:
        yield problems.ROOT_WRONG.found(inode=ROOT_INODE, reason="no directory", path="/")
    for number, reason in facts.orphans.items():
        fault = _orphan_fault(facts, number, reason)
        if fault:
            yield problems.ORPHAN_WRONG.found(inode=number, reason=fault, path=paths.of(number))
    if facts.orphans:
        yield problems.ORPHANS_PENDING.found(where="orphans", count=len(facts.orphans))
    for place, number in enumerate(facts.numbers):
        if place % INODES_STEP == 0:
            yield Progress(1, 1)
        if facts.link_counts[place] == 0 and facts.orphans.get(number) != OrphanReason.UNLINKED:
            yield problems.ORPHAN_UNMARKED.found(inode=number, path=paths.of(number))
    if facts.tree.is_whole:
        yield from _judge_counts(journal.image, facts, replayed=journal.is_replayed)


def _orphan_fault(facts: InodeFacts, number: int, reason: int) -> str:
    place = facts.find(number)
    if place < 0:
        return "there is no such inode"
    if reason not in set(OrphanReason):
        return f"for the unknown reason {reason}"
    if reason == OrphanReason.UNLINKED and facts.link_counts[place]:
        return f"its link count is {facts.link_counts[place]}"
    return ""


def _judge_counts(image: Image, facts: InodeFacts, *, replayed: bool) -> Iterator[Finding]:
    """Compare the counters with what was counted. Only meaningful if the tree is whole."""
    inodes, directories = len(facts.numbers), facts.types.count(FileType.DIRECTORY)
    counters, superblock = facts.counters, image.superblock
    told = [("the superblock", "node count", superblock.node_count, len(facts.tree.addresses))]
    if not replayed:  # a replay brings the counters up to date; the superblock's copies wait for the next checkpoint
        told += [
            ("the superblock", "inode count", superblock.inode_count, inodes),
            ("the superblock", "directory count", superblock.directory_count, directories),
        ]
    if counters is None:
        yield problems.COUNTERS_MISSING.found()
    else:
        told += [
            ("the volume's counters", "inode count", counters.inode_count, inodes),
            ("the volume's counters", "directory count", counters.directory_count, directories),
        ]
        if inodes and not facts.numbers[-1] < counters.next_inode <= COUNT_MAX:
            yield problems.INODE_NUMBER.found(inode=facts.numbers[-1], next_inode=counters.next_inode)
    for place, field, value, counted in told:
        if value != counted:
            yield problems.INODE_COUNT.found(place=place, field=field, value=value, counted=counted)
