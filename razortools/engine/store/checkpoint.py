"""Checkpoints: the tree and the space map as they are now, written beside what the device holds, then named by a superblock.

Preparing says what the checkpoint holds and where, then encodes it in memory, and cannot fail; write is I/O only; finish frees
what the new superblock does not name any more. Invariants: a checkpoint holds what there was when it began, whatever changes
while it is prepared or written; until the superblock is stable, nothing that the old one names has been overwritten.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from razortools.engine.store.device import Device
from razortools.engine.store.frozen import Frozen
from razortools.engine.store.nodes import Node, Ref
from razortools.engine.store.packed_runs import PackedRuns
from razortools.engine.store.superblocks import backup_images, slot_image
from razortools.format.node import ITEM_OVERHEAD_BYTES, ChildPointer, NodeHeader, encode_node
from razortools.format.superblock import Superblock
from razortools.units import BlockNo

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
    released: PackedRuns
    journal_position: int
    journal_sequence: int


def preparing(store: "Store", now_ns: int, changes: dict[str, Any]) -> Generator[int, None, CheckpointPlan]:
    """Encode all dirty nodes and stale map pages; yield from time to time how many nodes are left. Nothing is written.

    The transaction must have been frozen. When it yields for the first time what the checkpoint holds is certain: operations may
    go on from then on, but no other checkpoint may begin.
    """
    assert store.transaction.is_empty and not store.running.active
    generation = store.begun_generation = store.superblock.generation + 1
    writes: list[Write] = []
    assert store.pool.reserve(store.tree.dirty_count), "a checkpoint found no room that had been reserved"
    frozen = Frozen(store.tree, _encoder(store, generation, writes), store.fail)
    _place(store, frozen.refs, generation)
    map_writes, top, free_blocks = store.maps.encode_checkpoint(store.pool.runs())
    root, released = store.tree.root, store.maps.pending.copy()
    superblock = replace(
        store.superblock,
        generation=generation,
        transaction=store.transaction.number - 1,
        root_level=store.tree.root_level,
        spacemap_active=1 - store.maps.active,
        spacemap_top=top,
        free_blocks=free_blocks,
        node_count=store.tree.node_count,
        journal_tail=store.journal.head,
        journal_sequence=store.journal.next_sequence,
        written_at_ns=now_ns,
        **changes,
    )
    yield len(frozen.refs)
    yield from frozen.encoding()
    superblock = replace(superblock, root=root.pointer())
    return CheckpointPlan(
        superblock=superblock,
        writes=tuple(writes + map_writes),
        slot=slot_image(superblock),
        backups=tuple(backup_images(superblock, store.geometry)),
        released=released,
        journal_position=superblock.journal_tail,
        journal_sequence=superblock.journal_sequence,
    )


def write(device: Device, plan: CheckpointPlan) -> None:
    """Write *plan*: contents, flush, superblock slot, flush, backups. May run in a thread. Raises DeviceFailed."""
    device.write_many(plan.writes)
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
    store.maps.release_pending(plan.released)
    if store.tree.dirty_count == 0:
        store.pool.release()
    store.journal.release_until(plan.journal_position, plan.journal_sequence)
    store.journal.note_flushed(plan.journal_sequence - 1)


def discard(device: Device, plan: CheckpointPlan, block_bytes: int) -> None:
    """Give the host back what *plan* has freed. Right after finish(), before anybody can be given these blocks."""
    for start, count in chain.from_iterable(plan.released.pieces()):
        device.discard(start * block_bytes, count * block_bytes)


def _place(store: "Store", refs: list[Ref], generation: int) -> None:
    """Give nodes that are to be written new places; what they had is free once the checkpoint is stable."""
    blocks = store.geometry.node_blocks
    store.maps.free_later((BlockNo(place), blocks) for ref in refs for place in (ref.address, ref.mirror) if place)
    for ref, (address, mirror) in zip(refs, store.pool.take(len(refs)), strict=True):
        ref.address, ref.mirror = address, mirror
        ref.generation = generation


def _encoder(store: "Store", generation: int, writes: list[Write]) -> Callable[[Ref, Node], None]:
    """Return what encodes a node, notes its checksum in its ref and its copies in *writes*."""
    pack = ChildPointer.STRUCT.pack
    tag, node_bytes, block_bytes = store.nodes.tag, store.geometry.node_bytes, store.block_bytes

    def encode(ref: Ref, node: Node) -> None:
        values = node.values
        if node.level:
            values = [pack(child.address, child.mirror, child.generation, child.crc32c) for child in node.children]
        used = node.used - len(node.keys) * ITEM_OVERHEAD_BYTES
        header = NodeHeader(
            tag, ref.address, ref.mirror, generation, len(node.keys), node.level, 0, used, node.low, node.high
        )  # fmt: skip
        raw, ref.crc32c = encode_node(header, node.keys, values, node_bytes)
        writes.extend((place * block_bytes, raw) for place in (ref.address, ref.mirror) if place)

    return encode
