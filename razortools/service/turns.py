"""Turns: how many threads fetch data at a time.

A thread that fetches takes the interpreter's lock several times, each time from the one that serves, or waits for it; and while
many want it, each release wakes one that finds it taken again. So few have a turn: with eight of them the serving thread waits
for the lock half as long again as with two (`python -m bench.waiting --many`).

What waits for the device does not need the lock. So a device that takes SLOW_S for a read, as a disk that has to seek, is asked
by many; and where none of those who have a turn gets anywhere for PATIENCE_S, because the device does not answer in some places,
others get one beside them, until things have gone on for a second.

Invariants: no more than *many* functions run at a time; who waits gets his turn in the order of asking.
"""

import os
from collections.abc import Callable
from typing import TypeVar

import trio

from razortools.service import placement

R = TypeVar("R")

SLOW_S = 0.003
PATIENCE_S = 0.05
CALM_LOOKS = 20  # so often PATIENCE_S has to bring something before few are enough again


def few_threads(processors: int, many: int) -> int:
    """Return how many threads may fetch beside the one that serves: one processor is left to that, if there are three."""
    return min(many, max(2, processors - 1))


class Turns:
    """Runs functions in threads, few at a time. All but the functions themselves happens in the loop's thread."""

    def __init__(self, many: int, read_s: Callable[[], float], few: int | None = None) -> None:
        """Run *few* functions at a time (None: as the processors allow), up to *many* where the device takes long.

        *read_s* tells how long it takes for a read, in seconds.
        """
        self._many = many
        self._few = few_threads(len(os.sched_getaffinity(0)), many) if few is None else few
        self._read_s = read_s
        self._count = self._few  # of turns, at the moment
        self._limiter = trio.CapacityLimiter(self._count)
        self._ended_count = 0
        self._is_watched = False

    async def run(self, function: Callable[..., R], *args: object) -> R:
        """Return what *function* returns, run in a thread as soon as there is a turn. Raises what it raises."""
        limiter = self._limiter
        if not self._is_watched:
            self._allow(self._usual())
            if limiter.available_tokens <= 0 and self._few < self._many:
                self._is_watched = True
                trio.lowlevel.spawn_system_task(self._watch)
        try:
            return await placement.run_sync(function, *args, limiter=limiter)
        finally:
            self._ended_count += 1

    async def _watch(self) -> None:
        """While somebody waits, see to it that it goes on."""
        calm_looks, is_needed = 0, True
        while is_needed:
            ended_count = self._ended_count
            await trio.sleep(PATIENCE_S)
            if ended_count == self._ended_count:
                calm_looks = 0
                self._allow(min(self._many, self._count + self._few))
            else:
                calm_looks += 1
                self._allow(self._usual() if calm_looks >= CALM_LOOKS else max(self._count, self._usual()))
            is_needed = self._limiter.statistics().tasks_waiting > 0
        self._is_watched = False

    def _usual(self) -> int:
        """Return how many turns there are while the device answers."""
        return self._many if self._read_s() >= SLOW_S else self._few

    def _allow(self, count: int) -> None:
        if count != self._count:
            self._limiter.total_tokens = self._count = count
