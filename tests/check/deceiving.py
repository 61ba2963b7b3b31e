"""Rubbish that the CRC32C takes for one flipped bit."""

import random

import crc32c

from razortools.check.bitflip import turned


def looking_like_a_flip(blocks: bytes, bit: int, at: int, length: int, chance: random.Random) -> bytes:
    """Return *blocks* with rubbish of *length* bytes at *at* that CRC32C takes for the one flipped bit *bit*.

    The last four bytes of the rubbish are solved for: what each of their bits does to the checksum is a row of equations.
    """
    damaged = bytearray(blocks)
    damaged[at : at + length] = chance.randbytes(length)
    first = 8 * (at + length - 4)
    start = crc32c.crc32c(damaged)
    basis: list[tuple[int, int]] = []  # (what it does, which bits do it), the highest bits of the first ones distinct
    for number in range(32):
        effect, bits = crc32c.crc32c(turned(damaged, first + number)) ^ start, 1 << number
        for other, theirs in basis:
            if effect ^ other < effect:
                effect, bits = effect ^ other, bits ^ theirs
        basis.append((effect, bits))
        basis.sort(reverse=True)
    wanted, solution = start ^ crc32c.crc32c(turned(blocks, bit)), 0
    for effect, bits in basis:
        if wanted ^ effect < wanted:
            wanted, solution = wanted ^ effect, solution ^ bits
    for number in range(32):
        if solution >> number & 1:
            damaged[(first + number) >> 3] ^= 1 << ((first + number) & 7)
    assert damaged != turned(blocks, bit)
    return bytes(damaged)
