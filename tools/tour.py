"""Walk through the commands on a real image; put what they say into README.md and a picture of it into docs/tour.svg.

Run it as root, or as somebody who may use /dev/fuse: `python -m tools.tour`. The tree is Python's standard library, as source.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tools.transcript import as_markdown

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "tour.svg"
BEGIN, END = "<!-- tour: made by tools/tour.py -->\n", "<!-- end of tour -->\n"
WALK = (
    "mkfs.razorfs -L demo demo.img 512M",
    "mkdir mnt && mount.razorfs demo.img mnt",
    "cp -a library mnt/",
    "diff -r library mnt/library && echo same",
    "df -h --output=size,used,avail,pcent mnt",  # not where: that is a folder which no reader has, and columns as wide
    "umount.razorfs mnt",
    "razorfsck demo.img",
    "razorfs-debug -R 'ls -l /library/json' demo.img",
    "razorfs-health demo.img",
)


def prepare(folder: Path) -> None:
    """Put the tree into *folder*."""
    library = sysconfig.get_paths()["stdlib"]
    left_out = ["--exclude=__pycache__", "--exclude=site-packages", "--exclude=dist-packages", "--exclude=*.so", "--exclude=*.a"]
    (folder / "library").mkdir()
    packed = subprocess.Popen(["tar", "-C", library, *left_out, "-cf", "-", "."], stdout=subprocess.PIPE)
    subprocess.run(["tar", "-C", folder / "library", "-xf", "-"], stdin=packed.stdout, check=True)


def walk(folder: Path) -> list[tuple[str, str]]:
    """Run the commands in *folder*; return each with what it printed, as it did. Exits if one fails, or tells of *folder*."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "110"}
    seen = []
    try:
        for command in WALK:
            done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{command}: exit code {done.returncode}\n{done.stderr}")
            said = done.stdout + done.stderr
            if str(folder) in said:
                sys.exit(f"{command}: tells of {folder}, where only this run has been:\n{said}")
            seen.append((command, said))
    finally:
        if os.path.ismount(folder / "mnt"):
            subprocess.run(["umount", "-l", folder / "mnt"], check=False)
    return seen


def draw(seen: list[tuple[str, str]]) -> None:
    """Write the picture: the second half of the walk, as a terminal shows it."""
    console = Console(record=True, width=112, file=open(os.devnull, "w", encoding="utf-8"), force_terminal=True)  # noqa: SIM115
    for command, said in seen[-3:]:
        console.print(Text("$ ", style="bold green") + Text(shlex.join(shlex.split(command)), style="bold"))
        for line in said.rstrip().splitlines():
            text = Text(line)
            text.highlight_regex(r"\bOK\b", "green")
            console.print(text)
        console.print()
    # Rich names web fonts; a picture in a repository must not load anything.
    drawn = re.sub(r"@font-face\s*{[^}]*}", "", console.export_svg(title="RAZORFS"))
    drawn = re.sub(r"<!--.*?-->", "", drawn)
    PICTURE.write_text(drawn.replace("Fira Code, monospace", "monospace"), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Walk, then write README.md and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="razorfs-tour.") as name:
        folder = Path(name)
        prepare(folder)
        seen = walk(folder)
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    tour = f"{BEGIN}\n{as_markdown(seen)}\n![What check, debug and health say](docs/tour.svg)\n{END}"
    README.write_text(before + tour + after, encoding="utf-8")
    draw(seen)


if __name__ == "__main__":
    main()
