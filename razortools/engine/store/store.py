"""The store: one transactional map of items, and the blocks that items own, kept safe on a device.

It puts the parts of this package together: space maps, node pool, nodes, tree, running transaction, journal. It knows no file.
Invariants: items change only inside an operation, and an operation changes all or nothing; room for everything that a commit
and a checkpoint will write was taken before the operation started; after a failed write or flush the store is read-only,
because nobody knows what the device holds.
"""

from collections.abc import Callable, Container, Generator, Iterator, Sequence

from razortools.engine.store import checkpoint as checkpoints
from razortools.engine.store import commit as commits
from razortools.engine.store import reading
from razortools.engine.store.checkpoint import CheckpointPlan
from razortools.engine.store.device import Device
from razortools.engine.store.durations import Durations
from razortools.engine.store.flight import Flight, Flights
from razortools.engine.store.journal import Journal
from razortools.engine.store.journal_reader import journal_seed
from razortools.engine.store.nodepool import NodePool
from razortools.engine.store.nodes import Nodes, Ref, new_root
from razortools.engine.store.residence import NotResident
from razortools.engine.store.room import Room
from razortools.engine.store.spacemaps import SpaceMaps
from razortools.engine.store.throughput import Throughput
from razortools.engine.store.transaction import PART_KEYS, RunningOperation, Transaction, UnloggedTransaction
from razortools.engine.store.tree import Tree
from razortools.errors import RazorError, ReadOnly
from razortools.format.data import DataRecord, Run
from razortools.format.geometry import geometry_of
from razortools.format.items import changed_blocks
from razortools.format.journal import ENTRY_HEAD_BYTES, Operation
from razortools.format.keys import Kind
from razortools.format.superblock import Incompat, Superblock
from razortools.units import MIB, BlockNo

METADATA_CACHE_BYTES = 128 * MIB
_OWNING = frozenset(map(int, (Kind.DATA_RECORD, Kind.XATTR)))
_WIPE_CHUNK_BYTES = 1 * MIB


class Store:
    """Items and blocks of one image. One owner: the engine's volume (or a check, which only reads)."""

    def __init__(
        self,
        device: Device,
        superblock: Superblock,
        *,
        metadata_cache_bytes: int = METADATA_CACHE_BYTES,
        journaling: bool = True,
    ) -> None:
        """Lay out the parts over *device*. Use format() or recovery.open_store, which fill them.

        *journaling* False is for measuring what the journal costs, and for nothing else: a commit writes no entry, so a crash
        takes everything since the last checkpoint, synced or not, and abort() is impossible.
        """
        self.device = device
        self.superblock = superblock
        self.checks_twice = bool(superblock.incompat & Incompat.SECOND_CHECKSUM)  # whether new records get a second checksum
        self.geometry = geometry_of(superblock)
        self.block_bytes = superblock.block_bytes
        self.read_only = device.read_only
        self.discards = False  # whether the host gets freed blocks back
        self.failure = ""  # why the store turned read-only by itself
        self.begun_generation = superblock.generation  # of the last superblock that was on its way to the device
        self.maps = SpaceMaps(device, self.geometry)
        self.pool = NodePool(self.maps, self.geometry, superblock.metadata_copies)
        tag = int.from_bytes(superblock.uuid[:8], "little")
        self.nodes = Nodes(device, self.geometry, tag, metadata_cache_bytes)
        root = Ref(*type(superblock.root)._FLATTEN(superblock.root))
        self.tree = Tree(self.nodes, root, superblock.root_level, self.release_node)
        self.tree.node_count = superblock.node_count
        self.tree.is_changing = lambda: self.running.active
        self.nodes.note_stable(superblock.generation)
        self.residence = self.nodes.residence
        self.unpacked = Throughput()  # what was decompressed, by algorithm
        self.residence.progress = lambda: (self.transaction.number, self.transaction.operation_count)
        seed = journal_seed(superblock.uuid)
        self.journal = Journal(device, self.geometry, seed, superblock.journal_tail, superblock.journal_sequence)
        self.journaling = journaling
        kind = Transaction if journaling else UnloggedTransaction
        self.transaction = kind(superblock.transaction + 1)
        self.running = RunningOperation()
        self.flights = Flights(self.fail)
        self.commit_times = Durations()  # on their way to the device, those that are stable
        self.checkpoint_times = Durations()
        self.abort_count = 0
        self._step_journal_bytes = ENTRY_HEAD_BYTES + 2 * self.tree.value_bytes_max
        self.room = Room(self, self._step_journal_bytes)
        self.get: Callable[[bytes], bytes | None] = self.tree.get
        self.items: Callable[[bytes, bytes], Iterator[tuple[bytes, bytes]]] = self.tree.items
        self.window: Callable[[bytes, bytes], Sequence[tuple[bytes, bytes]]] = self.tree.window
        self.last: Callable[[bytes, bytes], tuple[bytes, bytes] | None] = self.tree.last

    @classmethod
    def format(cls, device: Device, superblock: Superblock) -> "Store":
        """Return the store of a new, empty filesystem with the values of *superblock*.

        Nothing points to it until the first checkpoint. The journal's place is wiped; the root and the space map of
        *superblock* are ignored.
        """
        store = cls(device, superblock)
        start = store.geometry.journal_start * store.block_bytes
        _wipe(device, start, store.geometry.journal_bytes)
        for offset in (0, superblock.block_bytes):
            _wipe(device, offset, superblock.block_bytes)
        store.maps.active = 1
        store.tree.root = new_root(store.nodes)
        store.tree.root_level = 0
        store.tree.dirty_count = store.tree.node_count = 1
        return store

    @property
    def generation(self) -> int:
        """Generation that the next checkpoint will have: birth of what is written now."""
        return self.superblock.generation + 1

    # Operations

    def start(self, operation: Operation, inode: int) -> None:
        """Begin an operation. Exactly one finish() or rollback() ends it."""
        running = self.running
        assert not running.active, f"operation {running.operation.name} is under way"
        if self.read_only:
            raise ReadOnly(self.failure or f"{self.device.name}: is open for reading only")
        running.operation = operation
        running.inode = inode
        running.active = True

    def put(self, key: bytes, value: bytes) -> None:
        """Set an item. If the old value owned blocks, they are let go; those of the new one are claimed."""
        running = self.running
        assert running.active
        try:
            before = self.tree.put(key, value)
        except Exception as failure:
            self._judge_half_way(failure)
            raise
        running.steps.append((key, before, value))
        if key[9] in _OWNING:
            self._account(key, before, value)

    def delete(self, key: bytes) -> None:
        """Remove an item and let its blocks go. An absent item is no error."""
        running = self.running
        assert running.active
        try:
            before = self.tree.delete(key)
        except Exception as failure:
            self._judge_half_way(failure)
            raise
        if before is not None:
            running.steps.append((key, before, None))
            if key[9] in _OWNING:
                self._account(key, before, None)

    def cut(
        self, low: bytes, high: bytes, count_max: int, kinds: Container[int] | None = None
    ) -> list[tuple[bytes, bytes]] | None:
        """Remove the items from *low* to *high* as delete() does, and return them.

        None, nothing having changed, if they do not lie in one leaf, are more than *count_max*, or one is of none of *kinds*.
        """
        running = self.running
        assert running.active
        try:
            gone = self.tree.cut(low, high, count_max, kinds)
        except Exception as failure:
            self._judge_half_way(failure)
            raise
        if gone is not None:
            running.steps += [(key, before, None) for key, before in gone]
            for key, before in gone:
                if key[9] in _OWNING:
                    self._account(key, before, None)
        return gone

    def _account(self, key: bytes, before: bytes | None, after: bytes | None) -> None:
        freed, taken = changed_blocks(key, before, after, self.block_bytes)
        self.running.freed += filter(self.maps.may_hold, freed)  # a senseless item lets go what nobody can have given it
        self.maps.claim(taken)
        self.running.placed += taken

    def _judge_half_way(self, failure: Exception) -> None:
        """A change of the tree has stopped. What the device is to blame for comes before it has begun; else it is half done."""
        if not isinstance(failure, RazorError | NotResident):
            self.fail(str(failure) or type(failure).__name__)

    def finish(self) -> None:
        """The operation is complete: it belongs to the running transaction."""
        running, transaction = self.running, self.transaction
        if self.journaling:
            steps = running.steps
            transaction.slack_bytes -= len(steps) * self._step_journal_bytes
            if transaction.note(steps, running.operation, running.inode) >= PART_KEYS:
                self.journal.encode_part(transaction)
        transaction.freed += running.freed
        transaction.placed += running.placed
        transaction.operation_count += 1
        self._end_operation()
        nodes = self.nodes
        if nodes.cached_bytes > nodes.limit_bytes:
            nodes.shrink()

    def operation(self, operation: Operation, inode: int) -> "_Operation":
        """Return a context for one operation, without a check for room: for whoever makes or mends a filesystem."""
        return _Operation(self, operation, inode)

    def rollback(self) -> list[bytes]:
        """Take the operation back; return the keys that had changed."""
        running = self.running
        for key, before, _ in reversed(running.steps):
            if before is None:
                self.tree.delete(key)
            else:
                self.tree.put(key, before)
        self.maps.unclaim(running.placed)
        keys = [key for key, _, _ in running.steps]
        self._end_operation()
        return keys

    def break_off(self, failure: BaseException) -> None:
        """The operation can neither be finished nor taken back as a whole, so nothing may be built upon what memory holds."""
        self.fail(str(failure) or type(failure).__name__)
        self._end_operation()

    def _end_operation(self) -> None:
        running = self.running
        running.active = False
        running.steps.clear()
        running.freed.clear()
        running.placed.clear()

    # Blocks

    def place(self, block_count: int) -> list[Run]:
        """Allocate blocks for an item that will be put soon. Raises OutOfSpace."""
        return self.maps.place(block_count)

    def place_each(self, block_counts: Sequence[int]) -> list[list[Run]]:
        """Allocate blocks for several items, side by side where the image allows. Raises OutOfSpace, taking nothing."""
        return self.maps.place_each(block_counts)

    def unplace(self, runs: list[Run]) -> None:
        """Give back a placement that no item names."""
        self.maps.unplace(runs)

    def write_blocks(self, runs: list[Run], *parts: bytes | memoryview) -> None:
        """Write whole blocks into *runs*: *parts*, one behind the other. Durable with the next flush. May run in a thread.

        Raises DeviceFailed; the store is read-only then. Raises ReadOnly if it is so already.
        """
        if self.read_only:
            raise ReadOnly(self.failure or f"{self.device.name}: is open for reading only")
        with self.failing():
            if len(runs) == 1:
                self.device.write_parts(runs[0][0] * self.block_bytes, parts)
                return
            view = memoryview(b"".join(parts))
            for start, count in runs:
                length = count * self.block_bytes
                self.device.write(start * self.block_bytes, view[:length])
                view = view[length:]

    def read_record(self, record: DataRecord) -> bytes:
        """Return the stored bytes of *record*, verified, without padding. Raises CorruptImage or DeviceFailed."""
        return reading.read_record(self.device, record, self.block_bytes)

    def read_record_cached(self, record: DataRecord) -> bytes | None:
        """Return what read_record() does if the host has all of it in memory. Raises CorruptImage."""
        return reading.read_cached(self.device, record, self.block_bytes)

    def read_records(self, records: Sequence[DataRecord]) -> list[reading.Outcome]:
        """Return what read_record() does of each, or raises, with as few reads as can be."""
        return reading.read_records(self.device, records, self.block_bytes)

    # Commit, checkpoint, abort

    def commit(self, now_ns: int, **changes: object) -> None:
        """Make the running transaction durable: one write, one flush. Raises DeviceFailed; the store is read-only then.

        *changes* go into the superblock if the transaction is too large for the journal and a checkpoint takes its place.
        """
        self.begin_commit(now_ns, **changes)
        self.settle()

    def checkpoint(self, now_ns: int, **changes: object) -> None:
        """Write the tree as it is, and a superblock with *changes*. Raises DeviceFailed; the store is read-only then.

        What the running transaction changed goes along: a checkpoint is as atomic as a commit.
        """
        self.begin_checkpoint(now_ns, **changes)
        self.settle()

    def checkpointing(self, now_ns: int) -> Generator[int, None, None]:
        """Do what checkpoint() does, alone with the store; yield from time to time how many dirty nodes are left."""
        self.settle()
        if not self.transaction.is_empty:
            commits.end_transaction(self)
        with self.failing():
            plan = yield from checkpoints.preparing(self, now_ns, {})
            checkpoints.write(self.device, plan)
            self.finish_checkpoint(plan)

    def begin_commit(self, now_ns: int, **changes: object) -> Flight | None:
        """Begin what commit() does, after settling what is under way; None if there is nothing to write.

        Operations may go on while the flight runs in another thread; they belong to the next transaction. settle() ends it.
        """
        self.settle()
        # It takes a place in the ring and numbers: if it stopped then, later commits would stand behind a hole, and be lost.
        with self.failing():
            frozen = commits.freeze(self, now_ns)
            if frozen is None:
                return None
            if frozen.position >= 0:
                write, landed = (lambda: commits.write(self, frozen)), (lambda: commits.finish(self, frozen))
                return self.flights.begin(write, landed, self.commit_times)
        return self.begin_checkpoint(now_ns, **changes)

    def begin_checkpoint(self, now_ns: int, **changes: object) -> Flight:
        """Begin what checkpoint() does, after settling what is under way. As begin_commit()."""
        self.settle()
        if not self.transaction.is_empty:
            commits.end_transaction(self)
        steps = checkpoints.preparing(self, now_ns, changes)
        # The first step says what the checkpoint holds. It may have to read a page of the space map. When that fails, nodes count
        # as written that never were: the next checkpoint would name places where nothing lies.
        with self.failing():
            next(steps)
        plans: list[CheckpointPlan] = []

        def encoding() -> Iterator[object]:
            plans.append((yield from steps))

        write, landed = (lambda: checkpoints.write(self.device, plans[0])), (lambda: self.finish_checkpoint(plans[0]))
        return self.flights.begin(write, landed, self.checkpoint_times, encoding())

    def settle(self) -> None:
        """Return when nothing is under way any more. Raises what kept it from getting there, DeviceFailed for one."""
        self.flights.settle()

    def mark(self, now_ns: int, **changes: object) -> None:
        """Write the superblock alone, with *changes*, before anything else is written. Raises DeviceFailed."""
        assert self.flights.current is None
        with self.failing():
            checkpoints.mark(self, now_ns, changes)

    def finish_checkpoint(self, plan: CheckpointPlan) -> None:
        """*plan* has been written and is stable."""
        checkpoints.finish(self, plan)
        self.nodes.note_stable(plan.superblock.generation)
        if self.discards and not self.maps.pins.is_set:
            checkpoints.discard(self.device, plan, self.block_bytes)

    def abort(self) -> list[bytes]:
        """Drop the running transaction; return the keys that had changed."""
        self.settle()
        self.abort_count += 1
        return commits.drop(self)

    def failing(self) -> "_Failing":
        """Return a context in which any failure turns the store read-only: what memory and device hold may differ then."""
        return _Failing(self)

    def fail(self, reason: str) -> None:
        """Turn read-only: what the device holds is unknown from now on; what was acknowledged is safe."""
        self.failure = self.failure or f"{reason}. The filesystem is read-only now; unmount it and check the host's disk"
        self.read_only = True
        self.nodes.may_write = False

    def release_node(self, ref: Ref) -> None:
        """Free the places of a node that the next checkpoint does not name, if it has any."""
        if ref.address:
            blocks = self.geometry.node_blocks
            self.maps.free_later((BlockNo(place), blocks) for place in (ref.address, ref.mirror) if place)


class _Operation:
    """One operation of the store: all of it or nothing."""

    def __init__(self, store: Store, operation: Operation, inode: int) -> None:
        self._store = store
        self._operation = operation
        self._inode = inode

    def __enter__(self) -> None:
        self._store.room.hold_promise()
        self._store.start(self._operation, self._inode)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._store.finish()
        else:
            self._store.rollback()


class _Failing:
    """Turns the store read-only when something fails inside."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, failed: BaseException | None, _: object) -> None:
        if failed is not None:
            self._store.fail(str(failed) or type(failed).__name__)


def _wipe(device: Device, offset: int, length: int) -> None:
    """Make a range read as zeros, without filling what does so already."""
    while length:
        count = min(length, _WIPE_CHUNK_BYTES)
        if device.read(offset, count).count(0) != count:
            device.write(offset, bytes(count))
        offset += count
        length -= count
