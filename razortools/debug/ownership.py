"""Who owns which blocks.

The fixed parts follow from the superblock, nodes from a walk down from the root, data from the items. One walk answers for any
number of places, so a map with thousands of bad areas costs no more than one.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from razortools.debug.rawtree import NodeView, RawTree
from razortools.debug.session import Session
from razortools.debug.structures import copy_name
from razortools.debug.transactions import scan_journal
from razortools.debug.values import show_key
from razortools.engine import directories
from razortools.errors import RazorError
from razortools.format.data import CUT_OUT, DataRecord
from razortools.format.inode import Inode
from razortools.format.items import owned_record
from razortools.format.keys import KIND_AT, Kind, inode_key, object_of, offset_of
from razortools.format.superblock import SLOT_COUNT
from razortools.units import BlockNo, InodeNo

Span = tuple[int, int]  # first block, first block behind


@dataclass(frozen=True, slots=True)
class Owner:
    """What lies in a run of blocks. *path*, *first*, *end*: the file and the bytes of it that are lost if these blocks are."""

    span: Span
    what: str
    inode: int = 0
    paths: tuple[bytes, ...] = ()
    first: int = 0
    end: int = 0
    loss: str = ""  # what it means if these blocks cannot be read
    record: DataRecord | None = None  # that owns them


class Wanted:
    """Places that somebody asks about, in order and without overlap."""

    def __init__(self, spans: Sequence[Span]) -> None:
        """Ask about *spans*, in any order."""
        merged: list[list[int]] = []
        for first, end in sorted(spans):
            if merged and first <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([first, end])
        self.spans = [(first, end) for first, end in merged]
        self._firsts = [first for first, _ in self.spans]

    def within(self, first: int, end: int) -> Iterator[Span]:
        """Yield the wanted parts of the blocks from *first* to before *end*."""
        for span in self.spans[max(bisect_right(self._firsts, first) - 1, 0) : bisect_left(self._firsts, end)]:
            low, high = max(first, span[0]), min(end, span[1])
            if low < high:
                yield low, high


def owners(session: Session, wanted: Wanted) -> list[Owner]:
    """Return what lies in the wanted blocks, in order, free ones and what nobody names included."""
    found = [*_fixed(session, wanted), *_nodes(session, wanted), *_data(session, wanted)]
    found.sort(key=lambda owner: owner.span)
    taken = Wanted([owner.span for owner in found])
    rest = [gap for span in wanted.spans for gap in _gaps(span, taken)]
    found += [_unowned(session, gap) for gap in rest]
    return sorted(found, key=lambda owner: owner.span)


def _gaps(span: Span, taken: Wanted) -> Iterator[Span]:
    at = span[0]
    for first, end in taken.within(*span):
        if at < first:
            yield at, first
        at = end
    if at < span[1]:
        yield at, span[1]


def _fixed(session: Session, wanted: Wanted) -> Iterator[Owner]:
    """Yield the fixed parts."""
    superblock, geometry = session.superblock(), session.geometry()
    for place, block in enumerate([*range(SLOT_COUNT), *geometry.backups]):
        for span in wanted.within(block, block + 1):
            yield Owner(span, f"superblock, {copy_name(place)}", loss="one of several copies; razorfsck --repair writes it anew")
    for copy, start in enumerate(geometry.spacemap_starts):
        active = "in use" if copy == superblock.spacemap_active else "not in use"
        for span in wanted.within(start, start + geometry.spacemap.page_count):
            loss = (
                "razorfsck --repair computes it anew from the tree"
                if active == "in use"
                else "the next checkpoint writes it anew"
            )
            yield Owner(span, f"space map {'AB'[copy]}, {active}", loss=loss)
    for span in wanted.within(geometry.journal_start, geometry.journal_start + geometry.journal_blocks):
        yield Owner(span, "journal", loss=_journal_loss(session, span))


def _journal_loss(session: Session, span: Span) -> str:
    """Return what a part of the ring that cannot be read means."""
    geometry, superblock = session.geometry(), session.superblock()
    for transaction in scan_journal(session).transactions:
        at = transaction.position % geometry.journal_bytes // geometry.block_bytes
        blocks = transaction.commit.total_bytes // geometry.block_bytes
        held = {geometry.journal_start + (at + step) % superblock.journal_blocks for step in range(blocks)}
        if any(block in held for block in range(*span)):
            return f"transaction {transaction.number} and all that follow it"
    return "nothing: no transaction waits there"


def _nodes(session: Session, wanted: Wanted) -> Iterator[Owner]:
    """Yield the nodes of the last checkpoint's tree."""
    blocks = session.geometry().node_blocks
    for node in RawTree(session.device, session.superblock()).walk():
        for place, block in enumerate(node.copies):
            for span in wanted.within(block, block + blocks):
                what = f"tree node, level {node.level}, copy {place + 1} of {len(node.copies)}, from {show_key(node.low)}"
                yield Owner(span, what, loss=_node_loss(node, place))


def _node_loss(node: NodeView, place: int) -> str:
    others = [fault for number, fault in enumerate(node.faults) if number != place]
    if "" in others:
        return "nothing: the other copy is good, and the next read of it heals this one"
    return f"everything from {show_key(node.low)} to {show_key(node.high)}"


def all_items(session: Session) -> Iterator[tuple[bytes, bytes]]:
    """Yield the items of the filesystem as it is now, or, if it cannot be read, of the last checkpoint as far as it verifies."""
    if session.has_volume:
        try:
            yield from session.volume.store.items(bytes(18), b"\xff" * 18)
            return
        except RazorError:
            pass
    yield from RawTree(session.device, session.superblock()).items()


def _data(session: Session, wanted: Wanted) -> Iterator[Owner]:
    """Yield the contents of files and large attributes."""
    block_bytes = session.superblock().block_bytes
    seen: set[tuple[bytes, Span]] = set()
    for key, value in all_items(session):
        if key[KIND_AT] not in (Kind.DATA_RECORD, Kind.XATTR):
            continue
        try:
            record = owned_record(key, value)
            runs = record.runs(block_bytes) if record is not None and not record.flags & CUT_OUT else []
        except RazorError:
            continue
        for first, count in runs:
            for span in wanted.within(first, first + count):
                if (key, span) not in seen:
                    seen.add((key, span))
                    assert record is not None
                    yield _owner_of_data(session, span, key, record)


def _owner_of_data(session: Session, span: Span, key: bytes, record: DataRecord) -> Owner:
    ino = object_of(key)
    paths = paths_of(session, ino)
    if key[KIND_AT] == Kind.XATTR:
        return Owner(span, "a large extended attribute", ino, paths, loss="the attribute's value", record=record)
    record_bytes = _record_bytes(session, ino)
    first = offset_of(key) * record_bytes
    end = first + record.raw_bytes
    return Owner(
        span, f"data, record {offset_of(key)}", ino, paths, first, end, f"bytes {first} to {end - 1} of the file", record
    )


def _record_bytes(session: Session, ino: int) -> int:
    key = inode_key(InodeNo(ino))
    try:
        value = session.volume.store.get(key) if session.has_volume else RawTree(session.device, session.superblock()).get(key)
        return Inode.decode(value or b"").record_bytes
    except RazorError:
        return session.superblock().record_bytes


def paths_of(session: Session, ino: int) -> tuple[bytes, ...]:
    """Return the paths that lead to an inode, none if that cannot be told."""
    try:
        return tuple(directories.paths(session.volume, InodeNo(ino)))
    except RazorError:
        return ()


def _unowned(session: Session, span: Span) -> Owner:
    """Return what can be said of blocks that nothing names."""
    superblock = session.superblock()
    if span[0] >= superblock.block_count:
        return Owner(span, "behind the end of the filesystem", loss="nothing")
    loss = "nothing: no file and no node is there"
    try:
        store = session.volume.store
        is_told = store.superblock.generation == superblock.generation  # otherwise a recovery in memory has taken blocks
        count = min(span[1], superblock.block_count) - span[0]
        if is_told and sum(free for _, free in store.maps.free_parts(BlockNo(span[0]), count)) < count:
            return Owner(span, "marked as used, but nothing that can be read names it", loss="not known; run razorfsck")
    except RazorError:
        return Owner(span, "nothing that can be read names it", loss="not known; run razorfsck")
    return Owner(span, "free", loss=loss)
