"""razorfsck beside the checkers of other filesystems: the same tree, a GiB of it, each in an image file of its own.

    python -m bench.check                    make the images, check each in turn for some rounds, print the table
    python -m bench.check --write            and put it into docs/BENCHMARKS.md
    python -m bench.check --inodes 1000000   razorfsck alone, over so many small files: time and memory

The checkers do not do the same work. e2fsck and xfs_repair look at metadata only: these filesystems have no checksums of
file data. btrfs check verifies the stored data with --check-data-csum. razorfsck reads everything, verifies checksums, and
decompresses it. Only looking is asked for of each (-n, --readonly). Images are made from a directory, without mounting anything;
a checker that is not installed is left out, and said. Times are the least of the rounds; the page cache is warm, so that no disk
is measured. Memory is the most that the process had resident.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench import page
from bench.material import text
from razortools.engine import files, namespace
from razortools.engine.create import create, plan_create
from razortools.engine.store.device import create_image
from razortools.engine.volume import open_volume
from razortools.format.inode import ROOT_INODE
from razortools.units import GIB, KIB, MIB

FILES_PER_DIRECTORY = 256
SIZES = (4 * KIB, 16 * KIB, 64 * KIB, 300_000, 2 * MIB)  # of files, in turn
SEED = 1
PYTHON = sys.executable
# A process counts as its own what the one had resident that started it; so a small one of its own starts the checker.
WATCHER = """
import resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.run(sys.argv[1], shell=True, stdout=subprocess.DEVNULL).returncode
wall_s, usage = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
print(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(code)
"""


@dataclass(frozen=True, slots=True)
class Checker:
    """A checker, and how an image for it is made from the directory {tree}. {proto}: the same as a list for mkfs.xfs."""

    name: str
    make: str
    check: str
    tool: str
    package: str
    reads: str  # what of it is verified


CHECKERS = (
    Checker(
        "razorfsck -n", "{python} -m razortools.mkfs -q -d {tree} {image} 3G", "{python} -m razortools.fsck -n {image}",
        PYTHON, "razortools", "metadata and data",
    ),
    Checker(
        "e2fsck -f -n", "truncate -s 3G {image} && mkfs.ext4 -q -F -d {tree} {image}", "e2fsck -f -n {image}",
        "e2fsck", "e2fsprogs", "metadata",
    ),
    Checker(
        "xfs_repair -n", "truncate -s 3G {image} && mkfs.xfs -q -p {proto} {image}", "xfs_repair -n -f {image}",
        "xfs_repair", "xfsprogs", "metadata",
    ),
    Checker(
        "btrfs check --check-data-csum", "truncate -s 3G {image} && mkfs.btrfs -q --rootdir {tree} {image}",
        "btrfs check --readonly --check-data-csum {image}", "btrfs", "btrfs-progs", "metadata and data checksums",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run of a checker took."""

    wall_s: float
    processor_s: float
    memory_bytes: int


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measure razorfsck beside other checkers.")
    parser.add_argument("--data", type=int, default=1024, help="MiB of file data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--inodes", type=int, default=0, help="measure an image of so many small files instead")
    parser.add_argument("--folder", type=Path, help="where the images lie meanwhile (default: a temporary directory)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        if chosen.inodes:
            table = measure_inodes(Path(folder), chosen.inodes)
        else:
            table = measure_checkers(Path(folder), chosen.data * MIB, chosen.rounds)
    sys.stdout.write(f"{table}\n")
    if chosen.write:
        page.publish("check" if not chosen.inodes else "check_inodes", f"\n```\n{table}\n```\n\n")
    return 0


def measure_checkers(folder: Path, data_bytes: int, rounds: int) -> str:
    """Return the table of all checkers that are here."""
    tree = folder / "tree"
    count = make_tree(tree, data_bytes)
    proto = folder / "proto"
    proto.write_text("\n".join(proto_lines(tree)) + "\n", encoding="utf-8")
    found = [checker for checker in CHECKERS if shutil.which(checker.tool)]
    left_out = [f"{one.name} (package {one.package})" for one in CHECKERS if one not in found]
    commands: dict[str, str] = {}
    for number, checker in enumerate(found):
        say(f"making the image for {checker.name}")
        words = {"tree": tree, "proto": proto, "image": folder / f"image{number}", "python": PYTHON}
        subprocess.run(checker.make.format(**words), shell=True, check=True, stdout=subprocess.DEVNULL)
        commands[checker.name] = checker.check.format(**words)
    shutil.rmtree(tree)
    taken: dict[str, list[Ran]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            ran = run(command)
            if number:  # the first round only warms the page cache
                taken[name].append(ran)
        say(f"round {number} of {rounds}")
    lines = [
        f"{data_bytes / MIB:,.0f} MiB in {count:,} files; {rounds} rounds, the least of each; {page.machine(folder)}; {busy()}",
        f"{'':32}{'wall s':>9}{'processor s':>13}{'memory MiB':>12}   verifies",
    ]
    for checker in found:
        runs = taken[checker.name]
        lines.append(
            f"{checker.name:32}{min(ran.wall_s for ran in runs):>9.2f}{min(ran.processor_s for ran in runs):>13.2f}"
            f"{statistics.median(ran.memory_bytes for ran in runs) / MIB:>12.0f}   {checker.reads}"
        )
    return "\n".join([*lines, *(f"left out, not installed: {name}" for name in left_out)])


def measure_inodes(folder: Path, count: int) -> str:
    """Return what a check of *count* small files takes."""
    image = folder / "image"
    say(f"making an image of {count:,} files")
    make_small_files(image, count)
    ran = min((run(f"{PYTHON} -m razortools.fsck -n {image}") for _ in range(2)), key=lambda ran: ran.wall_s)
    return (
        f"{count:,} small files, razorfsck -n; {page.machine(folder)}; {busy()}\n"
        f"wall {ran.wall_s:.1f} s, processor {ran.processor_s:.1f} s, memory {ran.memory_bytes / MIB:.0f} MiB"
    )


def make_tree(tree: Path, data_bytes: int) -> int:
    """Fill the directory with files of text and of noise, half of each; return how many."""
    chance, words = random.Random(SEED), text()
    made = count = 0
    while made < data_bytes:
        if count % FILES_PER_DIRECTORY == 0:
            directory = tree / f"d{count // FILES_PER_DIRECTORY:04}"
            directory.mkdir(parents=True)
        size = min(SIZES[count % len(SIZES)], data_bytes - made)
        at = chance.randrange(len(words) - size)
        data = words[at : at + size] if count % 2 else chance.randbytes(size)
        (directory / f"f{count:06}").write_bytes(data)
        made += size
        count += 1
    return count


def proto_lines(tree: Path) -> list[str]:
    """Return the tree as mkfs.xfs wants to be told of it."""
    lines = ["/dev/null", "0 0", "d--755 0 0"]
    for directory in sorted(tree.iterdir()):
        lines.append(f"{directory.name} d--755 0 0")
        lines += [f"{path.name} ---644 0 0 {path}" for path in sorted(directory.iterdir())]
        lines.append("$")
    return [*lines, "$"]


def make_small_files(image: Path, count: int) -> None:
    """Make an image with *count* files of some bytes, 1,000 in a directory, with the engine."""
    per_directory = 1000
    with create_image(image, max(2 * GIB, count * 4 * KIB)) as device:
        create(device, plan_create(device.size_bytes))
        volume = open_volume(device)
        directory = ROOT_INODE
        for number in range(count):
            if number % per_directory == 0:
                directory = namespace.mkdir(volume, ROOT_INODE, b"d%d" % (number // per_directory), 0o755, 0, 0)
            ino = namespace.create(volume, directory, b"file number %d" % number, 0o644, 0, 0)
            files.write(volume, ino, 0, b"the contents of file %d" % number)
            if number % 10_000 == 0:
                volume.commit()
        volume.close()


def run(command: str) -> Ran:
    """Run a checker; raise SystemExit if it finds anything."""
    done = subprocess.run([PYTHON, "-c", WATCHER, command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command} exits {done.returncode}: {done.stderr.strip()[-300:]}")
    wall_s, processor_s, memory_kib = map(float, done.stdout.split())
    return Ran(wall_s, processor_s, int(memory_kib * KIB))


def busy() -> str:
    """Return how busy the machine is: where others compute too, only processor times can be compared."""
    return f"load average {os.getloadavg()[0]:.0f}"


def say(words: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(f"{words}\n")


if __name__ == "__main__":
    sys.exit(main())
