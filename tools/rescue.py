"""Rescue the shipped damaged image step by step; put what the commands say into docs/FSCK.md.

    python -m tools.rescue [--check]

--check compares instead, exit 1: the document tells something else than the commands do.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import zstandard

from tools.damaged_image import IMAGE
from tools.transcript import ROOT, as_markdown, replaced, typed, with_exit_code

DOCUMENT = ROOT / "docs" / "FSCK.md"
BEGIN, END = "<!-- rescue: made by python -m tools.rescue -->\n", "<!-- end of rescue -->\n"
# The command, its exit code, and how many of its last lines are shown; None: all.
WALK: tuple[tuple[str, int, int | None], ...] = (
    ("sha256sum archive.img > before.sum", 0, None),
    ("razorfsck -n archive.img", 4, None),
    ("razorfsck explain E0302", 0, None),
    ("razorfsck --salvage copied-out archive.img", 4, None),
    ("razorfsck --plan plan.json archive.img", 4, 20),
    ("razorfsck --repair archive.img", 1, 10),
    ("razorfsck archive.img", 0, 4),
    ("razorfs-debug -R 'cat /home/diary.txt' archive.img | tail -n 1", 0, None),
    ("razorfs-debug -R 'cat /home/photos/beach.jpg' archive.img", 1, None),
    ("razorfsck --undo archive.img", 0, None),
    ("sha256sum --check before.sum", 0, None),
)


def walk(folder: Path) -> list[tuple[str, str]]:
    """Run the commands in *folder*; return each with what it printed. Raises RuntimeError for an unexpected exit code."""
    (folder / "archive.img").write_bytes(zstandard.ZstdDecompressor().decompress(IMAGE.read_bytes()))
    seen = []
    for command, expected, shown in WALK:
        done = typed(command, folder)
        if done.returncode != expected:
            raise RuntimeError(f"{command}: exit code {done.returncode}, {expected} expected\n{done.stdout}")
        lines = done.stdout.splitlines()
        if shown is not None:
            lines = ["[...]", *lines[-shown:]]
        seen.append((command, with_exit_code(lines, expected)))
    return seen


def main(arguments: Sequence[str] | None = None) -> int:
    """Walk, then write the document or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="razorfs-rescue.") as name:
        told = f"\n{as_markdown(walk(Path(name)))}\n"
    before = DOCUMENT.read_text(encoding="utf-8")
    text = replaced(before, BEGIN, END, told)
    if chosen.check:
        if text != before:
            print("docs/FSCK.md is out of date; run: python -m tools.rescue", file=sys.stderr)
            return 1
        return 0
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
