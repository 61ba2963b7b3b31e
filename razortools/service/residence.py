"""Requests that lack something: it is fetched in a thread while others are served, then the request runs again.

A request that finds all it needs in memory runs to its end at once, without an await and without a thread. Invariants: who
wants what somebody else is fetching waits for that one fetch; few threads fetch data at a time; what a fetch failed with is
raised in those requests only that still need what it was about; after ROUNDS_MAX rounds a request waits in place, so each one
ends however small the caches are.
"""

import itertools
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import trio

from razortools.engine.store.residence import NOTHING, Missing, NotResident, Residence
from razortools.service import phases
from razortools.service.phases import Phase, phase
from razortools.service.turns import Turns

FETCHES_MAX = 8  # threads that fetch data: so many where the disk is to be kept busy, usually fewer (service/turns.py)
METADATA_FETCHES_MAX = 4  # of their own: a look-up does not queue behind somebody's hundred megabytes
ROUNDS_MAX = 64  # a round brings a node of the tree, or all the data that a request lacks

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Fetch:
    """One thing on its way into memory. *found* is what was read, or why it was not; None: nobody got to it."""

    done: trio.Event = field(default_factory=trio.Event)
    found: object = None


class Fetcher:
    """Runs requests, and fetches what they lack. All but the reading itself happens in the loop's thread."""

    def __init__(self, residence: Residence, read_s: Callable[[], float] = lambda: 0.0) -> None:
        """Run requests as attempts of *residence*; *read_s* tells how long a read takes lately, in seconds."""
        self.residence = residence
        self._turns = Turns(FETCHES_MAX, read_s)
        self._metadata_turns = Turns(METADATA_FETCHES_MAX, read_s, few=METADATA_FETCHES_MAX)
        self._under_way: dict[Hashable, _Fetch] = {}
        self.fetch_count = 0  # things read in threads
        self.shared_count = 0  # things that a request waited for while another one had them fetched
        self.in_place_count = 0  # requests that ended by waiting in place

    async def run(self, work: Callable[P, R], *args: P.args, **keywords: P.kwargs) -> R:
        """Return what *work* does. It may run several times; only the last one changes anything. Raises what it raises."""
        try:
            return self.residence.attempt(NOTHING, work, *args, **keywords)
        except NotResident as told:
            return await self.finish(told, work, *args, **keywords)

    async def finish(self, told: NotResident, work: Callable[P, R], *args: P.args, **keywords: P.kwargs) -> R:
        """Like run, for work whose first attempt has told what it lacks."""
        handed: dict[Hashable, object] = {}
        read_count = 0
        for _ in range(ROUNDS_MAX):
            await self._bring(told.missing, handed)
            read_count += told.read_count
            found_before = self.residence.found_count
            try:
                answer = self.residence.attempt(handed, work, *args, **keywords)
            except NotResident as again:
                told = again
                continue
            if read_count:  # it was found now, and counted when it was read
                self.residence.found_count = max(found_before, self.residence.found_count - read_count)
            return answer
        self.in_place_count += 1
        return work(*args, **keywords)

    async def _bring(self, missing: Sequence[Missing], handed: dict[Hashable, object]) -> None:
        """Put what is *missing*, or why it cannot be had, into *handed*, and into the caches."""
        missing = list({one.key: one for one in missing}.values())
        mine = [one for one in missing if one.key not in self._under_way]
        others = [(one, self._under_way[one.key]) for one in missing if one.key in self._under_way]
        if mine:
            await self._fetch(mine, handed)
        for one, fetch in others:
            self.shared_count += 1
            with phase(Phase.SHARED):
                await fetch.done.wait()
            if fetch.found is not None:
                handed[one.key] = fetch.found
        for one in missing:  # no await from here to the next attempt: what is admitted is still there then
            found = handed.get(one.key)
            if found is not None and not isinstance(found, Exception):
                one.admit(found)

    async def _fetch(self, missing: Sequence[Missing], handed: dict[Hashable, object]) -> None:
        """Fetch in a thread, for everybody who asks for the same meanwhile."""
        turns = self._metadata_turns if all(one.is_metadata for one in missing) else self._turns
        fetches = {one.key: _Fetch() for one in missing}
        self._under_way |= fetches
        try:
            asked = time.perf_counter()
            began, ended, results = await turns.run(_fetch_all, missing)
            phases.add(Phase.QUEUE, began - asked)
            phases.add(Phase.READ, ended - began)
            for key, found in results:
                fetches[key].found = handed[key] = found
            self.fetch_count += len(missing)
        finally:
            for key, fetch in fetches.items():
                del self._under_way[key]
                fetch.done.set()


def _fetch_all(missing: Sequence[Missing]) -> tuple[float, float, list[tuple[Hashable, object]]]:
    """Fetch one after the other, of a kind together; what fails does not keep the others from being fetched. In a thread.

    Returns when it began and when it ended, and what was found.
    """
    began = time.perf_counter()
    results: list[tuple[Hashable, object]] = []
    for kind, some in itertools.groupby(missing, _kind):
        several = list(some)
        results += zip((one.key for one in several), kind.fetch_all(several), strict=True)
    return began, time.perf_counter(), results


def _kind(one: Missing) -> type[Missing]:
    return type(one)
