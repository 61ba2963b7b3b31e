"""Throughput: how much work of each kind was done, and how long it took. Any thread may count."""

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """What was done of one kind."""

    count: int
    raw_bytes: int
    stored_bytes: int
    took_s: float  # by all threads together


class Throughput:
    """Sums by kind of work, which is told by a number."""

    def __init__(self) -> None:
        """Begin with nothing counted."""
        self._lock = threading.Lock()
        self._sums: dict[int, list[float]] = {}

    def note(self, kind: int, raw_bytes: int, stored_bytes: int, took_s: float) -> None:
        """Count one piece of work."""
        with self._lock:
            sums = self._sums.setdefault(kind, [0, 0, 0, 0.0])
            sums[0] += 1
            sums[1] += raw_bytes
            sums[2] += stored_bytes
            sums[3] += took_s

    def told(self) -> dict[int, Work]:
        """Return what was done until now."""
        with self._lock:
            return {kind: Work(int(sums[0]), int(sums[1]), int(sums[2]), sums[3]) for kind, sums in self._sums.items()}
