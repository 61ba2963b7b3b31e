"""The request pump and its lock, without a mount."""

import os
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from razortools.service.pump import BURST_MAX, Pump, ReadingLock


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """(reader, writer) of a pipe."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_what_is_there_is_taken_without_a_pause(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        pump = Pump()
        os.write(pipe[1], b"x")
        with trio.testing.assert_no_checkpoints():
            await pump.wait_readable(pipe[0])

    trio.run(main)


def test_others_get_their_turn_however_busy_it_is(pipe: tuple[int, int]) -> None:
    async def main() -> int:
        pump = Pump()
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        os.write(pipe[1], b"x")  # never read: always ready
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(BURST_MAX * 10):
                await pump.wait_readable(pipe[0])
            nursery.cancel_scope.cancel()
        return turns

    assert trio.run(main) >= 9


def test_an_idle_pump_sleeps_and_is_woken(pipe: tuple[int, int]) -> None:
    async def main() -> Pump:
        pump = Pump()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.wait_readable, pipe[0])
            await trio.testing.wait_all_tasks_blocked()  # it has given up spinning
            os.write(pipe[1], b"x")
        return pump

    assert trio.run(main).parked_count == 1


def test_spinning_that_never_pays_is_given_up(pipe: tuple[int, int]) -> None:
    async def main() -> list[bool]:
        pump = Pump()
        pump._watch(pipe[0])
        return [pump._may_spin() and not pump._spin() for _ in range(100)]

    spun = trio.run(main)
    assert sum(spun[:16]) == 16
    assert sum(spun[16:]) <= 4


def test_closing_wakes_whoever_waits_and_refuses_whoever_comes(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        pump = Pump()
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await pump.wait_readable(pipe[0])

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            pump.notify_closing(pipe[0])
        with pytest.raises(trio.ClosedResourceError):
            await pump.wait_readable(pipe[0])

    trio.run(main)


def test_the_lock_lets_in_one_at_a_time_and_wakes_everybody_in_the_end() -> None:
    async def main() -> int:
        lock = ReadingLock()
        inside = passed = 0

        async def work(turns: int) -> None:
            nonlocal inside, passed
            for _ in range(turns):
                async with lock:
                    inside += 1
                    assert inside == 1
                    await trio.lowlevel.checkpoint()
                    inside -= 1
                passed += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for turns in (1, 5, 20, 3):
                nursery.start_soon(work, turns)
        return passed

    assert trio.run(main) == 29


def test_the_lock_may_be_taken_again_at_once() -> None:
    async def main() -> None:
        lock = ReadingLock()
        async with trio.open_nursery() as nursery:

            async def waiter() -> None:
                async with lock:
                    pass

            async with lock:
                nursery.start_soon(waiter)
                await trio.testing.wait_all_tasks_blocked()
            with trio.testing.assert_no_checkpoints():
                async with lock:
                    pass

    trio.run(main)
