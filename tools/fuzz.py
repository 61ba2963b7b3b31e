"""Fuzz razorfsck, for minutes or for days; the short versions in tests/fuzz run in each suite.

    python -m tools.fuzz fields  --seeds 0-9             every field of every structure, eight verbs, checksum wrong and right
    python -m tools.fuzz bytes   --seeds 0-383           every byte of block N of a small image
    python -m tools.fuzz damage  --seeds 0-9999          bits, sectors, blocks, swapped, stale, truncated, grown, ...
    python -m tools.fuzz mend    --seeds 0-9999          the same images repaired, undone, planned and applied: all laws of each
    python -m tools.fuzz healthy --seeds 0-9999          generated images that are in order
    python -m tools.fuzz laws    --seeds 0-999           the laws of repair for some of all this, most of it changed fields

What is demanded: no traceback, no hang; each damage is found or proven harmless; a healthy image brings no finding above a note.
Each failure is printed with its seed; the same command with `--seeds SEED` reproduces it. Exit code 1 if anything failed. Whoever
interrupts it (Ctrl-C, or kill) gets the table of what was done so far, and is told how many seeds and cases that is.
"""

import argparse
import multiprocessing
import resource
import signal
import sys
import time
from collections.abc import Iterator

from razortools.units import GIB
from tools.fuzzing.campaigns import CAMPAIGNS, PARTS, Campaign
from tools.fuzzing.outcome import Outcome, Tally

MEMORY_BYTES = 3 * GIB  # of a process: damage that makes a check ask for more is a failure
PROGRESS_S = 10.0
ROUNDING = 1e-6  # of a sum of parts


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
    done, whole = 0.0, 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # where nohup keeps Ctrl-C away
    try:
        for seeds_done, outcomes in _run(chosen.campaign, seeds, chosen.processes):
            done += seeds_done
            whole = int(done + ROUNDING)
            for failure in tally.add(outcomes):
                print(f"FAILED {failure.kind}: {failure.case}: {failure.failure}", flush=True)
            if time.monotonic() - shown_at > PROGRESS_S:
                shown_at = time.monotonic()
                left = f", {(shown_at - started) / done * (len(seeds) - done):.0f} s left" if done else ""
                print(f"{whole:,} of {len(seeds):,} seeds, {tally.cases:,} cases, {tally.failed} failed{left}", flush=True)
    except KeyboardInterrupt:
        print(f"interrupted after {whole:,} of {len(seeds):,} seeds and {tally.cases:,} cases")
    print(tally.table())
    print(
        f"{chosen.campaign}, seeds {chosen.seeds}: {tally.cases:,} cases in {time.monotonic() - started:.0f} s: "
        + (f"{tally.failed} FAILED" if tally.failed else "nothing wrong")
    )
    return 1 if tally.failed else 0


Work = tuple[str, int, int]  # campaign, part of a seed, seed


def _run(campaign: str, seeds: range, processes: int) -> Iterator[tuple[float, list[Outcome]]]:
    """Yield (how much of a seed has come to its end, what came of it). One process tells of each case at once."""
    if processes == 1:
        for seed in seeds:
            yield from ((0, [outcome]) for outcome in _cases(CAMPAIGNS[campaign], seed))
            yield 1, []
        return
    parts = len(_parts(campaign))
    work: list[Work] = [(campaign, part, seed) for seed in seeds for part in range(parts)]
    with multiprocessing.get_context("fork").Pool(processes, _prepare) as pool:
        yield from ((1 / parts, outcomes) for outcomes in pool.imap_unordered(_one, work))


def _parts(campaign: str) -> tuple[Campaign, ...]:
    return PARTS.get(campaign, (CAMPAIGNS[campaign],))


def _prepare() -> None:
    """Make ready a process of the pool, which ends its processes with SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _one(work: Work) -> list[Outcome]:
    campaign, part, seed = work
    return list(_cases(_parts(campaign)[part], seed))


def _cases(campaign: Campaign, seed: int) -> Iterator[Outcome]:
    try:
        yield from campaign(seed)
    except Exception as failed:
        yield Outcome("harness", ("failed",), f"seed {seed}", f"{type(failed).__name__}: {failed}")


if __name__ == "__main__":
    sys.exit(main())
