"""Flights: a commit or checkpoint on its way to the device, in any thread, while its owner's operations go on.

The owner begins a flight, prepares what is to be written, step by step if it likes, and settles it; once it is prepared anybody
may run it. Invariants: it is written once, whoever comes first; it is finished by its owner alone, once; whoever settles waits
until it has been written, and prepares and writes it himself if nobody has; everybody who asks hears how it went, not only the
first.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator

from razortools.engine.store.durations import Durations


class Flight:
    """Something to write, and what follows once it is stable."""

    def __init__(
        self,
        write: Callable[[], None],
        landed: Callable[[], None],
        failed: Callable[[str], None],
        times: Durations | None = None,
        steps: Iterator[object] | None = None,
    ) -> None:
        """*write* touches the device only; *landed* and *failed* change the owner's state, in the owner's thread.

        *steps* have to be taken there before it can be written. How long writing took goes into *times* once it has landed.
        """
        self._steps = steps
        self._write = write
        self._landed = landed
        self._failed = failed
        self._times = times
        self._lock = threading.Lock()
        self._has_run = False
        self._has_landed = False  # written, or failed
        self.took_s = 0.0  # to write it, whoever did
        self._is_finished = False
        self._failure: BaseException | None = None

    def prepare(self, for_s: float = math.inf) -> bool:
        """Take the steps that come before writing, for about so many seconds; return whether there are more.

        In the owner's thread; raises nothing: settle() tells how it went.
        """
        steps, until = self._steps, time.perf_counter() + for_s
        if steps is None:
            return False
        try:
            for _ in steps:
                if time.perf_counter() >= until:
                    return True
        except BaseException as failure:
            self._failure = failure
            self._has_run = self._has_landed = True
        self._steps = None
        return False

    def run(self) -> None:
        """Write it, unless that has been done. In any thread, once it is prepared; raises nothing: settle() tells how it went."""
        assert self._steps is None or self._has_run, "it has to be prepared first"
        with self._lock:
            if self._has_run:
                return
            self._has_run = True
            started = time.perf_counter()
            try:
                self._write()
            except BaseException as failure:
                self._failure = failure
            self.took_s = time.perf_counter() - started
            self._has_landed = True

    @property
    def is_landed(self) -> bool:
        """Whether settling it takes no waiting."""
        return self._has_landed

    def settle(self) -> None:
        """Return when it is stable. In the owner's thread; again, it only tells how it went.

        Raises what writing raised, DeviceFailed among others.
        """
        self.prepare()
        self.run()
        is_first, self._is_finished = not self._is_finished, True
        if self._failure is not None:
            if is_first:
                self._failed(str(self._failure) or type(self._failure).__name__)
            raise self._failure
        if is_first:
            if self._times is not None:
                self._times.note(self.took_s)
            try:
                self._landed()
            except BaseException as failure:  # half of what follows has been done, and it cannot be done again
                self._failure = failure
                self._failed(str(failure) or type(failure).__name__)
                raise


class Flights:
    """The flights of one owner, one at a time, and what was waited for. For the owner's thread."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        """*failed* is told the reason when one fails."""
        self._failed = failed
        self.current: Flight | None = None  # what is on its way to the device
        self.wait_count = 0  # flights that had not landed when somebody had to have them settled
        self.wait_s = 0.0  # and how long the owner's thread waited for them

    def begin(
        self, write: Callable[[], None], landed: Callable[[], None], times: Durations, steps: Iterator[object] | None = None
    ) -> Flight:
        """Begin a flight as Flight() does. The one before it must have been settled."""
        assert self.current is None, "one flight at a time"
        self.current = Flight(write, landed, self._failed, times, steps)
        return self.current

    def settle(self) -> None:
        """Return when nothing is under way any more. Raises what kept it from getting there, DeviceFailed for one."""
        flight, self.current = self.current, None
        if flight is None:
            return
        if flight.is_landed:
            flight.settle()
            return
        started = time.perf_counter()
        try:
            flight.settle()
        finally:
            self.wait_count += 1
            self.wait_s += time.perf_counter() - started
