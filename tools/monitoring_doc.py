"""Write the real output of commands into the section on monitoring of docs/OPERATIONS.md: mounts an image, uses it, asks.

    python -m tools.monitoring_doc

Needs FUSE and root. What changes from machine to machine (paths, the process) is shown under the names that the section uses.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.transcript import ROOT, replaced

PAGE = ROOT / "docs" / "OPERATIONS.md"
SHOWN_IMAGE, SHOWN_MOUNT, SHOWN_PID = "/srv/disk.img", "/mnt/disk", "4711"
FILES = 400


def run(*words: str | Path) -> str:
    """Return what a command of ours prints."""
    done = subprocess.run([sys.executable, "-m", *map(str, words)], capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def use(folder: Path) -> None:
    """Do what programs do."""
    text = "".join(f"line {number} of a file that compresses\n" for number in range(3000))
    for number in range(FILES):
        path = folder / f"file {number}"
        with path.open("w") as file:
            file.write(text[number:])
            if number % 20 == 0:
                file.flush()
                os.fsync(file.fileno())
        path.read_text()
        os.path.exists(folder / f"absent {number}")
        path.chmod(0o600)


def outputs(folder: Path) -> dict[str, str]:
    """Return the output of each command, by the name of its place in the page."""
    image, mount_point, audit = folder / "disk.img", folder / "mnt", folder / "audit"
    mount_point.mkdir()
    run("razortools.mkfs", "-q", image, "256M")
    print(run("razortools.mount", image, mount_point, "-o", f"audit={audit},log={folder / 'log'}"), end="")
    try:
        use(mount_point)
        pid = re.findall(r"served by pid (\d+)", run("razortools.health", mount_point))[0]
        told = {
            "verdict": run("razortools.health", mount_point),
            "nagios": run("razortools.health", "--nagios", mount_point),
            "watch": run("razortools.health", "--watch", "--frames", "1", mount_point),
            "metrics": "".join(
                f"{line}\n"
                for line in run("razortools.health", "--prometheus", mount_point).splitlines()
                if re.search(r"^razorfs_(request_errors|cache_|commit_duration_seconds_(count|sum)|free_bytes|health)", line)
            ),
            "audit": "".join(audit.read_text().splitlines(keepends=True)[:3]),
        }
    finally:
        subprocess.run(["umount", mount_point], check=False)
    hidden = ((str(image), SHOWN_IMAGE), (str(mount_point), SHOWN_MOUNT), (pid, SHOWN_PID))
    for name, text in told.items():
        for real, shown in hidden:
            text = text.replace(real, shown)
        told[name] = text
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    """Put every output between its marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        found = outputs(Path(temporary))
    page = PAGE.read_text(encoding="utf-8")
    for name, text in found.items():
        begin, end = f"<!-- output of {name} -->\n", f"<!-- end of {name} -->\n"
        page = replaced(page, begin, end, f"```\n{text.rstrip()}\n```\n")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
