"""How much room data take: what each data set costs on the disk, beside other filesystems.

    python -m bench.space [--without PEER]... [--write]

Each data set is written to a fresh image of each peer, which is then unmounted and mounted again, so that everything is where it
stays. What it takes is what the filesystem tells of its free blocks (statvfs) before and after: metadata are part of it, in as
many copies as each keeps by default. Ratio: bytes of all files together, by what they take. Needs root, for loop devices.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.datasets import DATASETS, dataset
from bench.mounts.peers import PEERS, RAZORFS, Peer, adopt_daemons, missing_tools, mounted
from bench.mounts.place import WrongResult, settle
from bench.mounts.report import layout
from bench.page import machine, publish

NAMES = ("ext4", "btrfs", RAZORFS)
SLACK_BYTES = 64 * 1024  # what a filesystem may take or give back while nothing is written


@dataclass(frozen=True, slots=True)
class Room:
    """What a data set is, and what it takes. In bytes."""

    logical_bytes: int
    taken_bytes: int

    @property
    def ratio(self) -> float:
        """How many bytes of files are kept in one of the disk."""
        return self.logical_bytes / self.taken_bytes


def used_bytes(point: Path) -> int:
    """Return what is in use on the filesystem at *point*, after everything has been written out."""
    settle(point)
    figures = os.statvfs(point)
    return (figures.f_blocks - figures.f_bfree) * figures.f_frsize


def fill(point: Path, files: tuple[tuple[str, bytes], ...]) -> int:
    """Write the files and return how many bytes they hold together. Raises WrongResult if one reads back differently."""
    for path, data in files:
        target = point / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    for path, data in files:
        if (point / path).read_bytes() != data:
            raise WrongResult(f"{path} is not what was written")
    return sum(len(data) for _, data in files)


def measure(peer: Peer, name: str, folder: Path) -> Room:
    """Return what the data set *name* takes on *peer*."""
    with mounted(peer, folder) as point:
        before = used_bytes(point)
        logical = fill(point, dataset(name))
        taken = used_bytes(point) - before
    if taken <= SLACK_BYTES:
        raise WrongResult(f"{peer.name} says that {name} takes {taken} bytes: it has not been written yet")
    return Room(logical, taken)


def table(rooms: dict[tuple[str, str], Room], peers: list[str]) -> str:
    """Return ratios, a line for each data set."""
    head = ["data set", "MiB", *(f"{peer}: ratio" for peer in peers)]
    lines = [head]
    for name in DATASETS:
        first = rooms[name, peers[0]]
        lines.append([name, f"{first.logical_bytes / 2**20:.1f}", *(f"{rooms[name, peer].ratio:.2f}" for peer in peers)])
    return layout(lines)


def main() -> int:
    """Measure, print the table, publish it if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.space", description="Measure how much room data take.")
    parser.add_argument("--without", action="append", default=[], choices=NAMES[:-1], help="leave a peer out")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    options = parser.parse_args()
    peers = [peer for peer in PEERS if peer.name in NAMES and peer.name not in options.without]
    if missing := missing_tools(peers):
        sys.exit("\n".join(missing))
    if os.geteuid() != 0:
        sys.exit("this needs root: it mounts loop devices")
    adopt_daemons()
    folder = Path(tempfile.mkdtemp())
    try:
        rooms = {(name, peer.name): measure(peer, name, folder) for name in DATASETS for peer in peers}
        text = f"{machine(folder)}.\n\n{table(rooms, [peer.name for peer in peers])}"
    finally:
        folder.rmdir()
    sys.stdout.write(text)
    if options.write:
        publish("space", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
