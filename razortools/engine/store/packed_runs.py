"""Runs of blocks in sixteen bytes each: between two checkpoints millions may be freed, and tuples take six times as much."""

from array import array
from collections.abc import Iterable, Iterator
from itertools import islice

from razortools.format.data import Run, joined
from razortools.units import BlockNo

PIECE_RUNS = 1 << 14  # that are tuples at the same time


class PackedRuns:
    """A sequence of runs that only grows at its end."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        """Hold *runs*."""
        self._starts, self._counts = array("Q"), array("Q")
        self.add(runs)

    def __len__(self) -> int:
        """Return how many runs it holds."""
        return len(self._starts)

    def __iter__(self) -> Iterator[Run]:
        """Yield the runs, oldest first."""
        return zip(map(BlockNo, self._starts), self._counts, strict=True)

    def add(self, runs: Iterable[Run]) -> None:
        """Hold *runs*, too."""
        for start, count in runs:
            self._starts.append(start)
            self._counts.append(count)

    def copy(self) -> "PackedRuns":
        """Return what it holds now."""
        other = PackedRuns()
        other._starts, other._counts = self._starts[:], self._counts[:]
        return other

    def drop_oldest(self, oldest: "PackedRuns") -> None:
        """Hold *oldest* no more, which are what it began with."""
        length = len(oldest)
        held = self._starts[:length], self._counts[:length]
        assert held == (oldest._starts, oldest._counts), "these are not the oldest runs"
        del self._starts[:length], self._counts[:length]

    def pieces(self) -> Iterator[list[Run]]:
        """Yield the runs, not too many at a time, in order in each piece, those that follow one another as one."""
        runs = iter(self)
        while piece := list(islice(runs, PIECE_RUNS)):
            yield joined(sorted(piece))
