"""What was measured: medians of the rounds, and the ratio of razorfs to each peer within a round."""

import statistics
from dataclasses import dataclass, field

from bench.mounts.peers import CLIENT_ALONE, RAZORFS
from bench.mounts.place import Taken
from bench.mounts.rows import ROWS


@dataclass(slots=True)
class Results:
    """All that was measured: what is known of a row on a peer is one entry a round."""

    machine: str
    scale: float
    rounds: int
    peers: list[str]
    left_out: list[str]
    rows: list[str]
    taken: dict[tuple[str, str], dict[int, Taken]] = field(default_factory=dict)  # (row, peer) -> round -> what it took
    failures: list[str] = field(default_factory=list)

    def add(self, row: str, peer: str, number: int, taken: Taken) -> None:
        """Take note of one run."""
        self.taken.setdefault((row, peer), {})[number] = taken

    def rates(self, row: str, peer: str) -> list[float]:
        """Return what was done in a second, one value a round; none where it failed."""
        return [taken.rate for taken in self.taken.get((row, peer), {}).values()]

    def rate(self, row: str, peer: str) -> float | None:
        """Return what was done in a second: the median over the rounds."""
        rates = self.rates(row, peer)
        return statistics.median(rates) if rates else None

    def is_in_bytes(self, row: str) -> bool:
        """Tell whether a row counts bytes, not things."""
        return ROWS[row][1].divisor != 1

    def ratio(self, row: str, peer: str) -> float | None:
        """Return how many times as fast razorfs is: the median over the rounds, each compared in itself."""
        ours, theirs = self.taken.get((row, RAZORFS), {}), self.taken.get((row, peer), {})
        both = [ours[number].rate / theirs[number].rate for number in ours.keys() & theirs.keys()]
        return statistics.median(both) if both else None

    @property
    def spread_percent(self) -> float:
        """By how much rates differ between rounds: the median over all rows and peers."""
        spreads = [0.0]
        for row, peer in self.taken:
            rates = self.rates(row, peer)
            spreads.append(100 * (max(rates) - min(rates)) / statistics.median(rates))
        return statistics.median(spreads[1:] or spreads)

    @property
    def compared(self) -> list[str]:
        """The peers that razorfs is compared with."""
        return [peer for peer in self.peers if peer not in (RAZORFS, CLIENT_ALONE)] if RAZORFS in self.peers else []
