"""Fuzz razorfsck, for minutes or for days; the short versions in tests/fuzz run in each suite.

    python -m tools.fuzz fields  --seeds 0-9             every field of every structure, eight verbs, checksum wrong and right
    python -m tools.fuzz bytes   --seeds 0-383           every byte of block N of a small image
    python -m tools.fuzz damage  --seeds 0-9999          bits, sectors, blocks, swapped, stale, truncated, grown, ...
    python -m tools.fuzz mend    --seeds 0-9999          the same images repaired, undone, planned and applied: all laws of each
    python -m tools.fuzz healthy --seeds 0-9999          generated images that are in order
    python -m tools.fuzz laws    --seeds 0-999           the laws of repair for some of all this, most of it changed fields

What is demanded: no traceback, no hang; each damage is found or proven harmless; a healthy image brings no finding above a note.
Each failure is printed with its seed; the same command with `--seeds SEED` reproduces it. Exit code 1 if anything failed. Whoever
interrupts it (Ctrl-C) gets the table of what was done so far, and is told how many seeds that is.
"""

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator

from razortools.units import GIB
from tools.fuzzing.campaigns import CAMPAIGNS
from tools.fuzzing.outcome import Outcome, Tally

MEMORY_BYTES = 3 * GIB  # of a process: damage that makes a check ask for more is a failure
PROGRESS_S = 10.0


def main() -> int:
    """Do what the command line asks for; return 1 if anything failed."""
    parser = argparse.ArgumentParser(description="Fuzz razorfsck.")
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--seeds", default="0-9", help="FIRST-LAST, or one seed")
    parser.add_argument("--processes", type=int, default=1)
    chosen = parser.parse_args()
    first, _, last = chosen.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    tally, started = Tally(), time.monotonic()
    shown_at = started
    done = 0
    try:
        for done, outcomes in enumerate(_run(chosen.campaign, seeds, chosen.processes), start=1):
            for failure in tally.add(outcomes):
                print(f"FAILED {failure.kind}: {failure.case}: {failure.failure}", flush=True)
            if time.monotonic() - shown_at > PROGRESS_S:
                shown_at = time.monotonic()
                left_s = (shown_at - started) / done * (len(seeds) - done)
                counts = f"{tally.cases:,} cases, {tally.failed} failed"
                print(f"{done:,} of {len(seeds):,} seeds, {counts}, {left_s:.0f} s left", flush=True)
    except KeyboardInterrupt:
        print(f"interrupted after {done:,} of {len(seeds):,} seeds")
    print(tally.table())
    print(
        f"{chosen.campaign}, seeds {chosen.seeds}: {tally.cases:,} cases in {time.monotonic() - started:.0f} s: "
        + (f"{tally.failed} FAILED" if tally.failed else "nothing wrong")
    )
    return 1 if tally.failed else 0


def _run(campaign: str, seeds: range, processes: int) -> Iterator[list[Outcome]]:
    """Yield what came of each seed."""
    work = [(campaign, seed) for seed in seeds]
    if processes == 1:
        yield from map(_one, work)
        return
    with multiprocessing.get_context("fork").Pool(processes, _limit_memory) as pool:
        yield from pool.imap_unordered(_one, work)


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _one(work: tuple[str, int]) -> list[Outcome]:
    campaign, seed = work
    try:
        return list(CAMPAIGNS[campaign](seed))
    except Exception as failed:
        return [Outcome("harness", ("failed",), f"seed {seed}", f"{type(failed).__name__}: {failed}")]


if __name__ == "__main__":
    sys.exit(main())
