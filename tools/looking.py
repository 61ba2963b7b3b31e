"""Look into an image step by step; put what razorfs-debug says into docs/OPERATIONS.md.

    python -m tools.looking [--check]

--check compares instead, exit 1: the document tells something else than the commands do. The image is made under
SOURCE_DATE_EPOCH, so the same input gives the same answers.
"""

import argparse
import os
import random
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.transcript import ROOT, as_markdown, replaced, typed, with_exit_code

DOCUMENT = ROOT / "docs" / "OPERATIONS.md"
EPOCH_S = 1_700_000_000

# Part of the document: the commands, their exit codes, and how many of their first lines are shown; None: all.
WALKS: dict[str, tuple[tuple[str, int, int | None], ...]] = {
    "files": (
        ("mkfs.razorfs -q -L archive -d tree.tar disk.img 16M", 0, None),
        ("razorfs-debug -R 'du -d 1' -R 'find / --larger 100K' disk.img", 0, None),
        ("razorfs-debug -R 'cat /notes.txt | wc -l' -R 'export /photos | tar -t' disk.img", 0, None),
    ),
    "structures": (
        ("razorfs-debug -R 'records --verify /photos/beach.jpg' -R 'inode /notes.txt' disk.img", 0, None),
        ("razorfs-debug -R 'block 0 | head -n 9' disk.img", 0, None),
        ("razorfs-debug --json -R 'paths 4' disk.img", 0, None),
    ),
    "rehearsal": (
        ("razorfs-debug -R 'damage --class lost-node --seed 7 drill.img' disk.img", 0, None),
        ("razorfs-debug -R ls drill.img", 1, None),
        ("razorfs-debug -R 'dump --sanitize report.img' disk.img", 0, None),
        ("razorfs-debug -w -R 'set inode.uid 1000 /notes.txt' -R changes -R commit disk.img", 0, None),
    ),
    "resizing": (
        ("razorfs-debug -R resize disk.img", 0, None),
        ("razorfs-debug -w -R 'resize 24M' disk.img", 0, None),
        ("razorfsck -q --undo disk.img && stat -c %s disk.img", 0, None),
        ("razorfs-debug -w -R 'resize 300K' disk.img", 2, None),
    ),
}


def prepare(folder: Path) -> None:
    """Make the tree that the image is made of, and an archive of it in which everything belongs to root."""
    (folder / "tree" / "photos").mkdir(parents=True)
    (folder / "tree" / "notes.txt").write_text("".join(f"note {number}\n" for number in range(40)))
    (folder / "tree" / "photos" / "beach.jpg").write_bytes(random.Random(1).randbytes(200_000))
    (folder / "tree" / "photos" / "hills.jpg").write_bytes(random.Random(2).randbytes(90_000))
    for path in [*(folder / "tree").rglob("*"), folder / "tree"]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (EPOCH_S, EPOCH_S))

    def roots(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        return member

    with tarfile.open(folder / "tree.tar", "w") as archive:
        archive.add(folder / "tree", "", filter=roots)


def walk(folder: Path) -> dict[str, str]:
    """Run the commands in *folder*; return each part as Markdown. Raises RuntimeError for an unexpected exit code."""
    parts = {}
    for part, commands in WALKS.items():
        seen = []
        for command, expected, shown in commands:
            done = typed(command, folder, SOURCE_DATE_EPOCH=str(EPOCH_S))
            if done.returncode != expected:
                raise RuntimeError(f"{command}: exit code {done.returncode}, {expected} expected\n{done.stdout}")
            seen.append((command, with_exit_code(done.stdout.splitlines()[:shown], expected)))
        parts[part] = as_markdown(seen)
    return parts


def marked(part: str) -> tuple[str, str]:
    """Return the marks around a part of the document."""
    return f"<!-- {part}: made by python -m tools.looking -->\n", f"<!-- end of {part} -->\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Walk, then write the document or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="razorfs-looking.") as name:
        prepare(Path(name))
        parts = walk(Path(name))
    text = before = DOCUMENT.read_text(encoding="utf-8")
    for part, told in parts.items():
        begin, end = marked(part)
        text = replaced(text, begin, end, f"\n{told}\n")
    if chosen.check:
        if text != before:
            print("docs/OPERATIONS.md is out of date; run: python -m tools.looking", file=sys.stderr)
            return 1
        return 0
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
