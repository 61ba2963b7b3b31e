"""The log of slow requests: what took longer than it should, on which file, and what it waited for.

Invariants: one line in EVERY_S at the most, however slow everything is, and it says how many were left out; the path is looked
for in memory alone, because a disk that is slow must not make the search for words slow as well.
"""

import time
from collections.abc import Mapping

from razortools.engine import directories
from razortools.engine.store.residence import NOTHING, NotResident
from razortools.engine.volume import Volume
from razortools.printable import printable_name
from razortools.service import phases
from razortools.service.logs import log
from razortools.service.phases import Phase
from razortools.units import InodeNo

EVERY_S = 1.0


class SlowLog:
    """Told of by the pump."""

    def __init__(self, volume: Volume, from_s: float) -> None:
        """Log requests on *volume* that take *from_s* seconds or more."""
        self.from_s = from_s
        self._volume = volume
        self._told_at_s = -EVERY_S
        self._left_out = 0

    def tell(self, what: str, ino: InodeNo, took_s: float, spent: Mapping[Phase, float]) -> None:
        """Log one."""
        now_s = time.monotonic()
        if now_s - self._told_at_s < EVERY_S:
            self._left_out += 1
            return
        others, self._told_at_s, self._left_out = self._left_out, now_s, 0
        path, parts = self._path(ino), phases.told(spent, took_s)
        more = f"; {others} more since the last such line" if others else ""
        fields = {
            "operation": what, "path": path, "inode": ino, "seconds": round(took_s, 6),
            "phases": {phase.value: round(seconds, 6) for phase, seconds in spent.items()},
        }  # fmt: skip
        log.warning("slow: %s of %s took %.3f s (%s)%s", what, path, took_s, parts, more, extra=fields)

    def _path(self, ino: InodeNo) -> str:
        try:
            found = self._volume.store.residence.attempt(NOTHING, directories.first_path, self._volume, ino)
        except NotResident:
            found = b""
        except Exception:  # it is for the log alone, and the image may be in any state
            found = b""
        return printable_name(found) if found else f"inode {ino}"
