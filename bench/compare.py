"""Two versions of razorfs side by side: is the newer one slower anywhere? For use before a release.

    python -m bench.compare CHECKOUT [--rounds 5] [--scale 0.4] [--only ROW]... [--limit 10]

CHECKOUT is a directory with the older version, for instance made by `git worktree add`. Both versions do all rows of
bench.mounts in turns in each round, on fresh images. A row counts as slower if the median of its ratios, newer to older within a
round, is more than --limit percent below one, and if that is more than noise: if the upper quartile of the ratios is below one
too. Exits with 1 if a row is slower or has failed. Needs root.
"""

import argparse
import os
import shlex
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from bench.mounts.__main__ import TARBALL, run_peer
from bench.mounts.contents import Sizes, write_tarball
from bench.mounts.peers import OURS, RAZORFS, Peer, adopt_daemons
from bench.mounts.report import layout
from bench.mounts.results import Results
from bench.mounts.rows import ROWS, prepare
from bench.page import machine

OLDER = "older"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many times as fast the newer version is in one row: the median over the rounds, and between which quartiles."""

    median: float
    low: float
    high: float

    def is_slower(self, limit: float) -> bool:
        """Whether it is slower by more than *limit* (0.1: ten percent), beyond noise."""
        return self.median < 1 - limit and self.high < 1


def judged(ratios: list[float]) -> Verdict:
    """Return what *ratios*, one a round, say together."""
    if len(ratios) == 1:
        return Verdict(ratios[0], ratios[0], ratios[0])
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Verdict(median, low, high)


def older_peer(checkout: Path) -> Peer:
    """Return razorfs as it is in *checkout*. Exits with a sentence if nothing of the kind is there."""
    if not (checkout / "razortools" / "mount.py").is_file():
        sys.exit(f"{checkout} holds no razortools; give a checkout of the older version")
    first = f"export PYTHONPATH={shlex.quote(str(checkout.resolve()))}; cd {shlex.quote(str(checkout.resolve()))}; "
    return replace(OURS, name=OLDER, mount=first + OURS.mount, make=first + OURS.make, unmount=first + OURS.unmount)


def measure(peers: list[Peer], rows: list[str], rounds: int, sizes: Sizes, folder: Path) -> Results:
    """Do all rows on both, in turns: the first of a round is the second of the next."""
    prepare(sizes)
    write_tarball(folder / TARBALL, sizes)
    results = Results(machine(folder), 1.0, rounds, [peer.name for peer in peers], [], rows)
    for number in range(rounds):
        for peer in peers if number % 2 else reversed(peers):
            run_peer(peer, number, folder, sizes, results)
    return results


def table(results: Results, limit: float) -> tuple[str, list[str]]:
    """Return the table, and the rows that are slower."""
    lines, slower = [["row", "newer / older", "middle half of the rounds", ""]], []
    for row in results.rows:
        ours, theirs = results.taken.get((row, RAZORFS), {}), results.taken.get((row, OLDER), {})
        ratios = [ours[number].rate / theirs[number].rate for number in sorted(ours.keys() & theirs.keys())]
        if not ratios:
            lines.append([row, "failed", "", ""])
            continue
        verdict = judged(ratios)
        if verdict.is_slower(limit):
            slower.append(row)
        word = "slower" if row in slower else ""
        lines.append([row, f"{verdict.median:.2f}", f"{verdict.low:.2f} to {verdict.high:.2f}", word])
    return layout(lines), slower


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description="Compare an older version with this one.")
    parser.add_argument("checkout", type=Path, help="a directory with the older version")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is done (default: 5)")
    parser.add_argument("--scale", type=float, default=0.4, help="how much work (default: 0.4)")
    parser.add_argument("--only", action="append", choices=ROWS, metavar="ROW", help="one row, by its name")
    parser.add_argument("--limit", type=float, default=10, metavar="PERCENT", help="slower by more than this fails (default: 10)")
    return parser.parse_args(arguments)


def main() -> int:
    """Measure and judge."""
    options = parse()
    peers = [older_peer(options.checkout), OURS]
    if os.geteuid() != 0:
        sys.exit("this needs root: it drops the kernel's caches")
    adopt_daemons()
    folder = Path(tempfile.mkdtemp())
    try:
        rows = [name for name in ROWS if not options.only or name in options.only]
        results = measure(peers, rows, options.rounds, Sizes().scaled(options.scale), folder)
    finally:
        (folder / TARBALL).unlink(missing_ok=True)
        folder.rmdir()
    text, slower = table(results, options.limit / 100)
    sys.stdout.write(f"{results.machine}; {options.rounds} rounds.\n\n{text}")
    for problem in [*results.failures, *(f"slower than before: {row}" for row in slower)]:
        sys.stdout.write(f"{problem}\n")
    return 1 if results.failures or slower else 0


if __name__ == "__main__":
    sys.exit(main())
