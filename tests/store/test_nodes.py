"""Nodes: bounded memory, copies that heal each other, and asking before waiting."""

import random
from dataclasses import replace

import pytest

from razortools.engine.store.device import MemoryDevice, OverlayDevice
from razortools.engine.store.nodes import NotResident
from razortools.engine.store.recovery import open_store
from razortools.engine.store.store import Store
from razortools.errors import CorruptImage
from razortools.format.journal import Operation
from razortools.format.keys import HIGHEST_KEY, LOWEST_KEY, inline_key
from razortools.units import KIB, MIB, InodeNo
from tests.workload import formatted

ITEMS = {inline_key(InodeNo(number)): b"%d" % number * 9 for number in random.Random(5).sample(range(2, 10**6), 20_000)}


def filled(device: MemoryDevice, cache_bytes: int = 64 * MIB) -> Store:
    """Return a store with ITEMS, checkpointed, opened with a cache of *cache_bytes*."""
    formatted(device)
    store, _ = open_store(device)
    keys = list(ITEMS)
    for start in range(0, len(keys), 20):
        assert store.has_room(0, 0, 0, deleting=False) or not store.checkpoint(1)
        with store.operation(Operation.WRITE, 1):
            for key in keys[start : start + 20]:
                store.put(key, ITEMS[key])
    store.checkpoint(1)
    again, _ = open_store(device, metadata_cache_bytes=cache_bytes)
    again.checkpoint(1)
    return again


def touch(store: Store) -> None:
    """Run an empty operation: nodes are dropped between operations only."""
    with store.operation(Operation.WRITE, 1):
        pass


def test_a_small_cache_holds_its_limit_and_finds_everything() -> None:
    limit = 512 * KIB
    store = filled(MemoryDevice(64 * MIB), limit)
    keys = list(ITEMS)
    random.Random(1).shuffle(keys)
    most = 0
    for key in keys[:5000]:
        assert store.get(key) == ITEMS[key]
        touch(store)
        most = max(most, store.nodes.cached_bytes)
    assert most <= limit
    assert store.nodes.misses > 1000
    counted = sum(store.nodes.cost(ref.node) for ref in store.nodes._resident if ref.node is not None)
    assert store.nodes.cached_bytes == counted


def test_a_scan_finds_all_items_in_order_with_a_cold_cache() -> None:
    store = filled(MemoryDevice(64 * MIB), 512 * KIB)
    found = [(key, value) for key, value in store.items(LOWEST_KEY, HIGHEST_KEY) if key in ITEMS]
    assert found == sorted(ITEMS.items())


def test_who_does_not_want_to_wait_is_told_which_node_is_missing() -> None:
    store = filled(MemoryDevice(64 * MIB), 512 * KIB)
    key = next(iter(ITEMS))
    for ref in list(store.nodes._resident):
        if ref.node is not None and not ref.node.level:
            store.nodes.drop(ref)
    store.nodes.blocking = False
    tries = 0
    while True:
        try:
            assert store.get(key) == ITEMS[key]
            break
        except NotResident as missing:
            store.nodes.load(missing.ref, missing.level)
            tries += 1
    assert 1 <= tries <= store.tree.height()


@pytest.mark.parametrize("copies", [1, 2])
def test_a_damaged_node_is_healed_from_its_copy_or_refused(copies: int) -> None:
    device = MemoryDevice(16 * MIB)
    formatted(device, metadata_copies=copies)
    store, _ = open_store(device)
    store.checkpoint(1)
    root = store.tree.root
    place = root.address * store.block_bytes
    good = device.read(place, store.geometry.node_bytes)
    for at in random.Random(2).sample(range(len(good)), 30):
        device.write(place + at, bytes([good[at] ^ 1]))
        if copies == 1:
            with pytest.raises(CorruptImage, match="no good copy"):
                open_store(device)[0].get(LOWEST_KEY)
            device.write(place, good)
            continue
        looking = OverlayDevice(device)
        looking.read_only = True
        reader, _ = open_store(looking, replay=False)
        reader.get(LOWEST_KEY)
        assert reader.nodes.healed == 1 and device.read(place, len(good)) != good  # a reader changes nothing
        healer, _ = open_store(device)
        healer.get(LOWEST_KEY)
        assert healer.nodes.healed == 1 and healer.nodes.events
        assert device.read(place, len(good)) == good


def test_once_the_device_has_failed_nothing_is_written_to_it_not_even_to_heal() -> None:
    device = MemoryDevice(16 * MIB)
    formatted(device)
    store, _ = open_store(device)
    store.checkpoint(1)
    place = store.tree.root.address * store.block_bytes
    device.write(place, b"damaged")
    failed, _ = open_store(device)
    failed.fail("a flush failed")
    failed.get(LOWEST_KEY)
    assert failed.nodes.healed == 1
    assert device.read(place, 7) == b"damaged"


def test_a_node_in_the_wrong_place_is_not_believed() -> None:
    device = MemoryDevice(16 * MIB)
    formatted(device, metadata_copies=1)
    store, _ = open_store(device)
    store.checkpoint(1)
    pointer = store.tree.root.pointer()
    elsewhere = replace(pointer, address=pointer.address + 40 * store.geometry.node_blocks)
    raw = device.read(pointer.address * store.block_bytes, store.geometry.node_bytes)
    device.write(elsewhere.address * store.block_bytes, raw)
    store.tree.root.address = elsewhere.address
    store.nodes.drop(store.tree.root)
    with pytest.raises(CorruptImage, match="it is the node of block"):
        store.get(LOWEST_KEY)
