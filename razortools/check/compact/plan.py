"""The plan of one step of a compaction: which records move where, which strings go, which leaves are packed anew.

Everything goes into blocks that are free now; what it frees can be used by the next step. Nothing is written here.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from razortools.check.compact.layout import Measured
from razortools.check.compact.loose import Item, Section, fill_limit, find_sections, first_part, grouped
from razortools.check.compact.pieces import Chunk
from razortools.check.compact.strings import Strings, find_strings
from razortools.check.repair.bulk import NodeCounter
from razortools.check.tree import kinds_mask
from razortools.engine.store.spacemaps import SpaceMaps
from razortools.format.data import DataRecord, Run
from razortools.format.keys import COUNTERS_KEY, HIGHEST_KEY, KIND_AT, Kind, Table, name_key, object_of
from razortools.format.name import Name
from razortools.format.node import ITEM_OVERHEAD_BYTES, ChildPointer
from razortools.format.volume import Counters
from razortools.format.xattr import Xattr
from razortools.units import GIB, BlockNo, NameId

MOVED_BYTES_MAX = 4 * GIB  # in one step: what is to be copied is remembered block by block
LEAVES_IN_MEMORY = 256
_ID = slice(8, 16)  # of the name in an entry and in a back link
_NAMING = frozenset(map(int, (Kind.DIRECTORY_ENTRY, Kind.BACK_LINK)))
_NAMED = kinds_mask(Kind.DIRECTORY_ENTRY, Kind.BACK_LINK)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one step may do: parts of what there is room for."""

    moved_blocks: int
    written_leaves: int
    drops_strings: bool


@dataclass(slots=True)
class Plan:
    """What one step does, and what it is good for."""

    measured: Measured
    maps: SpaceMaps  # with the new places of the moved records taken
    moves: dict[bytes, bytes] = field(default_factory=dict)  # key -> the value that names the new place
    copies: list[tuple[list[Run], BlockNo]] = field(default_factory=list)  # old runs, first block of the new one
    moved_bytes: int = 0
    fragments_joined: int = 0
    fragments_left: int = 0  # there was no room for these
    strings: Strings = field(default_factory=Strings)
    touched: set[int] = field(default_factory=set)  # leaves in which an item changes
    sections: list[Section] = field(default_factory=list)
    nodes_after: int = 0

    @property
    def nodes_saved(self) -> int:
        """Nodes less than before."""
        return len(self.measured.leaf_pointers) + len(self.measured.inner) - self.nodes_after

    @property
    def saved_bytes(self) -> int:
        """Bytes of the image that the saved nodes take, both copies."""
        superblock = self.measured.image.superblock
        return self.nodes_saved * superblock.node_bytes * superblock.metadata_copies

    @property
    def is_worth_it(self) -> bool:
        """Whether it is good for anything."""
        return bool(self.fragments_joined or self.strings.dropped_count or self.nodes_saved > 0)

    def items(self, leaf: int) -> Iterator[Item]:
        """Yield the items of a leaf as they will be."""
        keys, values = self.measured.tree.items_of(leaf)
        for key, value in zip(keys, values, strict=True):
            changed = self._changed(key, value) if leaf in self.touched else value
            if changed is not None:
                yield key, changed

    def high(self, leaf: int) -> bytes:
        """Return the first key behind a leaf."""
        lows = self.measured.tree.leaf_lows
        return lows[leaf + 1] if leaf + 1 < len(lows) else HIGHEST_KEY

    def _changed(self, key: bytes, value: bytes) -> bytes | None:
        kind, strings = key[KIND_AT], self.strings
        if key in self.moves:
            return self.moves[key]
        if key[0] == Table.NAMES:
            number = object_of(key)
            if strings.drops(number):
                return None
            name = Name.decode(value)
            return replace(name, reference_count=strings.counts.get(number, name.reference_count)).encode()
        if kind in _NAMING:
            number = int.from_bytes(value[_ID], "little")
            stays = strings.renumbered.get(number, number)
            return value[: _ID.start] + stays.to_bytes(8, "little") + value[_ID.stop :]
        if key == COUNTERS_KEY:
            counters = Counters.decode(value)
            return replace(counters, name_count=counters.name_count - strings.dropped_count).encode()
        return value


def make_plan(measured: Measured, limits: Limits | None = None) -> Plan:
    """Plan one step; without *limits* all that there is room for, with half of the room left to the nodes."""
    image = measured.image
    maps = SpaceMaps(image.device, image.geometry)
    maps.take_over(measured.claims.groups)
    maps.active = image.superblock.spacemap_active & 1
    limits = limits or Limits(maps.free_blocks // 2, len(measured.leaf_pointers), drops_strings=True)
    plan = Plan(measured, maps)
    _Moving(plan, min(limits.moved_blocks, MOVED_BYTES_MAX // image.block_bytes)).run()
    if limits.drops_strings:
        plan.strings = find_strings(measured.tree)
    plan.touched = _touched(plan)
    _pack(plan, limits.written_leaves)
    counter = NodeCounter(image.geometry)
    plant(plan, counter)
    plan.nodes_after = counter.node_count
    return plan


def plant(plan: Plan, writer: NodeCounter) -> tuple[ChildPointer, int]:
    """Hand the leaves to *writer* in order, those of the sections packed; return what it makes of them."""
    measured = plan.measured
    whole = measured.capacity
    at = 0
    sections = iter(plan.sections)
    section = next(sections, None)
    while at < len(measured.leaf_pointers):
        low = measured.tree.leaf_lows[at]
        if section is not None and section.first == at:
            items = (item for leaf in range(section.first, section.behind) for item in plan.items(leaf))
            writer.span_grouped(low, plan.high(section.behind - 1), grouped(items, fill_limit(whole)))
            at, section = section.behind, next(sections, None)
            continue
        if at in plan.touched:
            writer.span_grouped(low, plan.high(at), grouped(plan.items(at), whole))
        else:
            writer.keep(low, measured.leaf_pointers[at])
        at += 1
    return writer.finish()


def _touched(plan: Plan) -> set[int]:
    """Return the leaves in which an item changes or goes."""
    tree, strings = plan.measured.tree, plan.strings
    keys = [*plan.moves, *(name_key(NameId(number)) for number in (*strings.renumbered, *strings.counts, *strings.unused))]
    if strings.dropped_count:
        keys.append(COUNTERS_KEY)
    found = {bisect_right(tree.leaf_lows, key) - 1 for key in keys}
    if strings.renumbered:
        for leaf, (keys_there, values) in tree.leaves(_NAMED):
            named = (value for key, value in zip(keys_there, values, strict=True) if key[KIND_AT] in _NAMING)
            if any(int.from_bytes(value[_ID], "little") in strings.renumbered for value in named):
                found.add(leaf)
    return found


def _pack(plan: Plan, written_leaves: int) -> None:
    """Find the sections, and leave out what comes behind the first *written_leaves* leaves that are written for them."""

    @lru_cache(LEAVES_IN_MEMORY)
    def sizes(leaf: int) -> list[int]:
        return [len(value) + ITEM_OVERHEAD_BYTES for _, value in plan.items(leaf)]

    used = list(plan.measured.leaf_used)
    for leaf in plan.touched:
        used[leaf] = sum(sizes(leaf))
    for section in find_sections(used, sizes, plan.measured.capacity):
        part = first_part(section, sizes, plan.measured.capacity, written_leaves)
        if part is not None:
            plan.sections.append(part)
            written_leaves -= len(part.packed)


class _Moving:
    """Finds new places for the records of scattered chunks."""

    def __init__(self, plan: Plan, blocks_max: int) -> None:
        """Plan no more than *blocks_max*."""
        self._plan = plan
        self._room = blocks_max
        self._bb = plan.measured.image.block_bytes
        self._has_moved = False  # the record before
        self._near = 0

    def run(self) -> None:
        """Go through everything that is stored in blocks."""
        for chunk in self._plan.measured.chunks():
            self._has_moved &= chunk.joins_before
            if chunk.is_scattered:
                wanted = self._plan.fragments_joined + max(self._joined(chunk, 0, len(chunk.records)), 0)
                self._place(chunk, 0, len(chunk.records))
                self._plan.fragments_left += max(wanted - self._plan.fragments_joined, 0)
            else:
                self._has_moved = False

    def _place(self, chunk: Chunk, first: int, behind: int) -> None:
        """Give the records *first* to before *behind* a place of their own in one run, or in halves, if that joins anything."""
        records = chunk.records[first:behind]
        joined = self._joined(chunk, first, behind)
        if joined <= 0:
            self._has_moved = False
            return
        blocks = sum(record.block_count(self._bb) for _, _, record in records)
        start = self._plan.maps.allocate_run(blocks, self._near) if blocks <= self._room else None
        if start is not None:
            self._move(records, start)
            self._room -= blocks
            self._near = start + blocks
            self._plan.fragments_joined += joined
            self._has_moved = True
        elif len(records) > 1:
            middle = (first + behind) // 2
            self._place(chunk, first, middle)
            self._place(chunk, middle, behind)
        else:
            self._has_moved = False

    def _joined(self, chunk: Chunk, first: int, behind: int) -> int:
        """Return how many fragments fewer there are when these records lie in one run of their own."""
        # What lay side by side with a neighbour does so no more, unless the neighbour has moved too.
        return len(chunk.runs(first, behind)) - 1 - (chunk.joins(first) and not self._has_moved) - chunk.joins(behind)

    def _move(self, records: list[tuple[bytes, bytes, DataRecord]], start: BlockNo) -> None:
        for key, value, record in records:
            blocks = record.block_count(self._bb)
            moved = record.moved_to(start)
            whole = moved if key[KIND_AT] == Kind.DATA_RECORD else Xattr.outside(Xattr.decode(value).name, moved)
            self._plan.moves[key] = whole.encode()
            self._plan.copies.append((record.runs(self._bb), start))
            self._plan.moved_bytes += blocks * self._bb
            start = BlockNo(start + blocks)
