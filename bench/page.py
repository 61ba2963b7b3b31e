"""docs/BENCHMARKS.md: each script's table stands between markers of its own and is written anew by the script."""

import os
import platform
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "BENCHMARKS.md"


def machine(folder: Path) -> str:
    """Return in neutral words where this runs; *folder* holds the image."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    place = str(folder.resolve())
    on = max((fields for fields in mounts if place.startswith(fields[1])), key=lambda fields: len(fields[1]))[2]
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    return f"{os.cpu_count()} processors, Linux {kernel}, Python {platform.python_version()}, image file on {on}"


def publish(section: str, table: str, page: Path = PAGE) -> None:
    """Put *table* between the markers of *section*, the name of a script in this folder. Raises ValueError without markers."""
    begin, end = f"<!-- {section}: made by python -m bench.{section} -->\n", f"<!-- end of {section} -->\n"
    before, marker, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closing, after = rest.partition(end)
    if not (marker and closing):
        raise ValueError(f"{page.name} has no place for the table: the lines {begin.strip()} and {end.strip()} are missing")
    page.write_text(before + begin + table + end + after, encoding="utf-8")
