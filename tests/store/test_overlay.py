"""Overlays that show blocks at another place read as if these had been copied."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.engine.store.pages import PAGE_BYTES, MemoryDevice, OverlayDevice


@given(st.integers(0, 1 << 32))
@settings(max_examples=40, deadline=None)
def test_an_overlay_shows_what_a_copy_would_hold(seed: int) -> None:
    chance = random.Random(seed)
    base = MemoryDevice(16 * PAGE_BYTES - 1000)
    base.write(0, chance.randbytes(base.size_bytes))
    overlay, copy = OverlayDevice(base), bytearray(base.read(0, base.size_bytes))
    below = bytes(copy)
    for _ in range(12):
        if chance.random() < 0.6:
            count, source, target = chance.randrange(1, 4), chance.randrange(12), chance.randrange(12)
            overlay.show(target * PAGE_BYTES, source * PAGE_BYTES, count * PAGE_BYTES)
            start = source * PAGE_BYTES
            copy[target * PAGE_BYTES : (target + count) * PAGE_BYTES] = below[start : start + count * PAGE_BYTES]
        else:
            offset = chance.randrange(base.size_bytes - 9000)
            data = chance.randbytes(chance.choice((1, 500, 9000)))
            overlay.write(offset, data)
            copy[offset : offset + len(data)] = data
        offset = chance.randrange(base.size_bytes)
        length = chance.randrange(base.size_bytes - offset + 1) or 1
        assert overlay.read(offset, length) == copy[offset : offset + length]
    written = bytearray(below)
    for offset, page in overlay.written_pages():
        written[offset : offset + len(page)] = page
    assert written == copy
