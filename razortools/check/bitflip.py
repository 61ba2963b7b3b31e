"""One flipped bit: found from what it does to a CRC32C, without trying each bit in turn.

A CRC is linear: the checksums of two strings of equal length that differ in one bit differ by a *syndrome* that depends on
nothing but the distance of this bit from the end. The syndromes are the powers of x modulo the polynomial, so the distance is a
discrete logarithm: a table of small powers is met by giant steps from the other side (Shanks, 1971). For a record of 1 MiB that
takes some thousand steps instead of eight million.

Invariants: an answer is right for the checksum: with that bit turned the data verify. It need not be the truth: of other damages,
one in 2**32 / bits (4,000 for 128 KiB) looks as if one bit had flipped. Whoever mends data asks for more evidence; is_certain
says how much is enough.
"""

from functools import cache

import crc32c

WRONG_MEND_CHANCE_MAX = 1e-6  # of damage that is not one flipped bit, how much may be taken for it
_POLYNOMIAL = 0x82F63B78  # Castagnoli, least significant bit first
_SMALL_STEPS = 4096
_MASK = 0xFFFF_FFFF


def find_flipped_bit(data: bytes | bytearray | memoryview, expected: int, start: int = 0) -> int | None:
    """Return which single bit of *data* must be turned so that its CRC32C, begun at *start*, is *expected*; None: no single one.

    Bit n is bit n % 8, counted from the least significant, of byte n // 8. Data that verify have no such bit.
    """
    syndrome = crc32c.crc32c(data, start) ^ expected
    bit_count = 8 * len(data)
    distance = _logarithm(syndrome, bit_count) if syndrome else None
    return None if distance is None else bit_count - distance


def is_certain(bit_count: int, proof_bits: int = 0) -> bool:
    """Return whether a flipped bit found among *bit_count* is one, by the checksum and *proof_bits* of independent evidence."""
    return bit_count / (1 << 32 + proof_bits) < WRONG_MEND_CHANCE_MAX


def turned(data: bytes | bytearray | memoryview, bit: int) -> bytes:
    """Return *data* with one bit turned."""
    changed = bytearray(data)
    changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)


def without_flipped_bit(data: bytes | bytearray | memoryview, expected: int, start: int = 0) -> bytes | None:
    """Return *data* as they were before one bit of them flipped, or None if that is not what happened to them."""
    bit = find_flipped_bit(data, expected, start)
    return None if bit is None else turned(data, bit)


def mend_sealed(raw: bytes, magic: bytes) -> bytes | None:
    """Return a structure that starts with *magic* and the checksum of all behind it, mended; None: more than a bit is wrong.

    The flipped bit may lie in the magic, in the checksum or behind them. What verifies already comes back as it is.
    """
    body_at = len(magic) + 4
    if len(raw) <= body_at:
        return None
    head, told = raw[: len(magic)], int.from_bytes(raw[len(magic) : body_at], "little")
    if head != magic:
        difference = int.from_bytes(head, "little") ^ int.from_bytes(magic, "little")
        is_whole = difference.bit_count() == 1 and crc32c.crc32c(memoryview(raw)[body_at:]) == told
        return magic + raw[len(magic) :] if is_whole else None
    syndrome = crc32c.crc32c(memoryview(raw)[body_at:]) ^ told
    if not syndrome:
        return raw
    if syndrome.bit_count() == 1:  # no bit of the body does that: such powers of x are the last ones before they come round again
        return magic + (told ^ syndrome).to_bytes(4, "little") + raw[body_at:]
    body = without_flipped_bit(memoryview(raw)[body_at:], told)
    return None if body is None else raw[:body_at] + body


def _logarithm(syndrome: int, limit: int) -> int | None:
    """Return the n from 1 to *limit* whose power of x is *syndrome*, or None."""
    small = _small_powers()
    tables = _giant_step()
    t0, t1, t2, t3 = tables
    value = syndrome
    for done in range(0, limit + 1, _SMALL_STEPS):
        found = small.get(value)
        if found is not None:
            return done + found if 1 <= done + found <= limit else None
        value = t0[value & 255] ^ t1[value >> 8 & 255] ^ t2[value >> 16 & 255] ^ t3[value >> 24]
    return None


@cache
def _small_powers() -> dict[int, int]:
    """Return the logarithm of x**n * 1 for each n below the giant step. The bit behind the last one has distance 0."""
    powers: dict[int, int] = {}
    value = 1
    for number in range(_SMALL_STEPS):
        powers[value] = number
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return powers


@cache
def _giant_step() -> tuple[list[int], list[int], list[int], list[int]]:
    """Return the division by x**_SMALL_STEPS as four tables, one for each byte of a value."""
    columns = []
    for bit in range(32):
        value = 1 << bit
        for _ in range(_SMALL_STEPS):
            top = value >> 31
            value = ((value ^ (_POLYNOMIAL if top else 0)) << 1 | top) & _MASK
        columns.append(value)
    tables: list[list[int]] = []
    for place in range(4):
        table = [0] * 256
        for number in range(1, 256):
            low = number & -number
            table[number] = table[number ^ low] ^ columns[8 * place + low.bit_length() - 1]
        tables.append(table)
    return tables[0], tables[1], tables[2], tables[3]
