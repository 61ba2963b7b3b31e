"""The files that were stored lately with a fast level, those first that have rested longest: work for recompress.py.

Bounded, and forgotten when the volume is closed: what is forgotten stays stored as it is.
"""

from collections.abc import Iterator
from itertools import islice

from razortools.units import InodeNo, RecordNo

FILES_MAX = 16_384  # that are remembered; 200 bytes each


class Lately:
    """Files, when each was stored, and the first generation of which it has records that nobody has tried harder with."""

    def __init__(self) -> None:
        self._files: dict[InodeNo, tuple[int, int]] = {}
        self.next_record = RecordNo(0)  # of the file that is first
        self.forgotten_count = 0  # files that were too many

    def __len__(self) -> int:
        return len(self._files)

    def note(self, ino: InodeNo, now_ns: int, generation: int) -> None:
        """Records of this file have just been stored, in this *generation*. It has to rest again."""
        if self.first == ino:
            self.next_record = RecordNo(0)
        known = self._files.pop(ino, None)
        self._files[ino] = now_ns, generation if known is None else known[1]
        if len(self._files) > FILES_MAX:
            self.forgotten_count += 1
            self.next_record = RecordNo(0)
            del self._files[next(iter(self._files))]

    @property
    def first(self) -> InodeNo | None:
        """The file that has rested longest."""
        return next(iter(self._files), None)

    def rested(self, since_ns: int) -> Iterator[tuple[InodeNo, int, RecordNo]]:
        """Yield (file, first generation to look at, first record) of those not stored after *since_ns*, in their order."""
        record_no = self.next_record
        for ino, (at_ns, generation) in self._files.items():
            if at_ns > since_ns:
                return
            yield ino, generation, record_no
            record_no = RecordNo(0)

    def has_rested(self, since_ns: int) -> bool:
        """Whether there is any."""
        return any(True for _ in self.rested(since_ns))

    def go_on(self, count: int, record_no: RecordNo) -> None:
        """The first *count* files are done, and of the next one the records before *record_no*."""
        for ino in list(islice(self._files, count)):
            del self._files[ino]
        self.next_record = record_no
