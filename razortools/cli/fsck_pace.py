"""The pace at which razorfsck tells how far it is: as often as it moves, but not more often than anybody can read.

A phase of a check knows its whole. What a repair does between the checks does not; there the bytes that went through the device
are told, and only once that takes so long that somebody may wonder. Invariant: what is told never falls back.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from razortools.cli import render
from razortools.units import MIB, format_size

PARTS = 100_000  # of a phase: of one that takes a day a part is less than a second
EACH_S = 0.2  # at most so often
SILENCE_S = 0.5  # of work between the phases, before it is told of
BETWEEN = 0  # what programs are told as the phase then


class Pace:
    """Tells a terminal and a program how far it is."""

    def __init__(self, image: str, progress_fd: int | None, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """Tell of *image*; *progress_fd*: where programs are told; *quiet*: no bar."""
        self._image = image
        self._fd = progress_fd
        self._quiet = quiet
        self._clock = clock
        self._told_at = float("-inf")
        self._lock = threading.Lock()  # the device is read by several threads
        self._between: ExitStack | None = None  # work between the phases, which may show a line
        self._label = ""
        self._say: Callable[[str], None] | None = None

    @contextmanager
    def phase(self, number: int, label: str) -> Iterator[Callable[[int, int], None]]:
        """Yield a function to call with (done, total) as often as one likes."""
        with render.progress(label, PARTS, quiet=self._quiet) as advance:
            reached = shown = 0
            self._tell(number, 0, PARTS)

            def far(done: int, total: int) -> None:
                nonlocal reached, shown
                reached = max(reached, min(done * PARTS // total, PARTS) if total else 0)
                if reached > shown and self._is_time():
                    advance(reached - shown)
                    shown = reached
                    self._tell(number, shown, PARTS)

            yield far
            advance(PARTS - shown)
            self._tell(number, PARTS, PARTS)

    @contextmanager
    def between(self, label: str) -> Iterator[None]:
        """Tell of the *pulse* of work that knows no whole, while the block runs."""
        with ExitStack() as stack:
            self._label, self._say, self._between = label, None, stack
            self._told_at = self._clock() + SILENCE_S - EACH_S
            try:
                yield
            finally:
                with self._lock:
                    self._between = None

    def pulse(self, byte_count: int) -> None:
        """The device has been read and written so far. In any thread."""
        with self._lock:
            if self._between is None or not self._is_time():
                return
            if self._say is None:
                self._say = self._between.enter_context(render.working(self._label, quiet=self._quiet))
            self._say(format_size(byte_count))
            self._tell(BETWEEN, byte_count // MIB, 0)

    def _is_time(self) -> bool:
        now = self._clock()
        if now - self._told_at < EACH_S:
            return False
        self._told_at = now
        return True

    def _tell(self, phase: int, done: int, total: int) -> None:
        """Write a line as e2fsck does: phase, done, total, image. A reader that went away is no reason to stop."""
        if self._fd is not None:
            try:
                os.write(self._fd, f"{phase} {done} {total} {self._image}\n".encode("utf-8", "surrogateescape"))
            except OSError as failed:
                self._fd = None
                render.message(f"razorfsck: -C: progress is not told any more: {failed.strerror}")
