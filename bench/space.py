"""How much room data take: what each data set costs on the disk, beside other filesystems.

    python -m bench.space [--without PEER]... [--only DATASET]... [--if-here] [--write]

Each data set is written to a fresh image of each peer, until everything is where it stays; razorfs-rested is razorfs once it has
stored anew, harder, what nobody has touched for a moment. What it takes is what the filesystem tells of its free blocks (statvfs)
before and after: metadata are part of it, in as many copies as each keeps by default. Ratio: bytes of all files together, by what
they take. Needs root, for loop devices.
"""

import argparse
import os
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from bench.datasets import DATASETS, dataset
from bench.mounts.peers import OURS, PEERS, RAZORFS, Peer, PeerFailed, adopt_daemons, missing_tools, mounted
from bench.mounts.place import WrongResult, settle
from bench.mounts.report import layout
from bench.page import machine, publish
from razortools.service.asking import Asker
from razortools.service.mountpoints import mount_at
from razortools.units import MIB

RIVAL = "btrfs"  # compresses, too, and is not to be better at it
RESTED = f"{RAZORFS}-rested"
NAMES = ("ext4", RIVAL, RAZORFS, RESTED)
REST = ",recompress=0.5,commit=1"  # what is added to its mount options
RESTING_S = 600
TEXTS, TEXT_RATIO = ("source code", "logs", "a database dump"), 3.5  # what is text, and how well it is to shrink
ANSWER_S = 30
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


Rooms = dict[tuple[str, str], Room]  # by data set and peer


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


def let_rest(point: Path) -> None:
    """Return when nothing is left that the daemon could store anew. Raises WrongResult if it does not get there."""
    settle(point)
    mount = mount_at(str(point))
    assert mount is not None
    end = time.monotonic() + RESTING_S
    with closing(Asker(mount.device, ANSWER_S)) as asker:
        while (told := asker.figures()) is not None and (told.resting_files or told.volume.dirty_bytes):
            if time.monotonic() > end:
                raise WrongResult(f"{told.resting_files} files have not rested after {RESTING_S} s: is the machine busy?")
            time.sleep(1)


def measure(peer: Peer, name: str, folder: Path) -> Room:
    """Return what the data set *name* takes on *peer*."""
    with mounted(peer, folder) as point:
        before = used_bytes(point)
        logical = fill(point, dataset(name))
        if peer.name == RESTED:
            let_rest(point)
        taken = used_bytes(point) - before
    if taken <= SLACK_BYTES:
        raise WrongResult(f"{peer.name} says that {name} takes {taken} bytes: it has not been written yet")
    return Room(logical, taken)


def measure_all(peers: list[Peer], names: list[str], folder: Path) -> tuple[Rooms, list[str]]:
    """Return what every data set takes on every peer, and a sentence for each that failed."""
    rooms: Rooms = {}
    failures = []
    for name in names:
        for peer in peers:
            try:
                rooms[name, peer.name] = measure(peer, name, folder)
            except (PeerFailed, WrongResult, OSError) as error:
                failures.append(f"{name} on {peer.name}: {error}")
                sys.stderr.write(failures[-1] + "\n")
    return rooms, failures


def table(rooms: Rooms, peers: list[str], names: list[str]) -> str:
    """Return ratios, a line for each data set."""
    lines = [["data set", "MiB", *(f"{peer}: ratio" for peer in peers)]]
    for name in names:
        found = [rooms.get((name, peer)) for peer in peers]
        size = next((f"{room.logical_bytes / MIB:.1f}" for room in found if room), "")
        lines.append([name, size, *("failed" if room is None else f"{room.ratio:.2f}" for room in found)])
    return layout(lines)


def marks(rooms: Rooms, names: list[str]) -> str:
    """Return for each data set whether it takes no more room than on btrfs, and whether text shrinks as it should."""
    lines = [["data set", "at least", "found", ""]]
    for name in names:
        ours, theirs = rooms.get((name, RAZORFS)), rooms.get((name, RIVAL))
        if ours is None:
            continue
        asked = [(f"{RIVAL}: {theirs.ratio:.2f}", theirs.ratio)] if theirs else []
        asked += [(f"{TEXT_RATIO:.2f}", TEXT_RATIO)] if name in TEXTS else []
        for words, least in asked:
            lines.append([name, words, f"{ours.ratio:.2f}", "met" if ours.ratio >= least else "not met"])
    return layout(lines)


def page(where: str, rooms: Rooms, failures: list[str], peers: list[str], names: list[str]) -> str:
    """Return everything that the benchmark has to say."""
    parts = [f"{where}.\n", table(rooms, peers, names), marks(rooms, names)]
    if failures:
        parts.append("Failed:\n\n" + "".join(f"- {failure}\n" for failure in failures))
    return "\n".join(parts)


def main() -> int:
    """Measure, print the table, publish it if asked to. Returns 1 if something failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.space", description="Measure how much room data take.")
    others = [name for name in NAMES if name != RAZORFS]
    parser.add_argument("--without", action="append", default=[], choices=others, help="leave a peer out")
    parser.add_argument("--only", action="append", choices=DATASETS, metavar="DATASET", help="one data set, by its name")
    parser.add_argument("--if-here", action="store_true", help="leave out peers whose tools are missing, and say so")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    options = parser.parse_args()
    known = [*PEERS, replace(OURS, name=RESTED, mount=OURS.mount + REST)]
    peers = [peer for peer in known if peer.name in NAMES and peer.name not in options.without]
    missing = missing_tools(peers)
    if missing and not options.if_here:
        sys.exit("\n".join(missing.values()))
    if os.geteuid() != 0:
        sys.exit("this needs root: it mounts loop devices")
    peers = [peer for peer in peers if peer.name not in missing]
    names = [name for name in DATASETS if not options.only or name in options.only]
    adopt_daemons()
    folder = Path(tempfile.mkdtemp())
    try:
        rooms, failures = measure_all(peers, names, folder)
        text = page(machine(folder), rooms, [*missing.values(), *failures], [peer.name for peer in peers], names)
    finally:
        folder.rmdir()
    sys.stdout.write(text)
    if options.write:
        publish("space", text)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
