"""Checkpoints: the tree and the space map as they are now, written beside what the device holds, then named by a superblock.

Prepare encodes everything in memory and cannot fail; write is I/O only; finish frees what the new superblock does not name any
more. Invariant: until the superblock is stable, nothing that the old one names has been overwritten.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from razortools.engine.store.device import Device
from razortools.engine.store.nodes import Ref
from razortools.engine.store.superblocks import backup_images, slot_image
from razortools.format.data import Run
from razortools.format.keys import KEY_BYTES
from razortools.format.node import ChildPointer, NodeHeader, encode_node
from razortools.format.superblock import Superblock
from razortools.steps import finished

if TYPE_CHECKING:
    from razortools.engine.store.store import Store

Write = tuple[int, bytes]  # offset in bytes, data


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """Everything that a checkpoint writes, and what becomes free by it."""

    superblock: Superblock
    writes: tuple[Write, ...]  # nodes and space map
    slot: Write
    backups: tuple[Write, ...]
    released: tuple[Run, ...]
    journal_position: int
    journal_sequence: int


def prepare(store: "Store", now_ns: int, changes: dict[str, Any]) -> CheckpointPlan:
    """Encode all dirty nodes and stale map pages; nothing has been written yet. The transaction must have been frozen."""
    return finished(preparing(store, now_ns, changes))


def preparing(store: "Store", now_ns: int, changes: dict[str, Any]) -> Generator[int, None, CheckpointPlan]:
    """Do what prepare() does; yield from time to time how many dirty nodes are left. Nothing else may be done meanwhile."""
    assert store.transaction.is_empty and not store.running.active
    generation = store.begun_generation = store.superblock.generation + 1
    writes: list[Write] = []
    if store.tree.root.node is not None and store.tree.root.node.dirty:
        assert store.pool.reserve(store.tree.dirty_count), "a checkpoint found no room that had been reserved"
        yield from _encode_dirty(store, store.tree.root, generation, writes)
        assert store.tree.dirty_count == 0, f"{store.tree.dirty_count} dirty nodes were not reached"
    map_writes, top, free_blocks = store.maps.encode_checkpoint(store.pool.runs())
    journal = store.journal
    superblock = replace(
        store.superblock,
        generation=generation,
        transaction=store.transaction.number - 1,
        root=store.tree.root.pointer(),
        root_level=store.tree.root_level,
        spacemap_active=1 - store.maps.active,
        spacemap_top=top,
        free_blocks=free_blocks,
        node_count=store.tree.node_count,
        journal_tail=journal.head,
        journal_sequence=journal.next_sequence,
        written_at_ns=now_ns,
        **changes,
    )
    return CheckpointPlan(
        superblock=superblock,
        writes=tuple(writes + map_writes),
        slot=slot_image(superblock),
        backups=tuple(backup_images(superblock, store.geometry)),
        released=tuple(store.maps.pending),
        journal_position=journal.head,
        journal_sequence=journal.next_sequence,
    )


def write(device: Device, plan: CheckpointPlan) -> None:
    """Write *plan*: contents, flush, superblock slot, flush, backups. May run in a thread. Raises DeviceFailed."""
    for offset, data in plan.writes:
        device.write(offset, data)
    device.flush()
    device.write(*plan.slot)
    device.flush()
    # The backups need no flush of their own: they are only read when both slots are lost.
    for offset, data in plan.backups:
        device.write(offset, data)


def mark(store: "Store", now_ns: int, changes: dict[str, Any]) -> None:
    """Write the superblock alone, with *changes*; tree and space map stay where they are. Raises DeviceFailed.

    Nothing may have changed since the last checkpoint. This is how a clean image is marked as in use: before the first byte of
    anything else is written, so that whatever a power cut leaves half written lies in an image that says so.
    """
    assert store.tree.dirty_count == 0 and store.transaction.is_empty and store.journal.used_bytes == 0
    journal = store.journal
    superblock = replace(
        store.superblock,
        generation=store.superblock.generation + 1,
        transaction=store.transaction.number - 1,
        journal_sequence=journal.next_sequence,
        written_at_ns=now_ns,
        **changes,
    )
    store.begun_generation = superblock.generation
    store.device.write(*slot_image(superblock))
    store.device.flush()
    for offset, data in backup_images(superblock, store.geometry):
        store.device.write(offset, data)
    store.superblock = superblock
    journal.release_until(journal.head, journal.next_sequence)
    journal.note_flushed(journal.next_sequence - 1)


def finish(store: "Store", plan: CheckpointPlan) -> None:
    """*plan* is stable: what it does not name is free, the journal before it is not needed any more."""
    store.superblock = plan.superblock
    store.maps.switch()
    store.maps.release_pending(list(plan.released))
    if store.tree.dirty_count == 0:
        store.pool.release()
    store.journal.release_until(plan.journal_position, plan.journal_sequence)
    store.journal.note_flushed(plan.journal_sequence - 1)


def discard(device: Device, plan: CheckpointPlan, block_bytes: int) -> None:
    """Give the host back what *plan* has freed. Right after finish(), before anybody can be given these blocks."""
    start = end = 0
    for first, count in sorted(plan.released):
        if first != end:
            if end > start:
                device.discard(start * block_bytes, (end - start) * block_bytes)
            start = end = first
        end += count
    if end > start:
        device.discard(start * block_bytes, (end - start) * block_bytes)


def _encode_dirty(store: "Store", ref: Ref, generation: int, writes: list[Write]) -> Generator[int, None, None]:
    """Give the dirty node of *ref* a new place, after those below it, and encode it; yield once an inner node is through."""
    node = ref.node
    assert node is not None and node.dirty
    for child in node.children:
        if child.node is not None and child.node.dirty:
            yield from _encode_dirty(store, child, generation, writes)
    store.release_node(ref)
    ref.address, ref.mirror = store.pool.take()
    ref.generation = generation
    pack = ChildPointer.STRUCT.pack
    values = node.values
    if node.level:
        values = [pack(child.address, child.mirror, child.generation, child.crc32c) for child in node.children]
    used = node.used - len(node.keys) * (KEY_BYTES + 2)
    header = NodeHeader(
        store.nodes.tag, ref.address, ref.mirror, generation, len(node.keys), node.level, 0, used, node.low, node.high
    )
    raw, ref.crc32c = encode_node(header, node.keys, values, store.geometry.node_bytes)
    writes += [(place * store.block_bytes, raw) for place in (ref.address, ref.mirror) if place]
    node.dirty = False
    store.tree.dirty_count -= 1
    if node.level:
        yield store.tree.dirty_count
