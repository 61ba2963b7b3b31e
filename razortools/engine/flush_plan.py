"""The plan of a flush: which dirty records, as they are now, and how they should be stored. The first two steps of flush.py.

Invariants: planning reads memory and decides, it changes nothing; packing is pure, from bytes to bytes, for any thread.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from razortools.engine import adaptive
from razortools.engine.adaptive import Packing, Unpacked
from razortools.engine.records import Place
from razortools.errors import PosixError
from razortools.format.compression import LEVELS, Algorithm, Policy
from razortools.format.data import InlineData
from razortools.format.inode import Inode
from razortools.format.node import inline_bytes_max, value_bytes_max
from razortools.units import InodeNo, RecordNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

NOTHING: Mapping[Place, bytes] = {}


@dataclass(frozen=True, slots=True)
class PlannedRecord:
    """One dirty record as it was when the plan was made. *raw* is a snapshot that nobody changes."""

    ino: InodeNo
    record_no: RecordNo
    raw: bytes
    policy: Policy
    inline_bytes_max: int  # 0: it must not become inline
    block_bytes: int
    packing: Packing | None = None  # made already


@dataclass(frozen=True, slots=True)
class FlushPlan:
    """What is to be flushed; a value, for any thread."""

    records: tuple[PlannedRecord, ...]

    @property
    def raw_bytes(self) -> int:
        """Bytes before compression."""
        return sum(len(planned.raw) for planned in self.records)


@dataclass(frozen=True, slots=True)
class Packed:
    """How each record of a plan should be stored, in its order."""

    packings: tuple[Packing, ...]


def plan_flush(
    volume: "Volume",
    inodes: Iterable[InodeNo] | None = None,
    *,
    bytes_max: int | None = None,
    records_max: int | None = None,
    patched: bool = True,
    complete: bool = False,
    packing: Mapping[Place, bytes] = NOTHING,
) -> FlushPlan:
    """Return the plan for the dirty records of *inodes* (None: all files), oldest first.

    It stops at *records_max* records, or with the one that reaches *bytes_max*. Without *patched* it leaves out what the tree has
    in patches; with *complete* all to whose record more may be written soon; and always what *packing* tells to be in another
    plan already.

    Leaves out what another flush has placed already; drops dirty data of inodes that exist no more. Raises CorruptImage if an
    inode cannot be read.
    """
    planned: list[PlannedRecord] = []
    total = 0
    gone: set[InodeNo] = set()
    some = volume.records.complete if complete else None if patched else volume.records.changed
    for ino, record_no, raw in volume.records.snapshots(inodes, some=some):
        inode = inode_or_none(volume, ino)
        if inode is None:
            gone.add(ino)
            continue
        if packing.get((ino, record_no)) is raw or is_placed(volume, ino, record_no):
            continue
        planned.append(_planned(volume, ino, inode, record_no, raw))
        total += len(raw)
        if (bytes_max is not None and total >= bytes_max) or len(planned) == records_max:
            break
    for ino in gone:
        volume.records.discard(ino)
    return FlushPlan(tuple(planned))


def pack(plan: FlushPlan) -> Packed:
    """Compress all records of a plan. Pure, for any thread."""
    made = iter(adaptive.pack_all([
        Unpacked(planned.raw, planned.policy, planned.record_no == 0, planned.inline_bytes_max, planned.block_bytes)
        for planned in plan.records if planned.packing is None
    ]))  # fmt: skip
    return Packed(tuple(next(made) if planned.packing is None else planned.packing for planned in plan.records))


def inode_or_none(volume: "Volume", ino: InodeNo) -> Inode | None:
    """Return an inode, or None if it exists no more."""
    try:
        return volume.inodes.peek(ino)
    except PosixError:
        return None


def is_current(volume: "Volume", planned: PlannedRecord) -> bool:
    """Tell whether the record is dirty with the very bytes of the plan: a snapshot is replaced, never changed."""
    dirty = volume.records.find_dirty(planned.ino, planned.record_no)
    return dirty is not None and dirty.data is planned.raw


def is_placed(volume: "Volume", ino: InodeNo, record_no: RecordNo) -> bool:
    """Tell whether a flush that is under way has placed a dirty record as it is now."""
    dirty = volume.records.find_dirty(ino, record_no)
    return dirty is not None and bool(dirty.data) and not dirty.reserved_blocks


def _planned(volume: "Volume", ino: InodeNo, inode: Inode, record_no: RecordNo, raw: bytes) -> PlannedRecord:
    may_be_inline = record_no == 0 and inode.size <= inode.record_bytes
    packing = volume.records.packing_of(ino, record_no, raw)
    if packing is not None and packing.is_inline and not may_be_inline:
        packing = None
    limit = inline_limit(volume) if may_be_inline else 0
    return PlannedRecord(ino, record_no, raw, policy_of(inode), limit, volume.block_bytes, packing)


def policy_of(inode: Inode) -> Policy:
    """Return the file's policy; what a newer version may have written there counts as AUTO: data must not get stuck for it."""
    try:
        algorithm = Algorithm(inode.compression)
    except ValueError:
        return Policy()
    return Policy(algorithm, inode.compression_level if inode.compression_level in LEVELS.get(algorithm, ()) else 0)


def inline_limit(volume: "Volume") -> int:
    """Return how many bytes of a small file's contents may stand in the tree."""
    node_bytes = volume.store.geometry.node_bytes
    return min(inline_bytes_max(node_bytes), value_bytes_max(node_bytes) - InlineData.FIXED_BYTES)
