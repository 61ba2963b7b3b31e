"""What keeps requests from being answered: told in the log once each, and entered in the image, which tells it after an unmount.

A program that meets a damaged record tries again, perhaps for ever. So a failure of a file is logged when it is met first, and
then whenever it was met ten times as often. Invariant: what is kept is bounded.
"""

from razortools.engine import directories
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage, DeviceFailed
from razortools.printable import printable_name
from razortools.service.logs import log
from razortools.units import InodeNo

KEPT_MAX = 1000  # failures that are remembered; then counting them begins anew


class Failures:
    """What went wrong since the mount. One for each volume."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._met: dict[tuple[InodeNo, str], int] = {}  # how often each was met
        self.corrupt_count = self.failed_count = 0  # requests refused for what was read, and because the device failed

    def meet(self, failure: CorruptImage | DeviceFailed, what: str, ino: InodeNo) -> None:
        """Count that the request *what* on *ino* was refused because of *failure*, and log it unless that is well known."""
        if isinstance(failure, CorruptImage):
            self.corrupt_count += 1
        else:
            self.failed_count += 1
        times = self._count(ino, str(failure))
        if times == 1:
            self._volume.note_failure()
        elif not _is_power_of_ten(times):
            return
        path, advice = path_of(self._volume, ino), _advice(failure)
        fields = {"operation": what, "path": path, "inode": ino, "advice": advice, "times": times}
        again = f" (met {times} times)" if times > 1 else ""
        log.error("%s of %s: %s%s; %s", what, path, failure, again, advice, extra=fields)

    def _count(self, ino: InodeNo, text: str) -> int:
        """Return how often this failure has been met."""
        if len(self._met) >= KEPT_MAX and (ino, text) not in self._met:
            self._met.clear()
        times = self._met[ino, text] = self._met.get((ino, text), 0) + 1
        return times


def path_of(volume: Volume, ino: InodeNo) -> str:
    """Return a path that leads to *ino*, for people; its number if none can be found."""
    try:
        with volume.store.residence.in_place():
            found = directories.first_path(volume, ino)
    except Exception:  # it is for the log alone, and the image may be in any state
        found = b""
    return printable_name(found) if found else f"inode {ino}"


def _is_power_of_ten(number: int) -> bool:
    return str(number).strip("0") == "1"


def _advice(failure: CorruptImage | DeviceFailed) -> str:
    """Return what an operator should do about a failure."""
    if isinstance(failure, DeviceFailed):
        return "check the host's disk and its log"
    return "take the file from a backup; unmount and run razorfsck to see what else is damaged"
