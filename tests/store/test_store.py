"""The store against a model: a dict that remembers what was committed."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.engine.create import create, plan_create
from razortools.engine.store.device import Device
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.recovery import open_store
from razortools.engine.store.simulated import Faults, SimulatedDevice
from razortools.engine.store.store import Store
from razortools.errors import DeviceFailed
from razortools.format.data import make_record
from razortools.format.journal import Operation
from razortools.format.keys import LOWEST_KEY, inline_key, object_of, record_key
from razortools.units import MIB, InodeNo

HIGHEST_FILE = record_key(InodeNo(1 << 62), 0)


def formatted(device: Device) -> Device:
    """Put an empty filesystem on *device*."""
    create(device, plan_create(device.size_bytes, uuid=bytes(range(16)), hash_seed=bytes(16), made_at_ns=1))
    return device


def contents(store: Store) -> dict[bytes, bytes]:
    """Return the items that tests put, data records with what they hold."""
    found = {}
    for key, value in store.items(inline_key(InodeNo(100)), HIGHEST_FILE):
        found[key] = value
    return found


class Workload:
    """Random operations on a store, with the model's state after each commit."""

    def __init__(self, store: Store, seed: int, key_count: int = 400) -> None:
        self.store = store
        self.chance = random.Random(seed)
        self.key_count = key_count
        self.model: dict[bytes, bytes] = {}
        self.committed = [dict(self.model)]

    def operate(self) -> None:
        chance, store = self.chance, self.store
        with store.operation(Operation.WRITE, 1):
            for _ in range(chance.randrange(1, 6)):
                inode = InodeNo(100 + chance.randrange(self.key_count))
                if chance.random() < 0.3:
                    key = inline_key(inode)
                    store.delete(key)
                    self.model.pop(key, None)
                elif chance.random() < 0.7:
                    key = inline_key(inode)
                    value = chance.randbytes(chance.randrange(0, min(store.tree.value_bytes_max, 900)))
                    store.put(key, value)
                    self.model[key] = value
                else:
                    self._put_record(record_key(inode, chance.randrange(3)))

    def _put_record(self, key: bytes) -> None:
        data = self.chance.randbytes(self.chance.randrange(1, 9000))
        block_bytes = self.store.block_bytes
        runs = self.store.place(-(-len(data) // block_bytes))
        record, padded = make_record(runs, data, len(data), 0, self.store.generation, block_bytes, twice=True)
        self.store.write_blocks(runs, padded)
        self.store.put(key, record.encode())
        self.model[key] = record.encode()

    def commit(self) -> None:
        self.committed.append(dict(self.model))
        self.store.commit(2)
        if self.store.journal.used_bytes > self.store.journal.ring_bytes // 2:
            self.store.checkpoint(3)

    def fail_an_operation(self) -> None:
        before = dict(self.model)
        with pytest.raises(ZeroDivisionError), self.store.operation(Operation.WRITE, 1):
            for _ in range(5):
                key = inline_key(InodeNo(100 + self.chance.randrange(self.key_count)))
                self.store.put(key, b"never")
                self.store.delete(inline_key(InodeNo(100 + self.chance.randrange(self.key_count))))
            raise ZeroDivisionError
        self.model = before


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_store_is_a_map_that_commits_aborts_and_reopens(seed: int) -> None:
    device = formatted(MemoryDevice(8 * MIB))
    store, _ = open_store(device)
    store.checkpoint(1)
    work = Workload(store, seed)
    for _ in range(60):
        step = work.chance.random()
        if step < 0.7:
            work.operate()
        elif step < 0.8:
            work.fail_an_operation()
        elif step < 0.9:
            work.commit()
        elif step < 0.95:
            work.store.abort()
            work.model = dict(work.committed[-1])
        else:
            work.commit()
            store, _ = open_store(device)
            store.checkpoint(1)
            work.store = store
        assert contents(work.store) == work.model
        for key in work.model:
            assert work.store.get(key) == work.model[key]
    assert work.store.last(LOWEST_KEY, HIGHEST_FILE) == max(work.model.items(), default=work.store.last(LOWEST_KEY, HIGHEST_FILE))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_crash_at_any_flush_leaves_a_committed_state(seed: int) -> None:
    """The state after a crash is the last one that was acknowledged, or the one whose commit was under way."""
    disk = SimulatedDevice(1 * MIB)  # so small that blocks are used again and again
    formatted(disk)
    disk.flush()
    store, _ = open_store(disk)
    store.checkpoint(1)
    work = Workload(store, seed, key_count=12)
    crash_at = work.chance.randrange(disk.flush_count, disk.flush_count + 25)
    before_last_flush: list[object] = []

    class Crashed(Exception):
        pass

    real_flush = disk.flush

    def flush() -> None:
        if disk.flush_count == crash_at:
            before_last_flush.extend(disk.crash(seed + number) for number in range(8))
            raise Crashed
        real_flush()

    disk.flush = flush  # type: ignore[method-assign]
    try:
        for _ in range(400):
            for _ in range(work.chance.randrange(1, 8)):
                work.operate()
            work.commit()
    except Crashed:
        pass
    assert before_last_flush, "the workload never reached its crash"
    for survivor in before_last_flush:
        assert isinstance(survivor, MemoryDevice)
        recovered, _ = open_store(survivor)
        recovered.checkpoint(5)
        found = contents(recovered)
        allowed = [work.committed[-1], work.committed[-2] if len(work.committed) > 1 else {}]
        assert found in allowed
        _every_record_reads(recovered, found)
        _space_adds_up(recovered)
        again, _ = open_store(survivor)
        assert contents(again) == found


def _every_record_reads(store: Store, found: dict[bytes, bytes]) -> None:
    from razortools.format.items import owned_record

    for key, value in found.items():
        record = owned_record(key, value)
        if record is not None:
            assert len(store.read_record(record)) == record.stored_bytes, object_of(key)


def _space_adds_up(store: Store) -> None:
    """Blocks in use are exactly the fixed parts, the nodes and what the items own."""
    from razortools.format.items import owned_record

    owned = 0
    for key, value in store.items(LOWEST_KEY, b"\xfe" * 18):
        record = owned_record(key, value)
        owned += record.block_count(store.block_bytes) if record else 0
    fixed = sum(count for _, count in store.geometry.fixed_extents())
    nodes = store.tree.node_count * store.geometry.node_blocks * store.superblock.metadata_copies
    assert store.superblock.free_blocks == store.geometry.block_count - fixed - nodes - owned


def test_after_a_failed_flush_the_store_is_read_only_and_a_new_one_recovers() -> None:
    disk = SimulatedDevice(4 * MIB)
    formatted(disk)
    store, _ = open_store(disk)
    store.checkpoint(1)
    work = Workload(store, 7)
    work.operate()
    work.commit()
    work.operate()
    disk.faults = Faults(fail_flush_at=disk.flush_count)
    with pytest.raises(DeviceFailed):
        store.commit(3)
    assert store.read_only and "flush" in store.failure
    again, _ = open_store(disk)
    assert contents(again) == work.committed[-1]
