"""Wakefulness: while requests follow one another, idle processors are kept from falling asleep.

A program that waits for a reply leaves its processor with nothing to do, and such a processor is sent to sleep. To wake it takes
longer than to answer most requests, above all in a virtual machine, where both are the host's work. The kernel lets a process
say how long waking may take (PM QoS, /dev/cpu_dma_latency); at 0 an idle processor looks for work all the time.

That is so for all processors, so it costs the more the more there are. With two, the daemon's and the program's, small operations
take half to four fifths of the time, and about a third more processor time at most (`bench/run --only wakefulness`).

Invariants: processors sleep as they like while the pump is parked, and once it has ended; nothing is left when the process ends,
however it does: the kernel takes the wish back with the descriptor; what the machine refuses is told once and not tried again.
"""

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

from razortools.service.logs import log

DEVICE = Path("/dev/cpu_dma_latency")
PROCESSORS_MAX = 2  # with more, the wish costs more than it saves unless somebody wants it
_AWAKE = struct.pack("=i", 0)  # microseconds that waking may take
_AS_THEY_LIKE = struct.pack("=i", 2_000_000_000)  # what the kernel starts from


class Wakefulness:
    """The wish of one process. Made: none; keep() and let_go() are cheap, and say nothing twice."""

    def __init__(
        self, device: Path = DEVICE, *, processors: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Speak to *device*. The rest is what the machine offers, for tests to replace."""
        self._device = device
        self._processors = os.cpu_count() if processors is None else processors
        self._clock = clock
        self._descriptor = -1
        self._is_refused = False
        self._since_s = 0.0
        self._kept_s = 0.0
        self.is_kept = False

    def configure(self, wanted: bool | None) -> None:
        """Keep processors awake from now on, or not; None: if there are so few that it costs little."""
        is_wanted = wanted if wanted is not None else (self._processors or PROCESSORS_MAX + 1) <= PROCESSORS_MAX
        if not is_wanted:
            self.close()
        elif self._descriptor < 0 and not self._is_refused:
            try:
                self._descriptor = os.open(self._device, os.O_WRONLY | os.O_NONBLOCK)  # whatever stands there: never wait
            except OSError as refused:
                self._refused(refused, is_asked_for=bool(wanted))

    def keep(self) -> None:
        """Keep idle processors awake until let_go()."""
        if self._descriptor >= 0 and not self.is_kept and self._say(_AWAKE):
            self.is_kept = True
            self._since_s = self._clock()

    def let_go(self) -> None:
        """Let processors sleep as they like."""
        if self.is_kept:
            self._kept_s = self.kept_s
            self.is_kept = False
            self._say(_AS_THEY_LIKE)

    @property
    def kept_s(self) -> float:
        """How long they have been kept awake altogether, in seconds."""
        return self._kept_s + (self._clock() - self._since_s if self.is_kept else 0.0)

    def close(self) -> None:
        """Take the wish back for good."""
        self.let_go()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _say(self, microseconds: bytes) -> bool:
        """Tell the kernel how long waking may take; whether it listens."""
        try:
            os.write(self._descriptor, microseconds)
        except OSError as refused:
            os.close(self._descriptor)  # which takes back what was said before
            self._descriptor = -1
            self._refused(refused, is_asked_for=True)
            return False
        return True

    def _refused(self, refused: OSError, *, is_asked_for: bool) -> None:
        self._is_refused = True
        tell = log.warning if is_asked_for else log.debug
        tell("idle processors are not kept awake: %s: %s", self._device, refused.strerror)
