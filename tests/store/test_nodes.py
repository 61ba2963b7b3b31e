"""Nodes: bounded memory, copies that heal each other, and asking before waiting."""

import random
from bisect import bisect_left
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.engine.store.nodes import Node
from razortools.engine.store.pages import MemoryDevice, OverlayDevice
from razortools.engine.store.recovery import open_store
from razortools.engine.store.residence import NotResident
from razortools.engine.store.simulated import NO_FAULTS, SimulatedDevice
from razortools.engine.store.store import Store
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.journal import Operation
from razortools.format.keys import HIGHEST_KEY, KEY_BYTES, LOWEST_KEY, inline_key
from razortools.format.node import ITEM_OVERHEAD_BYTES, NodeHeader, encode_node, node_capacity
from razortools.units import KIB, MIB, InodeNo
from tests.workload import formatted

ITEMS = {inline_key(InodeNo(number)): b"%d" % number * 9 for number in random.Random(5).sample(range(2, 10**6), 20_000)}


def filled(device: MemoryDevice, cache_bytes: int = 64 * MIB) -> Store:
    """Return a store with ITEMS, checkpointed, opened with a cache of *cache_bytes*."""
    formatted(device)
    store, _ = open_store(device)
    keys = list(ITEMS)
    for start in range(0, len(keys), 20):
        assert store.room.has(0, 0, 0, deleting=False) or not store.checkpoint(1)
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
    there = [ref.node for ref in store.nodes._resident if ref.node is not None]
    assert len(there) == len(store.nodes._resident), "what was dropped is remembered by nobody"
    counted = sum(map(store.nodes.cost, there))
    assert store.nodes.cached_bytes == counted


def test_a_scan_finds_all_items_in_order_with_a_cold_cache() -> None:
    store = filled(MemoryDevice(64 * MIB), 512 * KIB)
    found = [(key, value) for key, value in store.items(LOWEST_KEY, HIGHEST_KEY) if key in ITEMS]
    assert found == sorted(ITEMS.items())


class SlowDisk(MemoryDevice):
    """A disk of which the host has nothing in memory."""

    def read_cached(self, offset: int, length: int) -> bytes | None:
        return None


def emptied(store: Store) -> Store:
    """Return *store* after its cache has dropped all that can be dropped."""
    limit, store.nodes.limit_bytes = store.nodes.limit_bytes, 0
    store.nodes.note_stable(store.nodes.stable_generation)
    store.nodes.shrink()
    store.nodes.limit_bytes = limit
    store.nodes.note_stable(store.nodes.stable_generation)
    return store


def test_who_does_not_want_to_wait_is_told_which_node_is_missing() -> None:
    store = emptied(filled(SlowDisk(64 * MIB), 512 * KIB))
    assert store.nodes.cached_bytes == 0
    key = next(iter(ITEMS))
    tries = 0
    while True:
        try:
            assert store.residence.attempt({}, store.get, key) == ITEMS[key]
            break
        except NotResident as told:
            (missing,) = told.missing
            missing.admit(missing.fetch())
            tries += 1
    assert tries == store.tree.height() >= 2
    counted = sum(store.nodes.cost(ref.node) for ref in store.nodes._resident if ref.node is not None)
    assert store.nodes.cached_bytes == counted


def test_what_the_host_has_in_memory_is_taken_at_once() -> None:
    store = emptied(filled(MemoryDevice(64 * MIB)))
    key = next(iter(ITEMS))
    assert store.residence.attempt({}, store.get, key) == ITEMS[key]


def test_outside_of_an_attempt_everybody_waits_in_place() -> None:
    store = emptied(filled(SlowDisk(64 * MIB)))
    key = next(iter(ITEMS))
    assert store.get(key) == ITEMS[key]

    def in_place() -> bytes | None:
        with store.residence.in_place():
            return store.get(key)

    assert store.residence.attempt({}, in_place) == ITEMS[key]


def test_once_an_attempt_has_completed_an_operation_its_rest_waits_in_place() -> None:
    store = emptied(filled(SlowDisk(64 * MIB)))
    key, *others = sorted(ITEMS)
    store.get(key)

    def change_then_look() -> bytes | None:
        with store.operation(Operation.WRITE, 1):
            store.put(key, b"new")
        return store.get(others[-1])  # to run this again would change it twice

    assert store.residence.attempt({}, change_then_look) == ITEMS[others[-1]]
    assert store.residence.late_count > 0


def test_what_cannot_be_read_is_told_where_it_is_needed() -> None:
    device = SlowDisk(64 * MIB)
    store = emptied(filled(device))
    key = next(iter(ITEMS))
    with pytest.raises(NotResident) as told:
        store.residence.attempt({}, store.get, key)
    root = store.tree.root
    for address in (root.address, root.mirror):
        device.write(address * store.block_bytes, b"damaged")
    (missing,) = told.value.missing
    with pytest.raises(CorruptImage) as failed:
        missing.fetch()
    with pytest.raises(CorruptImage, match="no good copy"):
        store.residence.attempt({missing.key: failed.value}, store.get, key)


def test_a_node_that_arrives_when_nobody_wants_it_any_more_is_left_out() -> None:
    store = emptied(filled(SlowDisk(64 * MIB)))
    key = next(iter(ITEMS))
    store.get(key)
    leaf = store.tree.find(key, 0)
    assert leaf is not None
    store.nodes.drop(leaf)
    with pytest.raises(NotResident) as told:
        store.residence.attempt({}, store.get, key)
    (missing,) = told.value.missing
    found = missing.fetch()
    with store.operation(Operation.WRITE, 1):
        store.put(key, b"changed meanwhile")
    store.checkpoint(1)
    store.nodes.drop(leaf)
    missing.admit(found)
    assert leaf.node is None
    assert store.get(key) == b"changed meanwhile"
    missing.admit(found)
    assert store.get(key) == b"changed meanwhile"


def test_a_node_that_two_have_waited_for_is_whole_although_it_was_dropped_in_between() -> None:
    """The second hung in what the cache had retired: a node that spans no keys. Once it had changed, it was written like that."""
    store = emptied(filled(SlowDisk(64 * MIB)))
    keys = sorted(ITEMS)
    key = keys[len(keys) // 2]
    while True:  # down to the leaf, one node after the other, each fetched once for two who wait for it
        try:
            store.residence.attempt({}, store.get, key)
            break
        except NotResident as told:
            (missing,) = told.missing
            found = missing.fetch()
            missing.admit(found)
            ref = store.tree.find(key, missing._level)
            assert ref is not None
            store.nodes.drop(ref)
            missing.admit(found)
    assert [found for found, _ in store.items(LOWEST_KEY, HIGHEST_KEY) if found in ITEMS] == keys
    with store.operation(Operation.WRITE, 1):
        store.put(key, b"changed")
    store.checkpoint(1)
    emptied(store)
    assert store.get(key) == b"changed"
    assert [found for found, _ in store.items(LOWEST_KEY, HIGHEST_KEY) if found in ITEMS] == keys


def test_readers_alone_keep_the_limit() -> None:
    limit = 512 * KIB
    store = filled(MemoryDevice(64 * MIB), limit)
    keys = list(ITEMS)
    random.Random(1).shuffle(keys)
    most = 0
    store.get(keys[0])
    one_more = max(store.nodes.cost(ref.node) for ref in store.nodes._resident if ref.node is not None)
    for key in keys:
        assert store.get(key) == ITEMS[key]
        most = max(most, store.nodes.cached_bytes)
    for _ in store.items(LOWEST_KEY, HIGHEST_KEY):
        most = max(most, store.nodes.cached_bytes)
    assert most <= limit + one_more


@pytest.mark.parametrize("node_bytes", [4 * KIB, 16 * KIB, 64 * KIB])
@given(st.data())
@settings(max_examples=60)
def test_a_packed_leaf_answers_as_a_sorted_map_does(node_bytes: int, data: st.DataObject) -> None:
    """With keys that differ at the front, at the end and hardly, and up to as many as a node can hold."""
    near = st.integers(0, 300).map(lambda number: number.to_bytes(KEY_BYTES, "big"))
    key = st.one_of(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), near)
    items = data.draw(st.dictionaries(key, st.binary(max_size=12), max_size=100))
    if data.draw(st.booleans()):
        items = {number.to_bytes(KEY_BYTES, "big"): b"" for number in range(node_capacity(node_bytes) // ITEM_OVERHEAD_BYTES)}
    keys = sorted(items)
    header = NodeHeader(1, 2, 0, 3, len(keys), 0, 0, sum(map(len, items.values())), LOWEST_KEY, HIGHEST_KEY)
    raw, _ = encode_node(header, keys, [items[key] for key in keys], node_bytes)
    leaf = Node(0, LOWEST_KEY, HIGHEST_KEY)
    leaf.raw, leaf.count = raw, len(keys)
    for asked in [*data.draw(st.lists(key, max_size=20)), *keys[:3], *keys[-3:]]:
        assert leaf.get_packed(asked) == items.get(asked)
        assert leaf.search_packed(asked) == bisect_left(keys, asked)
    low, high = sorted((data.draw(key), data.draw(key)))
    assert leaf.window_packed(low, high) == [(key, items[key]) for key in keys if low <= key <= high]


def test_what_was_used_since_the_last_look_stays_when_others_go() -> None:
    store = filled(MemoryDevice(64 * MIB))
    for _ in store.items(LOWEST_KEY, HIGHEST_KEY):
        pass
    nodes = store.nodes
    leaves = [ref for ref in nodes._resident if ref.node is not None and not ref.node.level]
    used = random.Random(6).sample(leaves, len(leaves) // 4)
    for ref in leaves:
        assert ref.node is not None
        ref.node.hot = ref in used
    unused = sum(nodes.cost(ref.node) for ref in leaves if ref.node is not None and not ref.node.hot)
    nodes.limit_bytes = nodes.cached_bytes - unused
    nodes.note_stable(nodes.stable_generation)
    nodes.shrink()
    assert {ref for ref in leaves if ref.node is not None} == set(used)
    assert nodes.cached_bytes == nodes.limit_bytes


def test_what_the_tree_has_given_up_since_a_look_began_is_passed_over() -> None:
    store = filled(MemoryDevice(64 * MIB))
    for _ in store.items(LOWEST_KEY, HIGHEST_KEY):
        pass
    nodes = store.nodes
    nodes.limit_bytes = nodes.cached_bytes - 1
    nodes.note_stable(nodes.stable_generation)
    nodes.shrink()  # a round begins
    with store.operation(Operation.WRITE, 1):
        for key in sorted(ITEMS)[2000:]:
            store.delete(key)
    store.checkpoint(1)
    emptied(store)
    assert nodes.cached_bytes == 0
    assert [key for key, _ in store.items(LOWEST_KEY, HIGHEST_KEY) if key in ITEMS] == sorted(ITEMS)[:2000]


def test_a_failed_checkpoint_keeps_what_it_has_not_written_and_nothing_else() -> None:
    device = SimulatedDevice(64 * MIB)
    limit = 512 * KIB
    store = filled(device, limit)
    changed = sorted(ITEMS)[:50]
    with store.operation(Operation.WRITE, 1):
        for key in changed:
            store.put(key, b"new")
    device.faults = replace(NO_FAULTS, fail_flush_at=device.flush_count)
    with pytest.raises(DeviceFailed):
        store.checkpoint(2)
    most = 0
    for key in random.Random(2).sample(sorted(ITEMS), 5000):
        assert store.get(key) == (b"new" if key in changed else ITEMS[key])
        most = max(most, store.nodes.cached_bytes)
    assert most <= 2 * limit


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
