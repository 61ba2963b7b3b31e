"""An extended attribute of which one bit is wrong: the hash that it is filed under, and its record's data, tell what it was."""

import functools
import random
from collections.abc import Sequence

import pytest

from razortools.check.bitflip import turned as with_bit_turned
from razortools.check.stored_file import attributes_of
from razortools.engine import xattrs
from razortools.engine.store.device import Device
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.keys import KIND_AT, Kind, inode_key, object_of
from razortools.format.xattr import Xattr
from razortools.units import InodeNo
from tests.check.editing import editing, find_inode, indexed
from tests.check.samples import Copy, healthy, opened
from tests.check.test_misfiled import items, repaired

LONG = b"user.long", b"words that stand in the tree, though they are longer than a record would be"
SEED = 20_261_127
FLAG = 8  # the bit that says that the value is a record
_RAW_BYTES = 8 * (Xattr.FIXED_BYTES + len(b"user.large") + 12)  # where its record tells how many bytes it holds
TOO_LARGE = range(_RAW_BYTES + 16, _RAW_BYTES + 32)  # more than an attribute may have


def with_attributes() -> Device:
    """Return an image with attributes of each sort: a record, a short value, a long one."""
    device = healthy()
    with opened(device) as volume:
        xattrs.set(volume, ROOT_INODE, *LONG)
    return device


def attributes(device: Device) -> dict[str, bytes]:
    """Return the keys of the attributes by their names."""
    return {Xattr.decode(value).name.decode(): key for key, value in items(device).items() if key[KIND_AT] == Kind.XATTR}


def salvaged(device: Device, number: InodeNo) -> dict[bytes, bytes | None]:
    """Return the attributes as a salvage copies them."""
    tree = indexed(device)
    return dict(attributes_of(tree, number, Inode.decode(tree.get(inode_key(number)) or b"")))


def turned(device: Device, key: bytes, bit: int) -> Copy:
    """Return a copy in which one bit of an item is wrong."""
    hurt = Copy(device)
    with editing(hurt) as store:
        store.tree.put(key, with_bit_turned(store.tree.get(key) or b"", bit))
    return hurt


def some(bits: Sequence[int]) -> list[int]:
    """Return the bits of length and flags, and a third of the others, chosen by a seed."""
    head = [bit for bit in bits if bit < 8 * Xattr.FIXED_BYTES]
    rest = bits[len(head) :]
    return head + sorted(random.Random(SEED).sample(rest, len(rest) // 3))


def wrong_bits(name: str) -> list[int]:
    """Return the bits of an attribute that something else tells: length, flags and name."""
    return list(range(8 * (Xattr.FIXED_BYTES + len(name))))


@pytest.mark.parametrize("name", ["user.note", "user.large", "user.long"])
def test_regression_one_wrong_bit_before_the_value_costs_nothing(name: str) -> None:
    """The attribute was removed for one bit of its name, and one whose flag was gone became the bytes of its record."""
    device = with_attributes()
    expected, key = items(device), attributes(device)[name]
    for bit in some(wrong_bits(name)):
        assert items(repaired(turned(device, key, bit)).overlay) == expected, f"bit {bit}"


def test_regression_an_attribute_that_says_it_is_too_large_does_not_become_the_bytes_of_its_record() -> None:
    """Its flag was cleared, so that what stood in the tree counted as its value; nothing was said."""
    device = with_attributes()
    expected, key = items(device), attributes(device)["user.large"]
    for bit in some(TOO_LARGE):
        assert items(repaired(turned(device, key, bit)).overlay) == expected, f"bit {bit}"


@pytest.mark.parametrize("name", ["user.note", "user.large", "user.long"])
def test_salvage_copies_them_as_they_were(name: str) -> None:
    device = with_attributes()
    key = attributes(device)[name]
    number = InodeNo(object_of(key))
    expected = salvaged(device, number)
    for bit in some(wrong_bits(name)) + some(TOO_LARGE) * (name == "user.large"):
        if (name, bit) == ("user.large", FLAG):
            continue  # that its value is a record is told by blocks that are nobody's, which a salvage does not count
        assert salvaged(turned(device, key, bit), number) == expected, f"bit {bit}"


def test_a_value_that_looks_like_a_record_stays_a_value_though_blocks_are_missing() -> None:
    """They are not the blocks that it names."""
    device = healthy()
    with opened(device) as volume:
        ino = find_inode(device, "/docs/one")
        for name in (b"user.large", b"user.gone"):
            xattrs.set(volume, ino, name, random.Random(name).randbytes(9000))
    large, gone = attributes(device)["user.large"], attributes(device)["user.gone"]
    looks_like_one = Xattr.decode(items(device)[large]).value
    with opened(device) as volume:
        xattrs.set(volume, ino, b"user.copy", looks_like_one)
    with editing(device) as store:
        store.tree.delete(gone)
    with opened(repaired(device).overlay) as volume:
        assert xattrs.get(volume, ino, b"user.copy") == looks_like_one


def test_a_record_with_more_than_one_wrong_bit_never_becomes_a_value() -> None:
    """It says several impossible things then, as a value does that is taken for one; but the inode counts its blocks."""
    device = with_attributes()
    key = attributes(device)["user.large"]
    value, number = items(device)[key], InodeNo(object_of(key))
    large = salvaged(device, number)[b"user.large"]
    record_at = Xattr.FIXED_BYTES + len(b"user.large")
    chance = random.Random(SEED)
    flips = [sorted(chance.sample(range(8 * record_at, 8 * len(value)), chance.choice((2, 3, 8)))) for _ in range(40)]
    for bits in (*flips, None):
        hurt = Copy(device)
        wrong = value[: record_at + 20] if bits is None else functools.reduce(with_bit_turned, bits, value)
        with editing(hurt) as store:
            store.tree.put(key, wrong)
        assert salvaged(hurt, number)[b"user.large"] in (large, None), bits
        done = repaired(hurt)
        found = salvaged(done.overlay, number).get(b"user.large")
        told = [(one.path, one.attributes) for one in done.loss.truncated] if done.loss is not None else []
        assert found == large or (found is None and told == [("/small", ("user.large",))]), bits
