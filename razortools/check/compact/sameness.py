"""Sameness: whether two trees hold the same files, item by item, wherever and under whichever id of a name these are kept.

This shares nothing with what writes a compacted tree. That counts are right and stored bytes verify is the check's work; here it
is that nothing came, went, or changed. Leaves that both trees share are not looked at twice.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest

from razortools.check.keynames import item_words
from razortools.check.tree import TreeIndex
from razortools.errors import CorruptImage
from razortools.format.data import DataRecord
from razortools.format.items import owned_record
from razortools.format.keys import COUNTERS_KEY, HIGHEST_KEY, KIND_AT, Kind, Table, name_key, object_of
from razortools.format.name import Name
from razortools.format.volume import Counters
from razortools.format.xattr import Xattr
from razortools.units import BlockNo, NameId

Item = tuple[bytes, bytes]

_ID = slice(8, 16)  # of the name in an entry and in a back link
_NAMING = frozenset(map(int, (Kind.DIRECTORY_ENTRY, Kind.BACK_LINK)))


def difference(before: TreeIndex, after: TreeIndex) -> str:
    """Return what the tree *after* holds differently, in a few words; empty: nothing."""
    judged: set[tuple[int, int]] = set()  # pairs of ids that mean the same name
    for old, new in _differing(before, after):
        for one, other in zip_longest(_but_names(old, before, after), _but_names(new, after, before)):
            if one != other and not (one and other and _same(one, other, before, after, judged)):
                return f"inode {object_of((one or other)[0])}, {item_words((one or other)[0])}"
    return ""


def _differing(before: TreeIndex, after: TreeIndex) -> Iterator[tuple[Iterator[Item], Iterator[Item]]]:
    """Yield the items of ranges of keys in which the trees do not share their leaves, in order."""
    at = to = 0
    while at < before.leaf_count or to < after.leaf_count:
        if before.leaf_addresses[at] == after.leaf_addresses[to] and _low(before, at + 1) == _low(after, to + 1):
            at, to = at + 1, to + 1
            continue
        first, second = at, to
        at, to = at + 1, to + 1
        while _low(before, at) != _low(after, to):
            if _low(before, at) < _low(after, to):
                at += 1
            else:
                to += 1
        yield _items(before, first, at), _items(after, second, to)


def _low(tree: TreeIndex, leaf: int) -> bytes:
    return tree.leaf_lows[leaf] if leaf < tree.leaf_count else HIGHEST_KEY


def _items(tree: TreeIndex, first: int, behind: int) -> Iterator[Item]:
    for leaf in range(first, behind):
        yield from zip(*tree.items_of(leaf), strict=True)


def _but_names(items: Iterator[Item], tree: TreeIndex, other: TreeIndex) -> Iterator[Item]:
    """Yield the items, those strings left out of which only one tree knows: that nobody uses them, the check has found."""
    for key, value in items:
        if key[0] != Table.NAMES or other.get(key) is not None:
            yield key, value


def _same(one: Item, other: Item, before: TreeIndex, after: TreeIndex, judged: set[tuple[int, int]]) -> bool:
    """Return whether two items that differ mean the same."""
    key, old, new = one[0], one[1], other[1]
    if key != other[0]:
        return False
    try:
        if key[0] == Table.NAMES:
            return Name.decode(old).text == Name.decode(new).text
        if key == COUNTERS_KEY:
            return replace(Counters.decode(old), name_count=0) == replace(Counters.decode(new), name_count=0)
        if key[KIND_AT] in _NAMING:
            return _without_id(old) == _without_id(new) and _same_name(old, new, before, after, judged)
        return _contents(key, old) == _contents(key, new)
    except CorruptImage:
        return False


def _without_id(value: bytes) -> bytes:
    return value[: _ID.start] + value[_ID.stop :]


def _same_name(old: bytes, new: bytes, before: TreeIndex, after: TreeIndex, judged: set[tuple[int, int]]) -> bool:
    pair = int.from_bytes(old[_ID], "little"), int.from_bytes(new[_ID], "little")
    if pair not in judged:
        texts = before.get(name_key(NameId(pair[0]))), after.get(name_key(NameId(pair[1])))
        if None in texts or Name.decode(texts[0] or b"").text != Name.decode(texts[1] or b"").text:
            return False
        judged.add(pair)
    return True


def _contents(key: bytes, value: bytes) -> tuple[bytes, DataRecord] | bytes:
    """Return what an item says, but not where its blocks lie."""
    record = owned_record(key, value)
    if record is None:
        return value
    name = Xattr.decode(value).name if key[KIND_AT] == Kind.XATTR else b""
    return name, record.moved_to(BlockNo(0))
