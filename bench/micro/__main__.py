"""The micro-benchmarks of each layer, from the bytes up to a request.

    python -m bench.micro [--seconds 1] [--write]

Each is a test of pytest-benchmark in this folder (the first line of its docstring is its row), so one can be run, compared with
an earlier run or profiled by itself: `python -m pytest bench/micro -k node --benchmark-compare`. They are not part of the suite.
The figures are the least of all rounds, for these are costs of code; what other work on the machine adds is in the median.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.mounts.report import layout
from bench.page import machine, publish

HERE = Path(__file__).resolve().parent
LAYERS = ("format", "store", "engine", "service")  # from the ground up
MB = 1_000_000


def run(seconds: float, report: Path) -> int:
    """Run all of them, *seconds* each at most; put what pytest-benchmark says into *report*. Return pytest's exit code."""
    words = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "--benchmark-only",
        "--benchmark-disable-gc",
        "--benchmark-quiet",
    ]
    words += ["--benchmark-warmup=on", f"--benchmark-max-time={seconds:g}", f"--benchmark-json={report}", str(HERE)]
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=HERE.parent.parent, stdout=sys.stderr.fileno())
    return done.returncode


def table(found: dict[str, Any]) -> str:
    """Return a row for each benchmark, by layers."""
    lines = [["what", "layer", "least", "median", ""]]
    for layer in LAYERS:
        for one in found["benchmarks"]:
            if Path(one["fullname"].partition("::")[0]).stem == f"test_{layer}":
                each, rate = one["extra_info"].get("each", 1), one["extra_info"].get("bytes", 0) / one["stats"]["min"] / MB
                least, median = (f"{one['stats'][which] / each * 1e6:.2f} us" for which in ("min", "median"))
                lines.append([one["extra_info"]["row"], layer, least, median, f"{rate:,.0f} MB/s" if rate else ""])
    return layout(lines)


def main() -> int:
    """Measure, print the table, publish it if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description="Measure what each layer costs by itself.")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each, at most (default: 1)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        if run(options.seconds, report):
            return 1
        text = f"{machine(Path(folder))}.\n\n{table(json.loads(report.read_text()))}"
    sys.stdout.write(text)
    if options.write:
        publish("micro", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
