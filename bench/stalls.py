"""What others wait while a large tree changes: checkpoints of many nodes, which nobody should notice.

    python -m bench.stalls [--files 100000] [--write]

An image is mounted, and one client makes --files small files in fifty directories, changes the mode of half of them and removes
all of them, both in random order: each change lies in another leaf, so checkpoints are frequent and as large as the metadata
cache lets them be. Meanwhile another client asks for statfs(2) every two milliseconds, which the kernel hands on each time and
which takes the daemon a few microseconds, so what it waits is what anybody waits. *each* is what the first client's operations
take on average. Needs root.
"""

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

from bench.mounts.peers import OURS, adopt_daemons, mounted
from bench.mounts.place import settle, write_file
from bench.page import machine, tell

FOLDERS = 50
CONTENTS = b"what a small file holds, and another line of it\n" * 60
PAUSE_S = 0.002
LONG_MS = 10.0
SEED = 1
START_S = 0.2  # until the one who watches is at work


def watch(root: str, stop: Event, told: "multiprocessing.Queue[list[float]]") -> None:
    """Ask again and again; tell how long each answer took, in ms."""
    took_ms = []
    while not stop.is_set():
        started = time.perf_counter()
        os.statvfs(root)
        took_ms.append((time.perf_counter() - started) * 1000)
        time.sleep(PAUSE_S)
    told.put(took_ms)


def watched(root: Path, operation: Callable[[int], object], numbers: list[int]) -> tuple[float, list[float]]:
    """Do *operation* with each of *numbers*; return the microseconds that one took and what others waited, in ms and in order."""
    stop = multiprocessing.Event()
    told: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
    other = multiprocessing.Process(target=watch, args=(str(root), stop, told))
    other.start()
    try:
        time.sleep(START_S)
        started = time.perf_counter()
        for number in numbers:
            operation(number)
        each_us = (time.perf_counter() - started) / len(numbers) * 1e6
    finally:
        stop.set()
        waits = sorted(told.get())
        other.join()
    return each_us, waits


def phases(root: Path, count: int) -> Iterator[tuple[str, Callable[[int], object], list[int]]]:
    """Yield what is done: its name, the operation, and which files in which order."""
    homes = [os.fsencode(root / str(number)) for number in range(FOLDERS)]
    for home in homes:
        os.mkdir(home)

    def path(number: int) -> bytes:
        return b"%s/%d" % (homes[number % FOLDERS], number)

    anyhow = random.Random(SEED).sample(range(count), count)
    yield "create", lambda number: write_file(path(number), CONTENTS), list(range(count))
    yield "chmod, at random", lambda number: os.chmod(path(number), 0o600), anyhow[: count // 2]
    yield "unlink, at random", lambda number: os.unlink(path(number)), anyhow


def line(name: str, each_us: float, waits: list[float]) -> str:
    """Return a row of the table."""

    def rank(share: float) -> float:
        return waits[min(int(len(waits) * share), len(waits) - 1)]

    long = f"{sum(wait > LONG_MS for wait in waits)} of {len(waits):,}"
    return f"| {name} | {each_us:.1f} | {rank(0.5):.2f} | {rank(0.99):.1f} | {rank(0.999):.1f} | {waits[-1]:.1f} | {long} |"


def main() -> None:
    """Measure, print the table, publish it if asked to."""
    parser = argparse.ArgumentParser(description="Measure what others wait while a large tree changes.")
    parser.add_argument("--files", type=int, default=100_000, help="files that are made (default: 100,000)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("this needs root: it mounts an image")
    adopt_daemons()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lines = [
            f"{machine(folder)}; {chosen.files:,} files, seed {SEED}.",
            "",
            f"| meanwhile | us each | median, ms | 99 % | 99.9 % | longest | above {LONG_MS:.0f} ms |",
            "|---|---|---|---|---|---|---|",
        ]
        with mounted(OURS, folder) as point:
            for name, operation, numbers in phases(point, chosen.files):
                settle(point)
                lines.append(line(name, *watched(point, operation, numbers)))
    tell("stalls", lines, write=chosen.write)


if __name__ == "__main__":
    main()
