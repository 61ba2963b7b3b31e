"""The tally of requests: how many of each kind there were, how long they took, and what they were refused with.

A request's time runs from when the daemon takes it from the kernel until it is answered; how long it waited there before that
nobody tells us. On the way of a request stand one look at the clock and one append; the lists are put into histograms when they
have become long, or when somebody asks.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from razortools.engine.store.durations import Durations
from razortools.service.phases import Phase

LATELY_MAX: Final = 1024  # which takes a twentieth of a millisecond


class Tally:
    """Of the requests of one mount. Only the loop's thread counts."""

    def __init__(self, opcodes: Iterable[int]) -> None:
        """Count requests with these *opcodes*."""
        self._times = {opcode: Durations() for opcode in opcodes}
        self.lately: dict[int, list[int]] = {opcode: [] for opcode in self._times}  # ns, not in a histogram yet
        self.refusals: dict[tuple[int, int], int] = {}  # by opcode and errno
        self.waited_s = dict.fromkeys(Phase, 0.0)  # by all requests that had to wait
        self.under_way = 0  # that wait for something, each a task

    @property
    def times(self) -> Mapping[int, Durations]:
        """How long the requests took, by opcode."""
        self.settle()
        return self._times

    def settle(self) -> None:
        """Put what came lately into the histograms."""
        for opcode, lately in self.lately.items():
            if lately:
                self._times[opcode].note_all(lately)
                lately.clear()

    def refuse(self, opcode: int, number: int) -> None:
        """Count an answer with the errno *number*."""
        self.refusals[opcode, number] = self.refusals.get((opcode, number), 0) + 1

    def wait(self, spent: Mapping[Phase, float]) -> None:
        """Count what a request has spent waiting."""
        for phase, took_s in spent.items():
            self.waited_s[phase] += took_s
