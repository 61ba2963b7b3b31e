"""Answers: what a command found, as values. A front end shows them as text or as JSON.

Invariant: *data* holds everything that the text shows, in units of bytes and nanoseconds, for scripts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of text."""

    lines: Sequence[str]
    data: Any = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; *right* numbers the columns that hold numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    data: Any
    right: Sequence[int] = ()
    title: str = ""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Names and values."""

    entries: Sequence[tuple[str, object]]
    data: Any
    title: str = ""


@dataclass(frozen=True, slots=True)
class Stream:
    """Bytes that go out as they are, piece by piece. *data* makes the JSON value, which may read everything."""

    pieces: Iterable[bytes]


@dataclass(frozen=True, slots=True)
class Several:
    """Answers one after the other."""

    parts: Sequence["Answer"]
    data: Any


Answer = Lines | Table | Pairs | Stream | Several
