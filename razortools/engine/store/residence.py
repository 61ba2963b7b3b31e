"""Residence: what an operation needs is in memory, or somebody has to wait for the device, and who that is.

Usually whoever asks waits in place. Somebody who serves many (the mount) runs an operation as an *attempt* instead: what is
missing is looked for in the host's cache, which takes microseconds, and otherwise NotResident says what it is. Then

    fetch()     reads, verifies, decompresses                          any thread
    attempt()   runs the operation again, with what was fetched        the owner's thread

Invariants: an attempt that raises NotResident has changed nothing (an operation that was under way is taken back), so running it
again is the same as never having run it. What would not be so waits in place: once an attempt has completed an operation, the
rest of it; and what says so by `in_place`. What is fetched touches no shared state and is told apart by a key that holds address,
generation and checksum. So a fetch that was overtaken, whose blocks were freed and written anew, finds nothing that fits, and
whoever runs again does not ask for it any more; if he does, the blocks were never free, and the failure is a true one.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from razortools.units import KIB

INLINE_BYTES = 64 * KIB  # read and decompressed: more is worth the hop to a thread even if the host has it

P = ParamSpec("P")
R = TypeVar("R")

Fetched = object  # what a fetch returned, or the exception it raised
NOTHING: Mapping[Hashable, Fetched] = {}


class Missing(ABC):
    """One thing that is not in memory. Two that are equal have equal keys."""

    key: Hashable
    is_metadata = False  # little work, and much waits for it

    @abstractmethod
    def fetch(self) -> object:
        """Return it, read and verified. For any thread. Raises CorruptImage, DeviceFailed."""

    @classmethod
    def fetch_all(cls, several: "Sequence[Missing]") -> list[Fetched]:
        """Return for each of *several*, all of this class, what fetch() returns, or the exception that it raises."""
        fetched: list[Fetched] = []
        for one in several:
            try:
                fetched.append(one.fetch())
            except Exception as failure:
                fetched.append(failure)
        return fetched

    def admit(self, found: object) -> None:  # noqa: B027  (what is handed to the next attempt need not be kept elsewhere)
        """Take what fetch() returned into a cache, if it is still wanted. In the owner's thread, before the next attempt."""


class NotResident(Exception):
    """An attempt needs things that are not in memory. It has changed nothing: fetch them, then run it again."""

    def __init__(self, *missing: Missing) -> None:
        super().__init__(f"{len(missing)} not in memory")
        self.missing = missing
        self.read_count = 0  # what the attempt had read before: the next one finds it


class Residence:
    """Says whether to wait in place, and keeps what was fetched for the attempt that runs."""

    def __init__(self) -> None:
        """Wait in place until an attempt runs."""
        self.progress: Callable[[], object] = lambda: None  # differs once an operation has been completed
        self.found_count = 0  # values that somebody wanted and memory held, and those that had to be read: once for each request,
        self.read_count = 0  # however many attempts it took
        self.late_count = 0  # how often an attempt had to wait in place all the same
        self.late_s = 0.0  # and for how long
        self._is_attempt = False
        self._started: object = None
        self._handed = NOTHING

    def attempt(self, handed: Mapping[Hashable, Fetched], work: Callable[P, R], *args: P.args, **keywords: P.kwargs) -> R:
        """Return what *work* does, with what was fetched for it at hand. Raises NotResident, and what *work* raises."""
        self._is_attempt = True
        self._handed = handed
        self._started = self.progress()
        found_before, read_before = self.found_count, self.read_count
        try:
            return work(*args, **keywords)
        except NotResident as told:
            self.found_count = found_before
            told.read_count = self.read_count - read_before
            raise
        finally:
            self._is_attempt = False
            self._handed = NOTHING

    def in_place(self) -> "_InPlace":
        """Return a context in which everybody waits: running it twice would not be the same, or would cost too much."""
        return _InPlace(self)

    @property
    def waits(self) -> bool:
        """Whether what is missing now is waited for in place."""
        return not self._is_attempt or self.progress() != self._started

    def handed(self, key: Hashable) -> Fetched | None:
        """Return what was fetched for the running attempt under *key*, or None. Raises what the fetch raised."""
        found = self._handed.get(key)
        if isinstance(found, Exception):
            raise found
        return found

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Measure what is waited for in place during an attempt."""
        if not self._is_attempt:
            yield
            return
        started = time.perf_counter()
        try:
            yield
        finally:
            self.late_count += 1
            self.late_s += time.perf_counter() - started


class _InPlace:
    """Has everybody wait inside. A class of its own: one that a generator makes costs a microsecond more, at every FORGET."""

    __slots__ = ("_before", "_residence")

    def __init__(self, residence: Residence) -> None:
        self._residence = residence
        self._before = False

    def __enter__(self) -> None:
        self._before, self._residence._is_attempt = self._residence._is_attempt, False

    def __exit__(self, *_: object) -> None:
        self._residence._is_attempt = self._before
