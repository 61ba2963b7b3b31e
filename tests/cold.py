"""Cold caches for tests: a disk of which the host holds nothing, a volume that forgets, running what does not want to wait."""

import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.residence import NotResident
from razortools.engine.volume import Volume

P = ParamSpec("P")
R = TypeVar("R")

ROUNDS_MAX = 200  # far more than any operation here needs


class ColdDisk(MemoryDevice):
    """A disk whose bytes are never there without waiting."""

    def read_cached(self, offset: int, length: int) -> bytes | None:
        return None

    @classmethod
    def holding(cls, other: MemoryDevice) -> "ColdDisk":
        """Return a cold disk with its own copy of what *other* holds."""
        disk = cls(other.size_bytes)
        disk._pages = other.copy()._pages
        return disk


@dataclass
class Tried:
    """How often something had to be fetched, and how often an operation was taken back for it."""

    rounds: int = 0
    taken_back: int = 0


def forget_all(volume: Volume) -> None:
    """Drop everything from memory that is also on the device."""
    forget(volume, random.Random(0), 1.0)


def forget(volume: Volume, chance: random.Random, share: float) -> None:
    """Drop each clean node and record with a probability of *share*, and as often all decoded inodes and names."""
    nodes = volume.store.nodes
    for _ in range(volume.store.tree.height()):  # leaves first: a node goes only after those below it
        for ref in list(nodes._resident):
            node = ref.node
            assert node is not None
            if not node.dirty and not nodes._is_needed(ref, node) and chance.random() < share:
                nodes.drop(ref)
    for ino, record_no in list(volume.records.clean._of):
        if chance.random() < share:
            volume.records.clean.drop(ino, record_no)
    if chance.random() < share:
        volume.inodes.forget_copies()
    if chance.random() < share:
        volume.names.forget_all()


def drive(volume: Volume, tried: Tried, work: Callable[P, R], *args: P.args, **keywords: P.kwargs) -> R:
    """Run *work* as attempts, and fetch what they lack, until it is done."""
    handed: dict[Hashable, object] = {}
    store = volume.store
    for _ in range(ROUNDS_MAX):
        before = footprint(volume)
        rollbacks = _Counting(store.rollback)
        store.rollback = rollbacks  # type: ignore[method-assign]
        try:
            return store.residence.attempt(handed, work, *args, **keywords)
        except NotResident as told:
            tried.rounds += 1
            tried.taken_back += rollbacks.count
            assert footprint(volume) == before, "an attempt that is to be run again has changed something"
            for missing in told.missing:
                try:
                    handed[missing.key] = found = missing.fetch()
                except Exception as failure:
                    handed[missing.key] = failure
                else:
                    missing.admit(found)
        finally:
            store.rollback = rollbacks.function  # type: ignore[method-assign]
    raise AssertionError(f"{ROUNDS_MAX} rounds were not enough")


def footprint(volume: Volume) -> tuple[object, ...]:
    """Return figures that change with everything that an operation does, and check those that must hold at any moment."""
    store, records = volume.store, volume.records
    assert not store.running.active and not store.running.steps
    assert all(len(side) >= store.tree.dirty_count for side in store.pool._sides) or volume.read_only
    return (
        store.transaction.number,
        store.transaction.operation_count,
        dict(store.transaction.redo),
        volume.counters.encode(),
        volume.inodes.held_count,
        records.dirty_bytes,
        records.dirty_count,
        records.reserved_blocks,
        set(store.maps.unclaimed),
    )


class _Counting:
    """A function that counts its calls."""

    def __init__(self, function: Callable[[], list[bytes]]) -> None:
        self.function = function
        self.count = 0

    def __call__(self) -> list[bytes]:
        self.count += 1
        return self.function()
