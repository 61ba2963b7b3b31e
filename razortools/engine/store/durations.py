"""Durations: how long something took, each time, kept as a histogram.

Bounds are powers of two, in nanoseconds: a duration's bucket is the length of its number in bits, which is the cheapest there
is to find out, and thousands at once are put into buckets without a loop in Python. Invariants: one count more than there are
bounds, the last for what took longer than all of them; a duration is counted once, in the first bucket whose bound is above it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from razortools.units import NANOSECONDS

_LOWEST_BITS = 12  # 4 microseconds: a request that is answered from memory
_HIGHEST_BITS = 34  # 17 seconds: a disk that hangs
BOUNDS_S = tuple((1 << bits) / NANOSECONDS for bits in range(_LOWEST_BITS, _HIGHEST_BITS + 1))


class Durations:
    """Counts of durations. One writer at a time."""

    __slots__ = ("counts", "total_ns")

    def __init__(self) -> None:
        """Begin with nothing counted."""
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_ns = 0

    @property
    def total_s(self) -> float:
        """The sum of all durations."""
        return self.total_ns / NANOSECONDS

    def note(self, took_s: float) -> None:
        """Count one duration, in seconds."""
        took_ns = int(took_s * NANOSECONDS)
        self.counts[_bucket(took_ns.bit_length())] += 1
        self.total_ns += took_ns

    def note_all(self, times_ns: Iterable[int]) -> None:
        """Count many durations, in nanoseconds."""
        times_ns = tuple(times_ns)
        for bits, count in Counter(map(int.bit_length, times_ns)).items():
            self.counts[_bucket(bits)] += count
        self.total_ns += sum(times_ns)


def _bucket(bits: int) -> int:
    """Return where durations are counted whose numbers of nanoseconds have *bits* bits."""
    return min(max(bits, _LOWEST_BITS), _HIGHEST_BITS + 1) - _LOWEST_BITS


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
