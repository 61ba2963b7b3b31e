"""Recompression: what has rested is stored anew where trying harder saves blocks.

AUTO compresses with a fast level, because somebody may be waiting. Once a file has not changed for a while, and nobody asks for
anything, its records are compressed again (RESTED); those that take fewer blocks by that become dirty, as they are, and the next
flush stores what was made of them.

    due         which records                                  the volume's thread
    harder      reads, compresses, compares                    any thread
    take        makes those dirty that save something          the volume's thread

Whoever administers an image may have records stored anew at once, as he says (store_anew).

Invariants: no byte, size or time of a file changes; what was written meanwhile, or finds no room, stays as it is. What is known
of files that were stored lately is bounded, and lives as long as the volume is open: what is forgotten stays as it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from razortools.engine import adaptive
from razortools.engine.adaptive import RESTED, Packing, Unpacked
from razortools.engine.flush import flush_all, make_room
from razortools.engine.flush_plan import inline_limit, inode_or_none, policy_of
from razortools.engine.stored import unpack_item
from razortools.errors import CorruptImage, DeviceFailed, OutOfSpace
from razortools.format.compression import Algorithm, Policy
from razortools.format.data import CHECKED_TWICE, RECORD_BYTES_MAX, DataRecord
from razortools.format.keys import Kind, kind_range, offset_of, record_key
from razortools.units import InodeNo, RecordNo, divide_up

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

ITEMS_MAX = 512  # that one look takes in: requests wait for it


@dataclass(frozen=True, slots=True)
class Resting:
    """A stored record that may be worth another try."""

    ino: InodeNo
    record_no: RecordNo
    item: DataRecord
    inline_bytes_max: int  # 0: it must not become inline


@dataclass(frozen=True, slots=True)
class Gain:
    """One that is worth it: *raw* takes so many blocks less as *packing*."""

    resting: Resting
    raw: bytes
    packing: Packing
    saved_blocks: int


Failure = tuple[Resting, CorruptImage | DeviceFailed]


def due(volume: "Volume", since_ns: int, raw_bytes_max: int) -> list[Resting]:
    """Return the next records of files that have rested since *since_ns*: up to the one that reaches *raw_bytes_max*.

    What it has looked at does not come again. Raises NotResident, CorruptImage, DeviceFailed; then nothing has changed.
    """
    found: list[Resting] = []
    done = looked = 0
    for ino, generation, first in volume.lately.rested(since_ns):
        for resting in _records(volume, ino, first):
            if raw_bytes_max <= 0 or looked >= ITEMS_MAX:
                volume.lately.go_on(done, resting.record_no)
                return found
            looked += 1
            if resting.item.birth >= generation and _may_shrink(volume, resting):
                found.append(resting)
                raw_bytes_max -= resting.item.raw_bytes
        done += 1
    volume.lately.go_on(done, RecordNo(0))
    return found


def _records(volume: "Volume", ino: InodeNo, first: RecordNo) -> Iterator[Resting]:
    """Yield the stored records of a file from number *first* on; none if they are not stored with a fast level."""
    inode = inode_or_none(volume, ino)
    if inode is None or policy_of(inode).algorithm is not Algorithm.AUTO:
        return
    limit = inline_limit(volume) if inode.size <= inode.record_bytes else 0
    for key, value in volume.store.items(record_key(ino, first), kind_range(ino, Kind.DATA_RECORD)[1]):
        yield Resting(ino, RecordNo(offset_of(key)), DataRecord.decode(value), limit)


def _may_shrink(volume: "Volume", resting: Resting) -> bool:
    """Whether a record is stored as it is, and could take fewer blocks."""
    item = resting.item
    if item.algorithm != Algorithm.ZSTD or item.flags & ~CHECKED_TWICE or not _is_stored(volume, resting):
        return False
    return item.stored_bytes > volume.block_bytes or resting.inline_bytes_max > 0


def _is_stored(volume: "Volume", resting: Resting) -> bool:
    """Whether a record is in the tree as it is in memory."""
    place = resting.ino, resting.record_no
    records = volume.records
    return (
        records.find_dirty(*place) is None
        and records.loose.find(*place) is None
        and place not in records.patched
        and place not in records.unreadable
    )


def harder(volume: "Volume", several: Sequence[Resting]) -> tuple[list[Gain], list[Failure]]:
    """Return those that take fewer blocks when they are compressed harder, and those that could not be read. For any thread.

    What could not be read may have been replaced meanwhile, and something else lie in its blocks.
    """
    gains: list[Gain] = []
    failures: list[Failure] = []
    for resting in several:
        try:
            raw = unpack_item(volume.store, resting.item, RECORD_BYTES_MAX)
        except (CorruptImage, DeviceFailed) as failed:
            failures.append((resting, failed))
            continue
        is_first, limit = resting.record_no == 0, resting.inline_bytes_max
        packing = adaptive.pack(raw, RESTED, is_first=is_first, inline_bytes_max=limit, block_bytes=volume.block_bytes)
        blocks = 0 if packing.is_inline else divide_up(len(packing.stored), volume.block_bytes)
        saved = divide_up(resting.item.stored_bytes, volume.block_bytes) - blocks
        if saved > 0:
            gains.append(Gain(resting, raw, packing, saved))
    return gains, failures


def take(volume: "Volume", gains: Sequence[Gain]) -> list[Gain]:
    """Make the records dirty that are still as they were, as far as there is room; return these. May be an attempt."""
    current = [gain for gain in gains if is_current(volume, gain.resting)]
    taken: list[Gain] = []
    for gain in current:
        if volume.records.dirty_bytes + len(gain.raw) > volume.limits.dirty_bytes // 2:
            break
        if volume.read_only or not volume.has_room_now(divide_up(len(gain.raw), volume.block_bytes)):
            break
        volume.records.store_anew(gain.resting.ino, gain.resting.record_no, gain.raw, gain.packing)
        taken.append(gain)
    return taken


def store_anew(volume: "Volume", ino: InodeNo, record_nos: Sequence[RecordNo], policy: Policy) -> int:
    """Store records of a file anew, compressed as *policy* says and not as its inode does; return how many bytes they hold.

    Waits for the device. Whatever is committed meanwhile, also to make room, holds the same bytes and times as before. Raises
    OutOfSpace, CorruptImage, DeviceFailed; then some of the records may have been stored anew.
    """
    flush_all(volume, [ino])  # what becomes dirty is what the tree has
    inode = volume.inodes.get(ino)
    limit = inline_limit(volume) if inode.size <= inode.record_bytes else 0
    raws = [bytes(volume.records.contents(ino, inode, record_no)) for record_no in record_nos]
    unpacked = [Unpacked(raw, policy, no == 0, limit, volume.block_bytes) for no, raw in zip(record_nos, raws, strict=True)]
    for record_no, raw, packing in zip(record_nos, raws, adaptive.pack_all(unpacked), strict=True):
        make_room(volume, len(raw))
        _find_room(volume, ino, divide_up(len(raw), volume.block_bytes))
        volume.records.store_anew(ino, record_no, raw, packing)
    flush_all(volume, [ino])
    return sum(map(len, raws))


def _find_room(volume: "Volume", ino: InodeNo, blocks: int) -> None:
    """Return when so many blocks can become dirty, by a checkpoint if need be. Raises OutOfSpace."""
    if volume.has_room_now(blocks):
        return
    volume.checkpoint()  # what was replaced is free then
    if not volume.has_room_now(blocks):
        raise OutOfSpace(f"inode {ino}: no room to store it anew; what it holds is as it was. Delete something first")


def is_current(volume: "Volume", resting: Resting) -> bool:
    """Whether a record is still as it was, in the tree and in memory."""
    return _is_stored(volume, resting) and volume.records.find_item(resting.ino, resting.record_no) == resting.item
