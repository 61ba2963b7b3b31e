"""Every benchmark in one go: bench/run starts this.

    bench/run [--scale 1] [--rounds 3] [--only PART]... [--micro] [--write] [--peer NAME=COMMAND]... [--unmount NAME=COMMAND]...

Fresh images of ext4, xfs, btrfs (zstd:1), fuse2fs and razorfs do the same work beside each other, then follow the other
benchmarks (bench/parts.py). In full it takes about half an hour on a quiet machine; --scale 0.05 is a try of a few minutes.
--write puts each part's tables and plots into docs/BENCHMARKS.md, with the machine they come from. A filesystem that cannot be
had here is left out, and so is a row or a part that fails; the page says so. Exit: 0 all was measured, 1 something was not.
"""

import argparse
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import razortools
from bench import page
from bench.mounts.report import layout
from bench.parts import PARTS, Part

PROJECT = Path(__file__).resolve().parent.parent
MINUTE_S = 60
TOOLS = {  # whose versions belong to a figure, and how they tell them
    "e2fsprogs": ("mkfs.ext4", "-V"),
    "xfsprogs": ("mkfs.xfs", "-V"),
    "btrfs-progs": ("mkfs.btrfs", "--version"),
    "fio": ("fio", "--version"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run of a part ended."""

    part: Part
    took_s: float
    failure: str = ""  # what it said last; empty: it measured all it was to measure


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the options."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(prog="bench/run", description="Measure everything, and write docs/BENCHMARKS.md.")
    parser.add_argument("--scale", type=float, default=1.0, help="how much work; 0.05: a few minutes (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is compared (default: 3)")
    parser.add_argument("--only", action="append", choices=names, metavar="PART", help="one part: " + ", ".join(names))
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND", help="another peer, for the part mounts")
    parser.add_argument("--unmount", action="append", default=[], metavar="NAME=COMMAND", help="how that peer is unmounted")
    parser.add_argument("--micro", action="store_true", help="the micro-benchmarks of each layer as well")
    parser.add_argument("--write", action="store_true", help="put tables and plots into docs/BENCHMARKS.md")
    options = parser.parse_args(arguments)
    if options.scale <= 0 or options.rounds < 1:
        parser.error("--scale and --rounds are more than 0")
    return options


def chosen(options: argparse.Namespace) -> list[Part]:
    """Return the parts to be made."""
    if options.only:
        return [part for part in PARTS if part.name in options.only]
    return [part for part in PARTS if part.is_usual or options.micro]


def run(part: Part, options: argparse.Namespace) -> Outcome:
    """Run a part to its end, whatever that is, and show what it says."""
    if part.needs_root and os.geteuid() != 0:
        return Outcome(part, 0, "it needs root: it mounts filesystems")
    command = [sys.executable, "-m", part.module, *part.arguments(options.scale, options.rounds)]
    if part.takes_peers:
        command += [f"--{what}={text}" for what in ("peer", "unmount") for text in getattr(options, what)]
    before = page.published(part.name) if options.write else ""
    started = time.monotonic()
    with subprocess.Popen(
        [*command, "--write"] if options.write else command, cwd=PROJECT, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stderr is not None
        last: deque[str] = deque(maxlen=1)
        try:
            for line in process.stderr:
                sys.stderr.write(line)
                last.append(line.strip())
            process.wait()
        except BaseException:
            process.send_signal(signal.SIGTERM)  # it takes away what it has mounted
            raise
    if process.returncode == 0:
        return Outcome(part, time.monotonic() - started)
    failure = f"it exits {process.returncode}" + (f": {last[0]}" if last else "")
    if options.write and page.published(part.name) == before:  # it has died without a word in the page
        page.publish(part.name, f"Not measured in the last run: {neutral(failure)}\n")
    return Outcome(part, time.monotonic() - started, failure)


def neutral(text: str) -> str:
    """Return *text* without paths of this machine, on one line, for the page."""
    return re.sub(r"(?:/[\w.+-]+){2,}", "...", " ".join(text.split()))


def processor() -> str:
    """Return what the processor calls itself."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found.group(1) if found else platform.machine()


def version_of(tool: str, option: str) -> str:
    """Return the version that a program tells, "not here" without it."""
    if shutil.which(tool) is None:
        return "not here"
    done = subprocess.run([tool, option], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    found = re.search(r"\d+(?:\.\d+)+", done.stdout + done.stderr)
    return found.group() if found else "unknown"


def machine() -> list[list[str]]:
    """Return what the figures come from: a table of names and values."""
    memory_kib = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text()).group(1))  # type: ignore[union-attr]
    where = page.machine(Path(tempfile.gettempdir()))
    return [
        ["what", "which"],
        ["processor", f"{processor()}, {os.cpu_count()} of them"],
        ["memory", f"{memory_kib / 2**20:.1f} GiB"],
        ["system", f"Linux {platform.release().split('-')[0]}"],
        ["images on", where.rpartition(" ")[2]],
        ["Python, razortools", f"{platform.python_version()}, {razortools.__version__}"],
        *([package, version_of(*how)] for package, how in TOOLS.items()),
    ]


def summary(options: argparse.Namespace, outcomes: list[Outcome], load: float) -> str:
    """Return the machine and what was done on it, for the page."""
    took = sum(outcome.took_s for outcome in outcomes)
    lines = [
        layout([*machine(), ["load average at the start", f"{load:.1f}"]]),
        f"{', '.join(outcome.part.name for outcome in outcomes)}: {took / MINUTE_S:.0f} minutes with --scale {options.scale:g} "
        f"and --rounds {options.rounds}.\n",
    ]
    failed = [f"- {outcome.part.name}: {neutral(outcome.failure)}\n" for outcome in outcomes if outcome.failure]
    if failed:
        lines.append("Not measured, or not all of it:\n\n" + "".join(failed))
    return "\n".join(lines)


def main() -> int:
    """Run all parts. Returns 1 if something was not measured."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    load, outcomes = os.getloadavg()[0], []
    for part in chosen(options):
        sys.stderr.write(f"== {part.name}\n")
        outcomes.append(run(part, options))
    text = summary(options, outcomes, load)
    sys.stdout.write(text)
    if options.write and not options.only:  # the page's machine is that of its last whole run
        page.publish("machine", text)
    return 1 if any(outcome.failure for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
