"""What the kernel asks for: the requests that each operation of a program causes, and what they take in the daemon.

    python -m bench.requests [--count 1000] [--write]

An image is mounted, and one client does each operation --count times, in turns in ten directories, as the rows of bench.mounts
do. The daemon counts what arrives, by kind, and how long it takes to answer. *In requests* is that time, from when a request is
taken until it is answered; *the daemon* is its processor time, with all that it does besides: taking requests, looking for the
next one, what follows a FORGET, commits. What is left of *each* is the client, the kernel, and waking one another. A request that
comes to less than one for each operation is sent for some of them only, or for several at once (BATCH_FORGET). Needs root.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.material import text
from bench.mounts.peers import OURS, adopt_daemons, mounted
from bench.mounts.place import processor_s, settle, write_file
from bench.page import machine, tell
from razortools.service import mountpoints
from razortools.service.control import Waiter
from razortools.service.figures import MountFigures
from razortools.units import KIB

FOLDERS = 10
PAGE = 4 * KIB
WORTH_TELLING = 0.01  # requests for each operation; fewer come from what goes on beside


@dataclass(frozen=True, slots=True)
class Asked:
    """What one operation caused, on average."""

    each_us: float
    daemon_us: float
    in_requests_us: float
    counts: dict[str, float]  # by kind of request


class Client:
    """Operations on one mount."""

    def __init__(self, root: Path) -> None:
        write_file(os.fsencode(root / "first"), b"")  # the first time, the kernel learns what it need not ask
        (root / "first").read_bytes()
        self._homes = [os.fsencode(root / str(number)) for number in range(FOLDERS)]
        for home in self._homes:
            os.mkdir(home)

    def _path(self, kind: bytes, number: int) -> bytes:
        return b"%s/%s%05d" % (self._homes[number % FOLDERS], kind, number)

    def create(self, number: int) -> None:
        """Make a file of 4 KiB."""
        write_file(self._path(b"file", number), text()[number * 100 : number * 100 + PAGE])

    def overwrite(self, number: int) -> None:
        """Write its 4 KiB anew."""
        descriptor = os.open(self._path(b"file", number), os.O_WRONLY)
        os.write(descriptor, text()[number * 70 : number * 70 + PAGE])
        os.close(descriptor)

    def stat(self, number: int) -> None:
        """Look at what was written."""
        os.stat(self._path(b"file", number))

    def read(self, number: int) -> None:
        """Read it."""
        descriptor = os.open(self._path(b"file", number), os.O_RDONLY)
        os.read(descriptor, PAGE)
        os.close(descriptor)

    def listing(self, number: int) -> None:
        """List the directory in which it is, with all others there."""
        os.listdir(self._homes[number % FOLDERS])

    def rename(self, number: int) -> None:
        """Give it another name."""
        os.rename(self._path(b"file", number), self._path(b"moved", number))

    def unlink(self, number: int) -> None:
        """Remove it."""
        os.unlink(self._path(b"moved", number))

    def mkdir(self, number: int) -> None:
        """Make a directory."""
        os.mkdir(self._path(b"directory", number))

    def rmdir(self, number: int) -> None:
        """Remove it."""
        os.rmdir(self._path(b"directory", number))

    def operations(self) -> dict[str, Callable[[int], None]]:
        """Return all of them by their names in the table, in an order in which each finds what it needs."""
        return {
            "create + 4 KiB": self.create,
            "write 4 KiB over it": self.overwrite,
            "stat after that": self.stat,
            "open + read 4 KiB, warm": self.read,
            "list its directory, which has not changed": self.listing,
            "rename": self.rename,
            "unlink": self.unlink,
            "mkdir": self.mkdir,
            "rmdir": self.rmdir,
        }


def figures_of(waiter: Waiter) -> MountFigures:
    """Return what the daemon tells of itself now. Raises OSError if it does not."""
    document = waiter.fetch("figures")
    if document is None:
        raise OSError("the daemon gives no figures")
    return MountFigures.from_document(document)


def measure(operation: Callable[[int], None], count: int, waiter: Waiter) -> Asked:
    """Do *operation* so many times."""
    pid = waiter.greeting.pid
    before, daemon_s, started_s = figures_of(waiter), processor_s(pid), time.perf_counter()
    for number in range(count):
        operation(number)
    ended_s, ended_daemon_s, after = time.perf_counter(), processor_s(pid), figures_of(waiter)
    counts, total_s = {}, 0.0
    for name, spread in after.requests.items():
        earlier = before.requests.get(name)
        counts[name] = (spread.count - (earlier.count if earlier else 0)) / count
        total_s += spread.total_s - (earlier.total_s if earlier else 0.0)
    told = {name: each for name, each in counts.items() if each >= WORTH_TELLING}
    return Asked(
        1e6 * (ended_s - started_s) / count, 1e6 * (ended_daemon_s - daemon_s) / count, 1e6 * total_s / count, told
    )  # fmt: skip


def table(rows: dict[str, Asked]) -> list[str]:
    """Return the table's lines."""
    lines = ["| operation | us each | the daemon | in requests | requests | which |", "|---|---|---|---|---|---|"]
    for name, asked in rows.items():
        which = ", ".join(
            f"{each:.2g} {kind.upper()}" if round(each, 2) != 1 else kind.upper()
            for kind, each in sorted(asked.counts.items(), key=lambda item: -item[1])
        )
        numbers = f"{asked.each_us:.1f} | {asked.daemon_us:.1f} | {asked.in_requests_us:.1f} | {sum(asked.counts.values()):.2f}"
        lines.append(f"| {name} | {numbers} | {which or 'none'} |")
    return lines


def main() -> None:
    """Measure, print the table, publish it if asked to."""
    parser = argparse.ArgumentParser(description="Count the requests that operations cause.")
    parser.add_argument("--count", type=int, default=1000, help="of each operation (default: 1000)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("this needs root: it mounts an image")
    adopt_daemons()
    with tempfile.TemporaryDirectory() as temporary:
        folder, rows = Path(temporary), {}
        head = f"{machine(folder)}; {chosen.count:,} of each."
        with mounted(OURS, folder) as point:
            mount = mountpoints.mount_at(str(point))
            assert mount is not None
            waiter = Waiter(mount.device)
            try:
                for name, operation in Client(point).operations().items():
                    settle(point)
                    rows[name] = measure(operation, chosen.count, waiter)
            finally:
                waiter.close()
    lines = [head, "", *table(rows)]
    tell("requests", lines, write=chosen.write)


if __name__ == "__main__":
    main()
