"""The tree remembers leaves: it never finds in them what the tree does not hold, nor changes what is not the tree's any more."""

import random

import pytest

from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.recovery import open_store
from razortools.engine.store.store import Store
from razortools.format.journal import Operation
from razortools.format.keys import HIGHEST_KEY, LOWEST_KEY, back_link_key, entry_key, inode_key, name_key
from razortools.units import MIB, InodeNo, NameId
from tests.workload import formatted


def some_key(chance: random.Random) -> bytes:
    """Return one of a thousand keys, of the kinds that lie side by side and of those that do not."""
    number = chance.randrange(250)
    ino = InodeNo(number)
    return chance.choice(
        (inode_key(ino), back_link_key(ino, 0), name_key(NameId(number)), entry_key(InodeNo(number % 3), number << 50))
    )


def change(store: Store, truth: dict[bytes, bytes], chance: random.Random, *, growing: bool) -> None:
    """Do one operation of a few changes: growing leaves split, shrinking ones are joined."""
    with store.operation(Operation.WRITE, 1):
        for _ in range(chance.randrange(1, 5)):
            key = some_key(chance)
            if chance.random() < (0.8 if growing else 0.05):
                truth[key] = bytes(chance.randrange(1, 600))
                store.put(key, truth[key])
            else:
                truth.pop(key, None)
                store.delete(key)


def cut(store: Store, truth: dict[bytes, bytes], chance: random.Random, count_max: int) -> bool:
    """Cut a range out in an operation that stands, or is taken back half of the time. Return whether the tree did it at once."""
    ino = InodeNo(chance.randrange(250))
    low, high = sorted((some_key(chance), some_key(chance))) if chance.random() < 0.3 else (inode_key(ino), back_link_key(ino, 9))
    wanted = [(key, truth[key]) for key in sorted(truth) if low <= key <= high]
    stands = chance.random() < 0.5
    try:
        with store.operation(Operation.WRITE, 1):
            gone = store.cut(low, high, count_max)
            assert gone == wanted if gone is not None else wanted or low != high
            assert len(wanted) <= count_max or gone is None
            if not stands:
                raise LookupError
    except LookupError:
        return False
    for key, _ in gone or ():
        del truth[key]
    return bool(gone)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_leaf_was_used_last_the_tree_is_a_map(seed: int) -> None:
    chance = random.Random(seed)
    print(f"seed {seed}")
    device = MemoryDevice(32 * MIB)
    formatted(device)
    store, _ = open_store(device, metadata_cache_bytes=200_000)  # a few leaves: the others come and go
    items = dict(store.items(LOWEST_KEY, HIGHEST_KEY))
    cuts = 0
    for step in range(3600):
        assert store.room.has(0, 0, 0, deleting=False) or not store.checkpoint(1)
        change(store, items, chance, growing=step // 600 % 2 == 0)
        if step % 4 == 0:
            cuts += cut(store, items, chance, count_max=3)
        if step % 50 == 0:
            store.checkpoint(1)  # clean leaves may go
        for key in (some_key(chance), some_key(chance)):
            assert store.get(key) == items.get(key)
            low, high = min(key, some_key(chance)), key
            if step % 40 == 0:
                found = [(other, items[other]) for other in sorted(items) if low <= other <= high]
                assert list(store.window(low, high)) == found
            one = [(key, items[key])] if key in items else []
            assert list(store.window(key, key)) == one
    assert dict(store.items(LOWEST_KEY, HIGHEST_KEY)) == items
    assert store.nodes.misses > 100
    assert cuts > 100
