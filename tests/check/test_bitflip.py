"""One flipped bit is found from the checksum alone, in any data, of any length, and nothing else is taken for one."""

import random

import crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.check.bitflip import find_flipped_bit, mend_sealed, turned, without_flipped_bit
from razortools.format.node import NODE_MAGIC
from razortools.units import KIB, MIB


@given(data=st.binary(min_size=1, max_size=300), place=st.integers(0, 1 << 32), start=st.integers(0, (1 << 32) - 1))
def test_a_flipped_bit_is_found_wherever_it_is(data: bytes, place: int, start: int) -> None:
    bit = place % (8 * len(data))
    checksum = crc32c.crc32c(data, start)
    assert find_flipped_bit(turned(data, bit), checksum, start) == bit
    assert without_flipped_bit(turned(data, bit), checksum, start) == data


def test_every_bit_of_a_node_is_found() -> None:
    data = random.Random(1).randbytes(4096)
    checksum = crc32c.crc32c(data)
    assert all(find_flipped_bit(turned(data, bit), checksum) == bit for bit in range(0, 8 * len(data), 7))


@pytest.mark.parametrize("length", [64 * KIB, 128 * KIB, MIB, 2 * MIB])
def test_bits_at_the_ends_and_in_the_middle_of_large_records_are_found(length: int) -> None:
    data = random.Random(length).randbytes(length)
    checksum = crc32c.crc32c(data)
    for bit in (0, 1, 7, 8, 4 * length, 8 * length - 8, 8 * length - 1):
        assert find_flipped_bit(turned(data, bit), checksum) == bit


def test_data_that_verify_have_no_flipped_bit() -> None:
    assert find_flipped_bit(b"whole", crc32c.crc32c(b"whole")) is None
    assert find_flipped_bit(b"", 0) is None


@given(data=st.binary(min_size=2, max_size=600), chance=st.randoms(use_true_random=False))
def test_two_to_four_flipped_bits_are_never_taken_for_one(data: bytes, chance: random.Random) -> None:
    """CRC32C tells any five flipped bits from none in data of this size, so four from one."""
    checksum = crc32c.crc32c(data)
    for count in (2, 3, 4):
        damaged = data
        for bit in chance.sample(range(8 * len(data)), count):
            damaged = turned(damaged, bit)
        assert find_flipped_bit(damaged, checksum) is None


def test_other_damage_is_hardly_ever_taken_for_a_flipped_bit() -> None:
    chance = random.Random(2)
    data = chance.randbytes(16 * KIB)
    checksum = crc32c.crc32c(data)
    taken = 0
    for _ in range(500):
        damaged = bytearray(data)
        at = chance.randrange(len(data) - 512)
        damaged[at : at + 512] = chance.randbytes(512)
        taken += find_flipped_bit(bytes(damaged), checksum) is not None
    assert taken <= 1  # 500 * 8 * 16384 / 2**32 = 0.015 are to be expected


@given(body=st.binary(min_size=1, max_size=300), place=st.integers(0, 1 << 32))
def test_a_bit_in_the_head_of_a_structure_is_mended_as_well(body: bytes, place: int) -> None:
    whole = NODE_MAGIC + crc32c.crc32c(body).to_bytes(4, "little") + body
    assert mend_sealed(whole, NODE_MAGIC) == whole
    assert mend_sealed(turned(whole, place % (8 * len(whole))), NODE_MAGIC) == whole


@given(body=st.binary(min_size=1, max_size=300), chance=st.randoms(use_true_random=False))
def test_two_bits_in_a_structure_are_not_mended(body: bytes, chance: random.Random) -> None:
    whole = NODE_MAGIC + crc32c.crc32c(body).to_bytes(4, "little") + body
    first, second = chance.sample(range(8 * len(whole)), 2)
    assert mend_sealed(turned(turned(whole, first), second), NODE_MAGIC) != whole
    assert mend_sealed(whole[:8], NODE_MAGIC) is None
