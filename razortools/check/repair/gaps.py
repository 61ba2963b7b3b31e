"""Gaps: ranges of keys whose leaves are lost, and what must stand there so that nobody reads something wrong.

An absent record is a hole, which reads as zeros. So where records may have been lost with a leaf, records that are cut out take
their place: reading them is an error. The file's inode, if it is there, tells how long the file is and how many blocks it took;
when those that are left account for all of them, nothing was lost.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from razortools.check.repair.bulk import Item
from razortools.check.repair.coverage import Tile
from razortools.errors import CorruptImage
from razortools.format.data import CUT_OUT, RECORD_BYTES_MIN, DataRecord
from razortools.format.inode import Inode
from razortools.format.keys import Kind, Table, kind_of, object_of, offset_of, record_key
from razortools.units import InodeNo, divide_up

CUT_OUTS_MAX = 1 << 18  # in one file: 32 GiB in records of the usual size
_ENDS = (1 << 64) - 1


@dataclass(slots=True)
class Owner:
    """A file some of whose items were seen."""

    number: int
    value: bytes | None = None  # of its inode
    blocks: int = 0  # that its records and attributes take
    has_records: bool = False
    last_record: int = -1
    last_raw_bytes: int = 0

    @property
    def inode(self) -> Inode | None:
        """Its inode, if it is there and makes sense."""
        try:
            inode = Inode.decode(self.value or b"")
        except CorruptImage:
            return None
        return inode if inode.record_log2 < 32 else None


@dataclass(slots=True)
class Gap:
    """A range of keys of which nothing current is left, and the files that reach into it from either side."""

    tile: Tile
    before: Owner | None = None
    after: Owner | None = None
    items: list[Item] = field(default_factory=list)  # what is to stand there, in order
    cut_short: dict[int, int] = field(default_factory=dict)  # inode: records that would have to be cut out; too many

    @property
    def low(self) -> bytes:
        """First key."""
        return self.tile.low

    @property
    def high(self) -> bytes:
        """First key behind."""
        return self.tile.high


def cut_outs(gap: Gap, birth: int, inline: Container[int]) -> Iterator[Item]:
    """Yield the cut out records that keep the files at both ends of *gap* from reading zeros where they had data.

    Of the files in *inline* all contents are there.
    """
    owners = {owner.number: owner for owner in (gap.before, gap.after) if owner is not None}
    for owner in owners.values():
        if owner.number not in inline:
            yield from _of_file(gap, owner, birth)


def _of_file(gap: Gap, owner: Owner, birth: int) -> Iterator[Item]:
    first, behind = _lost_records(gap, owner.number)
    inode = owner.inode
    if inode is not None:
        if not (inode.is_regular or inode.is_symlink) or _is_complete(owner, inode):
            return
        behind = min(behind, divide_up(inode.size, inode.record_bytes))
    elif behind == _ENDS:
        return  # nobody knows where it ended
    if behind - first > CUT_OUTS_MAX:
        gap.cut_short[owner.number] = behind - first
        behind = first + CUT_OUTS_MAX
    for number in range(first, behind):
        raw_bytes = RECORD_BYTES_MIN if inode is None else min(inode.record_bytes, inode.size - number * inode.record_bytes)
        yield record_key(InodeNo(owner.number), number), cut_out(raw_bytes, birth)


def cut_out(raw_bytes: int, birth: int) -> bytes:
    """Return the item of a record that owns nothing and cannot be read."""
    return DataRecord(0, 0, raw_bytes, 0, 0, CUT_OUT, birth).encode()


def _is_complete(owner: Owner, inode: Inode) -> bool:
    """Whether no record can be missing. Data in the tree take no blocks, so a file that takes none may have lost them."""
    return not inode.size or (owner.has_records and owner.blocks == inode.stored_blocks)


def _lost_records(gap: Gap, number: int) -> tuple[int, int]:
    """Return (first, first behind) of the numbers of the records of an inode that may have stood in *gap*."""
    return _record_at(gap.low, number), _record_at(gap.high, number)


def _record_at(key: bytes, number: int) -> int:
    """Return how many records of an inode have keys below *key*."""
    place = (key[0], object_of(key), kind_of(key))
    wanted = (int(Table.FILES), number, int(Kind.DATA_RECORD))
    if place == wanted:
        return offset_of(key)
    return 0 if place < wanted else _ENDS
