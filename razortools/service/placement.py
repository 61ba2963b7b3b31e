"""Placement: on a machine of several memory nodes, threads work on the node of the processor that serves the requests.

What a worker makes (decompressed records, compressed data, nodes) is used by the serving thread next. Memory lies on the node
of the thread that touches it first, so workers beside the serving thread make memory that is near to it. The serving thread
itself goes where the kernel puts it, and is followed.

Invariants: on a machine of one node, or where only one node's processors are allowed to us, nothing is done beyond reading the
topology once; a thread is moved only when it is on another node than it should be; what the machine refuses is never tried
again.
"""

import ctypes
import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from razortools.service.logs import log

R = TypeVar("R")

NODES = Path("/sys/devices/system/node")
FOLLOW_S = 1.0  # how long work goes to the old node after the serving thread has moved; asking costs about a microsecond


@dataclass(frozen=True, slots=True)
class Topology:
    """The memory nodes that we have processors of."""

    processors: Mapping[int, frozenset[int]]  # by node; only what we may run on, and no node without any

    @property
    def has_several_nodes(self) -> bool:
        """Whether it makes a difference where a thread runs."""
        return len(self.processors) > 1

    def node_of(self, processor: int) -> int | None:
        """Return the node of a processor; None if it is not one of ours."""
        return next((node for node, processors in self.processors.items() if processor in processors), None)


def read_topology(root: Path = NODES, allowed: Set[int] | None = None) -> Topology:
    """Return the topology that the kernel shows in *root*, of the processors *allowed* (None: those that this thread may use).

    Whatever cannot be read or understood counts as a machine of one node. A cgroup's cpuset is part of what is allowed.
    """
    usable = frozenset(os.sched_getaffinity(0) if allowed is None else allowed)
    try:
        nodes = parse_list((root / "online").read_text(encoding="ascii"))
        found = {node: usable & set(parse_list((root / f"node{node}" / "cpulist").read_text(encoding="ascii"))) for node in nodes}
    except (OSError, ValueError):
        return Topology({})
    return Topology({node: processors for node, processors in found.items() if processors})


def parse_list(text: str) -> Iterable[int]:
    """Return the numbers in a list as the kernel writes them: ``0-3,8``, or nothing. Raises ValueError."""
    numbers: list[int] = []
    for part in text.strip().split(",") if text.strip() else []:
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def current_processor() -> int:
    """Return the processor that this thread runs on. Python 3.11 does not tell; the C library does, without a system call."""
    return int(_libc().sched_getcpu())


class Placement:
    """Runs functions in threads near to the thread that asks for it."""

    def __init__(
        self,
        topology: Topology,
        *,
        processor: Callable[[], int] = current_processor,
        move: Callable[[int, frozenset[int]], None] = os.sched_setaffinity,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Place threads in *topology*. The rest is what the machine offers, for tests to replace."""
        self._topology = topology
        self._processor = processor
        self._move = move
        self._clock = clock
        self._is_active = topology.has_several_nodes
        self._home: int | None = None
        self._look_again_at = 0.0
        self._thread = threading.local()

    async def run_sync(self, function: Callable[..., R], *args: object, limiter: trio.CapacityLimiter | None = None) -> R:
        """Return what *function* returns, run in a thread; *limiter* bounds how many there are."""
        if not self._is_active:
            return await trio.to_thread.run_sync(function, *args, limiter=limiter)
        return await trio.to_thread.run_sync(self._run_at, self.home(), function, *args, limiter=limiter)

    def home(self) -> int | None:
        """Return the node where this thread, which serves, is or has been a moment ago."""
        now = self._clock()
        if now >= self._look_again_at:
            self._look_again_at = now + FOLLOW_S
            self._home = self._topology.node_of(self._processor())
        return self._home

    def _run_at(self, node: int | None, function: Callable[..., R], *args: object) -> R:
        """Run *function* on a processor of *node*. In a thread, which stays there until it is wanted elsewhere."""
        if node is not None and node != getattr(self._thread, "node", None) and self._is_active:
            try:
                self._move(0, self._topology.processors[node])
                self._thread.node = node
            except OSError as refused:
                self._is_active = False
                log.info("threads are placed by the kernel from now on: %s", refused.strerror)
        return function(*args)


_placement = Placement(Topology({}))


def start() -> None:
    """Place threads as this machine makes it worthwhile, from now on. Called once, by the thread that serves."""
    global _placement
    _placement = Placement(read_topology())


async def run_sync(function: Callable[..., R], *args: object, limiter: trio.CapacityLimiter | None = None) -> R:
    """Return what *function* returns, run in a thread near to this one; *limiter* bounds how many there are."""
    return await _placement.run_sync(function, *args, limiter=limiter)
