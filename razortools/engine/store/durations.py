"""Durations: how long something took, each time, kept as a histogram of fixed bounds.

Invariants: one count more than there are bounds, the last for what took longer than all of them; a duration is counted once, in
the first bucket whose bound it does not exceed. Counting costs two tenths of a microsecond, so it may stand on every path.
"""

from bisect import bisect_left
from collections.abc import Sequence

# 1, 2, 5 in every decade: from a request that is answered from memory to a disk that hangs.
BOUNDS_S = (
    5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip


class Durations:
    """Counts of durations. One writer at a time."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        """Begin with nothing counted."""
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def note(self, took_s: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS_S, took_s)] += 1
        self.total_s += took_s


def quantile_s(counts: Sequence[int], share: float) -> float | None:
    """Return the duration that *share* (0 to 1) of those in *counts* did not exceed; None if there are none.

    Taken as evenly spread inside of a bucket, so it is off by less than the bucket is wide. What lies beyond the last bound
    counts as the last bound.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, below, lower = share * total, 0, 0.0
    for bound, count in zip(BOUNDS_S, counts, strict=False):
        if count and below + count >= wanted:
            return lower + (bound - lower) * max(wanted - below, 0.0) / count
        below += count
        lower = bound
    return BOUNDS_S[-1]
