"""How long razorfsck is silent at the most: the longest time between two signs of progress, in each part of a check and a repair.

    python -m bench.silence --files 1000000            that many small files, 1,000 in a directory
    python -m bench.silence --files 1000000 --flat     all in one directory
    python -m bench.silence --gib 8                    one file of so many GiB
    python -m bench.silence --image IMAGE              an image that is there already; it is not changed
    python -m bench.silence --files 1000000 --command  as an operator sees it: between two lines of razorfsck -C

The image is damaged in memory (both copies of a leaf, the first copy of three nodes, a page of the space map) and repaired there.
A sign is a step of a phase whose figure has moved, and between the checks of a repair a read of the device. Told is the longest
silence, by the clock on the wall and in processor time of the whole process: on a busy machine only the second says something
about the program. With --command `razorfsck -n` looks at the image, and `razorfsck --repair` mends a damaged copy of it; there a
sign is a line of progress, of which there is at most one in 0.2 s.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.check import make_small_files, say
from razortools.check.findings import Progress
from razortools.check.pulse import PulsingDevice
from razortools.check.repair.repair import RoundPlanned, Wishes, WorkStarted, repair
from razortools.check.repair.surveying import believed, indexed
from razortools.check.runner import PHASES, Options, PhaseStarted
from razortools.check.steps import PARTS
from razortools.engine import files, namespace
from razortools.engine.create import create, plan_create
from razortools.engine.store.device import Device, create_image, open_image
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.volume import open_volume
from razortools.format.inode import ROOT_INODE
from razortools.units import GIB, KIB, MIB

Result = TypeVar("Result")
PIECE_BYTES = 1 * MIB
USER_TIME = 11  # its place in /proc/PID/stat, counted from behind the name; see proc(5)


@dataclass(slots=True)
class Silences:
    """The longest silence in each part of the work."""

    part: str = "begin"
    processor_time_s: Callable[[], float] = time.process_time
    wall_s: dict[str, float] = field(default_factory=dict)
    processor_s: dict[str, float] = field(default_factory=dict)
    _wall: float = field(default_factory=time.perf_counter)
    _processor: float = 0.0

    def __post_init__(self) -> None:
        """Begin to count."""
        self._processor = self.processor_time_s()

    def sign(self) -> None:
        """Somebody has seen that it goes on."""
        wall, processor = time.perf_counter(), self.processor_time_s()
        self.wall_s[self.part] = max(self.wall_s.get(self.part, 0.0), wall - self._wall)
        self.processor_s[self.part] = max(self.processor_s.get(self.part, 0.0), processor - self._processor)
        self._wall, self._processor = wall, processor

    def pulse(self, _: int) -> None:
        """The device was read; that is a sign where nothing else is."""
        if self.part.endswith(("between", "applied")):
            self.sign()

    def enter(self, part: str) -> None:
        """Another part begins."""
        self.sign()
        self.part = part

    def table(self) -> str:
        """Return the table."""
        lines = [f"{'part':<40} {'wall':>8} {'processor':>10}"]
        for part, wall_s in self.wall_s.items():
            lines.append(f"{part:<40} {1e3 * wall_s:>5.0f} ms {1e3 * self.processor_s[part]:>7.0f} ms")
        return "\n".join(lines)


def follow(steps: Generator[object, None, Result], silences: Silences, prefix: str) -> Result:
    """Run *steps* to their end and watch for signs."""
    parts = 0
    in_phase = False
    while True:
        try:
            step = next(steps)
        except StopIteration as done:
            silences.sign()
            result: Result = done.value
            return result
        if isinstance(step, PhaseStarted):
            silences.enter(f"{prefix}{step.number} {PHASES[step.number][0]}")
            parts, in_phase = 0, True
        elif isinstance(step, WorkStarted):
            silences.enter(step.label.lower())
            parts, in_phase = 0, True
        elif isinstance(step, RoundPlanned):
            prefix = f"round {step.number}, "
            silences.enter(f"{prefix}applied")
            say(f"round {step.number}: {len(step.edits)} edits")
        elif not isinstance(step, Progress):
            silences.enter(f"{prefix}between")
            in_phase = False
        elif in_phase and step.total and step.done * 100 * PARTS // step.total > parts:
            parts = step.done * 100 * PARTS // step.total
            silences.sign()


class ProcessorTime:
    """Tells how much processor time another process has taken; once it is gone, what that was when last asked."""

    def __init__(self, pid: int) -> None:
        self._path = f"/proc/{pid}/stat"
        self._last_s = 0.0

    def __call__(self) -> float:
        """Return it, in seconds."""
        try:
            fields = Path(self._path).read_text().rpartition(")")[2].split()
        except (OSError, ProcessLookupError):
            return self._last_s
        if len(fields) > USER_TIME + 1:
            self._last_s = (int(fields[USER_TIME]) + int(fields[USER_TIME + 1])) / os.sysconf("SC_CLK_TCK")
        return self._last_s


def follow_command(image: Path, option: str) -> Silences:
    """Run razorfsck with *option* on *image* and watch for lines of its progress."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "razortools.fsck", option, "-q", "-C", str(writing), str(image)]
    with subprocess.Popen(command, pass_fds=(writing,), stdout=subprocess.DEVNULL) as process, open(reading) as lines:
        os.close(writing)
        silences = Silences("before the first line", ProcessorTime(process.pid))
        phase = ""
        for line in lines:
            part = line.partition(" ")[0]
            silences.sign()
            if part != phase:
                phase = part
                silences.part = f"phase {phase}, {PHASES[int(phase)][0]}" if int(phase) else "work between checks"
        silences.sign()
    say(f"razorfsck {option}: exit code {process.returncode}")
    return silences


def watch_commands(image: Path, folder: Path) -> None:
    """Let razorfsck look at *image*, and repair a damaged copy of it in *folder*."""
    sys.stdout.write(f"razorfsck -n\n{follow_command(image, '-n').table()}\n")
    hurt = folder / "hurt"
    subprocess.run(["cp", "--sparse=always", str(image), str(hurt)], check=True)
    with open_image(hurt, writable=True) as below:
        for offset, page in list(damage(below).written_pages()):
            below.write(offset, page)
    sys.stdout.write(f"razorfsck --repair\n{follow_command(hurt, '--repair').table()}\n")


def make_flat(image: Path, count: int) -> None:
    """Make an image with *count* small files in one directory."""
    size = max(256 * MIB, count * 2 * KIB)
    with create_image(image, size) as device:
        create(device, plan_create(size))
    with open_volume(open_image(image, writable=True)) as volume:
        for number in range(count):
            ino = namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 0, 0)
            files.write(volume, ino, 0, b"%d" % number)


def make_large(image: Path, size_bytes: int) -> None:
    """Make an image with one file of *size_bytes* that shrinks to little."""
    size = max(256 * MIB, size_bytes // 8)
    with create_image(image, size) as device:
        create(device, plan_create(size))
    with open_volume(open_image(image, writable=True)) as volume:
        ino = namespace.create(volume, ROOT_INODE, b"large", 0o644, 0, 0)
        for offset in range(0, size_bytes, PIECE_BYTES):
            files.write(volume, ino, offset, (b"%d, " % offset) * (PIECE_BYTES // len(b"%d, " % offset)))


def damage(device: Device) -> OverlayDevice:
    """Return the image with a leaf lost in both copies, three in their first, and a damaged page of the space map."""
    hurt = OverlayDevice(device)
    facts = believed(device)
    assert facts is not None
    image = facts.image
    tree = indexed(image)
    lost = [tree.leaf_count // 2]
    for node, address in enumerate(tree.addresses):
        if address in {tree.leaf_addresses[leaf] for leaf in lost}:
            for place in (address, tree.mirrors[node]):
                _flip(hurt, place * image.block_bytes + 100)
        elif node and node % (len(tree.addresses) // 3) == 0:
            _flip(hurt, address * image.block_bytes + 100)
    _flip(hurt, image.geometry.spacemap_starts[image.superblock.spacemap_active] * image.block_bytes + 100)
    return hurt


def _flip(device: Device, offset: int) -> None:
    device.write(offset, bytes([device.read(offset, 1)[0] ^ 0x5A]))


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measure how long razorfsck is silent.")
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--flat", action="store_true")
    parser.add_argument("--gib", type=int, default=0)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--command", action="store_true", help="watch the progress that razorfsck tells")
    parser.add_argument("--folder", type=Path, help="where the image lies meanwhile (default: a temporary directory)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        image = chosen.image or Path(folder) / "image"
        make: Callable[[Path, int], None] = make_flat if chosen.flat else make_small_files
        if chosen.gib:
            make_large(image, chosen.gib * GIB)
        elif not chosen.image:
            make(image, chosen.files or 100_000)
        say("the image is there")
        if chosen.command:
            watch_commands(image, Path(folder))
            return 0
        with open_image(image, writable=False) as below:
            hurt = damage(below)
            silences = Silences()
            watched = PulsingDevice(hurt, silences.pulse)
            done = follow(repair(watched, Wishes(Options())), silences, "first check, ")
            say(f"refused: {done.refused or 'no'}; clean: {done.after.clean}; overlay {done.overlay.written_bytes / MIB:.0f} MiB")
    sys.stdout.write(f"{silences.table()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
