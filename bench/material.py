"""What the benchmarks write: Python's own library, because it is what people have on their disks and every machine has it."""

import sysconfig
from functools import cache
from pathlib import Path

from razortools.units import MIB


@cache
def sources() -> tuple[tuple[str, bytes], ...]:
    """Return files of Python's library by path, 24 MiB at most."""
    library = Path(sysconfig.get_paths()["stdlib"])
    found: list[tuple[str, bytes]] = []
    total = 0
    for path in sorted(library.rglob("*.py")):
        if "site-packages" not in path.parts and total < 24 * MIB:
            found.append((str(path.relative_to(library)), path.read_bytes()))
            total += len(found[-1][1])
    return tuple(found)


@cache
def text() -> bytes:
    """Return the same as one stretch of text."""
    return b"".join(data for _, data in sources())
