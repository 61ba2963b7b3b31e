"""What is written and how much of it. Everything follows from the sizes and a fixed seed, so every peer gets the same bytes.

The big values are made once and kept: the clients are forked and find them in memory.
"""

import random
import tarfile
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

from bench.material import sources, text
from razortools.units import KIB, MIB

SEED = 4
PAGE_BYTES = 4 * KIB
PIECE_BYTES = 128 * KIB  # what cat and cp ask for at a time
WRITE_BYTES = 1 * MIB  # what dd and backup programs write at a time


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work each row is."""

    files: int = 5000
    tree_files: int = 6000
    syncs: int = 500
    random_reads: int = 5000  # as many random writes
    big_bytes: int = 256 * MIB
    clients: int = 4

    def scaled(self, scale: float) -> "Sizes":
        """Return the sizes for a quick try; as many clients as ever."""
        big_bytes = max(1, round(self.big_bytes * scale / MIB)) * MIB
        files, tree, syncs, reads = (
            max(10, round(count * scale)) for count in (self.files, self.tree_files, self.syncs, self.random_reads)
        )
        return Sizes(files, tree, syncs, reads, big_bytes, self.clients)


@cache
def pages(count: int) -> list[bytes]:
    """Return *count* different stretches of 4 KiB of text."""
    source = random.Random(SEED)
    starts = [source.randrange(len(text()) - PAGE_BYTES) for _ in range(count)]
    return [text()[start : start + PAGE_BYTES] for start in starts]


@cache
def tree(count: int) -> list[tuple[str, bytes]]:
    """Return *count* files by path: Python's library, as many copies of it as are needed."""
    found: list[tuple[str, bytes]] = []
    while len(found) < count:
        copy = f"copy{len(found) // len(sources())}"
        found += [(f"{copy}/{path}", data) for path, data in sources()]
    return found[:count]


@cache
def big(kind: str, size_bytes: int) -> bytes:
    """Return the contents of a big file: "text", or "random" bytes that nothing can compress."""
    if kind == "text":
        return (text() * (size_bytes // len(text()) + 1))[:size_bytes]
    source = random.Random(SEED)
    return b"".join(source.randbytes(min(MIB, size_bytes - offset)) for offset in range(0, size_bytes, MIB))


def write_tarball(path: Path, sizes: Sizes) -> None:
    """Write the tree as a tar file, as it would be downloaded, but not compressed."""
    with tarfile.open(path, "w") as tar:
        for name, data in tree(sizes.tree_files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), 0o644, 1_700_000_000
            tar.addfile(entry, BytesIO(data))


@cache
def lines_with(pattern: bytes, count: int) -> int:
    """Return in how many lines of the tree *pattern* is found."""
    return sum(pattern in line for _, data in tree(count) for line in data.split(b"\n"))
