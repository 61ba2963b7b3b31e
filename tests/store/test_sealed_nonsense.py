"""Trees that are sealed with right checksums and make no sense: a walk through them ends."""

from dataclasses import replace

import pytest

from razortools.engine.store.recovery import open_store
from razortools.errors import CorruptImage
from razortools.format.keys import HIGHEST_KEY, KEY_BYTES, LOWEST_KEY
from razortools.format.node import NodeHeader, decode_header, decode_items
from tests.check.editing import editing, indexed, rewrite_node
from tests.check.samples import healthy


def moved(key: bytes, by: int) -> bytes:
    """Return the key that many behind another one."""
    return (int.from_bytes(key, "big") + by).to_bytes(KEY_BYTES, "big")


@pytest.mark.parametrize("end", ["low", "high"])
def test_nodes_whose_ranges_do_not_meet_stop_a_walk(end: str) -> None:
    """The range of a leaf ends a key too early, on one side: the next step of a walk on that side is in the same leaf again."""
    device = healthy(copies=1)
    low = indexed(device).leaf_lows[2]
    with editing(device) as store:
        store.tree.delete(low)  # so that a part of the range in front has no keys

    def edit(raw: bytearray) -> None:
        header = decode_header(bytes(raw))
        keys, _ = decode_items(bytes(raw), header)
        range_end = keys[0] if end == "low" else moved(header.high, -1)
        changed = replace(header, **{end: range_end})  # type: ignore[arg-type]
        raw[8 : 8 + NodeHeader.FIXED_BYTES] = changed.STRUCT.pack(*NodeHeader._FLATTEN(changed))

    rewrite_node(device, lambda level, raw: level == 0 and decode_header(raw).low == low, edit)
    store, _ = open_store(device)
    with pytest.raises(CorruptImage, match="another range of keys"):
        if end == "high":
            list(store.items(LOWEST_KEY, HIGHEST_KEY))
        else:
            store.tree.last(LOWEST_KEY, low)
