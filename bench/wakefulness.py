"""What keeping idle processors awake gains, and what it takes: the same operations on two mounts, with lowlatency and without.

    python -m bench.wakefulness [--count 2000] [--rounds 3] [--write]

One client does each operation --count times, in turns in ten directories, as bench.requests does; each round mounts two fresh
images one after the other, in turns with either first. *Processor time* without the option is that of the daemon and of the
client. With it no processor sleeps, so it is at most the time that went by, times the number of processors: what those that had
nothing to do spent looking for work is in it. The figures are medians of the rounds, the ratio is that of each round. Needs root.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from bench.mounts.peers import OURS, Peer, adopt_daemons, daemon_of, mounted
from bench.mounts.place import processor_s, settle
from bench.page import machine, publish
from bench.requests import Client
from razortools.service.wakefulness import DEVICE

OPTIONS = {False: "nolowlatency", True: "lowlatency"}


@dataclass(frozen=True, slots=True)
class Taken:
    """What one operation took, on average, in microseconds."""

    each_us: float
    processor_us: float


def peer_with(option: str) -> Peer:
    """Return razorfs, mounted with *option*."""
    return replace(OURS, name=f"{OURS.name}-{option}", mount=f"{OURS.mount},{option}")


def measure(*, is_awake: bool, count: int, folder: Path) -> dict[str, Taken]:
    """Return what each operation takes on a fresh image; *is_awake*: with lowlatency."""
    taken: dict[str, Taken] = {}
    with mounted(peer_with(OPTIONS[is_awake]), folder) as point:
        pid = daemon_of(point)
        assert pid is not None
        for name, operation in Client(point).operations().items():
            settle(point)
            started_s, worked_s = time.perf_counter(), processor_s(pid) + time.process_time()
            for number in range(count):
                operation(number)
            took_s, worked_s = time.perf_counter() - started_s, processor_s(pid) + time.process_time() - worked_s
            altogether_s = took_s * (os.cpu_count() or 1) if is_awake else worked_s
            taken[name] = Taken(1e6 * took_s / count, 1e6 * altogether_s / count)
    return taken


def table(rounds: list[dict[bool, dict[str, Taken]]]) -> list[str]:
    """Return the table's lines."""
    lines = [
        "| operation | us each | processor time | lowlatency: us each | processor time, at most | times as fast |",
        "|---|---|---|---|---|---|",
    ]
    for name in rounds[0][False]:
        cells = []
        for is_awake in (False, True):
            cells.append(statistics.median(one[is_awake][name].each_us for one in rounds))
            cells.append(statistics.median(one[is_awake][name].processor_us for one in rounds))
        ratio = statistics.median(one[False][name].each_us / one[True][name].each_us for one in rounds)
        lines.append(f"| {name} | " + " | ".join(f"{cell:.1f}" for cell in cells) + f" | {ratio:.2f} |")
    return lines


def main() -> None:
    """Measure, print the table, publish it if asked to."""
    parser = argparse.ArgumentParser(description="Measure what keeping idle processors awake gains.")
    parser.add_argument("--count", type=int, default=2000, help="of each operation (default: 2000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often both are measured (default: 3)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    chosen = parser.parse_args()
    if not os.access(DEVICE, os.W_OK):
        sys.exit(f"this needs root, and a kernel that has {DEVICE}")
    adopt_daemons()
    rounds = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        head = f"{machine(folder)}; {chosen.count:,} of each, median of {chosen.rounds} rounds."
        for number in range(chosen.rounds):
            order = (False, True) if number % 2 == 0 else (True, False)
            rounds.append({is_awake: measure(is_awake=is_awake, count=chosen.count, folder=folder) for is_awake in order})
    text = "\n".join([head, "", *table(rounds)]) + "\n"
    sys.stdout.write(text)
    if chosen.write:
        publish("wakefulness", text)


if __name__ == "__main__":
    main()
