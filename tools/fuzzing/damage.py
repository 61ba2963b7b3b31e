"""Random damage: what disks, hosts and operators do to an image, each class by a function that is told a seed's chance."""

import random
from collections.abc import Callable

from razortools.engine.store.device import Device
from tests.check.editing import image_of
from tests.check.samples import KeptDevice
from tests.check.test_flips import used_blocks
from tools.fuzzing.damaged import Damaged
from tools.fuzzing.histories import History

PAGE_BYTES = 4096
SECTOR_BYTES = 512

Maker = Callable[[History, random.Random], Damaged]


def _blocks(device: Device) -> list[int]:
    """Return the blocks in use, the journal's with them only if it waits for replay."""
    return used_blocks(device)


def _journal_pages(device: Device) -> list[int]:
    geometry = image_of(device).geometry
    return list(range(geometry.journal_start, geometry.journal_start + geometry.journal_blocks))


def one_bit(history: History, chance: random.Random) -> Damaged:
    """A bit flips in a block that is in use."""
    device = Damaged(history.now)
    at = chance.choice(_blocks(history.now)) * PAGE_BYTES + chance.randrange(PAGE_BYTES)
    device.write(at, bytes([device.read(at, 1)[0] ^ 1 << chance.randrange(8)]))
    return device


def many_bits(history: History, chance: random.Random) -> Damaged:
    """Bits flip all over the image."""
    device = Damaged(history.now)
    for _ in range(chance.randrange(2, 200)):
        at = chance.randrange(device.size_bytes)
        device.write(at, bytes([device.read(at, 1)[0] ^ 1 << chance.randrange(8)]))
    return device


def bad_sectors(history: History, chance: random.Random) -> Damaged:
    """Sectors in use read as zeros, ones or rubbish."""
    device = Damaged(history.now)
    for block in chance.sample(_blocks(history.now), chance.randrange(1, 4)):
        at = block * PAGE_BYTES + SECTOR_BYTES * chance.randrange(8)
        device.write(at, _rubbish(SECTOR_BYTES, chance))
    return device


def lost_blocks(history: History, chance: random.Random) -> Damaged:
    """Several runs of blocks are overwritten."""
    device = Damaged(history.now)
    for _ in range(chance.randrange(1, 8)):
        count = chance.choice((1, 1, 2, 8, 40))
        first = chance.randrange(device.size_bytes // PAGE_BYTES - count)
        device.write(first * PAGE_BYTES, _rubbish(count * PAGE_BYTES, chance))
    return device


def overwritten_start(history: History, chance: random.Random) -> Damaged:
    """Something wrote over the start of the image: both superblocks, and more."""
    device = Damaged(history.now)
    device.write(0, _rubbish(chance.choice((PAGE_BYTES, 2 * PAGE_BYTES, 5 * PAGE_BYTES, 40 * PAGE_BYTES)), chance))
    return device


def truncated(history: History, chance: random.Random) -> Damaged:
    """The end of the image is missing."""
    whole = history.now
    size = chance.choice((whole.size_bytes - chance.randrange(1, 5000), chance.randrange(1, whole.size_bytes)))
    short = KeptDevice(size)
    for at in range(0, size, PAGE_BYTES):
        short.write(at, whole.read(at, min(PAGE_BYTES, size - at)))
    return Damaged(short, is_changed=True)


def grown(history: History, chance: random.Random) -> Damaged:
    """The file became longer, and rubbish lies behind the end."""
    whole = history.now
    more = chance.choice((1, 511, PAGE_BYTES, 100_000))
    longer = KeptDevice(whole.size_bytes + more)
    for at in range(0, whole.size_bytes, PAGE_BYTES):
        longer.write(at, whole.read(at, PAGE_BYTES))
    longer.write(whole.size_bytes, _rubbish(more, chance))
    return Damaged(longer, is_changed=True)


def swapped(history: History, chance: random.Random) -> Damaged:
    """Two blocks in use changed places."""
    device = Damaged(history.now)
    one, other = chance.sample(_blocks(history.now), 2)
    _copy(history.now, one, device, other)
    _copy(history.now, other, device, one)
    return device


def misdirected(history: History, chance: random.Random) -> Damaged:
    """A write went to another place: one block holds what belongs into another."""
    device = Damaged(history.now)
    source, target = chance.sample(_blocks(history.now), 2)
    _copy(history.now, source, device, target)
    return device


def stale_block(history: History, chance: random.Random) -> Damaged:
    """A write was acknowledged and lost: one block holds what it held at an earlier moment."""
    return _stale(history, chance, 1)


def stale_blocks(history: History, chance: random.Random) -> Damaged:
    """Several blocks hold what they held at an earlier moment."""
    return _stale(history, chance, chance.randrange(2, 12))


def _stale(history: History, chance: random.Random, count: int) -> Damaged:
    device = Damaged(history.now)
    before = chance.choice(history.states[:-1])
    differing = [block for block in _blocks(history.now) + _journal_pages(history.now) if _differ(before, history.now, block)]
    for block in chance.sample(differing, min(count, len(differing))):
        _copy(before, block, device, block)
    return device


def damaged_journal(history: History, chance: random.Random) -> Damaged:
    """Bits flip, and sectors vanish, where the journal lies."""
    device = Damaged(history.now)
    pages = _journal_pages(history.now)
    for _ in range(chance.randrange(1, 4)):
        at = chance.choice(pages) * PAGE_BYTES + SECTOR_BYTES * chance.randrange(8)
        raw = bytearray(device.read(at, SECTOR_BYTES))
        raw[chance.randrange(SECTOR_BYTES)] ^= 1 << chance.randrange(8)
        device.write(at, chance.choice((bytes(raw), bytes(SECTOR_BYTES))))
    return device


DAMAGES: dict[str, Maker] = {
    "one bit": one_bit,
    "bits all over": many_bits,
    "bad sectors": bad_sectors,
    "lost blocks": lost_blocks,
    "overwritten start": overwritten_start,
    "truncated": truncated,
    "grown": grown,
    "swapped blocks": swapped,
    "misdirected write": misdirected,
    "stale block": stale_block,
    "stale blocks": stale_blocks,
    "damaged journal": damaged_journal,
}


def _differ(one: Device, other: Device, block: int) -> bool:
    return one.read(block * PAGE_BYTES, PAGE_BYTES) != other.read(block * PAGE_BYTES, PAGE_BYTES)


def _copy(source: Device, from_block: int, target: Device, to_block: int) -> None:
    target.write(to_block * PAGE_BYTES, source.read(from_block * PAGE_BYTES, PAGE_BYTES))


def _rubbish(length: int, chance: random.Random) -> bytes:
    return chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
