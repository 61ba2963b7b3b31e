"""Engines that break a promise on purpose, each by one small change: the explorer must catch every one of them.

A break is a function that changes the engine through pytest's monkeypatch; its docstring says which promise it breaks, and how.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from razortools.engine import directories, files, flush, late, loose, orphans, truncation
from razortools.engine.inodes import InodeTable
from razortools.engine.records import Place
from razortools.engine.store import checkpoint, commit, journal_reader, recovery
from razortools.engine.store.checkpoint import CheckpointPlan
from razortools.engine.store.commit import FrozenCommit
from razortools.engine.store.device import Device
from razortools.engine.store.flight import Flight
from razortools.engine.store.frozen import Frozen
from razortools.engine.store.journal import Journal
from razortools.engine.store.journal_reader import JournalReader, LoggedTransaction
from razortools.engine.store.nodes import Node
from razortools.engine.store.spacemaps import SpaceMaps
from razortools.engine.store.store import Store
from razortools.engine.store.superblocks import backup_images, slot_image
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage
from razortools.format import items
from razortools.format.data import DataRecord, Run
from razortools.format.directory import DirectoryEntry
from razortools.format.journal import COMMIT_BYTES, ENTRY_HEAD_BYTES, JournalCommit, JournalEntry, Operation
from razortools.format.keys import back_link_key
from razortools.format.late_pages import LATE_PAGE_BYTES
from razortools.format.superblock import State, Superblock
from razortools.units import InodeNo, round_up

Break = Callable[[pytest.MonkeyPatch], None]


# Flushes and the order of writes


def commit_without_flush(patch: pytest.MonkeyPatch) -> None:
    """A commit is acknowledged before the device has been flushed."""

    def write(store: Store, frozen: FrozenCommit) -> None:
        store.journal.write(frozen.position, frozen.parts)

    patch.setattr(commit, "write", write)


def superblock_before_nodes(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint writes its superblock, flushes, and only then writes what it points to."""

    def write(device: Device, plan: CheckpointPlan) -> None:
        device.write(*plan.slot)
        device.flush()
        write_all(device, plan.writes)
        device.flush()
        write_all(device, plan.backups)

    patch.setattr(checkpoint, "write", write)


def nodes_not_flushed_before_superblock(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint leaves out the flush between the nodes and the superblock."""

    def write(device: Device, plan: CheckpointPlan) -> None:
        write_all(device, plan.writes)
        device.write(*plan.slot)
        device.flush()
        write_all(device, plan.backups)

    patch.setattr(checkpoint, "write", write)


def nodes_not_flushed_by_recovery(patch: pytest.MonkeyPatch) -> None:
    """Only the checkpoint that ends a recovery leaves that flush out: it takes a crash of a recovery to notice."""
    honest = Volume.mark_opened

    def hasty(device: Device, plan: CheckpointPlan) -> None:
        write_all(device, plan.writes)
        device.write(*plan.slot)
        device.flush()

    def mark_opened(volume: Volume) -> None:
        with patch.context() as while_recovering:
            if volume.recovered.transactions:
                while_recovering.setattr(checkpoint, "write", hasty)
            honest(volume)

    patch.setattr(Volume, "mark_opened", mark_opened)


def superblock_not_flushed(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint frees what its superblock does not name before that superblock is stable."""

    def write(device: Device, plan: CheckpointPlan) -> None:
        write_all(device, plan.writes)
        device.flush()
        device.write(*plan.slot)
        write_all(device, plan.backups)

    patch.setattr(checkpoint, "write", write)


def backups_before_nodes(patch: pytest.MonkeyPatch) -> None:
    """The backups of the superblock are written first: a valid one is ahead of the truth."""

    def write(device: Device, plan: CheckpointPlan) -> None:
        write_all(device, plan.backups)
        write_all(device, plan.writes)
        device.flush()
        device.write(*plan.slot)
        device.flush()

    patch.setattr(checkpoint, "write", write)


def image_in_use_says_clean(patch: pytest.MonkeyPatch) -> None:
    """A mount does not mark the image as in use before it writes to it."""
    honest = Store.mark

    def mark(store: Store, now_ns: int, **changes: object) -> None:
        honest(store, now_ns, **changes | {"state": State.CLEAN})

    patch.setattr(Store, "mark", mark)


# Space


def freed_blocks_reused_at_once(patch: pytest.MonkeyPatch) -> None:
    """Blocks that the last checkpoint still names are given away before the next one is stable."""

    def free_later(maps: SpaceMaps, runs: Iterable[Run]) -> None:
        for start, count in runs:
            maps.free_now(start, count)

    patch.setattr(SpaceMaps, "free_later", free_later)


def space_map_overwritten(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint writes the new space map over the one that is the truth, not over the other one."""
    encode = SpaceMaps.encode_checkpoint

    def encode_checkpoint(maps: SpaceMaps, unused: Iterable[Run]) -> Any:
        maps.active = 1 - maps.active
        try:
            return encode(maps, unused)
        finally:
            maps.active = 1 - maps.active

    patch.setattr(SpaceMaps, "encode_checkpoint", encode_checkpoint)
    patch.setattr(SpaceMaps, "switch", lambda maps: None)

    def same_map(store: Store, plan: CheckpointPlan) -> CheckpointPlan:
        return with_superblock(store, plan, replace(plan.superblock, spacemap_active=store.maps.active))

    change_plans(patch, same_map)


def replayed_blocks_left_free(patch: pytest.MonkeyPatch) -> None:
    """Replay does not take the blocks that the transactions name: what is written after it lands on them."""
    honest = recovery._take_blocks

    def take_blocks(store: Store, transaction: LoggedTransaction) -> None:
        with patch.context() as here:
            here.setattr(SpaceMaps, "mark_used", lambda maps, start, count: None)
            honest(store, transaction)

    patch.setattr(recovery, "_take_blocks", take_blocks)


# The journal and its replay


def commit_entry_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Replay takes entries as they come, without their checksums and with whatever stands for the commit entry."""

    def entry_unchecked(reader: JournalReader, position: int, room: int) -> journal_reader.LoggedEntry:
        raw = reader.read(position, ENTRY_HEAD_BYTES)
        if raw[:4] != journal_reader.JOURNAL_MAGIC:
            raise journal_reader._NoEntry(position, "no entry")
        head = JournalEntry(*journal_reader._HEAD.unpack_from(raw, journal_reader._CHECKED_FROM))
        size = head.undo_bytes + head.redo_bytes
        if size > room - ENTRY_HEAD_BYTES:
            raise journal_reader._NoEntry(position, "no room")
        values = reader.read(position + ENTRY_HEAD_BYTES, size)
        undo = values[: head.undo_bytes] if head.flags & journal_reader._UNDO else None
        redo = values[head.undo_bytes :] if head.flags & journal_reader._REDO else None
        return journal_reader.LoggedEntry(head, undo, redo, position)

    patch.setattr(JournalReader, "_entry", entry_unchecked)


def half_a_transaction_replayed(patch: pytest.MonkeyPatch) -> None:
    """Replay takes the entries that verify, although the commit entry that closes their transaction never came."""

    def transaction(
        reader: JournalReader, position: int, sequence: int, room: int
    ) -> Generator[int, None, LoggedTransaction]:
        yield from ()
        reader._ahead = journal_reader.ReadAhead(reader.read, reader.ring_bytes)
        first, start, found = sequence, position, []
        while True:
            try:
                entry = reader._entry(position, room - (position - start))
                if entry.head.sequence != sequence:
                    raise journal_reader._NoEntry(position, "another entry")
            except CorruptImage:
                if not found:
                    raise
                total = round_up(position - start + COMMIT_BYTES, reader.block_bytes)
                commit = JournalCommit(first - 1, first, 0, total)
                return LoggedTransaction(found[0].head.transaction, start, tuple(found), commit, sequence)
            position += ENTRY_HEAD_BYTES + entry.head.undo_bytes + entry.head.redo_bytes
            if entry.head.operation == Operation.COMMIT:
                commit = JournalCommit.decode(entry.redo or b"")
                return LoggedTransaction(entry.head.transaction, start, tuple(found), commit, sequence)
            found.append(entry)
            sequence += 1

    patch.setattr(JournalReader, "_transaction", transaction)


def data_not_verified(patch: pytest.MonkeyPatch) -> None:
    """Replay believes a transaction whose data never arrived."""
    def arrived(store: Store, transaction: LoggedTransaction) -> Generator[float, None, bool]:
        yield from ()
        return True

    patch.setattr(recovery, "data_arrived", arrived)


def commit_vouches_for_itself(patch: pytest.MonkeyPatch) -> None:
    """A commit entry claims that its own transaction has been flushed, so replay does not verify its data."""
    honest = Journal.encode

    def encode(ring: Journal, transaction: Any, now_ns: int) -> bytes:
        known = ring.flushed_sequence
        ring.flushed_sequence = ring.next_sequence + transaction.entry_count + len(transaction.redo) + 1
        try:
            return honest(ring, transaction, now_ns)
        finally:
            ring.flushed_sequence = known

    patch.setattr(Journal, "encode", encode)


def journal_released_at_every_commit(patch: pytest.MonkeyPatch) -> None:
    """A commit lets the ring's tail go although no checkpoint contains it: the ring is written over, and never half full."""
    honest = commit.finish

    def finish(store: Store, frozen: FrozenCommit) -> None:
        honest(store, frozen)
        store.journal.release_until(store.journal.head, store.journal.next_sequence)

    patch.setattr(commit, "finish", finish)


def ring_wraps_to_the_wrong_place(patch: pytest.MonkeyPatch) -> None:
    """What does not fit at the end of the ring goes one block behind its start."""

    def write(ring: Journal, position: int, parts: Sequence[bytes]) -> None:
        data = b"".join(parts)
        offset = position % ring.ring_bytes
        first = min(len(data), ring.ring_bytes - offset)
        ring.device.write(ring.start_bytes + offset, memoryview(data)[:first])
        if first < len(data):
            ring.device.write(ring.start_bytes + ring.block_bytes, memoryview(data)[first:])

    patch.setattr(Journal, "write", write)


def checkpoint_forgets_the_ring_tail(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint names a tail one block ahead of where the next commit will be written."""

    def ahead(store: Store, plan: CheckpointPlan) -> CheckpointPlan:
        tail = plan.superblock.journal_tail + store.block_bytes
        return with_superblock(store, plan, replace(plan.superblock, journal_tail=tail))

    change_plans(patch, ahead)


# The tree and what stands in it


def stale_mirrors(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint writes the first copy of a node only; what the second place held stays there."""

    def without_mirrors(store: Store, plan: CheckpointPlan) -> CheckpointPlan:
        seen: set[bytes] = set()
        return replace(plan, writes=tuple(write for write in plan.writes if write[1] not in seen and not seen.add(write[1])))

    change_plans(patch, without_mirrors)


def orphans_left(patch: pytest.MonkeyPatch) -> None:
    """A mount does not finish the files that had no name any more when the power failed."""
    patch.setattr(orphans, "finish_orphans", lambda volume: [])


def nameless_inodes_kept_from_the_orphan_table(patch: pytest.MonkeyPatch) -> None:
    """A commit writes that an inode has lost its last name, and no orphan item for it."""
    honest = InodeTable.put_behind

    def put_behind(table: InodeTable) -> None:
        kept = set(table.nameless)
        table.nameless.clear()
        honest(table)
        table.nameless.update(kept)

    patch.setattr(InodeTable, "put_behind", put_behind)


def nameless_inodes_left_to_the_next_commit(patch: pytest.MonkeyPatch) -> None:
    """A commit writes that a name has gone, and leaves the inode that it led to for the next one."""
    honest = InodeTable.put_behind

    def put_behind(table: InodeTable) -> None:
        kept = {ino: table._behind.pop(ino) for ino in table.nameless}
        table.nameless.clear()
        honest(table)
        table.nameless.update(kept)
        table._behind.update(kept)

    patch.setattr(InodeTable, "put_behind", put_behind)


def truncation_keeps_what_lies_beyond(patch: pytest.MonkeyPatch) -> None:
    """A file is made smaller, and its records beyond that stay."""
    patch.setattr(truncation, "_keys_beyond", lambda volume, ino, inode, keep_bytes: ([], True))


def truncation_keeps_its_tail(patch: pytest.MonkeyPatch) -> None:
    """A file is made smaller, and the rest of its last record stays: it is there again when the file grows."""
    patch.setattr(truncation, "_tail_to_cut", lambda volume, ino, inode, size: None)
    patch.setattr(truncation, "cut_before_growing", lambda volume, ino, inode, new_size: [])


def truncation_in_steps_without_a_note(patch: pytest.MonkeyPatch) -> None:
    """A truncation that takes several operations leaves no note in the orphan table."""
    truncation_in_steps(patch)
    honest = truncation._shrink

    def shrink(volume: Volume, ino: InodeNo, size: int, with_tail: bool) -> bool:
        with patch.context() as here:
            here.setattr(truncation, "_orphan_reason", lambda volume, ino: 0)
            return honest(volume, ino, size, with_tail)

    patch.setattr(truncation, "_shrink", shrink)


def truncation_in_steps(patch: pytest.MonkeyPatch) -> None:
    """Not broken: truncations take several operations on small files too, and a commit comes behind the first."""
    honest = truncation._shrink

    def shrink(volume: Volume, ino: InodeNo, size: int, with_tail: bool) -> bool:
        is_done = honest(volume, ino, size, with_tail)
        if is_done:
            volume.commit()
        return is_done

    patch.setattr(truncation, "STEP_RECORDS", 1)
    patch.setattr(truncation, "_shrink", shrink)


def entry_and_inode_in_two_commits(patch: pytest.MonkeyPatch) -> None:
    """A name is made in one transaction, the inode that it leads to in the next one."""
    honest = directories.insert

    def insert(volume: Volume, directory: InodeNo, *rest: Any) -> None:
        honest(volume, directory, *rest)
        commit_in_between(volume)

    patch.setattr(directories, "insert", insert)


def rename_in_two_commits(patch: pytest.MonkeyPatch) -> None:
    """The old name goes in one transaction, the new one comes in the next."""

    def move(
        volume: Volume, directory: InodeNo, key: bytes, entry: Any, new_directory: InodeNo, new_key: bytes, name: bytes
    ) -> None:
        old_parent, new_parent = volume.inodes.get(directory), volume.inodes.get(new_directory)
        directories.remove(volume, old_parent, key, entry)
        volume.store.delete(back_link_key(entry.inode, entry.link_no))
        volume.inodes.put(directory, old_parent)
        commit_in_between(volume)
        name_id = volume.names.intern(name)
        directories.put_entry(volume, new_key, replace(entry, name_id=name_id))
        new_parent.size += 1

    patch.setattr(directories, "move", move)


def exchange_in_two_commits(patch: pytest.MonkeyPatch) -> None:
    """The first of two names leads to the other file in one transaction, the second in the next."""
    honest = directories.put_entry

    def put_entry(volume: Volume, key: bytes, entry: DirectoryEntry) -> None:
        honest(volume, key, entry)
        if volume.store.running.operation is Operation.RENAME:
            commit_in_between(volume)

    patch.setattr(directories, "put_entry", put_entry)


def freed_blocks_lost(patch: pytest.MonkeyPatch) -> None:
    """Of the blocks that a transaction frees, only the first run is free after the checkpoint."""
    honest = commit.end_transaction

    def end_transaction(store: Store) -> None:
        del store.transaction.freed[1:]
        honest(store)

    patch.setattr(commit, "end_transaction", end_transaction)


def fsync_of_one_file_only(patch: pytest.MonkeyPatch) -> None:
    """An fsync writes the data of its own file, and commits all metadata: others change without their data."""

    def fsync(volume: Volume, ino: InodeNo) -> None:
        flush.flush_all(volume, [ino])
        volume.inodes.put_behind()
        volume._put_counters()
        volume.store.commit(volume.now_ns())

    patch.setattr(files, "fsync", fsync)


def loose_pages_left_behind(patch: pytest.MonkeyPatch) -> None:
    """A commit stores what is dirty, but not the records of which pages alone are in memory."""
    patch.setattr(flush, "store_loose", lambda volume, inodes=None: False)


def loose_pages_over_nothing(patch: pytest.MonkeyPatch) -> None:
    """A record is stored with its loose pages over zeros, not over what it held."""

    def read_bases(volume: Volume, items: Sequence[tuple[Place, DataRecord]]) -> list[loose.Base]:
        return [loose.Base(*place, item, bytes(item.raw_bytes)) for place, item in items]

    patch.setattr(loose, "read_bases", read_bases)


def late_pages_one_page_off(patch: pytest.MonkeyPatch) -> None:
    """Late pages are entered one place further in their records."""
    honest = late.with_late_pages

    def with_late_pages(
        record: DataRecord, runs: list[Run], pages: Sequence[tuple[int, bytes]], birth: int, block_bytes: int
    ) -> tuple[DataRecord, bytes]:
        moved = [((at + LATE_PAGE_BYTES) % record.raw_bytes // LATE_PAGE_BYTES * LATE_PAGE_BYTES, page) for at, page in pages]
        return honest(record, runs, moved, birth, block_bytes)

    patch.setattr(late, "with_late_pages", with_late_pages)


def blocks_below_late_pages_let_go(patch: pytest.MonkeyPatch) -> None:
    """A record that gets late pages lets the blocks go that it had before."""

    def changed_runs(old: DataRecord | None, new: DataRecord | None, block_bytes: int) -> tuple[list[Run], list[Run]]:
        if old is not None and new is not None and old.lies_like(new):
            return [], []
        return old.runs(block_bytes) if old else [], new.runs(block_bytes) if new else []

    patch.setattr(items, "changed_runs", changed_runs)


def sync_overtakes_the_commit_before_it(patch: pytest.MonkeyPatch) -> None:
    """A sync does not wait for the commit that was begun before it, and that one is never written."""
    honest_begin, honest_settle = Volume.begin_commit, Store.settle
    beginning: list[Volume] = []

    def settle(store: Store) -> None:
        if beginning:
            store.flights.current = None
        else:
            honest_settle(store)

    def begin_commit(volume: Volume, *, storing: bool = False) -> Flight | None:
        beginning.append(volume)
        try:
            return honest_begin(volume, storing=storing)
        finally:
            beginning.pop()

    patch.setattr(Store, "settle", settle)
    patch.setattr(Volume, "begin_commit", begin_commit)


def checkpoint_leaves_data_behind(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint that is begun after more was done takes the sizes of files along, but neither their data nor the counters."""

    def begin_checkpoint(volume: Volume) -> Flight:
        volume.inodes.put_behind()
        return volume.store.begin_checkpoint(volume.now_ns(), **volume._figures())

    patch.setattr(Volume, "begin_checkpoint", begin_checkpoint)


def frozen_nodes_change_before_they_are_encoded(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint that has begun takes along what is changed before a node is encoded, in that node and in no other."""

    def thaw(frozen: Frozen, node: Node) -> None:
        node.frozen = False

    patch.setattr(Frozen, "_thaw", thaw)


def change_plans(patch: pytest.MonkeyPatch, change: Callable[[Store, CheckpointPlan], CheckpointPlan]) -> None:
    """Have checkpoints written as *change* makes them."""
    honest = checkpoint.preparing

    def preparing(store: Store, now_ns: int, changes: dict[str, Any]) -> Generator[int, None, CheckpointPlan]:
        return change(store, (yield from honest(store, now_ns, changes)))

    patch.setattr(checkpoint, "preparing", preparing)


def with_superblock(store: Store, plan: CheckpointPlan, superblock: Superblock) -> CheckpointPlan:
    """Return *plan* with another superblock, in all its places."""
    backups = tuple(backup_images(superblock, store.geometry))
    return replace(plan, superblock=superblock, slot=slot_image(superblock), backups=backups)


def commit_in_between(volume: Volume) -> None:
    """Cut the running operation in two, with a commit between the halves."""
    store = volume.store
    operation, inode = store.running.operation, store.running.inode
    store.finish()
    store.commit(volume.now_ns())
    store.start(operation, inode)


def write_all(device: Device, writes: Iterable[tuple[int, bytes]]) -> None:
    """Write everything in *writes*."""
    for offset, data in writes:
        device.write(offset, data)
