"""What a crowd of writers costs in memory: requests that wait for room hold what they are to write.

    python -m bench.crowd [--writers 300] [--rounds 3] [--write]

An image is mounted with the smallest limits that there are. Then so many threads write a MiB each, all at once, each into a file
of its own and each of them durable before it returns (O_DSYNC), which is far more than may be dirty. Told is the most that the
daemon had in memory, and how long it took until all were done; what it had before, with nothing to do, is for comparison. Needs
root.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from bench.mounts.peers import OURS, adopt_daemons, daemon_of, mounted
from bench.mounts.place import expect
from bench.page import machine, tell
from razortools.units import KIB, MIB

OPTIONS = "cache=1M,dirty=1M,metadata_cache=4M"
SMALL = replace(OURS, mount=f"{OURS.mount},{OPTIONS}")
STACK_BYTES = 64 * KIB
PIECE_BYTES = 1 * MIB
SEED = 1


def resident_mib(pid: int, name: str = "VmRSS") -> float:
    """Return what a process has in memory, or with VmHWM the most that it ever had."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields[name].split()[0]) * KIB / MIB


def write_at_once(root: Path, writers: int, data: bytes) -> float:
    """Have so many threads write *data* at the same time; return the seconds until the last one was done."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_DSYNC
    descriptors = [os.open(root / str(number), flags, 0o600) for number in range(writers)]
    ready = threading.Barrier(writers + 1)
    written: list[int] = []

    def write(descriptor: int) -> None:
        ready.wait()
        written.append(os.write(descriptor, data))

    threading.stack_size(STACK_BYTES)
    threads = [threading.Thread(target=write, args=(descriptor,)) for descriptor in descriptors]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - started
    for descriptor in descriptors:
        os.close(descriptor)
    expect(written, [len(data)] * writers, "bytes written")
    return took_s


def measure(folder: Path, writers: int) -> tuple[float, float, float]:
    """Return for a fresh mount in *folder*: MiB before, the most MiB, and the seconds."""
    with mounted(SMALL, folder) as point:
        pid = daemon_of(point)
        if pid is None:
            raise OSError(f"the daemon of {point} does not tell who it is")
        before = resident_mib(pid)
        took_s = write_at_once(point, writers, random.Random(SEED).randbytes(PIECE_BYTES))
        return before, resident_mib(pid, "VmHWM"), took_s


def main() -> None:
    """Measure, print the table, publish it if asked to."""
    parser = argparse.ArgumentParser(description="Measure what a crowd of writers costs in memory.")
    parser.add_argument("--writers", type=int, default=300, help="threads that write a MiB each (default: 300)")
    parser.add_argument("--rounds", type=int, default=3, help="fresh mounts for each row (default: 3)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("this needs root: it mounts an image")
    adopt_daemons()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lines = [
            f"{machine(folder)}; `-o {OPTIONS}`, median of {chosen.rounds} rounds.",
            "",
            "| writers | MiB of data | resident before, MiB | at most, MiB | seconds |",
            "|---:|---:|---:|---:|---:|",
        ]
        for writers in sorted({1, max(1, chosen.writers // 10), chosen.writers}):
            rounds = [measure(folder, writers) for _ in range(chosen.rounds)]
            before, most, took_s = map(statistics.median, zip(*rounds, strict=True))
            lines.append(f"| {writers} | {writers} | {before:.0f} | {most:.0f} | {took_s:.2f} |")
    tell("crowd", lines, write=chosen.write)


if __name__ == "__main__":
    main()
