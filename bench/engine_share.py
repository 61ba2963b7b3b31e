"""The engine's share: what a request costs in the engine itself, with the transport left out, on a realistic mix.

    python -m bench.engine_share [--files 20000] [--rounds 3] [--write]

A tight loop flatters: everything that it touches stays in the processor's caches, and the garbage collector has nothing to do.
Here requests of all kinds come in turns, as programs on a mount cause them: 50 directories, 20,000 files with contents, the
LOOKUP that the kernel sends before it makes, moves or removes a name, the holds that it keeps on what it has looked up, its
FORGET after an unlink. Commits come as a mount makes them, between requests; what they cost is not counted, what they leave
behind (cold caches, objects to collect, leaves that are clean again) is. What is counted is the thread's own processor time, so
that waiting for others on the machine does not show; that they share its caches does. --write puts the table into
docs/BENCHMARKS.md.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bench.journaling import Pace
from bench.material import text
from bench.page import machine, tell
from razortools.engine import attributes, files, namespace, orphans
from razortools.engine.attributes import AttributeChange
from razortools.engine.create import create, plan_create
from razortools.engine.directories import find
from razortools.engine.limits import Limits
from razortools.engine.store.device import create_image, open_image
from razortools.engine.volume import Volume, open_volume
from razortools.format.inode import ROOT_INODE
from razortools.units import GIB, KIB, InodeNo

R = TypeVar("R")

IMAGE_BYTES = 2 * GIB
DIRECTORIES = 50
CREATE_US, LOOKUP_US = 40.0, 15.0  # the limits, for what makes or removes a name, and for the rest

# What is measured, in the order of the table, with the limit of its median in microseconds.
ROWS = {
    "lookup": LOOKUP_US,
    "lookup of an absent name": LOOKUP_US,
    "getattr": LOOKUP_US,
    "setattr": LOOKUP_US,
    "write 4 KiB, new file": LOOKUP_US,
    "write 4 KiB, dirty record": LOOKUP_US,
    "read 4 KiB, cached": LOOKUP_US,
    "create": CREATE_US,
    "mkdir": CREATE_US,
    "rename": CREATE_US,
    "unlink": CREATE_US,
    "unlink of a held file": CREATE_US,
    "forget of it": CREATE_US,
}


class Mix:
    """The requests of many programs on one volume, one after the other, each timed."""

    def __init__(self, volume: Volume, seed: int) -> None:
        """Make the directories in *volume*."""
        self.volume = volume
        self.source = random.Random(seed)
        self.pace = Pace(volume, each=False)
        self.taken_ns: dict[str, list[int]] = {row: [] for row in ROWS}
        self.folders = [namespace.mkdir(volume, ROOT_INODE, b"folder %d" % number, 0o755, 0, 0) for number in range(DIRECTORIES)]
        self.living: list[tuple[InodeNo, bytes, InodeNo]] = []  # (folder, name, inode)

    def timed(self, row: str, request: Callable[..., R], *arguments: object) -> R:
        """Do one request, count it as *row*, and commit if a mount would."""
        started = time.thread_time_ns()
        answer = request(*arguments)
        self.taken_ns[row].append(time.thread_time_ns() - started)
        self.pace()
        return answer

    def looked_up(self, folder: InodeNo, name: bytes) -> InodeNo:
        """Look a name up as the kernel does, which holds what it finds."""
        ino = self.timed("lookup", namespace.lookup, self.volume, folder, name)
        self.volume.inodes.hold(ino)
        return ino

    def new_file(self, number: int) -> None:
        """Let a program make a file and write it in two pieces."""
        volume, folder, name = self.volume, self.source.choice(self.folders), b"file number %d.txt" % number
        self.timed("lookup of an absent name", find, volume, folder, name)
        ino = self.timed("create", namespace.create, volume, folder, name, 0o644, 1000, 1000, 0o022)
        at = number * 1117 % (len(text()) - 8 * KIB)
        data = text()[at : at + 8 * KIB]
        self.timed("write 4 KiB, new file", files.write, volume, ino, 0, data[: 4 * KIB])
        self.timed("write 4 KiB, dirty record", files.write, volume, ino, 4 * KIB, data[4 * KIB :])
        self.living.append((folder, name, ino))

    def visit(self) -> None:
        """Let another program look at a file, read it, and change its times."""
        volume = self.volume
        folder, name, _ = self.source.choice(self.living)
        ino = self.looked_up(folder, name)
        self.timed("getattr", volume.inodes.get, ino)
        files.read(volume, ino, 0, 4 * KIB)  # what memory had dropped comes back
        self.timed("read 4 KiB, cached", files.read, volume, ino, 0, 4 * KIB)
        self.timed("setattr", attributes.setattr, volume, ino, AttributeChange(mode=0o600, mtime_ns=1))
        volume.inodes.release(ino)

    def move(self, number: int) -> None:
        """Let another program give a file a new name, half of the time in another directory."""
        volume, target = self.volume, self.source.choice(self.folders)
        at = self.source.randrange(len(self.living))
        folder, name, ino = self.living[at]
        if self.source.random() < 0.5:
            target = folder
        new_name = b"moved %d" % number
        self.looked_up(folder, name)
        self.timed("lookup of an absent name", find, volume, target, new_name)
        self.timed("rename", namespace.rename, volume, folder, name, target, new_name)
        volume.inodes.release(ino)
        self.living[at] = (target, new_name, ino)

    def remove(self, *, held: bool) -> None:
        """Let another program remove a file. The kernel holds it, unless it has had no room to keep it in memory."""
        at = self.source.randrange(len(self.living))
        folder, name, _ = self.living[at]
        self.living[at] = self.living[-1]
        self.living.pop()
        ino = self.looked_up(folder, name)
        if held:
            self.timed("unlink of a held file", namespace.unlink, self.volume, folder, name)
            self.timed("forget of it", orphans.release, self.volume, ino)
        else:
            self.volume.inodes.release(ino)
            self.timed("unlink", namespace.unlink, self.volume, folder, name)

    def run(self, file_count: int) -> None:
        """Make *file_count* files, with other requests between."""
        for number in range(file_count):
            self.new_file(number)
            self.visit()
            if number % 2:
                self.move(number)
            if number % 5 == 0:
                self.remove(held=number % 2 == 0)
            if number % 20 == 0:
                folder = self.source.choice(self.folders)
                name = b"directory %d" % number
                self.timed("lookup of an absent name", find, self.volume, folder, name)
                self.timed("mkdir", namespace.mkdir, self.volume, folder, name, 0o755, 1000, 1000, 0o022)


def clock_ns() -> float:
    """Return what it takes to look at the clock, which stands in every figure."""
    looks = []
    for _ in range(10_000):
        started = time.thread_time_ns()
        looks.append(time.thread_time_ns() - started)
    return statistics.median(looks)


def measure(folder: Path, file_count: int, seed: int) -> dict[str, list[int]]:
    """Return what the requests took on a fresh image in *folder*, in ns."""
    image = folder / "image"
    try:
        with create_image(image, IMAGE_BYTES) as device:
            create(device, plan_create(IMAGE_BYTES, uuid=bytes(range(16)), hash_seed=bytes(16)))
        with open_volume(open_image(image, writable=True), limits=Limits()) as volume:
            mix = Mix(volume, seed)
            mix.run(file_count)
            return mix.taken_ns
    finally:
        image.unlink(missing_ok=True)


def table(rounds: list[dict[str, list[int]]]) -> list[str]:
    """Return the table's lines: of each figure the best round, for these are costs of code, not of a machine's mood."""
    clock = clock_ns()
    lines = ["| request | median | 99th percentile | mean | limit |", "|---|---|---|---|---|"]
    for row, limit_us in ROWS.items():
        middle = (min(statistics.median(taken[row]) for taken in rounds) - clock) / 1000
        slow = (min(statistics.quantiles(taken[row], n=100)[98] for taken in rounds) - clock) / 1000
        mean = (min(statistics.fmean(taken[row]) for taken in rounds) - clock) / 1000
        told = f"{limit_us:.0f} us{'' if middle < limit_us else ', missed'}"
        lines.append(f"| {row} | {middle:.1f} us | {slow:.1f} us | {mean:.1f} us | {told} |")
    return lines


def main() -> None:
    """Measure, print the table, publish it if asked to."""
    parser = argparse.ArgumentParser(description="Measure what a request costs in the engine.")
    parser.add_argument("--files", type=int, default=20_000, help="files that are made (default: 20,000)")
    parser.add_argument("--rounds", type=int, default=3, help="fresh images; the best of each figure counts (default: 3)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rounds = [measure(folder, chosen.files, seed) for seed in range(chosen.rounds)]
        lines = [f"{machine(folder)}; {chosen.files:,} files, best of {chosen.rounds} rounds.", "", *table(rounds)]
    tell("engine_share", lines, write=chosen.write)


if __name__ == "__main__":
    main()
