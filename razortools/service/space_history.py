"""How the space in use has grown while a mount was served: a sample an hour, for a week. Forgotten when it is unmounted.

Invariants: never more than SAMPLES_MAX samples; the first is from the mount; nothing is made up for times when nobody looked.
"""

import time
from collections import deque
from collections.abc import Callable

import trio

SAMPLE_EVERY_S = 3600.0
SAMPLES_MAX = 7 * 24 + 1


class SpaceHistory:
    """Samples of the bytes in use."""

    def __init__(self, used_bytes: Callable[[], int]) -> None:
        """Sample what *used_bytes* tells, now for the first time."""
        self._used_bytes = used_bytes
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES_MAX)
        self.sample(time.monotonic())

    def sample(self, now_s: float) -> None:
        """Take one sample."""
        self._samples.append((now_s, self._used_bytes()))

    async def run(self) -> None:
        """Take one every SAMPLE_EVERY_S until cancelled."""
        while True:
            await trio.sleep(SAMPLE_EVERY_S)
            self.sample(time.monotonic())

    def told(self, now_s: float) -> tuple[tuple[float, int], ...]:
        """Return (age in seconds, bytes in use), oldest first."""
        return tuple((now_s - taken_s, used) for taken_s, used in self._samples)
