"""How cost grows: what an operation takes as files become more, as a directory grows, and as a file grows.

    python -m bench.growth [--files 1000000] [--file-mib 65536] [--only AXIS]... [--write]

It is the engine that is measured, without FUSE: requests and the kernel's caches cost the same whatever the image holds, and
would hide what the tree costs. One image grows, and at each size the same number of operations is done and taken back, so that it
is measured at that size (at the first one twice: what is slow the first time belongs to nobody). What counts is the thread's
processor time of one operation (the mean of a few hundred), with the commit that stores it where it changes something. The image
is a file, the limits are those of a mount.

- *files*: small ones, 100 in a directory. Looked at are files anywhere in the tree, which soon is larger than the metadata cache:
  nodes are then read again; and files of ten directories, what programs that work somewhere see.
- *directory*: the same of one directory that holds all of them.
- *file*: one file with 4 KiB of data at the start of each record of 128 KiB, so the largest has half a million records.

A mark says whether an operation is flat: at the largest size it costs no more than FLAT times what it costs at the smallest.
"""

import argparse
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import plots
from bench.journaling import Pace
from bench.material import text
from bench.mounts.report import layout
from bench.page import machine, publish
from razortools.engine import attributes, collector, files, namespace
from razortools.engine.attributes import AttributeChange
from razortools.engine.create import create, plan_create
from razortools.engine.limits import Limits
from razortools.engine.store.device import create_image, open_image
from razortools.engine.volume import Volume, open_volume
from razortools.format.inode import ROOT_INODE
from razortools.units import GIB, KIB, MIB, InodeNo, RecordNo

FLAT = 2.0  # a tree that is two levels higher, and whose way down is in no cache of the processor, may cost so much more
IMAGE_BYTES = 16 * GIB
FILES_PER_DIRECTORY = 100
CONTENT_BYTES = 100  # of a small file
PIECE_BYTES, RECORD_BYTES = 4 * KIB, 128 * KIB
SAMPLES = 400  # operations of each kind at each size
BATCH = 8  # operations on one file before a commit: the smallest has no more records
NEAR_DIRECTORIES = 10
WARMING = 20_000  # files anywhere that are looked at before others are
FIRST_FILES, FIRST_BYTES = 1000, 1 * MIB
SEED = 3

Place = tuple[InodeNo, bytes]  # a directory, and a name in it


@dataclass(slots=True)
class Axis:
    """What grows, and what each operation took at each size, in microseconds of processor time."""

    name: str
    unit: str
    costs: dict[str, dict[int, float]] = field(default_factory=dict)  # operation -> size -> us
    remark: str = ""  # what else is to be known of the largest size

    def note(self, operation: str, size: int, took_us: float) -> None:
        """Take note of what *operation* costs at *size*."""
        self.costs.setdefault(operation, {})[size] = took_us

    @property
    def sizes(self) -> list[int]:
        """Return the sizes that were measured."""
        return sorted({size for found in self.costs.values() for size in found})

    def growth(self, operation: str) -> float:
        """Return how many times as much *operation* costs at the largest size as at the smallest."""
        found = self.costs[operation]
        return found[max(found)] / found[min(found)]


def sizes_to(first: int, last: int, step: int) -> list[int]:
    """Return sizes from *first* on, each *step* times the one before, and *last* itself."""
    found = []
    while first < last:
        found.append(first)
        first *= step
    return [*found, last]


def mean_us(operations: Iterator[object]) -> float:
    """Return the processor time of each of *operations*, which yields after each one, in microseconds."""
    started, count = time.thread_time_ns(), 0
    for _ in operations:
        count += 1
    return (time.thread_time_ns() - started) / count / 1000


def content(number: int, size_bytes: int) -> bytes:
    """Return what file or record *number* holds."""
    start = number * 1117 % (len(text()) - size_bytes)
    return text()[start : start + size_bytes]


class Tree:
    """Small files that become more, in one directory or in many."""

    def __init__(self, volume: Volume, per_directory: int) -> None:
        """Begin with none, and have *per_directory* of them in each directory."""
        self.volume = volume
        self.source = random.Random(SEED)
        self._per_directory = per_directory
        self._pace = Pace(volume, each=False)
        self.folders: list[InodeNo] = []
        self.count = 0

    def grow(self, count: int) -> None:
        """Make files until there are *count*."""
        while self.count < count:
            if self.count % self._per_directory == 0:
                name = b"directory %d" % len(self.folders)
                self.folders.append(namespace.mkdir(self.volume, ROOT_INODE, name, 0o755, 0, 0))
            self.make(self.place(self.count), self.count)
            self.count += 1
            self._pace()
        self.volume.checkpoint()

    def place(self, number: int) -> Place:
        """Return where file *number* is."""
        return self.folders[number // self._per_directory], b"file number %d" % number

    def make(self, place: Place, number: int) -> None:
        """Make a file with its contents."""
        ino = namespace.create(self.volume, *place, 0o644, 0, 0)
        files.write(self.volume, ino, 0, content(number, CONTENT_BYTES))

    def chosen(self, among: int) -> list[int]:
        """Return the numbers of some files among *among*, which lie together somewhere in the middle."""
        first = (self.count - among) // 2
        return [first + self.source.randrange(among) for _ in range(SAMPLES)]

    def measure(self, axis: Axis, where: str, among: int) -> None:
        """Note what operations on some of *among* files cost."""
        numbers = self.chosen(among)
        if where.startswith("near"):  # programs that work somewhere have been there before
            for number in range((self.count - among) // 2, (self.count + among) // 2):
                self._look(number)
        elif among == self.count:  # what making the files has left in memory is not what looking at them leaves
            for _ in range(WARMING):
                self._look(self.source.randrange(among))
        for operation, work in (
            ("look up, stat, read", self._looks(numbers)),
            ("create, write", self._creates(numbers)),
            ("rename", self._renames(numbers)),
            ("unlink", self._unlinks(numbers)),
        ):
            axis.note(f"{operation}{where and f', {where}'}", self.count, mean_us(work))
            self.volume.checkpoint()

    def _look(self, number: int) -> None:
        """Look a file up, and read it. Raises ValueError if it holds something else."""
        ino = namespace.lookup(self.volume, *self.place(number))
        size = self.volume.inodes.get(ino).size
        if files.read(self.volume, ino, 0, size) != content(number, CONTENT_BYTES):
            raise ValueError(f"file {number} reads wrong")

    def _looks(self, numbers: list[int]) -> Iterator[None]:
        for number in numbers:
            self._look(number)
            yield

    def _creates(self, numbers: list[int]) -> Iterator[None]:
        for turn, number in enumerate(numbers):
            self.make((self.place(number)[0], b"new %d" % turn), number)
            self._pace_of(turn)
            yield

    def _renames(self, numbers: list[int]) -> Iterator[None]:
        for turn, number in enumerate(numbers):
            folder = self.place(number)[0]
            namespace.rename(self.volume, folder, b"new %d" % turn, folder, b"renamed %d" % turn)
            self._pace_of(turn)
            yield

    def _unlinks(self, numbers: list[int]) -> Iterator[None]:
        for turn, number in enumerate(numbers):
            namespace.unlink(self.volume, self.place(number)[0], b"renamed %d" % turn)
            self._pace_of(turn)
            yield

    def _pace_of(self, turn: int) -> None:
        """Commit after each hundredth operation, as a mount that has many does."""
        if turn % 100 == 99:
            self.volume.commit()


class Large:
    """One file that grows, with some data in each of its records."""

    def __init__(self, volume: Volume) -> None:
        """Begin with an empty one."""
        self.volume = volume
        self.source = random.Random(SEED)
        self.ino = namespace.create(volume, ROOT_INODE, b"large", 0o644, 0, 0)
        self._pace = Pace(volume, each=False)
        self.count = 0  # of records

    def grow(self, size_bytes: int) -> None:
        """Write records until the file has *size_bytes*."""
        for number in range(self.count, size_bytes // RECORD_BYTES):
            self._write(number, number)
            self._pace()
        self.count = size_bytes // RECORD_BYTES
        self.volume.checkpoint()

    def _write(self, record_no: int, what: int) -> None:
        files.write(self.volume, self.ino, record_no * RECORD_BYTES, content(what, PIECE_BYTES))

    def measure(self, axis: Axis) -> None:
        """Note what operations on the file cost at this size."""
        size = self.count * RECORD_BYTES
        for operation, work in (
            ("read 4 KiB, not in memory", self._reads()),
            ("overwrite 4 KiB, store it", self._overwrites()),
            ("cut the end, append, store it", self._cuts()),
        ):
            axis.note(operation, size, mean_us(work))
            self.volume.checkpoint()

    def _reads(self) -> Iterator[None]:
        for _ in range(SAMPLES):
            number = self.source.randrange(self.count)
            self.volume.records.clean.drop(self.ino, RecordNo(number))
            if files.read(self.volume, self.ino, number * RECORD_BYTES, PIECE_BYTES) != content(number, PIECE_BYTES):
                raise ValueError(f"record {number} reads wrong")
            yield

    def _overwrites(self) -> Iterator[None]:
        for _ in range(SAMPLES // BATCH):
            for number in self.source.sample(range(self.count), BATCH):
                self._write(number, number)
                yield
            files.flush_all(self.volume)
            self.volume.commit()

    def _cuts(self) -> Iterator[None]:
        for _ in range(SAMPLES // BATCH):
            attributes.setattr(self.volume, self.ino, AttributeChange(size=(self.count - 1) * RECORD_BYTES))
            self._write(self.count - 1, self.count - 1)
            files.flush_all(self.volume)
            self.volume.commit()
            yield


def grow_files(volume: Volume, options: argparse.Namespace) -> Axis:
    """Measure as files become more."""
    axis, tree = Axis("files", "files"), Tree(volume, FILES_PER_DIRECTORY)
    for count in sizes_to(FIRST_FILES, options.files, 10):
        tree.grow(count)
        say(f"{count:,} files")
        if not axis.costs:
            tree.measure(Axis("warming up", ""), "", count)
        tree.measure(axis, "anywhere", count)
        tree.measure(axis, f"near ({NEAR_DIRECTORIES} directories)", NEAR_DIRECTORIES * FILES_PER_DIRECTORY)
    tree_mib = volume.store.tree.node_count * volume.store.geometry.node_bytes // MIB
    limit_mib = volume.limits.metadata_cache_bytes // MIB
    axis.remark = f"The tree of {tree.count:,} files has {tree_mib:,} MiB of nodes, the metadata cache takes {limit_mib} MiB. "
    return axis


def grow_directory(volume: Volume, options: argparse.Namespace) -> Axis:
    """Measure as one directory grows."""
    axis, tree = Axis("directory", "files in a directory"), Tree(volume, sys.maxsize)
    for count in sizes_to(FIRST_FILES, max(FIRST_FILES, options.files // 10), 10):
        tree.grow(count)
        say(f"{count:,} files in a directory")
        if not axis.costs:
            tree.measure(Axis("warming up", ""), "", count)
        tree.measure(axis, "", count)
    return axis


def grow_file(volume: Volume, options: argparse.Namespace) -> Axis:
    """Measure as a file grows."""
    axis, large = Axis("file", "MiB in a file"), Large(volume)
    for size in sizes_to(FIRST_BYTES, options.file_mib * MIB, 16):
        large.grow(size)
        say(f"a file of {size // MIB:,} MiB")
        if not axis.costs:
            large.measure(Axis("warming up", ""))
        large.measure(axis)
    axis.costs = {name: {size // MIB: cost for size, cost in found.items()} for name, found in axis.costs.items()}
    return axis


AXES: dict[str, Callable[[Volume, argparse.Namespace], Axis]] = {
    "files": grow_files,
    "directory": grow_directory,
    "file": grow_file,
}


def say(what: str) -> None:
    """Say how far it has come."""
    sys.stderr.write(what + "\n")


def measure(folder: Path, name: str, options: argparse.Namespace) -> Axis:
    """Return what an axis costs, on a fresh image in *folder*."""
    image = folder / "image"
    try:
        with create_image(image, IMAGE_BYTES) as device:
            create(device, plan_create(IMAGE_BYTES, uuid=bytes(range(16)), hash_seed=bytes(16)))
        with open_volume(open_image(image, writable=True), limits=Limits()) as volume:
            return AXES[name](volume, options)
    finally:
        image.unlink(missing_ok=True)


def table(axis: Axis) -> str:
    """Return what each operation costs at each size, in microseconds, and whether that is flat."""
    sizes = axis.sizes
    lines = [[axis.unit, *(f"{size:,}" for size in sizes), "growth", f"at most {FLAT:g}"]]
    for operation, found in axis.costs.items():
        growth = axis.growth(operation)
        costs = [f"{found[size]:.1f}" if size in found else "" for size in sizes]
        lines.append([operation, *costs, f"{growth:.2f}", "met" if growth <= FLAT else "not met"])
    return layout(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description="Measure how the engine's cost grows.")
    parser.add_argument("--files", type=int, default=1_000_000, help="the most files (default: 1,000,000; a directory a tenth)")
    parser.add_argument("--file-mib", type=int, default=65_536, metavar="MIB", help="the largest file (default: 65,536)")
    parser.add_argument("--only", action="append", choices=AXES, metavar="AXIS", help="one axis: " + ", ".join(AXES))
    parser.add_argument("--folder", type=Path, help="where the image lies meanwhile (default: a temporary directory)")
    parser.add_argument("--write", action="store_true", help="put tables and plot into docs/BENCHMARKS.md")
    options = parser.parse_args(arguments)
    if options.files < FIRST_FILES or options.file_mib * MIB < FIRST_BYTES:
        parser.error(f"the smallest sizes are {FIRST_FILES} files and {FIRST_BYTES // MIB} MiB")
    return options


def main() -> int:
    """Measure, print the tables, publish them if asked to."""
    options = parse()
    collector.calm()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        head = f"{machine(folder)}; microseconds of processor time for one operation.\n"
        axes = [measure(folder, name, options) for name in AXES if not options.only or name in options.only]
    resident = "".join(axis.remark for axis in axes)
    resident += f"At most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB // MIB} MiB were resident.\n"
    body = "\n".join([head, *(table(axis) for axis in axes), resident])
    sys.stdout.write(body)
    if options.write:
        drawn = [
            (axis.unit, "us an operation", {name: sorted(found.items()) for name, found in axis.costs.items()}) for axis in axes
        ]
        publish("growth", body + plots.shown("growth", lambda draw: draw.panels(drawn)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
