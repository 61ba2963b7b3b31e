"""Volumes in memory for the tests of the data path, and what must always be true of them."""

import stat
from itertools import count

from razortools.engine.clean import RECORD_OVERHEAD_BYTES, UNREAD_SHARE
from razortools.engine.create import create, plan_create
from razortools.engine.limits import Limits
from razortools.engine.loose import PAGE_BYTES
from razortools.engine.store.device import Device
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume, open_volume
from razortools.format.compression import Policy
from razortools.format.data import DataRecord
from razortools.format.inode import ROOT_INODE
from razortools.format.journal import Operation
from razortools.format.keys import Kind, inode_key, kind_of, kind_range, object_of
from razortools.units import KIB, MIB, InodeNo, divide_up

USUAL = Limits()
AUTO = Policy()
SMALL = Limits(dirty_bytes=64 * KIB, record_cache_bytes=48 * KIB)
LAST_INODE = InodeNo((1 << 63) - 1)


def formatted(device: Device) -> Device:
    """Put an empty filesystem on *device*, the same one every time."""
    create(device, plan_create(device.size_bytes, uuid=bytes(range(16)), hash_seed=bytes(16), made_at_ns=1))
    return device


def new_volume(image_bytes: int = 32 * MIB, limits: Limits = USUAL) -> Volume:
    """Return an open, empty volume in memory, whose clock counts 1, 2, 3 ..."""
    return open_again(formatted(MemoryDevice(image_bytes)), limits)


def open_again(device: Device, limits: Limits = USUAL) -> Volume:
    """Open the filesystem on *device*; MemoryDevice.close() keeps its contents."""
    ticks = count(1)
    return open_volume(device, limits=limits, clock=lambda: next(ticks))


def new_file(volume: Volume, record_log2: int = 17, policy: Policy = AUTO) -> InodeNo:
    """Make an empty regular file without a name."""
    with volume.operation(Operation.CREATE, ROOT_INODE) as now_ns:
        ino, inode = volume.inodes.new(stat.S_IFREG | 0o644, 0, 0, 0, now_ns, None)
        inode.record_log2 = record_log2
        inode.compression = policy.algorithm
        inode.compression_level = policy.level
        volume.inodes.put(ino, inode)
    return ino


def data_records(volume: Volume, ino: InodeNo) -> dict[int, DataRecord]:
    """Return the records that the tree has for a file."""
    return {
        int.from_bytes(key[10:], "big"): DataRecord.decode(value)
        for key, value in volume.store.items(*kind_range(ino, Kind.DATA_RECORD))
    }


def is_inline(volume: Volume, ino: InodeNo) -> bool:
    """Tell whether the tree holds the file's contents itself."""
    return any(True for _ in volume.store.items(*kind_range(ino, Kind.INLINE_DATA)))


def assert_memory_adds_up(volume: Volume) -> None:
    """The figures of the dirty and of the clean records are what one gets by counting."""
    records = volume.records
    dirty = [record for ino in records.dirty_inodes() for record in records.dirty_of(ino).values()]
    loose_places = records.loose.oldest(1 << 60)
    loose = [known for place in loose_places if (known := records.loose.find(*place)) is not None]
    assert len(records.loose) == len(loose)
    assert records.loose.raw_bytes == sum(known.raw_bytes for known in loose)
    page_bytes = sum(len(page) for known in loose for page in known.pages.values())
    assert records.dirty_bytes == sum(len(record.data) for record in dirty) + page_bytes
    assert records.dirty_count == len(dirty) + len(loose)
    loose_blocks = sum(known.reserved_blocks for known in loose)
    assert records.reserved_blocks == sum(record.reserved_blocks for record in dirty) + loose_blocks
    for record in dirty:
        assert record.reserved_blocks in (0, divide_up(len(record.data), volume.block_bytes))
    for (ino, number), known in zip(loose_places, loose, strict=True):
        under_way = sum(placed.runs[0][1] for flush in records.in_flight for placed in flush.pages if placed.known is known)
        assert known.reserved_blocks in (claim := records.loose._claim(known.raw_bytes, len(known.pages)), claim - under_way)
        item = records.find_item(ino, number)
        assert item is not None and item.raw_bytes == known.raw_bytes >= max(known.pages) + PAGE_BYTES
        assert records.find_dirty(ino, number) is None and (ino, number) not in records.patched
    assert records.clean.total_bytes <= volume.limits.record_cache_bytes
    complete = {place: record for place, record in records.complete.items() if records.find_dirty(*place) is record}
    assert complete == records.complete and all(record.in_order for record in complete.values())
    assert records.complete_bytes == sum(len(record.data) for record in complete.values())
    for (ino, _), record in complete.items():
        assert len(record.data) == volume.inodes.peek(ino).record_bytes
    clean = records.clean
    unread = [len(clean._of[place]) + RECORD_OVERHEAD_BYTES for place in clean._unread]
    assert sum(unread) == clean._unread_bytes <= volume.limits.record_cache_bytes // UNREAD_SHARE


def assert_tree_adds_up(volume: Volume) -> None:
    """Blocks of each inode and the volume's counters are what one gets by counting the records; no small file is stored twice."""
    raw_bytes = data_blocks = 0
    inline: set[int] = set()
    stored: dict[int, int] = {}
    sizes: dict[int, tuple[int, int, int]] = {}
    for key, value in volume.store.items(inode_key(ROOT_INODE), inode_key(LAST_INODE)):
        ino = InodeNo(object_of(key))
        if kind_of(key) == Kind.INODE:
            inode = volume.inodes.get(ino)
            sizes[ino] = inode.size, inode.stored_blocks, inode.record_bytes
        elif kind_of(key) == Kind.INLINE_DATA:
            inline.add(ino)
            assert sizes[ino][0] <= sizes[ino][2]
        elif kind_of(key) == Kind.DATA_RECORD:
            record = DataRecord.decode(value)
            stored[ino] = stored.get(ino, 0) + record.block_count(volume.block_bytes)
            raw_bytes += record.raw_bytes
            assert int.from_bytes(key[10:], "big") * sizes[ino][2] < sizes[ino][0], f"inode {ino} has a record beyond its size"
    data_blocks = sum(stored.values())
    assert {ino: blocks for ino, (_, blocks, _) in sizes.items() if blocks} == {ino: n for ino, n in stored.items() if n}
    assert not inline & stored.keys()
    assert (volume.counters.raw_bytes, volume.counters.data_blocks) == (raw_bytes, data_blocks)


def assert_space_adds_up(volume: Volume) -> None:
    """Right after a checkpoint every block is free, fixed, pending, in the pool, a node's or a record's."""
    store = volume.store
    fixed = sum(blocks for _, blocks in store.geometry.fixed_extents())
    nodes = store.tree.node_count * store.geometry.node_blocks * store.superblock.metadata_copies
    known = fixed + nodes + volume.counters.data_blocks + store.pool.block_count + store.maps.pending_blocks
    assert store.maps.unclaimed == {}
    assert known + store.maps.free_blocks == store.geometry.block_count
