"""Splits: whatever is put, each node holds what fits, and where keys rise among items that are there leaves stay fuller."""

import random
from contextlib import nullcontext

import pytest

from razortools.engine.store.nodes import Node
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.recovery import open_store
from razortools.engine.store.store import Store
from razortools.format.journal import Operation
from razortools.format.keys import inline_key, inode_key
from razortools.format.node import ITEM_OVERHEAD_BYTES
from razortools.units import MIB, InodeNo
from tests.workload import formatted

FILES = 1500


def leaves(store: Store) -> list[Node]:
    """Return the leaves, all in memory, after looking whether each node holds what it says and no more than fits."""
    found: list[Node] = []
    waiting = [store.tree.root]
    while waiting:
        node = waiting.pop().node
        assert node is not None
        assert node.used <= store.tree.capacity and node.keys == sorted(node.keys)
        assert all(node.low <= key < node.high for key in node.keys)
        waiting += node.children
        if not node.level:
            assert node.used == sum(map(len, node.values)) + ITEM_OVERHEAD_BYTES * len(node.keys)
            found.append(node)
    return found


def with_files() -> Store:
    """Return a store with files whose contents have not been flushed yet."""
    store, _ = open_store(formatted(MemoryDevice(64 * MIB)))
    for ino in range(2, FILES):
        with store.operation(Operation.CREATE, ino):
            store.put(inode_key(InodeNo(ino)), bytes(150))
    return store


def flush(store: Store, *, rising: bool, seed: int) -> float:
    """Put contents of two thirds of the files beside their inodes; return how full the leaves are then."""
    chance = random.Random(seed)
    for ino in range(2, FILES):
        if chance.random() < 0.67:
            with store.operation(Operation.FLUSH_DATA, ino), store.tree.rising() if rising else nullcontext():
                store.put(inline_key(InodeNo(ino)), bytes(chance.randrange(1, 2000)))
    found = leaves(store)
    return sum(leaf.used for leaf in found) / len(found) / store.tree.capacity


@pytest.mark.parametrize("seed", range(3))
def test_contents_that_are_flushed_in_the_order_of_their_files_leave_leaves_fuller(seed: int) -> None:
    assert flush(with_files(), rising=True, seed=seed) > flush(with_files(), rising=False, seed=seed) + 0.1


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_put_as_if_it_rose_each_node_holds_what_fits_and_the_tree_is_a_map(seed: int) -> None:
    chance, truth = random.Random(seed), dict[bytes, bytes]()
    store, _ = open_store(formatted(MemoryDevice(64 * MIB)))
    before = {key for key, _ in store.items(inode_key(InodeNo(0)), inode_key(InodeNo(10_000)))}
    at = 2
    for _ in range(3000):
        at = at + chance.randrange(3) if chance.random() < 0.9 else chance.randrange(2, 3000)
        key = chance.choice((inode_key, inline_key))(InodeNo(at))
        truth[key] = bytes(chance.choice((1, 100, 4000, store.tree.value_bytes_max, chance.randrange(4000))))
        with store.operation(Operation.FLUSH_DATA, 1), store.tree.rising():
            store.put(key, truth[key])
    leaves(store)
    found = dict(store.items(inode_key(InodeNo(2)), inline_key(InodeNo(10_000))))
    assert {key: value for key, value in found.items() if key not in before} == truth
    store.checkpoint(1)
    leaves(store)
