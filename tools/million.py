"""Many files through a mount: created, listed, found and deleted, with the daemon's memory measured against its limits.

    python -m tools.million                      1,000,000 files in 10,000 directories
    python -m tools.million --files 100000

The memory that the daemon may take at its peak is what it took when nothing was done yet, and

- the limits of the mount: `cache`, `metadata_cache` and `dirty`;
- BYTES_PER_HELD_INODE for each inode that the kernel keeps in its memory: the daemon has to know them all, and how many they
  are is the kernel's decision (it gives them up when the machine needs memory);
- SLACK_BYTES for the rest: tables of fixed size (recent inodes, names), requests under way, Python's own waste.

Each file gets a few bytes. Needs root and /dev/fuse; the million takes some ten minutes on two processors.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from razortools.service.options import parse_options
from razortools.units import KIB, MIB
from tests.mount.mounts import Mounted, run
from tools.daemon_figures import Figures, figures_of

FILES_PER_DIRECTORY = 100
DIRECTORIES_PER_GROUP = 100  # directories in a directory above them
IMAGE_BYTES_MIN = 64 * MIB
IMAGE_BYTES_PER_FILE = 4 * KIB
BYTES_PER_HELD_INODE = 160  # a number and its count in a dictionary: 32 bytes, and up to 128 when it has just grown
SLACK_BYTES = 96 * MIB
FSCK_S = 3600


@dataclass(slots=True)
class Phase:
    """What was done to all files, and what it took."""

    name: str
    count: int
    seconds: float
    processor_s: float  # of the daemon
    figures: Figures

    def __str__(self) -> str:
        each_us = 1e6 * self.processor_s / self.count
        return f"{self.name:<20} {self.count / self.seconds:>7,.0f} a second, {each_us:>4.0f} us of the daemon; {self.figures}"


@dataclass(slots=True)
class Million:
    """The files of one run on an image of its own."""

    mounted: Mounted
    file_count: int
    options: tuple[str, ...]
    tell: Callable[[str], None]
    problems: list[str] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    held_most: int = 0

    def run(self) -> list[str]:
        """Do everything; return what came out wrong."""
        mounted = self.mounted.mount(*self.options)
        first = figures_of(mounted.path)
        self.tell(f"at first: {first}")
        with self._phase("create"):
            self._create()
        with self._phase("list (stat of each)"):
            self._expect_count(self._list(), "listed")
        with self._phase("find"):
            self._expect_count(self._find(), "found")
        mounted.remount(*self.options)
        second = figures_of(mounted.path)
        with self._phase("find, cold"):
            self._expect_count(self._find(), "found after a remount")
        with self._phase("read"):
            self._read()
        with self._phase("delete"):
            self._delete()
        left = os.listdir(mounted.path)
        self._expect(left == [], f"left: {left[:10]}")
        self._judge_memory(max(first.resident_bytes, second.resident_bytes))
        mounted.umount()
        self._check()
        self._expect(not mounted.complaints, "in the log:\n" + "\n".join(mounted.complaints[:20]))
        return self.problems

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        before, started = figures_of(self.mounted.path), time.monotonic()
        yield
        seconds = time.monotonic() - started
        figures = figures_of(self.mounted.path)
        self.held_most = max(self.held_most, figures.held_inodes)
        self.phases.append(Phase(name, self.file_count, seconds, figures.processor_s - before.processor_s, figures))
        self.tell(str(self.phases[-1]))

    def _expect(self, holds: bool, story: str) -> None:
        if not holds:
            self.problems.append(story)

    def _expect_count(self, found: int, what: str) -> None:
        self._expect(found == self.file_count, f"{found} files {what}, expected {self.file_count}")

    def _directories(self) -> Iterator[tuple[str, range]]:
        """Yield each directory and the numbers of its files."""
        for first in range(0, self.file_count, FILES_PER_DIRECTORY):
            number = first // FILES_PER_DIRECTORY
            path = f"{self.mounted.path}/group-{number // DIRECTORIES_PER_GROUP}/directory-{number}"
            yield path, range(first, min(first + FILES_PER_DIRECTORY, self.file_count))

    def _create(self) -> None:
        for path, numbers in self._directories():
            os.makedirs(path)
            for number in numbers:
                descriptor = os.open(f"{path}/file-{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
                os.write(descriptor, _contents(number))
                os.close(descriptor)

    def _list(self) -> int:
        """List each directory and ask for the attributes of each file, as `ls -l` does; return how many are right."""
        right = 0
        for path, numbers in self._directories():
            with os.scandir(path) as entries:
                found = {entry.name: entry.stat().st_size for entry in entries}
            right += sum(found.get(f"file-{number}") == len(_contents(number)) for number in numbers)
        return right

    def _find(self) -> int:
        """Return how many files find(1) finds."""
        found = run(["find"], self.mounted.path, "-type", "f", "-name", "file-*", "-printf", ".", patience_s=FSCK_S)
        self._expect(found.returncode == 0, f"find: {found.stderr}")
        return len(found.stdout)

    def _read(self) -> None:
        for path, numbers in self._directories():
            for number in numbers:
                descriptor = os.open(f"{path}/file-{number}", os.O_RDONLY)
                data = os.read(descriptor, 100)
                os.close(descriptor)
                self._expect(data == _contents(number), f"{path}/file-{number}: {data!r}")

    def _delete(self) -> None:
        for path, numbers in self._directories():
            for number in numbers:
                os.unlink(f"{path}/file-{number}")
            os.rmdir(path)
        for group in os.listdir(self.mounted.path):
            os.rmdir(self.mounted.path / group)

    def _judge_memory(self, idle_bytes: int) -> None:
        """Compare the daemon's peak with what its limits allow."""
        options = parse_options(self.options)
        limits = options.record_cache_bytes + options.metadata_cache_bytes + options.dirty_bytes
        held = self.held_most * BYTES_PER_HELD_INODE
        allowed = idle_bytes + limits + held + SLACK_BYTES
        peak = max(phase.figures.peak_bytes for phase in self.phases)
        self.tell(
            f"peak memory {peak / MIB:.0f} MiB; allowed {allowed / MIB:.0f} MiB: {idle_bytes / MIB:.0f} idle, {limits / MIB:.0f} "
            f"limits, {held / MIB:.0f} for {self.held_most:,} held inodes, {SLACK_BYTES / MIB:.0f} for the rest"
        )
        self._expect(peak <= allowed, f"the daemon's memory reached {peak / MIB:.0f} MiB, {allowed / MIB:.0f} MiB are allowed")

    def _check(self) -> None:
        checked = run([sys.executable, "-m", "razortools.fsck", "-n"], self.mounted.image, patience_s=FSCK_S)
        self._expect(checked.returncode == 0, f"razorfsck -n: exit {checked.returncode}\n{checked.stdout}{checked.stderr}")


def _contents(number: int) -> bytes:
    """Return what file *number* holds."""
    return b"this is file %d\n" % number


def main() -> int:
    """Do what the command line asks for; return 1 if anything came out wrong."""
    parser = argparse.ArgumentParser(description="Create, list, find and delete many files through a mount.")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--mount-options", default="", help="as after mount's -o")
    parser.add_argument("--folder", type=Path, help="where the image lies and stays (default: a temporary directory)")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the mount goes too
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        mounted = Mounted(folder, max(IMAGE_BYTES_MIN, chosen.files * IMAGE_BYTES_PER_FILE))
        mounted.patience_s = 60.0
        try:
            options = tuple(filter(None, chosen.mount_options.split(",")))
            million = Million(mounted, chosen.files, options, lambda line: print(line, flush=True))
            problems = million.run()
        finally:
            mounted.take_away()
    for problem in problems[:20]:
        print(problem)
    verdict = "FAILED" if problems else "all there, all gone; razorfsck -n: clean"
    print(f"{chosen.files:,} files in {-(-chosen.files // FILES_PER_DIRECTORY):,} directories: {verdict}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
