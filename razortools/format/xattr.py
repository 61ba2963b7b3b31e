"""Extended attributes: the value stands in the item, a large one in blocks of its own."""

from enum import IntFlag
from typing import Annotated

from construct import GreedyBytes, Int8ul

from razortools.errors import CorruptImage
from razortools.format.data import DataRecord
from razortools.format.record import Record, record

XATTR_NAME_BYTES_MAX = 255  # XATTR_NAME_MAX of Linux
XATTR_VALUE_BYTES_MAX = 65536  # XATTR_SIZE_MAX of Linux


class XattrFlag(IntFlag):
    """How the value is kept."""

    OUT_OF_LINE = 1  # the body ends with a DataRecord instead of the value


@record()
class Xattr(Record):
    """One extended attribute."""

    name_bytes: Annotated[int, Int8ul * "length of the name"]
    flags: Annotated[int, Int8ul * "bit 0: the value is out of line and a data record stands in its place"]
    body: Annotated[bytes, GreedyBytes * "the name, then the value or the data record"]

    @property
    def name(self) -> bytes:
        """The full name, namespace included: ``user.comment``."""
        return self.body[: self.name_bytes]

    @property
    def value(self) -> bytes:
        """The value in line; meaningless when out of line."""
        return self.body[self.name_bytes :]

    @property
    def out_of_line(self) -> DataRecord | None:
        """The data record of a large value, or None. Raises CorruptImage if it does not decode."""
        if not self.flags & XattrFlag.OUT_OF_LINE:
            return None
        if len(self.body) < self.name_bytes + DataRecord.FIXED_BYTES:
            raise CorruptImage(f"extended attribute {self.name!r}: no data record behind its name")
        return DataRecord.decode(self.body[self.name_bytes :])

    @classmethod
    def inline(cls, name: bytes, value: bytes) -> "Xattr":
        """Return the attribute with its value in the item."""
        return cls(len(name), 0, name + value)

    @classmethod
    def outside(cls, name: bytes, stored: DataRecord) -> "Xattr":
        """Return the attribute with its value in the blocks of *stored*."""
        return cls(len(name), int(XattrFlag.OUT_OF_LINE), name + stored.encode())
