"""A checkpoint holds what there was when it began, whatever changes while it is being encoded."""

import gc
import random
import weakref
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.engine.create import create, plan_create
from razortools.engine.store import frozen
from razortools.engine.store.nodes import Ref
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.recovery import open_store
from razortools.engine.store.shape import never_frozen
from razortools.engine.store.store import Store
from razortools.format.journal import Operation
from razortools.format.keys import HIGHEST_KEY, LOWEST_KEY, inode_key
from razortools.units import KIB, MIB, BlockNo, InodeNo

KEYS = 4000
Items = dict[bytes, bytes]


def new_store(*, node_bytes: int = 4 * KIB, cache_bytes: int = 4 * MIB) -> Store:
    """Return an empty store of small nodes, so that a few hundred items are a tree of three levels."""
    device = MemoryDevice(32 * MIB)
    create(device, plan_create(device.size_bytes, block_bytes=node_bytes, metadata_copies=1))
    return open_store(device, metadata_cache_bytes=cache_bytes)[0]


def change(store: Store, changes: list[tuple[int, int]]) -> None:
    """Put values of so many bytes at these numbers; none: delete what is there."""
    for number, length in changes:
        key = inode_key(InodeNo(number))
        with store.operation(Operation.SETATTR, number):
            if length:
                store.put(key, bytes([number & 0xFF]) * length)
            else:
                store.delete(key)


def items(store: Store) -> Items:
    return dict(store.items(LOWEST_KEY, HIGHEST_KEY))


def in_image(store: Store) -> Items:
    """Return what a recovery finds in what is stable, without the journal: by reading on and by looking for each key."""
    again, _ = open_store(store.device.copy(), replay=False)  # type: ignore[attr-defined]
    found = items(again)
    assert {key: again.get(key) for key in found} == found
    places = node_places(again, again.tree.root, again.tree.root_level)
    assert len(places) == again.tree.node_count
    assert all(again.maps.is_used(place) for place in places)
    geometry = again.geometry
    not_free = len(places) * geometry.node_blocks + sum(count for _, count in geometry.fixed_extents())
    assert again.maps.free_blocks == geometry.block_count - not_free, "nothing but nodes is in use"
    return found


def node_places(store: Store, ref: Ref, level: int) -> list[BlockNo]:
    node = store.nodes.load(ref, level)
    return [BlockNo(ref.address)] + [place for child in node.children for place in node_places(store, child, level - 1)]


@pytest.fixture(autouse=True)
def _one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "NODES_AT_ONCE", 1)


def some(chance: random.Random, count: int) -> list[tuple[int, int]]:
    """Return changes: near one another or far apart, of all sizes, half of them deletions at times."""
    first, spread = chance.randrange(KEYS), chance.choice([3, 40, KEYS])
    deletes = chance.choice([0.0, 0.5, 1.0])
    numbers = [(first + chance.randrange(spread)) % KEYS for _ in range(count)]
    return [(number, 0 if chance.random() < deletes else chance.choice([20, 200, 900])) for number in numbers]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_whatever_changes_while_it_is_encoded_it_holds_what_there_was(seed: int) -> None:
    chance = random.Random(seed)
    store = new_store(cache_bytes=chance.choice([4 * MIB, 256 * KIB]))
    change(store, [(number, chance.choice([20, 200, 900])) for number in chance.sample(range(KEYS), chance.randrange(20, 1500))])
    for turn in range(chance.randrange(1, 4)):
        expected = items(store)
        flight = store.begin_checkpoint(turn)
        changing = chance.random()
        while flight.prepare(0.0):
            if chance.random() < changing:
                change(store, some(chance, chance.randrange(1, 30)))
        change(store, some(chance, 20))
        flight.run()
        change(store, some(chance, 20))
        now = items(store)
        store.settle()
        assert in_image(store) == expected
        assert items(store) == now
        assert not any(ref.node.frozen for ref in store.nodes._resident if ref.node is not None)
    store.checkpoint(9)
    assert in_image(store) == now
    assert store.tree.dirty_count == store.maps.pending_blocks == 0


@pytest.mark.parametrize("left", [5, 100])
@pytest.mark.parametrize("step", [0, 1, 5, 1000])
def test_whoever_settles_it_has_it_encoded_first(step: int, left: int) -> None:
    store = new_store()
    change(store, [(number, 200) for number in range(500)])
    expected = items(store)
    flight = store.begin_checkpoint(1)
    for _ in range(step):
        if not flight.prepare(0.0):
            break
    change(store, [(number, 0) for number in range(left, 500)])
    store.settle()
    assert in_image(store) == expected
    assert len(items(store)) == len(expected) - 500 + left
    assert store.tree.root_level == (left > 10)
    store.checkpoint(2)
    assert in_image(store) == items(store)


def test_it_cannot_be_written_before_it_is_prepared() -> None:
    store = new_store()
    change(store, [(number, 200) for number in range(500)])
    flight = store.begin_checkpoint(1)
    with pytest.raises(AssertionError, match="prepared first"):
        flight.run()
    assert not flight.prepare()
    flight.run()
    store.settle()


def test_what_is_taken_back_meanwhile_is_as_it_was() -> None:
    store = new_store()
    change(store, [(number, 200) for number in range(500)])
    expected = items(store)
    store.begin_checkpoint(1)
    with pytest.raises(RuntimeError), store.operation(Operation.SETATTR, 1):
        for number in range(400):
            store.delete(inode_key(InodeNo(number)))
        raise RuntimeError
    assert items(store) == expected
    store.settle()
    assert in_image(store) == expected


def all_dirty(store: Store) -> int:
    change(store, [(number, 200) for number in range(900)])
    return store.tree.dirty_count


def test_freezing_leaves_nothing_dirty_and_all_of_it_in_memory() -> None:
    store = new_store(cache_bytes=64 * KIB)
    count = all_dirty(store)
    store.begin_checkpoint(1)
    assert store.tree.dirty_count == 0
    store.nodes.shrink()
    store.nodes.note_stable(store.nodes.stable_generation)
    store.nodes.shrink()
    waiting = [ref.node for ref in store.nodes._resident if ref.node is not None and ref.node.frozen]
    assert len(waiting) == count
    store.settle()
    store.nodes.shrink()
    assert store.nodes.cached_bytes <= 64 * KIB + 3 * store.nodes._unpacked_leaf_bytes(), "they may go now"


def test_a_node_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store()
    count = all_dirty(store)
    encoded: list[int] = []
    honest = frozen.Frozen.__init__

    def counting(self: frozen.Frozen, tree: object, encode: Callable[..., None], failed: object) -> None:
        def counted(ref: object, node: object) -> None:
            encoded.append(id(ref))
            encode(ref, node)

        honest(self, tree, counted, failed)  # type: ignore[arg-type]

    monkeypatch.setattr(frozen.Frozen, "__init__", counting)
    flight = store.begin_checkpoint(1)
    change(store, [(number, 0) for number in range(0, 900, 3)])
    while flight.prepare(0.0):
        change(store, [(len(encoded) % 900, 300)])
    assert len(encoded) == len(set(encoded)) == count
    store.settle()


def failing(store: Store) -> Iterator[None]:
    raise RuntimeError("the encoder is broken")
    yield


def test_what_fails_while_it_is_encoded_turns_the_store_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store()
    change(store, [(number, 200) for number in range(500)])
    store.begin_checkpoint(0)
    store.settle()
    before = in_image(store)
    change(store, [(number, 100) for number in range(500)])
    monkeypatch.setattr(frozen.Frozen, "encoding", failing)
    flight = store.begin_checkpoint(1)
    assert not flight.prepare()
    assert not store.read_only
    with pytest.raises(RuntimeError):
        store.settle()
    assert store.read_only
    assert "the encoder is broken" in store.failure
    assert in_image(store) == before, "nothing was written"


def test_a_root_that_goes_is_thawed_first() -> None:
    store = new_store()
    all_dirty(store)
    store.begin_checkpoint(1)
    root = store.tree.root.node
    assert root is not None
    assert root.frozen
    root.keys, root.children = root.keys[:1], root.children[:1]
    child = root.children[0].node
    assert child is not None
    assert child.frozen
    store.tree._lower()
    assert not root.frozen
    assert (child.frozen, child.dirty) == (False, True), "who finds it dirty changes it without asking"


def test_nothing_of_a_checkpoint_is_kept_once_it_is_written() -> None:
    """It is twice as large as the nodes that were dirty."""
    store = new_store()
    all_dirty(store)
    flight = store.begin_checkpoint(1)
    change(store, [(1, 100)])
    assert not flight.prepare()
    store.settle()
    steps = weakref.ref(flight)
    del flight
    gc.collect()
    assert steps() is None
    assert store.tree.thaw is never_frozen
