"""Recompressing: while nobody asks for anything, what has rested is stored anew where trying harder saves blocks.

The engine finds what has rested and makes it dirty (engine/recompress.py); the next commit stores it. Here is when: once no
request has come between two looks and the machine has a processor to spare; a step at a time, at most half of the time.

Invariants: the first request ends it, after the step under way; a step's reading and compressing is done in a thread; what the
kernel knows of a file's blocks is told again once they are stored.
"""

import os
import time
from collections.abc import Callable

import trio

from razortools.engine import recompress
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage, RazorError
from razortools.service import placement
from razortools.service.logs import log
from razortools.service.residence import Fetcher
from razortools.units import KIB, NANOSECONDS, InodeNo, RecordNo

LOOK_EVERY_S = 2.0
STEP_BYTES = 512 * KIB  # 60 ms of a thread
DIRTY_SHARE = 4  # no more than this part of what may be dirty waits to be stored


def spare_processor() -> bool:
    """Whether the machine has a processor to spare; our own work counts as less than half of one."""
    processors = len(os.sched_getaffinity(0))
    return os.getloadavg()[0] <= max(processors - 0.5, 0.6)


class Recompressor:
    """Owner of the work that waits for a quiet moment."""

    def __init__(
        self,
        volume: Volume,
        fetcher: Fetcher,
        served: Callable[[], int],
        estimated: set[InodeNo],
        *,
        rest_s: float,
        is_spare: Callable[[], bool] = spare_processor,
    ) -> None:
        """*served* tells the requests so far; *estimated*: the inodes that the kernel is told to ask about after a commit.

        What has not been stored for *rest_s* seconds has rested; 0: nothing ever has.
        """
        self._volume = volume
        self._fetcher = fetcher
        self._served = served
        self._estimated = estimated
        self._rest_s = rest_s
        self._is_spare = is_spare
        self._complained_of = ""
        self.record_count = 0  # made dirty to be stored harder
        self.saved_blocks = 0

    def configure(self, rest_s: float) -> None:
        """Let data rest for *rest_s* seconds from now on."""
        self._rest_s = rest_s

    async def run(self) -> None:
        """Look for a quiet moment again and again, until cancelled."""
        before = self._served()
        while True:
            await trio.sleep(LOOK_EVERY_S)
            count, before = before, self._served()
            if count == before and self._rest_s and self._is_spare():
                await self._while_quiet(before)

    async def _while_quiet(self, served: int) -> None:
        """Work until a request comes, or nothing that has rested is left, or enough waits to be stored."""
        volume = self._volume
        while self._served() == served and not volume.read_only:
            since_ns = volume.now_ns() - int(self._rest_s * NANOSECONDS)
            full = volume.records.dirty_bytes > volume.limits.dirty_bytes // DIRTY_SHARE
            if full or not volume.lately.has_rested(since_ns):
                return
            started = time.perf_counter()
            try:
                await self._step(since_ns)
            except Exception as failed:  # a bug among others: no reason to end the mount
                self._complain(failed)
                volume.lately.go_on(1, RecordNo(0))  # or the others would never have their turn
            await trio.sleep(time.perf_counter() - started)

    async def _step(self, since_ns: int) -> None:
        """Look at the next records. Raises CorruptImage, DeviceFailed if the tree cannot be read."""
        several = await self._fetcher.run(recompress.due, self._volume, since_ns, STEP_BYTES)
        if not several:
            return
        gains, failures = await placement.run_sync(recompress.harder, self._volume, several)
        for resting, failed in failures:
            if await self._fetcher.run(recompress.is_current, self._volume, resting):
                self._complain(failed)
        taken = await self._fetcher.run(recompress.take, self._volume, gains)
        self._estimated.update(gain.resting.ino for gain in taken)
        self.record_count += len(taken)
        self.saved_blocks += sum(gain.saved_blocks for gain in taken)

    def _complain(self, failed: Exception) -> None:
        """Log what cannot be read, once in a row for each reason."""
        if str(failed) != self._complained_of:
            self._complained_of = str(failed)
            if isinstance(failed, CorruptImage):
                self._volume.note_failure()
            what = "read" if isinstance(failed, RazorError) else "stored anew, a bug in razortools"
            log.warning("what has rested cannot be %s: %s", what, failed, exc_info=not isinstance(failed, RazorError))
