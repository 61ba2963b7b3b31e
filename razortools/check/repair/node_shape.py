"""The shape of a leaf: how many items it holds, found from its bytes where its header tells it wrongly.

The bytes are what the parent's checksum says, so only the header's counts are wrong. With the right number of items the keys rise
within the leaf's range, the ends of the values rise, and nothing but zeros follows; with another one they do not.
"""

from itertools import pairwise

from razortools.check.tree import Items, Place
from razortools.format.keys import KEY_BYTES
from razortools.format.node import ITEM_OVERHEAD_BYTES, NODE_HEADER_BYTES, VALUE_END_BYTES


def shaped(raw: bytes, place: Place) -> Items | None:
    """Return (keys, values) of the leaf in *raw*, or None if no number of items, or more than one, makes sense of it."""
    tried = (_with_count(raw, place, count) for count in range(1, len(raw) // ITEM_OVERHEAD_BYTES))
    found = [items for items in tried if items is not None]
    return found[0] if len(found) == 1 else None


def _with_count(raw: bytes, place: Place, count: int) -> Items | None:
    at = NODE_HEADER_BYTES + count * KEY_BYTES
    first = at + count * VALUE_END_BYTES
    if first > len(raw):
        return None
    keys = [raw[start : start + KEY_BYTES] for start in range(NODE_HEADER_BYTES, at, KEY_BYTES)]
    if keys[0] < place.low or keys[-1] >= place.high or any(a >= b for a, b in pairwise(keys)):
        return None
    ends = [int.from_bytes(raw[start : start + VALUE_END_BYTES], "little") for start in range(at, first, VALUE_END_BYTES)]
    if any(a > b for a, b in pairwise(ends)) or first + ends[-1] > len(raw) or any(raw[first + ends[-1] :]):
        return None
    return keys, [raw[first + start : first + end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
