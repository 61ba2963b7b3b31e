"""A campaign: which workloads are explored on which ground, in which order, on all processors, until when.

First all workloads of one operation on every ground, then all of two, then of three from the core, then random ones that grow
longer, without end. Each follows from the seed alone; how many processes share the work changes nothing but the time.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from razortools.debug.crashtest.explorer import Depth, Explorer, Tally, Violation
from razortools.debug.crashtest.playing import GROUNDS, ground
from razortools.debug.crashtest.workloads import exhaustive, numbered, random_workload

CHUNK = 8  # workloads that a process is given at once: a second or two of work
RANDOM_LENGTHS = (4, 6, 9, 14, 22, 40)  # operations of random workloads, in turn
Task = tuple[str, str]  # ground, workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to explore and when to stop. What is None does not limit."""

    seed: int = 1
    depth: Depth = Depth()  # noqa: RUF009  (frozen)
    grounds: tuple[str, ...] = GROUNDS
    exhaustive_length: int = 2
    random_count: int | None = 0  # workloads at random after the exhaustive ones; None: without end
    states_max: int | None = None  # distinct ones
    seconds_max: float | None = None
    jobs: int = 1

    def tasks(self) -> Iterator[Task]:
        """Yield what is to be explored, in this order."""
        for length in range(1, self.exhaustive_length + 1):
            # Pairs and more on the first ground only: the grounds differ in space and copies, not in what operations do.
            for name in self.grounds if length == 1 else self.grounds[:1]:
                yield from ((name, text) for text in exhaustive(length))
        number = 0
        while self.random_count is None or number < self.random_count:
            turn, which = divmod(number, len(self.grounds))
            length = RANDOM_LENGTHS[turn % len(RANDOM_LENGTHS)]
            name = self.grounds[which]
            yield name, random_workload(self.seed * 1_000_003 + number, length, pages=name == "paged")
            number += 1


@dataclass(slots=True)
class Result:
    """What a campaign found. The counts of states are of distinct ones."""

    seed: int
    states: set[int] = field(default_factory=set)
    compound: set[int] = field(default_factory=set)
    workload_count: int = 0
    tried_count: int = 0
    judged_count: int = 0
    seconds: float = 0.0
    violations: list[Violation] = field(default_factory=list)

    @property
    def states_per_second(self) -> float:
        """Distinct states a second, all processes together."""
        return len(self.states) / self.seconds if self.seconds else 0.0

    def add(self, tally: Tally) -> None:
        """Count a part of the work."""
        self.states |= tally.states
        self.compound |= tally.compound
        self.workload_count += tally.workload_count
        self.tried_count += tally.tried_count
        self.judged_count += tally.judged_count
        self.violations += tally.violations


def run(plan: Plan, progress: Callable[[Result], None] = lambda result: None) -> Result:
    """Explore what *plan* says; tell *progress* now and then. Stops early at the first violations."""
    result = Result(plan.seed)
    started = time.monotonic()
    for tally in _tallies(plan):
        result.add(tally)
        result.seconds = time.monotonic() - started
        progress(result)
        if result.violations or _is_enough(plan, result):
            break
    return result


def _is_enough(plan: Plan, result: Result) -> bool:
    enough_states = plan.states_max is not None and len(result.states) >= plan.states_max
    return enough_states or (plan.seconds_max is not None and result.seconds >= plan.seconds_max)


def _tallies(plan: Plan) -> Iterator[Tally]:
    chunks = _chunks(plan.tasks())
    if plan.jobs == 1:
        worker = Worker(plan)
        yield from map(worker.explore, chunks)
        return
    # fork: the workers start with everything loaded, and with whatever a test has changed.
    with multiprocessing.get_context("fork").Pool(plan.jobs, _start_worker, (plan,)) as pool:
        yield from pool.imap_unordered(_explore_chunk, chunks)
        # Leaving the context ends the processes, finished or not.


def _chunks(tasks: Iterator[Task]) -> Iterator[list[Task]]:
    while chunk := list(islice(tasks, CHUNK)):
        yield chunk


class Worker:
    """One process's part: an explorer for each ground, which remembers what it has judged."""

    def __init__(self, plan: Plan) -> None:
        """Get ready."""
        self._explorers = {name: Explorer(ground(name), plan.seed, plan.depth) for name in plan.grounds}

    def explore(self, tasks: list[Task]) -> Tally:
        """Explore *tasks*; return what was found."""
        tally = Tally()
        for name, text in tasks:
            explorer = self._explorers[name]
            explorer.tally = tally
            explorer.explore(numbered(text))
            if tally.violations:
                break
        return tally


_worker: Worker | None = None


def _start_worker(plan: Plan) -> None:
    global _worker
    _worker = Worker(plan)


def _explore_chunk(tasks: list[Task]) -> Tally:
    assert _worker is not None
    return _worker.explore(tasks)
