"""What the kernel keeps the pages of a file in: why a file that is in memory is read faster from one filesystem than another.

    python -m bench.folios [--mib 64] [--rounds 5] [--if-here] [--write]

A file is written to each peer, the kernel's caches are dropped, and the file is read once. Then it is in the page cache, and no
filesystem is asked any more: how fast it is read again depends on whether the kernel keeps its pages one by one, or in large
folios, which are looked up and copied as one. Told are the share of the file's pages that lie in large ones (/proc/kpageflags),
and the fastest of some readings. Needs root.
"""

import argparse
import mmap
import os
import struct
import sys
import tempfile
import time
from pathlib import Path

from bench.mounts.peers import CLIENT_ALONE, PEERS, PeerFailed, adopt_daemons, missing_tools, mounted
from bench.mounts.place import PAGES, drop_caches, settle
from bench.mounts.report import layout
from bench.page import machine, tell
from razortools.units import KIB, MIB

READ_BYTES = 128 * KIB
FRAME_MASK = (1 << 55) - 1  # of an entry of /proc/self/pagemap: the frame of a page that is present
IS_PRESENT = 1 << 63
IN_LARGE = 1 << 15 | 1 << 16  # of a frame's flags: the first page of a compound one, or another one of it


def large_share(path: Path) -> float:
    """Return which share of a file's pages in memory lie in large folios. Reads the file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        for at in range(0, len(pages), mmap.PAGESIZE):
            pages[at]  # it has to be mapped to have an entry
        frames = _frames(path, len(pages))
    with Path("/proc/kpageflags").open("rb", buffering=0) as flags:
        return sum(bool(_flags(flags.fileno(), frame) & IN_LARGE) for frame in frames) / len(frames)


def _frames(path: Path, length: int) -> list[int]:
    """Return the frames of what this process has mapped of *path*."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    start = next(int(line.split("-")[0], 16) for line in lines if line.endswith(str(path)))
    count = length // mmap.PAGESIZE
    with Path("/proc/self/pagemap").open("rb", buffering=0) as entries:
        found = os.pread(entries.fileno(), 8 * count, start // mmap.PAGESIZE * 8)
    return [entry & FRAME_MASK for entry in struct.unpack(f"{count}Q", found) if entry & IS_PRESENT]


def _flags(descriptor: int, frame: int) -> int:
    return int.from_bytes(os.pread(descriptor, 8, frame * 8), sys.byteorder)


def read_s(path: Path) -> float:
    """Return the seconds that it takes to read a file from its start to its end."""
    buffer = bytearray(READ_BYTES)
    with path.open("rb", buffering=0) as file:
        started = time.perf_counter()
        while file.readinto(buffer):
            pass
        return time.perf_counter() - started


def measure(point: Path, mib: int, rounds: int) -> tuple[float, float]:
    """Return for a file on *point*: the share of its pages in large folios, and how many MiB a second are read of it."""
    path = point / "file"
    path.write_bytes(bytes(range(256)) * (mib * MIB // 256))
    settle(point)
    drop_caches(PAGES)
    read_s(path)
    share = large_share(path)
    return share, mib / min(read_s(path) for _ in range(rounds))


def main() -> int:
    """Measure, print the table, publish it if asked to. Returns 1 if something failed."""
    parser = argparse.ArgumentParser(description="Tell in what the kernel keeps the pages of files, and how fast it reads them.")
    parser.add_argument("--mib", type=int, default=64, help="size of the file (default: 64)")
    parser.add_argument("--rounds", type=int, default=5, help="how often it is read (default: 5)")
    parser.add_argument("--if-here", action="store_true", help="leave out peers whose tools are missing, and say so")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    chosen = parser.parse_args()
    peers = [peer for peer in PEERS if peer.name != CLIENT_ALONE]
    missing = missing_tools(peers)
    if missing and not chosen.if_here:
        sys.exit("\n".join(missing.values()))
    if os.geteuid() != 0:
        sys.exit("this needs root: it mounts loop devices, and looks at the kernel's pages")
    adopt_daemons()
    failures = list(missing.values())
    lines = [["filesystem", "pages in large folios", "read again, MiB/s"]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for peer in peers:
            if peer.name in missing:
                continue
            try:
                with mounted(peer, folder) as point:
                    share, rate = measure(point, chosen.mib, chosen.rounds)
                lines.append([peer.name, f"{share:.0%}", f"{rate:,.0f}"])
            except (PeerFailed, OSError) as failure:
                failures.append(f"{peer.name}: {failure}")
        text = [f"{machine(folder)}; a file of {chosen.mib} MiB, the fastest of {chosen.rounds} readings.", "", layout(lines)]
    tell("folios", [*text, *(f"- {failure}" for failure in failures)], write=chosen.write)
    return 1 if len(failures) > len(missing) else 0


if __name__ == "__main__":
    sys.exit(main())
