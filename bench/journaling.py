"""What journaling costs: the same work on the same engine with the journal and without it.

    python -m bench.journaling [--rounds 7] [--only NAME] [--write]

Both engines do the same operations on fresh image files, in turns within one run; a ratio compares two runs that lie side by
side in time, and the table shows the median of these ratios. --write puts the table into docs/BENCHMARKS.md.

The clock runs from the first operation to the end of the last commit. Commits come when half of the dirty data's limit is dirty
(a mount stores the data then, and commits less often), when 5 s have passed, and at the end; checkpoints when the journal asks
for one. No checkpoint is added at the end, so nothing that both engines do alike hides the difference. Python's garbage collector
is told what a mount tells it: as it comes, it looks at everything now and then, in the middle of whichever run is under way.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.material import sources, text
from bench.page import machine, publish
from razortools.engine import attributes, collector, files, namespace
from razortools.engine.attributes import AttributeChange
from razortools.engine.create import create, plan_create
from razortools.engine.limits import Limits
from razortools.engine.store.device import create_image, open_image
from razortools.engine.volume import Volume, open_volume
from razortools.format.inode import ROOT_INODE
from razortools.units import GIB, KIB, MIB, InodeNo

IMAGE_BYTES = 2 * GIB  # with it comes a journal of 32 MiB
LAW_PERCENT = 15
LIMITS = Limits()


class Pace:
    """Commits as the mount's committer does."""

    def __init__(self, volume: Volume, *, each: bool) -> None:
        """*each*: after every operation, as for a program that syncs all it does."""
        self._volume = volume
        self._each = each
        self._committed_at = time.monotonic()

    def __call__(self) -> None:
        """Commit if it is time to. Called after each operation."""
        due = self._each or self._volume.records.dirty_bytes >= LIMITS.dirty_bytes // 2
        if due or time.monotonic() - self._committed_at >= LIMITS.commit_interval_s:
            self._volume.commit()
            self._committed_at = time.monotonic()


def new_file(volume: Volume, name: str, folder: InodeNo = ROOT_INODE) -> InodeNo:
    """Create an empty file."""
    return namespace.create(volume, folder, name.encode(), 0o644, 0, 0)


# Workloads: each prepares, then yields once when the clock starts, and calls pace() after each operation.

Workload = Callable[[Volume, Callable[[], None], random.Random], Iterator[None]]


def small_files(volume: Volume, pace: Callable[[], None], source: random.Random) -> Iterator[None]:
    """Create 5,000 files of 4 KiB in 50 directories."""
    folders = [namespace.mkdir(volume, ROOT_INODE, b"%d" % number, 0o755, 0, 0) for number in range(50)]
    starts = [source.randrange(len(text()) - 4 * KIB) for _ in range(5000)]
    yield
    for number, start in enumerate(starts):
        ino = new_file(volume, f"file {number}", folders[number % 50])
        files.write(volume, ino, 0, text()[start : start + 4 * KIB])
        pace()


def large_files(volume: Volume, pace: Callable[[], None], source: random.Random) -> Iterator[None]:
    """Write 4 files of 48 MiB from start to end, 128 KiB at a time."""
    data = text()[: 12 * MIB]
    yield
    for number in range(4):
        ino = new_file(volume, f"large {number}")
        for offset in range(0, 48 * MIB, 128 * KIB):
            start = (offset + number * 7919) % (len(data) - 128 * KIB)
            files.write(volume, ino, offset, data[start : start + 128 * KIB])
            pace()


def overwrites(volume: Volume, pace: Callable[[], None], source: random.Random) -> Iterator[None]:
    """Overwrite 4 KiB at 3,000 random places of a file of 64 MiB."""
    ino = new_file(volume, "file")
    piece = text()[: 8 * MIB]
    for offset in range(0, 64 * MIB, len(piece)):
        files.write(volume, ino, offset, piece)
    places = [source.randrange(16 * KIB) * 4 * KIB for _ in range(3000)]
    yield
    for number, offset in enumerate(places):
        files.write(volume, ino, offset, piece[number * KIB : (number + 4) * KIB])
        pace()


def appends(volume: Volume, pace: Callable[[], None], source: random.Random) -> Iterator[None]:
    """Append 60,000 lines of 100 to 300 bytes to 20 logs."""
    logs = [(new_file(volume, f"log {number}"), 0) for number in range(20)]
    yield
    for number in range(60_000):
        ino, size = logs[number % 20]
        line = text()[number * 200 : number * 200 + 100 + number % 200]
        files.write(volume, ino, size, line)
        logs[number % 20] = (ino, size + len(line))
        pace()


def metadata(volume: Volume, pace: Callable[[], None], source: random.Random) -> Iterator[None]:
    """Make 6,000 directories, move them, change their modes, make and remove a file in each."""
    homes = [namespace.mkdir(volume, ROOT_INODE, b"%d" % number, 0o755, 0, 0) for number in range(30)]
    yield
    for number in range(6000):
        home, target = homes[number % 30], homes[(number + 1) % 30]
        folder = namespace.mkdir(volume, home, b"directory %d" % number, 0o755, 0, 0)
        pace()
        new_file(volume, "file", folder)
        pace()
        namespace.rename(volume, home, b"directory %d" % number, target, b"moved %d" % number)
        pace()
        attributes.setattr(volume, folder, AttributeChange(mode=0o700, mtime_ns=number))
        pace()
        namespace.unlink(volume, folder, b"file")
        pace()


def unpacking(volume: Volume, pace: Callable[[], None], source: random.Random) -> Iterator[None]:
    """Unpack a tree of sources three times, as tar does: directories, files in pieces of 64 KiB, modes and times."""
    folders: dict[str, InodeNo] = {"": ROOT_INODE}
    tree = [(f"{copy}/{path}", data) for copy in range(3) for path, data in sources()]
    yield
    for path, data in tree:
        folder, _, name = path.rpartition("/")
        above = ""
        for part in folder.split("/") if folder else []:
            here = f"{above}/{part}" if above else part
            if here not in folders:
                folders[here] = namespace.mkdir(volume, folders[above], part.encode(), 0o755, 0, 0)
                pace()
            above = here
        ino = new_file(volume, name, folders[above])
        pace()
        for offset in range(0, len(data), 64 * KIB):
            files.write(volume, ino, offset, data[offset : offset + 64 * KIB])
            pace()
        attributes.setattr(volume, ino, AttributeChange(mode=0o600, mtime_ns=1, atime_ns=1))
        pace()


def syncs(volume: Volume, pace: Callable[[], None], source: random.Random) -> Iterator[None]:
    """Append a page to one of 10 files and sync, 1,000 times."""
    logs = [(new_file(volume, f"log {number}"), 0) for number in range(10)]
    volume.commit()
    yield
    for number in range(1000):
        ino, size = logs[number % 10]
        files.write(volume, ino, size, text()[number * KIB : (number + 4) * KIB])
        logs[number % 10] = (ino, size + 4 * KIB)
        pace()


WORKLOADS: dict[str, tuple[Workload, bool]] = {
    "create small files": (small_files, False),
    "write large files": (large_files, False),
    "overwrite at random": (overwrites, False),
    "append to logs": (appends, False),
    "metadata only": (metadata, False),
    "unpack a tree": (unpacking, False),
    "sync each append": (syncs, True),
}


@dataclass(frozen=True, slots=True)
class Taken:
    """What one run took, in seconds."""

    wall_s: float
    cpu_s: float


def run_once(workload: Workload, *, each: bool, journaling: bool, folder: Path) -> Taken:
    """Do *workload* on a fresh image in *folder*."""
    image = folder / "image"
    try:
        with create_image(image, IMAGE_BYTES) as device:
            create(device, plan_create(IMAGE_BYTES, uuid=bytes(range(16)), hash_seed=bytes(16)))
        with open_volume(open_image(image, writable=True), limits=LIMITS, journaling=journaling) as volume:
            steps = workload(volume, Pace(volume, each=each), random.Random(1))
            next(steps)
            volume.checkpoint()
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in steps:
                raise AssertionError("a workload yields once")
            volume.commit()
            return Taken(time.perf_counter() - wall, time.process_time() - cpu)
    finally:
        image.unlink(missing_ok=True)


def compare(name: str, rounds: int, folder: Path) -> str:
    """Return the row of the table for the workload *name*."""
    workload, each = WORKLOADS[name]
    run_once(workload, each=each, journaling=True, folder=folder)  # what is slow the first time belongs to nobody
    pairs: list[tuple[Taken, Taken]] = []
    for number in range(rounds):
        order = (True, False) if number % 2 else (False, True)  # neither always has the place after the other
        taken = {journaling: run_once(workload, each=each, journaling=journaling, folder=folder) for journaling in order}
        pairs.append((taken[True], taken[False]))
    wall = [100 * (on.wall_s / off.wall_s - 1) for on, off in pairs]
    cpu = statistics.median(100 * (on.cpu_s / off.cpu_s - 1) for on, off in pairs)
    low, cost, high = statistics.quantiles(wall, n=4, method="inclusive")
    return (
        f"| {name} | {statistics.median(on.wall_s for on, _ in pairs):.3f} s | "
        f"{statistics.median(off.wall_s for _, off in pairs):.3f} s | {cost:+.1f} % | {low:+.1f} to {high:+.1f} % | "
        f"{cpu:+.1f} % |{'' if cost < LAW_PERCENT else ' above the limit'}"
    )


def main() -> None:
    """Measure, print the table, publish it if asked to."""
    parser = argparse.ArgumentParser(description="Measure what journaling costs.")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of runs for each workload (default: 7)")
    parser.add_argument("--only", choices=WORKLOADS, help="one workload")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    chosen = parser.parse_args()
    collector.calm()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lines = [
            f"{machine(folder)}; {chosen.rounds} pairs of runs for each workload.",
            "",
            "| workload | with journal | without | cost | middle half of the pairs | cost in processor time |",
            "|---|---|---|---|---|---|",
        ]
        sys.stdout.write("\n".join(lines) + "\n")
        for name in [chosen.only] if chosen.only else WORKLOADS:
            lines.append(compare(name, chosen.rounds, folder))
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
    if chosen.write:
        publish("journaling", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
