"""Statistics: the figures of an open volume at one moment."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from razortools.format.admin import NO_ENTRY

if TYPE_CHECKING:
    from razortools.engine.volume import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Figures of an open volume, taken at one moment. Bytes are bytes, blocks are blocks of the image."""

    generation: int
    transaction: int
    journal_used_bytes: int
    journal_bytes: int
    journal_entries: int  # between its tail and its head
    aborts: int
    block_bytes: int
    block_count: int
    free_blocks: int  # that new data may take
    reserve_blocks: int  # free, but kept for deleting
    inode_count: int
    directory_count: int
    name_count: int
    raw_bytes: int
    data_blocks: int
    dirty_bytes: int
    dirty_records: int
    record_cache_bytes: int
    metadata_cache_bytes: int
    record_hits: int
    record_misses: int
    node_walks: int  # ways down from the root of the tree
    node_misses: int  # nodes that were read for one
    node_count: int
    dirty_nodes: int
    healed_nodes: int
    waits_for_flights: int  # commits and checkpoints under way that the volume's thread had to wait for
    waits_for_flights_s: float
    waits_in_place: int  # requests that waited for the device in the volume's thread, though they were not to
    waits_in_place_s: float
    checked_at_ns: int
    fsck_at_ns: int  # when razorfsck checked or repaired it last and noted that; 0: not known
    fsck_errors: int  # that it found then
    fsck_warnings: int
    fsck_left: int  # of its problems
    error_count: int  # that the image knows of
    read_only: bool
    failure: str


def take(volume: "Volume") -> Statistics:
    """Return the figures of this moment."""
    store, counters, fsck = volume.store, volume.counters, volume.last_check or NO_ENTRY
    free_blocks = max(store.room.free_blocks_for_data() - volume.records.reserved_blocks, 0)
    return Statistics(
        generation=store.superblock.generation,
        transaction=store.transaction.number - 1,
        journal_used_bytes=store.journal.used_bytes,
        journal_bytes=store.journal.ring_bytes,
        journal_entries=store.journal.next_sequence - store.journal.tail_sequence,
        aborts=store.abort_count,
        block_bytes=store.block_bytes,
        block_count=store.geometry.block_count,
        free_blocks=free_blocks,
        reserve_blocks=max(store.room.free_blocks() - volume.records.reserved_blocks - free_blocks, 0),
        inode_count=counters.inode_count + len(volume.inodes.limbo.files),  # somebody has them open, for all that is known
        directory_count=counters.directory_count,
        name_count=counters.name_count,
        raw_bytes=counters.raw_bytes,
        data_blocks=counters.data_blocks,
        dirty_bytes=volume.records.dirty_bytes,
        dirty_records=volume.records.dirty_count,
        record_cache_bytes=volume.records.clean.total_bytes,
        metadata_cache_bytes=store.nodes.cached_bytes,
        record_hits=store.residence.found_count,
        record_misses=store.residence.read_count,
        node_walks=store.nodes.walks,
        node_misses=store.nodes.misses,
        node_count=store.tree.node_count,
        dirty_nodes=store.tree.dirty_count,
        healed_nodes=store.nodes.healed,
        waits_for_flights=store.flights.wait_count,
        waits_for_flights_s=store.flights.wait_s,
        waits_in_place=store.residence.late_count,
        waits_in_place_s=store.residence.late_s,
        checked_at_ns=store.superblock.checked_at_ns,
        fsck_at_ns=fsck.at_ns,
        fsck_errors=fsck.errors,
        fsck_warnings=fsck.warnings,
        fsck_left=fsck.detail,
        error_count=store.superblock.error_count,
        read_only=volume.read_only,
        failure=store.failure,
    )
