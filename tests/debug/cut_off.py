"""What a power cut may leave of a disk, for tests of commands that change an image."""

import random
from collections.abc import Iterable, Iterator

from razortools.engine.store.powercut import SECTOR_BYTES, Unflushed, Write


def states(image: bytes, log: Iterable[Write | None], limit: int, seed: int) -> Iterator[bytes]:
    """Yield what a power cut at any moment of *log* may leave of *image*, at most *limit* states between two flushes."""
    chance = random.Random(seed)
    stable, pending = bytearray(image), list[Write]()
    for event in (*log, None):
        if event is not None:
            pending.append(event)
            continue
        unflushed = Unflushed(pending)
        for choice in unflushed.choices(limit, chance):
            found = bytearray(stable)
            for offset, sector in unflushed.contents(choice):
                found[offset : offset + SECTOR_BYTES] = sector
            yield bytes(found)
        for write in pending:
            stable[write.offset : write.offset + len(write.after)] = write.after
        pending = []
    yield bytes(stable)
