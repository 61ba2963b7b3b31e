"""The files that were stored lately with a fast level, those first that have rested longest: work for recompress.py.

Bounded, and forgotten when the volume is closed: what is forgotten stays stored as it is.
"""

from itertools import takewhile

from razortools.units import InodeNo, RecordNo

FILES_MAX = 16_384  # that are remembered; 150 bytes each


class Lately:
    """Files, and when each was stored."""

    def __init__(self) -> None:
        self._stored_at_ns: dict[InodeNo, int] = {}
        self.next_record = RecordNo(0)  # of the file that is first
        self.forgotten_count = 0  # files that were too many

    def __len__(self) -> int:
        return len(self._stored_at_ns)

    def note(self, ino: InodeNo, now_ns: int) -> None:
        """Records of this file have just been stored."""
        if self.first == ino:
            self.next_record = RecordNo(0)
        self._stored_at_ns.pop(ino, None)
        self._stored_at_ns[ino] = now_ns
        if len(self._stored_at_ns) > FILES_MAX:
            self.forgotten_count += 1
            self.next_record = RecordNo(0)
            del self._stored_at_ns[next(iter(self._stored_at_ns))]

    @property
    def first(self) -> InodeNo | None:
        """The file that has rested longest."""
        return next(iter(self._stored_at_ns), None)

    def go_on(self, ino: InodeNo | None, record_no: RecordNo, since_ns: int = 0) -> None:
        """Those before *ino* are done, and of it the records before *record_no*; None: all that have rested since *since_ns*."""
        for done in self.rested(since_ns) if ino is None else list(takewhile(lambda one: one != ino, self._stored_at_ns)):
            del self._stored_at_ns[done]
        self.next_record = record_no

    def rested(self, since_ns: int) -> list[InodeNo]:
        """Return the files that have not been stored after *since_ns*, in their order."""
        return [ino for ino, at_ns in self._stored_at_ns.items() if at_ns <= since_ns]
