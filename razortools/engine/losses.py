"""Losses: what was written to files and can never be stored, because the tree is damaged where it would stand.

Whoever syncs such a file is told, each time, whoever asked before: files are opened without our being told, so nobody can know
who has heard it already. It ends when the lost records are written anew and stored, cut off, or the file is deleted.
"""

from razortools.errors import CorruptImage
from razortools.units import InodeNo, RecordNo


class Losses:
    """The lost records of the files of one volume since it was opened."""

    def __init__(self) -> None:
        self._records: dict[InodeNo, dict[RecordNo, CorruptImage]] = {}
        self.lately: list[tuple[InodeNo, CorruptImage]] = []  # until the log has them

    def __bool__(self) -> bool:
        """Return whether anything is lost."""
        return bool(self._records)

    def note(self, ino: InodeNo, record_no: RecordNo, failure: CorruptImage) -> None:
        """A record was given up because of *failure*."""
        self._records.setdefault(ino, {})[record_no] = failure
        self.lately.append((ino, failure))

    def of(self, ino: InodeNo) -> CorruptImage | None:
        """Return why something of a file can never be stored; None: all of it is, or will be."""
        return next(iter(self._records.get(ino, {}).values()), None)

    def files(self) -> list[InodeNo]:
        """Return the files of which something is lost."""
        return list(self._records)

    def note_stored(self, ino: InodeNo, record_no: RecordNo) -> None:
        """A record was written anew, whole, and is in the tree."""
        self._drop(ino, [record_no])

    def note_cut(self, ino: InodeNo, first: int = 0) -> None:
        """A file has no records from *first* on any more."""
        self._drop(ino, [number for number in self._records.get(ino, {}) if number >= first])

    def _drop(self, ino: InodeNo, numbers: list[RecordNo]) -> None:
        of_file = self._records.get(ino)
        if of_file is None:
            return
        for number in numbers:
            of_file.pop(number, None)
        if not of_file:
            del self._records[ino]
