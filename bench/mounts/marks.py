"""Marks: how fast the mount is meant to be, row by row, and whether a run has met them.

A mark is a ratio to a peer in the same run, or a rate of razorfs alone. Nothing here is measured; what was found comes from the
results, and a mark that a run cannot judge (the row was left out, or failed on one of both) is said to be not measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.mounts.peers import RAZORFS
from bench.mounts.results import Results

MB = 1_000_000
RIVAL = "fuse2fs"  # the one to be ahead of on every row
WELL = 1.5  # times as fast, which is meant on most of them


@dataclass(frozen=True, slots=True)
class Mark:
    """At least *least* of the rate of *peer* in *row*, or, without a peer, at least *least* a second (things or bytes)."""

    row: str
    least: float
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """What was asked for, what was found, and whether it is enough; None: it cannot be told from this run."""

    row: str
    asked: str
    found: str
    is_met: bool | None

    @property
    def word(self) -> str:
        """Return the verdict."""
        return "not measured" if self.is_met is None else "met" if self.is_met else "not met"


MARKS = (
    Mark("write text", 0.9, "btrfs"),
    Mark("write text", 300 * MB),  # where the disk allows it
    Mark("write random bytes", 0.7, "ext4"),
    Mark("read text, cold", 0.5, "btrfs"),
    Mark("read text, cold", 500 * MB),
    Mark("read text, warm", 0.9, "ext4"),  # from the kernel's page cache, as are the next
    Mark("random 4 KiB reads, hot", 0.9, "ext4"),
    Mark("random 4 KiB reads, hot", 200_000),
    Mark("random 4 KiB writes, one fsync", 0.5, "btrfs"),
    Mark("random 4 KiB writes, one fsync", 50_000),
    Mark("4 KiB write + fsync", 0.8, "ext4"),  # a commit is one flush
)


def judge(results: Results) -> Iterator[Judged]:
    """Yield a verdict for each mark of the rows that were measured, then for all rows together."""
    for mark in MARKS:
        if mark.row in results.rows:
            yield _beside(mark, results) if mark.peer else _alone(mark, results)
    ratios = [ratio for row in results.rows if (ratio := results.ratio(row, RIVAL)) is not None]
    for name, asked, enough, wanted in (
        ("all rows", f"ahead of {RIVAL}", sum(ratio > 1 for ratio in ratios), len(results.rows)),
        ("most rows", f"{WELL:g} of {RIVAL}", sum(ratio >= WELL for ratio in ratios), len(results.rows) // 2 + 1),
    ):
        is_met = None if not ratios else enough >= wanted
        yield Judged(name, asked, f"{enough} of {len(results.rows)} rows" if ratios else "", is_met)


def _beside(mark: Mark, results: Results) -> Judged:
    """Judge a ratio."""
    ratio = results.ratio(mark.row, mark.peer)
    asked = f"{mark.least:g} of {mark.peer}"
    return Judged(mark.row, asked, "", None) if ratio is None else Judged(mark.row, asked, f"{ratio:.2f}", ratio >= mark.least)


def _alone(mark: Mark, results: Results) -> Judged:
    """Judge a rate."""
    in_bytes = results.is_in_bytes(mark.row)
    asked, rate = _rate(mark.least, in_bytes=in_bytes), results.rate(mark.row, RAZORFS)
    if rate is None:
        return Judged(mark.row, asked, "", None)
    return Judged(mark.row, asked, _rate(rate, in_bytes=in_bytes), rate >= mark.least)


def _rate(value: float, *, in_bytes: bool) -> str:
    """Return a rate in words."""
    return f"{value / MB:,.0f} MB/s" if in_bytes else f"{value:,.0f}/s"
