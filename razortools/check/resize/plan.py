"""The plan of a resizing: which records and nodes lie where they cannot stay, and where they go. Nothing is written here.

Everything goes to blocks that neither the old view uses nor the new one keeps for its fixed parts, so both are whole until the
superblock tells which of them is the truth.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from razortools.check.compact.layout import Measured
from razortools.check.compact.loose import grouped
from razortools.check.repair.bulk import NodeCounter
from razortools.check.resize.geometry import resized_geometry
from razortools.check.tree import kinds_mask
from razortools.engine.store.nodepool import NodePool
from razortools.engine.store.room import operation_nodes_max
from razortools.engine.store.spacemaps import SpaceMaps
from razortools.errors import OutOfSpace
from razortools.format.data import CUT_OUT, DataRecord, Run
from razortools.format.geometry import Geometry, backup_places, geometry_of
from razortools.format.items import owned_record
from razortools.format.keys import HIGHEST_KEY, KIND_AT, Kind, Table
from razortools.format.node import ChildPointer
from razortools.format.superblock import Superblock
from razortools.format.xattr import Xattr
from razortools.units import BlockNo

Item = tuple[bytes, bytes]

_OWNING = kinds_mask(Kind.XATTR, Kind.DATA_RECORD)


@dataclass(slots=True)
class Plan:
    """What a resizing does."""

    measured: Measured
    superblock: Superblock  # the old one with the new geometry
    geometry: Geometry
    maps: SpaceMaps  # with the new places of the moved records taken
    moves: dict[bytes, bytes] = field(default_factory=dict)  # key -> the value that names the new place
    copies: list[tuple[list[Run], list[Run]]] = field(default_factory=list)  # old runs, new runs
    moved_blocks: int = 0
    touched: set[int] = field(default_factory=set)  # leaves that cannot stay, or in which an item changes
    nodes_written: int = 0

    @property
    def moved_bytes(self) -> int:
        """Bytes of contents that move."""
        return self.moved_blocks * self.geometry.block_bytes

    def items(self, leaf: int) -> Iterator[Item]:
        """Yield the items of a leaf as they will be."""
        keys, values = self.measured.tree.items_of(leaf)
        for key, value in zip(keys, values, strict=True):
            yield key, self.moves.get(key, value)


def make_plan(measured: Measured, block_count: int, vacated: Collection[BlockNo] = ()) -> Plan:
    """Plan an image of *block_count* blocks in which nothing lies in the *vacated* ones.

    Raises OutOfSpace if what it holds does not fit, with room to work in.
    """
    image = measured.image
    superblock, maps = resized_geometry(image, block_count, measured.claims.groups)
    for block in vacated:
        if not maps.is_used(block):
            maps.mark_used(block, 1)
    plan = Plan(measured, superblock, geometry_of(superblock), maps)
    forbidden = _Forbidden(plan.geometry, vacated)
    _move_records(plan, forbidden)
    _find_touched(plan, forbidden)
    counter = NodeCounter(plan.geometry)
    _, level = plant(plan, counter)
    plan.nodes_written = counter.written
    pool = NodePool(maps, plan.geometry, superblock.metadata_copies)
    node_blocks = plan.geometry.node_blocks * superblock.metadata_copies
    kept = 2 * operation_nodes_max(counter.node_count, level + 1)  # by the engine, so that deleting always works
    free_after = maps.free_blocks - counter.written * node_blocks + _given_up(plan)
    if not pool.reserve(counter.written) or free_after < kept * node_blocks:
        raise OutOfSpace("there is no room for the nodes of its tree and for changing it")
    pool.release()
    return plan


def new_places(measured: Measured, block_count: int) -> tuple[BlockNo, ...]:
    """Return the blocks in which an image of *block_count* blocks has a backup, and this one has not."""
    geometry = measured.image.geometry
    wanted = backup_places(block_count, geometry.journal_start + geometry.journal_blocks)
    kept = set(geometry.backups)
    return tuple(place for place in wanted if place < geometry.block_count and place not in kept)


def are_free(measured: Measured, places: Collection[BlockNo]) -> bool:
    """Return whether nothing lies in any of *places*.

    So it has to be before they become places of backups: one must be there as soon as its place counts, and what lies there
    until then as well.
    """
    return not any(measured.claims.holds(place) for place in places)


def plant(plan: Plan, writer: NodeCounter) -> tuple[ChildPointer, int]:
    """Hand the leaves to *writer* in order; return what it makes of them. Inner nodes are always written anew."""
    lows, whole = plan.measured.tree.leaf_lows, plan.measured.capacity
    for leaf, pointer in enumerate(plan.measured.leaf_pointers):
        if leaf in plan.touched:
            high = lows[leaf + 1] if leaf + 1 < len(lows) else HIGHEST_KEY
            # A longer list of runs may have made an item longer, and one leaf two.
            writer.span_grouped(lows[leaf], high, grouped(plan.items(leaf), whole))
        else:
            writer.keep(lows[leaf], pointer)
    return writer.finish()


def _move_records(plan: Plan, forbidden: "_Forbidden") -> None:
    """Find places for the records that cannot stay. Raises OutOfSpace."""
    block_bytes = plan.geometry.block_bytes
    for _, (keys, values) in plan.measured.tree.leaves(_OWNING):
        for key, value in zip(keys, values, strict=True):
            record = owned_record(key, value) if key[0] == Table.FILES else None
            if record is None or (record.flags & CUT_OUT and not record.stored_bytes):
                continue
            before = record.runs(block_bytes)
            if any(forbidden.holds(first, count) for first, count in before):
                after = plan.maps.allocate(record.block_count(block_bytes))
                plan.moves[key] = _moved(key, value, record.placed(after)).encode()
                plan.copies.append((before, after))
                plan.moved_blocks += record.block_count(block_bytes)


def _moved(key: bytes, value: bytes, record: DataRecord) -> DataRecord | Xattr:
    return record if key[KIND_AT] == Kind.DATA_RECORD else Xattr.outside(Xattr.decode(value).name, record)


def _find_touched(plan: Plan, forbidden: "_Forbidden") -> None:
    measured = plan.measured
    plan.touched = {bisect_right(measured.tree.leaf_lows, key) - 1 for key in plan.moves}
    for leaf, pointer in enumerate(measured.leaf_pointers):
        if any(forbidden.holds(first, count) for first, count in measured.node_runs(pointer)):
            plan.touched.add(leaf)


def _given_up(plan: Plan) -> int:
    """Return how many blocks below the new end the old view alone uses: nodes that are written anew, records that move."""
    end, measured = plan.geometry.block_count, plan.measured
    pointers = [*measured.inner, *(measured.leaf_pointers[leaf] for leaf in plan.touched)]
    runs = [run for pointer in pointers for run in measured.node_runs(pointer)]
    runs += [run for before, _ in plan.copies for run in before]
    return sum(max(min(first + count, end) - first, 0) for first, count in runs) - len(plan.geometry.backups)


class _Forbidden:
    """Where nothing but fixed parts can lie: behind the new end, where its backups are, and in what is to be vacated."""

    def __init__(self, geometry: Geometry, vacated: Collection[BlockNo]) -> None:
        self._end = geometry.block_count
        self._places = sorted({*geometry.backups, *vacated})

    def holds(self, first: int, count: int) -> bool:
        """Return whether any of the blocks is such a place."""
        place = bisect_left(self._places, first)
        return first + count > self._end or (place < len(self._places) and self._places[place] < first + count)
