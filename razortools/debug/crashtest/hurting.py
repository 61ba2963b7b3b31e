"""Hurt images for the explorer of repairs: a random history, how it ended, and random damage, all by one seed.

The damage is of the kinds that disks do: bits flip, sectors are lost or hold rubbish, a write went to another place or never
arrived, an old state comes back.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from razortools.debug.crashtest.disks import State
from razortools.debug.crashtest.explorer import epochs, states
from razortools.debug.crashtest.playing import IMAGES, Ground, NotTheReference, ground, play
from razortools.debug.crashtest.workloads import numbered, random_workload
from razortools.engine.store.powercut import SECTOR_BYTES

BLOCK_BYTES = 4096
LENGTHS = (1, 4, 9, 22)  # operations of the history
DAMAGES_MAX = 4


@dataclass(frozen=True, slots=True)
class Hurt:
    """A damaged image, and how it came about."""

    image: bytes
    story: tuple[str, ...]


def hurt(seed: int) -> Hurt:
    """Return the damaged image that follows from *seed*."""
    chance = random.Random(f"hurt {seed}")
    start = _ground(chance.choice(IMAGES))
    story = [f"image: {start.name}"]
    before = bytes(start.base.image)
    image = _after_history(start, chance, story)
    for _ in range(chance.randrange(1, DAMAGES_MAX + 1)):
        verb = chance.choice(_VERBS)
        story.append(verb(image, before, chance))
    return Hurt(bytes(image), tuple(story))


_grounds: dict[str, Ground] = {}


def _ground(name: str) -> Ground:
    """Return a ground, made once in a process: it takes longer than everything else here."""
    if name not in _grounds:
        _grounds[name] = ground(name)
    return _grounds[name]


def _after_history(start: Ground, chance: random.Random, story: list[str]) -> bytearray:
    """Return the image after a random workload: unmounted, or as a power cut left it."""
    text = random_workload(chance.randrange(1 << 32), chance.choice(LENGTHS))
    try:
        played = play(start, numbered(text))
    except NotTheReference:  # the explorer of workloads tells of that
        return bytearray(start.base.image)
    story.append(f"workload: {text}")
    state: State = {}
    cut = chance.random() < 0.5
    for epoch in epochs(start.base, {}, played.log):
        state = epoch.stable
        if cut and chance.random() < 0.2:
            state = next(state for state, _ in states(start.base, epoch, 8, chance))
            story.append(f"power cut after {epoch.position} entries of its log")
            break
    image = start.base.bytes_of(state)
    start.base.forget()
    return image


def _used_sector(image: bytearray, chance: random.Random) -> int:
    """Return the offset of a sector that holds something; now and then of any."""
    while True:
        at = chance.randrange(len(image) // SECTOR_BYTES) * SECTOR_BYTES
        if any(image[at : at + SECTOR_BYTES]) or chance.random() < 0.002:
            return at


def _used_block(image: bytearray, chance: random.Random) -> int:
    return _used_sector(image, chance) // BLOCK_BYTES * BLOCK_BYTES


def _flip(image: bytearray, before: bytes, chance: random.Random) -> str:
    at, bit = _used_sector(image, chance) + chance.randrange(SECTOR_BYTES), chance.randrange(8)
    image[at] ^= 1 << bit
    return f"bit {bit} of byte {at} flipped"


def _lose_sector(image: bytearray, before: bytes, chance: random.Random) -> str:
    at = _used_sector(image, chance)
    image[at : at + SECTOR_BYTES] = bytes(SECTOR_BYTES)
    return f"the sector at byte {at} lost"


def _spoil_sector(image: bytearray, before: bytes, chance: random.Random) -> str:
    at = _used_sector(image, chance)
    image[at : at + SECTOR_BYTES] = chance.randbytes(SECTOR_BYTES)
    return f"rubbish in the sector at byte {at}"


def _lose_block(image: bytearray, before: bytes, chance: random.Random) -> str:
    at = _used_block(image, chance)
    image[at : at + BLOCK_BYTES] = bytes(BLOCK_BYTES)
    return f"the block at byte {at} lost"


def _misdirect(image: bytearray, before: bytes, chance: random.Random) -> str:
    source, at = _used_block(image, chance), _used_block(image, chance)
    image[at : at + BLOCK_BYTES] = image[source : source + BLOCK_BYTES]
    return f"the block of byte {source} written at byte {at} as well"


def _come_back(image: bytearray, before: bytes, chance: random.Random) -> str:
    at = _used_block(image, chance)
    image[at : at + BLOCK_BYTES] = before[at : at + BLOCK_BYTES]
    return f"the block at byte {at} as it was before the workload"


_VERBS: tuple[Callable[[bytearray, bytes, random.Random], str], ...] = (
    _flip, _flip, _lose_sector, _spoil_sector, _lose_block, _misdirect, _come_back,
)  # fmt: skip
