"""Items of the copy: keys and values of the same length, names and contents replaced.

What has the shape of its kind keeps all that is neither: numbers, times, places, owners. What has not holds nobody knows what,
and becomes letters. Invariant: equal items become equal items.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from razortools.debug.sanitize.frames import decompresses, stand_in
from razortools.debug.sanitize.records import Records
from razortools.debug.sanitize.standins import StandIns
from razortools.errors import CorruptImage
from razortools.format.compression import Algorithm
from razortools.format.data import DataRecord, InlineData, Patch
from razortools.format.items import ITEMS
from razortools.format.keys import KIND_AT, Kind
from razortools.format.name import Name
from razortools.format.record import Record
from razortools.format.xattr import Xattr, XattrFlag
from razortools.units import MIB

_NAMING = (int(Kind.NAME), int(Kind.XATTR))
_OWNING = (int(Kind.DATA_RECORD), int(Kind.XATTR))
RAW_BYTES_MAX = 1 * MIB  # of what is kept in the tree; what tells more is not decompressed by the check either


def decoded(key: bytes, value: bytes) -> Record | None:
    """Return the record of an item; None if it has not the shape of its kind."""
    structure = ITEMS.get(key[KIND_AT])
    try:
        return structure.decode(value) if structure is not None else None
    except CorruptImage:
        return None


def names_in(key: bytes, value: bytes) -> tuple[bytes | None, bytes | None]:
    """Return (name, name of an attribute) that an item holds; None: it holds none."""
    if key[KIND_AT] not in _NAMING:
        return None, None
    found = decoded(key, value)
    return found.text if isinstance(found, Name) else None, found.name if isinstance(found, Xattr) else None


def records_in(key: bytes, value: bytes) -> Iterator[DataRecord]:
    """Yield the data records that an item holds."""
    if key[KIND_AT] not in _OWNING:
        return
    found = decoded(key, value)
    if isinstance(found, Xattr):
        try:
            found = found.out_of_line
        except CorruptImage:
            return
    if isinstance(found, DataRecord):
        yield found


class Items:
    """Makes the items of the copy."""

    def __init__(self, names: StandIns, records: Records) -> None:
        """*names* must be settled, and *records* have learned all that there are."""
        self.names = names
        self._records = records
        self._makers: dict[type[Record], Callable[[Any], Record]] = {
            Name: self._name, Xattr: self._xattr, InlineData: self._inline, DataRecord: self._record, Patch: self._patch,
        }  # fmt: skip

    def letters(self, content: bytes) -> bytes:
        """Return what stands for bytes of which nothing is known."""
        return self.names.letters(content)

    def key(self, key: bytes) -> bytes:
        """Return a key as it is in the copy."""
        return self.names.hashed(key)

    def value(self, key: bytes, value: bytes) -> bytes:
        """Return a value as it is in the copy."""
        found = decoded(key, value)
        if found is None:
            return self.names.letters(value)
        maker = self._makers.get(type(found))
        new = value if maker is None else maker(found).encode()
        assert len(new) == len(value)
        return new

    def _name(self, name: Name) -> Name:
        return replace(name, text=self.names.name(name.text))

    def _record(self, record: DataRecord) -> DataRecord:
        try:
            return self._records.new(record)
        except CorruptImage:  # its list of runs is cut off
            return replace(record, crc32c=0, more=self.names.letters(record.more))

    def _patch(self, patch: Patch) -> Patch:
        return replace(patch, data=self.names.letters(patch.data))

    def _xattr(self, xattr: Xattr) -> Xattr:
        name = self.names.name(xattr.name)
        rest = xattr.body[xattr.name_bytes :]
        if not xattr.flags & XattrFlag.OUT_OF_LINE:
            return replace(xattr, body=name + self.names.letters(rest))
        try:
            return replace(xattr, body=name + self._record(DataRecord.decode(rest)).encode())
        except CorruptImage:
            return replace(xattr, body=name + self.names.letters(rest))

    def _inline(self, inline: InlineData) -> InlineData:
        size, raw_bytes = len(inline.stored), inline.raw_bytes
        if inline.algorithm == Algorithm.NONE:
            return replace(inline, stored=self.names.letters(inline.stored))
        is_whole = raw_bytes <= RAW_BYTES_MAX and decompresses(inline.algorithm, inline.stored, raw_bytes)
        algorithm, stored = stand_in(inline.algorithm, size, raw_bytes, whole=is_whole)
        return replace(inline, algorithm=algorithm, stored=stored)
