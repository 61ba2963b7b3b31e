"""Turns: few threads fetch at a time, more where the device takes long, and nobody waits behind what gets nowhere."""

import threading
import time
from collections.abc import Awaitable, Callable, Iterable

import pytest
import trio
import trio.testing

from razortools.service.turns import CALM_LOOKS, PATIENCE_S, SLOW_S, Turns, few_threads

MANY, FEW = 6, 2
WAIT_S = 20


class Threads:
    """Functions that run in threads until they are let go, and what is known of them."""

    def __init__(self, turns: Turns, clock: trio.testing.MockClock) -> None:
        self._turns = turns
        self._clock = clock
        self._gates: dict[int, threading.Event] = {}
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.most = 0

    async def ask(self, number: int) -> None:
        gate = self._gates.setdefault(number, threading.Event())

        def work() -> None:
            self.begun.append(number)
            self.most = max(self.most, len(self.running))
            assert gate.wait(WAIT_S)

        await self._turns.run(work)
        self.ended.append(number)

    async def ask_all(self, numbers: Iterable[int], nursery: trio.Nursery) -> None:
        """Ask for each of *numbers*, in this order."""
        for number in numbers:
            nursery.start_soon(self.ask, number)
            await trio.testing.wait_all_tasks_blocked()

    async def pass_time(self, seconds: float) -> None:
        await trio.testing.wait_all_tasks_blocked()
        self._clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked()

    def let_go(self, number: int) -> None:
        self._gates[number].set()

    def let_all_go(self) -> None:
        for gate in self._gates.values():
            gate.set()

    @property
    def running(self) -> set[int]:
        return set(self.begun) - set(self.ended)


def played(scenario: Callable[[Threads], Awaitable[None]], read_s: Callable[[], float] = lambda: 0.0) -> None:
    """Play *scenario* with a clock that stands still; threads end even if it fails."""
    clock = trio.testing.MockClock()

    async def play() -> None:
        threads = Threads(Turns(MANY, read_s, few=FEW), clock)
        try:
            await scenario(threads)
        finally:
            threads.let_all_go()

    trio.run(play, clock=clock)


async def settled(threads: Threads, running: set[int]) -> None:
    """Return once these run, and no others: a thread begins when it likes."""
    until = time.monotonic() + WAIT_S
    while threads.running != running:
        assert time.monotonic() < until, threads.running
        await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize(("processors", "count"), [(1, 2), (2, 2), (3, 2), (4, 3), (8, 7), (64, 8)])
def test_a_processor_is_left_to_the_thread_that_serves(processors: int, count: int) -> None:
    assert few_threads(processors, 8) == count


def test_few_run_at_a_time_and_each_in_the_order_of_asking() -> None:
    async def scenario(threads: Threads) -> None:
        async with trio.open_nursery() as nursery:
            await threads.ask_all(range(MANY), nursery)
            for number in range(MANY):
                await settled(threads, set(range(number, min(number + FEW, MANY))))
                threads.let_go(number)

    played(scenario)


def test_a_device_that_takes_long_is_asked_by_many() -> None:
    read_s = SLOW_S

    async def scenario(threads: Threads) -> None:
        nonlocal read_s
        for expected in (MANY, FEW):
            async with trio.open_nursery() as nursery:
                numbers = range(len(threads.begun), len(threads.begun) + MANY + 1)
                await threads.ask_all(numbers, nursery)
                await settled(threads, set(numbers[:expected]))
                threads.let_all_go()
            read_s = SLOW_S / 2
            await threads.pass_time(PATIENCE_S)

    played(scenario, lambda: read_s)


def test_what_gets_nowhere_keeps_nobody_else_waiting() -> None:
    async def scenario(threads: Threads) -> None:
        async with trio.open_nursery() as nursery:
            await threads.ask_all(range(MANY + 1), nursery)
            for running in (FEW, 2 * FEW, 3 * FEW, MANY):
                await settled(threads, set(range(running)))
                await threads.pass_time(PATIENCE_S)
            threads.let_all_go()
        assert threads.most == MANY
        await threads.pass_time(PATIENCE_S)
        async with trio.open_nursery() as nursery:  # it answers again: few are enough
            await threads.ask_all((10, 11, 12), nursery)
            await settled(threads, {10, 11})
            threads.let_all_go()

    played(scenario)


def test_few_are_enough_again_once_it_has_gone_on_for_a_while_however_many_wait() -> None:
    count = 2 * FEW + CALM_LOOKS + 2

    async def scenario(threads: Threads) -> None:
        async with trio.open_nursery() as nursery:
            await threads.ask_all(range(count), nursery)
            await settled(threads, set(range(FEW)))
            await threads.pass_time(PATIENCE_S)
            for number in range(CALM_LOOKS):  # more than few, as long as it may get stuck again
                await settled(threads, set(range(number, number + 2 * FEW)))
                threads.let_go(number)
                await settled(threads, set(range(number + 1, number + 1 + 2 * FEW)))
                await threads.pass_time(PATIENCE_S)
            for number in range(CALM_LOOKS, count):
                threads.let_go(number)
                begun = max(CALM_LOOKS + 2 * FEW, number + 1 + FEW)
                await settled(threads, set(range(number + 1, min(begun, count))))

    played(scenario)


def test_while_turns_end_nobody_gets_one_beside_them() -> None:
    count = 2 * MANY

    async def scenario(threads: Threads) -> None:
        async with trio.open_nursery() as nursery:
            await threads.ask_all(range(count), nursery)
            for number in range(count):
                await settled(threads, set(range(number, min(number + FEW, count))))
                await threads.pass_time(PATIENCE_S / 2)
                threads.let_go(number)

    played(scenario)
