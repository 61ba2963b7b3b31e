"""What the exerciser may do, and how a seed chooses it.

A step is a value that says all about itself, so that a story of steps can be printed, read again and repeated. What it does not
say is the files' sizes: a step that no longer fits (a mapped read beyond the end) is cut to what is there.
"""

import json
import random
from dataclasses import asdict, dataclass
from functools import cache

from razortools.units import KIB, MIB

PAGE_BYTES = 4096
SECTOR_BYTES = 512
POOL_BYTES = 4 * MIB

# How often each kind is chosen, relative to the others.
WEIGHTS = {
    "read": 180,
    "write": 180,
    "append": 50,
    "zeros": 25,
    "truncate": 60,
    "mapped-read": 80,
    "mapped-write": 90,
    "private-write": 10,
    "msync": 15,
    "direct-read": 35,
    "direct-write": 35,
    "synced-write": 8,
    "copy": 30,
    "allocate": 5,
    "seek": 15,
    "fsync": 15,
    "fdatasync": 10,
    "evict": 25,
    "reopen": 20,
    "empty": 4,
    "verify": 8,
    "unlink": 6,
    "replace": 6,
    "exchange": 6,
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. Offsets and lengths are bytes."""

    kind: str
    file: int = 0
    offset: int = 0
    length: int = 0
    value: int = 0  # what the bytes are
    other: int = 0  # copy, replace, exchange: the second file
    other_offset: int = 0  # copy: where to

    def __str__(self) -> str:
        words = [self.kind, f"file {self.file}"]
        if self.kind == "truncate":
            words.append(f"to {self.offset}")
        elif self.length:
            words.append(f"{self.offset}..{self.offset + self.length} ({self.length})")
        if self.kind == "copy":
            words.append(f"to file {self.other} at {self.other_offset}")
        elif self.kind in ("replace", "exchange"):
            words.append(f"with file {self.other}")
        return ", ".join(words)

    def touches(self, file: int, offset: int) -> bool:
        """Whether the step may have changed or read this byte; for the reader of a story."""
        if self.kind == "copy" and self.other == file and self.other_offset <= offset < self.other_offset + self.length:
            return True
        if self.file != file:
            return file == self.other and self.kind in ("replace", "exchange")
        if self.kind == "truncate":
            return offset >= self.offset
        if self.kind in ("empty", "unlink", "replace", "exchange"):
            return True
        return self.offset <= offset < self.offset + self.length

    def line(self) -> str:
        """Return the step as a line of a story that can be repeated."""
        return json.dumps({name: value for name, value in asdict(self).items() if value or name == "kind"})


def step_of(line: str) -> Step:
    """Return the step that line() wrote."""
    return Step(**json.loads(line))


class Chooser:
    """Chooses steps: the same ones for the same seed and the same limits."""

    def __init__(self, seed: int, file_count: int, file_bytes_max: int) -> None:
        """Choose among *file_count* files of up to *file_bytes_max* bytes."""
        self._random = random.Random(f"exercise {seed}")
        self._file_count = file_count
        self._bytes_max = file_bytes_max
        self._kinds = list(WEIGHTS)
        self._bounds = [sum(list(WEIGHTS.values())[: number + 1]) for number in range(len(WEIGHTS))]

    def next(self, sizes: list[int]) -> Step:
        """Return the next step for files of these *sizes*."""
        source = self._random
        kind = source.choices(self._kinds, cum_weights=self._bounds)[0]
        file, value = source.randrange(self._file_count), source.randrange(1 << 30)
        size, length = sizes[file], self._length()
        if kind == "append":
            return Step(kind, file, size, min(length, self._bytes_max - size), value)
        if kind == "truncate":
            return Step(kind, file, self._edge(source.choice((size, self._bytes_max))))
        if kind == "copy":
            return self._copy(file, length, sizes)
        if kind in ("replace", "exchange"):
            return Step(kind, file, other=source.randrange(self._file_count))
        if kind in ("msync", "fsync", "fdatasync", "evict", "reopen", "empty", "verify", "unlink"):
            return Step(kind, file, value=value)
        if kind in ("write", "zeros", "direct-write", "synced-write", "allocate"):
            # Mostly within the file or at its end; sometimes far behind it, so that a hole comes to be.
            offset = self._edge(self._bytes_max if source.random() < 0.1 else size + 1)
        else:
            offset = self._edge(size + 1)
        if kind.startswith("direct"):
            offset -= offset % SECTOR_BYTES
            length += -length % SECTOR_BYTES
        return Step(kind, file, offset, max(0, min(length, self._bytes_max - offset)), value)

    def _copy(self, file: int, length: int, sizes: list[int]) -> Step:
        source = self._random
        other, offset = source.randrange(self._file_count), self._edge(sizes[file] + 1)
        other_offset = self._edge(min(sizes[other] + 1, self._bytes_max))
        length = max(0, min(length, sizes[file] - offset, self._bytes_max - other_offset))
        return Step("copy", file, offset, length, 0, other, other_offset)

    def _length(self) -> int:
        """Return a length: small ones, pages, and sometimes more than a record."""
        source = self._random
        most = source.choice((64, 700, PAGE_BYTES, 8 * KIB, 8 * KIB, 20 * KIB, 64 * KIB, 200 * KIB))
        length = source.randrange(1, most)
        return length - length % PAGE_BYTES or PAGE_BYTES if most > PAGE_BYTES and source.random() < 0.3 else length

    def _edge(self, end: int) -> int:
        """Return a place below *end*, often just at the edge of a page or a record."""
        place = self._random.randrange(max(end, 1))
        how = self._random.random()
        if how < 0.25:
            return place - place % PAGE_BYTES
        if how < 0.35:
            return place - place % (128 * KIB)
        if how < 0.42:
            return max(0, place - place % PAGE_BYTES - 1)
        return place


@cache
def _pool(is_text: bool) -> bytes:
    source = random.Random(is_text)
    if not is_text:
        return source.randbytes(POOL_BYTES)
    words = [source.randbytes(source.randrange(2, 9)).hex().encode() for _ in range(300)]
    return b" ".join(source.choices(words, k=POOL_BYTES // 8))[:POOL_BYTES]


def contents(value: int, length: int) -> bytes:
    """Return *length* bytes, other ones for each *value*; every second value gives bytes that compress well."""
    pool = _pool(value % 2 == 1)
    start = value * 4099 % (POOL_BYTES - length)
    return pool[start : start + length]
