"""The request pump: takes requests from the kernel without going to sleep between two of them.

pyfuse3 waits for its descriptor through the module ``pyfuse3.trio``, which may be replaced. What stands here looks first whether
a request is there already, keeps looking for a moment after one was served, and only then lets trio wait for it. Waking a
processor that sleeps costs about 40 microseconds, more than most requests.

Invariants: other tasks run after at most BURST_MAX requests in a row; an idle mount never spins; a spin never lasts longer than
SPIN_S; whoever waits for the reading lock is woken whenever it becomes free.
"""

import select
import sys
import time
from types import TracebackType
from typing import Any

import pyfuse3
import trio

BURST_MAX = 48  # requests served before others get their turn: at 15 us each that is under a millisecond
SPIN_S = 100e-6  # a client that will ask again does so within about this time
CREDIT_MAX = 16
RETRY_EVERY = 32  # requests without spinning before it is tried again


class Pump:
    """Waits for requests on the session's descriptor."""

    def __init__(self) -> None:
        """Make a pump that knows no descriptor yet."""
        self._poller = select.poll()
        self._descriptor = -1
        self._closed = False
        self._burst_count = 0
        self._credit = CREDIT_MAX  # how well spinning has paid; at 0 it is left out
        self._unspun_count = 0
        self.parked_count = 0
        self.served_count = 0

    async def wait_readable(self, descriptor: int) -> None:
        """Return when a request can be read. Raises trio.ClosedResourceError after notify_closing."""
        if descriptor != self._descriptor:
            self._watch(descriptor)
        self.served_count += 1
        self._burst_count += 1
        if self._burst_count >= BURST_MAX:
            self._burst_count = 0
            await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError
        if self._poller.poll(0) or (self._may_spin() and self._spin()):
            return
        self._burst_count = 0
        self.parked_count += 1
        await trio.lowlevel.wait_readable(descriptor)

    def notify_closing(self, descriptor: int) -> None:
        """Wake whoever waits: the session ends."""
        self._closed = True
        trio.lowlevel.notify_closing(descriptor)

    def _watch(self, descriptor: int) -> None:
        """Look at *descriptor* from now on."""
        self._poller = select.poll()
        self._poller.register(descriptor, select.POLLIN)
        self._descriptor = descriptor

    def _may_spin(self) -> bool:
        """Whether spinning has paid lately, or is due to be tried again."""
        if self._credit > 0:
            return True
        self._unspun_count += 1
        if self._unspun_count < RETRY_EVERY:
            return False
        self._unspun_count = 0
        return True

    def _spin(self) -> bool:
        """Look for a request for SPIN_S at the most; whether there is one."""
        poll, clock = self._poller.poll, time.perf_counter
        end = clock() + SPIN_S
        while clock() < end:
            if poll(0):
                self._credit = min(CREDIT_MAX, self._credit + 2)
                return True
        self._credit -= 1 if self._credit > 0 else 0
        return False


class ReadingLock:
    """The lock around waiting for a request. Unfair on purpose: who has just served a request may read the next one at once.

    trio's own lock hands over to the longest waiter, so that two workers would take turns with a task switch for each request.
    A waiter is woken at each release, but finds the lock free only if the worker before it waits for something else.
    """

    def __init__(self) -> None:
        """Make a free lock."""
        self._held = False
        self._waking = False
        self._waiters = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        """Take the lock; without a checkpoint if it is free."""
        while self._held:
            await self._waiters.park()
            self._waking = False
        self._held = True

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, where: TracebackType | None
    ) -> None:
        """Give the lock back and wake one waiter."""
        self._held = False
        if self._waiters and not self._waking:
            self._waking = True
            self._waiters.unpark()


class _Lowlevel:
    """What pyfuse3 uses of trio.lowlevel."""

    def __init__(self, pump: Pump) -> None:
        self.wait_readable = pump.wait_readable
        self.notify_closing = pump.notify_closing
        self.current_task = trio.lowlevel.current_task
        self.current_trio_token = trio.lowlevel.current_trio_token


class _Trio:
    """What pyfuse3 uses of trio, with the pump in it."""

    Lock = ReadingLock
    ClosedResourceError = trio.ClosedResourceError
    from_thread = trio.from_thread

    def __init__(self, pump: Pump) -> None:
        self.lowlevel = _Lowlevel(pump)
        self.open_nursery = trio.open_nursery


def install() -> Pump:
    """Put a new pump into pyfuse3, before its main loop starts, and return it."""
    pump = Pump()
    module: Any = pyfuse3
    module.trio = _Trio(pump)
    # Threads compress and write while requests are served. A request would wait up to the usual 5 ms for the
    # interpreter.
    sys.setswitchinterval(0.0005)
    return pump
