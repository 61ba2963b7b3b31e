"""Phases: where a request that has to wait spends its time. For the log of slow requests and for figures.

Only a request that waits has phases, for it is a task of its own then, with a context of its own. Invariants: a phase is counted
when it ends, also when it ends badly; what runs outside of a request (the timer's commit, read-ahead) counts nowhere.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum


class Phase(Enum):
    """What a request may wait for."""

    QUEUE = "queue"  # for a thread
    READ = "read"  # reading, verifying and decompressing what is not in memory, in a thread
    SHARED = "shared read"  # for a read that another request has begun
    ROOM = "room"  # for less to be dirty, or for a full image to have room again
    COMMIT = "commit"  # for its changes to be durable: compressing, the journal, the flush


_spent: ContextVar[dict[Phase, float] | None] = ContextVar("spent", default=None)


def begin() -> dict[Phase, float]:
    """Return what the running task's request will have spent, in seconds; filled as its phases end."""
    spent: dict[Phase, float] = {}
    _spent.set(spent)
    return spent


def add(phase: Phase, took_s: float) -> None:
    """Count a phase of the running task's request."""
    spent = _spent.get()
    if spent is not None:
        spent[phase] = spent.get(phase, 0.0) + took_s


@contextmanager
def phase(which: Phase) -> Iterator[None]:
    """Return a context that is a phase of the running task's request."""
    started = time.perf_counter()
    try:
        yield
    finally:
        add(which, time.perf_counter() - started)


def told(spent: Mapping[Phase, float], took_s: float) -> str:
    """Return in words how the *took_s* seconds of a request were spent; what no phase covers is the engine's."""
    rest = max(took_s - sum(spent.values()), 0.0)
    parts = [(which.value, seconds) for which, seconds in spent.items()]
    return ", ".join(f"{which} {seconds:.3f} s" for which, seconds in [*parts, ("engine", rest)])
