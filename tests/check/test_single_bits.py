"""The law of the wrong bit: whichever bit of whichever item is wrong, a repair makes of it what it was.

All checksums are right, so that nothing tells but the item itself and what else the image says of the same thing. Left out is
what nothing else says: owners, permissions, times, the bytes of contents and of values that stand in the tree. How long a large
attribute is that is stored as it is, one of two numbers says wrongly then, and nobody knows which: that it is lost is told.
"""

import os
import random
import stat
from collections import defaultdict
from functools import cache

import pytest

from razortools.check.bitflip import turned
from razortools.check.loss import Loss
from razortools.check.repair.repair import Wishes, repair
from razortools.check.runner import Options, check_quietly
from razortools.check.steps import finished
from razortools.engine.store.device import Device
from razortools.format.data import InlineData
from razortools.format.inode import Inode
from razortools.format.keys import KIND_AT, Kind
from razortools.format.xattr import Xattr
from tests.check.editing import editing, indexed
from tests.check.samples import healthy
from tools.fuzzing.view import Seen, view

SEED = 20_261_127
ITEMS_EACH = 4  # of a kind
BITS_EACH = 12  # of an item
KINDS = (
    Kind.INODE, Kind.BACK_LINK, Kind.XATTR, Kind.INLINE_DATA, Kind.DATA_RECORD, Kind.DIRECTORY_ENTRY, Kind.NAME, Kind.COUNTERS,
)  # fmt: skip


@cache
def by_kind() -> dict[Kind, list[tuple[bytes, bytes]]]:
    """Return the items of the sample, by kind."""
    found: dict[Kind, list[tuple[bytes, bytes]]] = defaultdict(list)
    for _, (keys, values) in indexed(healthy()).leaves():
        for key, value in zip(keys, values, strict=True):
            found[Kind(key[KIND_AT])].append((key, value))
    return found


def judged(kind: Kind, value: bytes) -> list[int]:
    """Return the bits of an item that something else can tell of."""
    if kind == Kind.INODE:
        size = next(field for field in Inode.FIELDS if field.name == "size")
        of_size = range(8 * size.offset, 8 * (size.offset + size.size_bytes))
        return [bit for bit in range(8 * len(value)) if bit not in of_size]  # a file may be larger than what is in it: a hole
    if kind == Kind.INLINE_DATA:
        return list(range(8 * InlineData.FIXED_BYTES))
    if kind == Kind.XATTR:
        attribute = Xattr.decode(value)
        return list(range(8 * (len(value) if attribute.out_of_line else Xattr.FIXED_BYTES + attribute.name_bytes)))
    return list(range(8 * len(value)))


def cases(kind: Kind) -> list[tuple[bytes, bytes, int]]:
    """Return (key, value, bit) of some items of a kind: a few bits each, as the seed says."""
    chance = random.Random(f"{SEED} {kind}")
    found = by_kind()[kind]
    return [
        (key, value, bit)
        for key, value in chance.sample(found, min(ITEMS_EACH, len(found)))
        for bit in _some(judged(kind, value), chance)
    ]


def _some(bits: list[int], chance: random.Random) -> list[int]:
    return sorted(chance.sample(bits, min(BITS_EACH, len(bits))))


def seen(device: Device) -> dict[str, tuple[int, object]]:
    """Return (inode, what else tells of it: type, size, contents, attributes) of every file, by path."""
    return {
        os.fsdecode(path): (one.ino, (_type_of(one), *(one.parts.get(part) for part in ("size", "data", "xattrs"))))
        for path, one in view(device).items()
    }


def _type_of(one: Seen) -> int:
    mode = one.parts["mode"]
    assert isinstance(mode, int), mode
    return stat.S_IFMT(mode)


def named_in(loss: Loss) -> set[str]:
    """Return all paths that the statement names."""
    return {
        *loss.lost, *(one.old for one in loss.renamed), *(one.new for one in loss.renamed), *(one.path for one in loss.truncated),
        *(one.path for one in loss.changed),
    }  # fmt: skip


def silent(before: dict[str, tuple[int, object]], after: dict[str, tuple[int, object]], loss: Loss | None) -> list[str]:
    """Return the paths at which something else is, and neither they nor a directory above nor another name is told."""
    named = named_in(loss) if loss is not None else set()
    numbers = {ino for path, (ino, _) in before.items() if path in named}
    return [
        path for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
        and not any(path == one or path.startswith(one + "/") for one in named)
        and not (path in before and before[path][0] in numbers)
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_one_wrong_bit_costs_nothing(kind: Kind) -> None:
    before = seen(healthy())
    found = []
    for key, value, bit in cases(kind):
        device = healthy()
        with editing(device) as store:
            store.tree.put(key, turned(value, bit))
        done = finished(repair(device, Wishes(check=Options(threads=1))))
        if done is None:
            assert check_quietly(device).clean, (key.hex(), bit)
        else:
            assert done.refused == "" and done.after.clean, (key.hex(), bit)
        may_be_told = done is not None and kind == Kind.XATTR
        lost = silent(before, seen(device if done is None else done.overlay), done.loss if done and may_be_told else None)
        found += [(key.hex(), bit, lost)] if lost else []
    assert not found, f"seed {SEED}"
