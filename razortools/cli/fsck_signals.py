"""Signals of razorfsck: until the image is written they end the work, from then on they wait until it is whole again.

SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, as often as they come, until hold() is called; afterwards they are only noted.
What nohup ignores stays ignored. Invariants: behind hold() nothing is cut off, so the exit code can tell what was done; what was
there before comes back when the block ends, unless signals were held and the process ends with the block.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """A block in which signals wait for us, once we ask them to."""

    for_good = False  # the process ends when the block has: signals that were held stay so, or 32 could be said of a repair

    def __init__(self) -> None:
        """Nothing is held yet."""
        self._is_holding = False
        self._before: dict[signal.Signals, Any] = {}
        self.came = ""  # the name of the first signal that was held back; empty: none

    def __enter__(self) -> "Signals":
        """Take over. Outside the main thread Python lets nobody; there no signal is delivered either."""
        if threading.current_thread() is threading.main_thread():
            for number in HELD:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give the signals back."""
        if self._is_holding and self.for_good:
            return
        self.hold()  # until all are given back none may cut off our own work
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        """From now on signals are only noted."""
        self._is_holding = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._is_holding:
            raise KeyboardInterrupt
        self.came = self.came or signal.Signals(number).name
