"""Tree nodes: what was packed comes out again, and what is not a node is refused."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.errors import CorruptImage
from razortools.format import node
from razortools.format.keys import HIGHEST_KEY, KEY_BYTES, LOWEST_KEY
from razortools.format.node import NodeHeader

NODE_BYTES = 4096
items = st.dictionaries(
    st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), st.binary(max_size=node.value_bytes_max(NODE_BYTES)), max_size=60
)


def fitting(content: dict[bytes, bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return as many of the items, in order, as fit into a node."""
    keys: list[bytes] = []
    values: list[bytes] = []
    room = node.node_capacity(NODE_BYTES)
    for key, value in sorted(content.items()):
        room -= node.ITEM_OVERHEAD_BYTES + len(value)
        if room < 0:
            break
        keys.append(key)
        values.append(value)
    return keys, values


def header_for(keys: list[bytes], values: list[bytes]) -> NodeHeader:
    used = sum(map(len, values))
    return NodeHeader(7, 100, 200, 3, len(keys), 0, 0, used, LOWEST_KEY, HIGHEST_KEY)


@given(items)
def test_a_packed_node_unpacks_to_its_items(content: dict[bytes, bytes]) -> None:
    keys, values = fitting(content)
    header = header_for(keys, values)
    raw, checksum = node.encode_node(header, keys, values, NODE_BYTES)
    assert len(raw) == NODE_BYTES
    assert node.node_checksum(raw) == checksum == int.from_bytes(raw[4:8], "little")
    assert node.decode_header(raw) == header
    assert node.decode_items(raw, header) == (keys, values)


@given(items)
def test_the_head_of_a_node_is_the_declared_record(content: dict[bytes, bytes]) -> None:
    keys, values = fitting(content)
    header = header_for(keys, values)
    raw, _ = node.encode_node(header, keys, values, NODE_BYTES)
    parsed = NodeHeader.LAYOUT.parse(raw)
    assert {name: parsed[name] for name in NodeHeader.__dataclass_fields__} == {
        name: getattr(header, name) for name in NodeHeader.__dataclass_fields__
    }


@given(items, st.integers(4, NODE_BYTES - 1), st.integers(1, 255))
def test_a_changed_byte_behind_the_magic_is_seen_by_the_checksum(content: dict[bytes, bytes], place: int, change: int) -> None:
    keys, values = fitting(content)
    raw, checksum = node.encode_node(header_for(keys, values), keys, values, NODE_BYTES)
    damaged = bytearray(raw)
    damaged[place] ^= change
    stored = int.from_bytes(damaged[4:8], "little")
    assert node.node_checksum(bytes(damaged)) != stored or stored != checksum


@given(st.integers(0, 80), st.integers(0, NODE_BYTES), st.integers())
def test_random_bytes_are_refused_and_never_crash_the_decoder(item_count: int, used_bytes: int, seed: int) -> None:
    noise = bytearray(Random(seed).randbytes(NODE_BYTES))
    head = replace(header_for([], []), item_count=item_count, used_bytes=used_bytes).encode()
    noise[: len(head)] = head
    try:
        header = node.decode_header(bytes(noise))
        keys, values = node.decode_items(bytes(noise), header)
    except CorruptImage:
        return
    assert len(keys) == len(values) == header.item_count


def test_another_magic_is_refused() -> None:
    with pytest.raises(CorruptImage, match="magic"):
        node.decode_header(bytes(NODE_BYTES))


@pytest.mark.parametrize("node_bytes", [4096, 16384, 65536])
def test_a_node_has_room_for_four_items_of_the_largest_size(node_bytes: int) -> None:
    largest = node.value_bytes_max(node_bytes)
    assert 4 * (largest + node.ITEM_OVERHEAD_BYTES) <= node.node_capacity(node_bytes)
    assert node.inline_bytes_max(node_bytes) < largest
