"""docs/BENCHMARKS.md: each script's table stands between markers of its own and is written anew by the script."""

import os
import platform
import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "BENCHMARKS.md"


def machine(folder: Path) -> str:
    """Return in neutral words where this runs; *folder* holds the image."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    place = str(folder.resolve())
    on = max((fields for fields in mounts if place.startswith(fields[1])), key=lambda fields: len(fields[1]))[2]
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    return f"{os.cpu_count()} processors, Linux {kernel}, Python {platform.python_version()}, image file on {on}"


def publish(section: str, table: str, page: Path | None = None) -> None:
    """Put *table* between the markers of *section*. Raises ValueError without markers."""
    page = page or PAGE
    before, _, after = _split(section, page)
    page.write_text(before + table + after, encoding="utf-8")


def tell(section: str, lines: list[str], *, write: bool) -> None:
    """Print *lines*, and with *write* publish them as *section*."""
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if write:
        publish(section, text)


def published(section: str, page: Path | None = None) -> str:
    """Return what stands between the markers of *section*. Raises ValueError without markers."""
    return _split(section, page or PAGE)[1]


def sections() -> list[str]:
    """Return the names of all sections that the page has a place for."""
    return re.findall(r"^<!-- (\w+): made by bench/run -->$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def _split(section: str, page: Path) -> tuple[str, str, str]:
    """Return the page up to where the section's table begins, the table, and the rest."""
    begin, end = f"<!-- {section}: made by bench/run -->\n", f"<!-- end of {section} -->\n"
    before, marker, rest = page.read_text(encoding="utf-8").partition(begin)
    table, closing, after = rest.partition(end)
    if not (marker and closing):
        raise ValueError(f"{page.name} has no place for the table: the lines {begin.strip()} and {end.strip()} are missing")
    return before + begin, table, end + after
