"""What became of the records that were stored since the volume was opened: by verdict, and by type of file."""

from collections import OrderedDict
from typing import TypeVar

from razortools.engine.adaptive import Packing, Tally, Verdict
from razortools.engine.filetypes import UNKNOWN, type_of
from razortools.format.data import RECORD_BYTES_MIN
from razortools.units import InodeNo, RecordNo

Key = TypeVar("Key")
TYPES_KEPT = 4096  # types of files of more than one record: who writes more files than that at once is told as unknown


class Tallies:
    """Counts. One owner: the volume's records."""

    def __init__(self) -> None:
        """Begin with nothing counted."""
        # Lists that are added to: a new Tally for each record would cost more than finding out its type.
        self._verdicts: dict[Verdict, list[float]] = {}
        self._types: dict[str, list[float]] = {}
        self._type_of: OrderedDict[InodeNo, str] = OrderedDict()  # of files of which more may come, the oldest first

    @property
    def by_verdict(self) -> dict[Verdict, Tally]:
        """What met each verdict."""
        return {verdict: _tally(sums) for verdict, sums in self._verdicts.items()}

    @property
    def by_type(self) -> dict[str, Tally]:
        """What there was of each type of file; holes are left out."""
        return {kind: _tally(sums) for kind, sums in self._types.items()}

    def count(self, ino: InodeNo, record_no: RecordNo, raw: bytes, packing: Packing) -> None:
        """Note how a record was stored."""
        _add(self._verdicts, packing.verdict, len(raw), packing)
        if packing.verdict is not Verdict.HOLE:
            _add(self._types, self._type(ino, record_no, raw), len(raw), packing)

    def _type(self, ino: InodeNo, record_no: RecordNo, raw: bytes) -> str:
        """Return the type of a file, which its first record tells; of the others as long as that is remembered."""
        if record_no:
            return self._type_of.get(ino, UNKNOWN)
        kind = type_of(raw)
        if len(raw) >= RECORD_BYTES_MIN:  # more records may follow
            self._type_of[ino] = kind
            self._type_of.move_to_end(ino)
            if len(self._type_of) > TYPES_KEPT:
                self._type_of.popitem(last=False)
        return kind


def _add(sums: dict[Key, list[float]], key: Key, raw_bytes: int, packing: Packing) -> None:
    found = sums.get(key)
    if found is None:
        found = sums[key] = [0, 0, 0, 0.0]
    found[0] += 1
    found[1] += raw_bytes
    found[2] += len(packing.stored)
    found[3] += packing.took_s


def _tally(sums: list[float]) -> Tally:
    return Tally(int(sums[0]), int(sums[1]), int(sums[2]), sums[3])
