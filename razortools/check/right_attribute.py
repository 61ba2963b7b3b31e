"""An extended attribute of which one bit is wrong: what it was, if that is certain.

It is filed under the hash of its name, 63 bits of it, so that only one name of those that differ in a bit, or in length, can have
been meant. Whether its value or a data record stands behind the name, one flag tells. A value that is taken for a record says
several impossible things, and the inode counts no blocks for it; where it counts some, it is a record, however wrong. A record
that is taken for a value is a possible value: it is one only where blocks are missing, and its data verify.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from razortools.check.bitflip import turned
from razortools.check.contents import is_whole
from razortools.check.image import BLOCK_MASK, Image
from razortools.check.inode_rules import xattr_head_fault
from razortools.check.record_rules import KNOWN_FLAGS, record_fault
from razortools.errors import CorruptImage
from razortools.format.compression import STORED
from razortools.format.data import STORED_BYTES_MAX, DataRecord
from razortools.format.inode import Inode
from razortools.format.items import owned_record
from razortools.format.keys import KIND_AT, Kind, offset_of
from razortools.format.xattr import XATTR_VALUE_BYTES_MAX, Xattr, XattrFlag

Items = Iterable[tuple[bytes, bytes]]

_OUT_OF_LINE = int(XattrFlag.OUT_OF_LINE)
_LENGTH_BITS = range(8)  # of an item: its first byte tells how long the name is
_FLAGS_AT = 1


def right_attribute(image: Image, key: bytes, value: bytes, items: Items, inode: Inode | None) -> bytes | None:
    """Return the item as it was meant, if one thing is wrong with what stands before its value; None otherwise.

    *items*: of its *inode*, all that may own blocks.
    """
    if len(value) < Xattr.FIXED_BYTES or _is_named_right(image, key, value):
        return None
    plain = _with_flags(value, value[_FLAGS_AT] & _OUT_OF_LINE)
    if _is_named_right(image, key, plain):
        return plain
    plain = _with_flags(value, 0)
    if _is_named_right(image, key, plain) and inode is not None and _counted(image, key, items) == inode.stored_blocks:
        return plain
    found = [one for one in _named_alike(value) if _is_named_right(image, key, one)]
    return found[0] if len(found) == 1 else None


def _counted(image: Image, key: bytes, items: Items) -> int:
    """Return how many blocks the others of *items* own, as far as they can be records."""
    count = 0
    for other, value in items:
        with suppress(CorruptImage, IndexError):
            record = owned_record(other, value) if other != key else None
            if record is not None and (other[KIND_AT] != Kind.XATTR or _may_be_one(image, record)):
                count += record.block_count(image.block_bytes)
    return count


def hidden_record(image: Image, key: bytes, value: bytes) -> DataRecord | None:
    """Return the record that counts as the value of an attribute, if it is sound and its data verify; None: there is none."""
    if len(value) < Xattr.FIXED_BYTES or value[_FLAGS_AT] & _OUT_OF_LINE:
        return None
    flagged = _with_flags(value, _OUT_OF_LINE)
    record = Xattr.decode(flagged).out_of_line if is_about_its_record(image, key, flagged) else None
    is_sound = record is not None and not record_fault(image, record, None, is_data=False) and is_whole(image, record)
    return record if is_sound else None


def is_about_its_record(image: Image, key: bytes, value: bytes) -> bool:
    """Return whether nothing is wrong with an attribute but what its record says."""
    try:
        attribute = Xattr.decode(value)
        return attribute.out_of_line is not None and not _head_fault(image, key, attribute)
    except CorruptImage:
        return False


def _named_alike(value: bytes) -> Iterator[bytes]:
    """Yield the items that differ in one bit of the name, or of its length."""
    name_bits = range(8 * Xattr.FIXED_BYTES, 8 * (Xattr.FIXED_BYTES + value[0]))
    for bit in (*_LENGTH_BITS, *name_bits):
        if bit < 8 * len(value):
            yield turned(value, bit)


def _with_flags(value: bytes, flags: int) -> bytes:
    return value[:_FLAGS_AT] + bytes([flags]) + value[_FLAGS_AT + 1 :]


def _is_named_right(image: Image, key: bytes, value: bytes) -> bool:
    """Return whether an attribute may stand there as *value* says; of a record behind its name, whether it can be one at all."""
    try:
        attribute = Xattr.decode(value)
        record = attribute.out_of_line
    except CorruptImage:
        return False
    if _head_fault(image, key, attribute):
        return False
    return _may_be_one(image, record) if record is not None else len(attribute.value) <= XATTR_VALUE_BYTES_MAX


def _head_fault(image: Image, key: bytes, attribute: Xattr) -> str:
    return xattr_head_fault(attribute, offset_of(key), image.superblock.hash_seed)


def _may_be_one(image: Image, record: DataRecord) -> bool:
    """Return whether a record says no more than one thing that is impossible."""
    senseless = (
        record.flags & ~KNOWN_FLAGS,
        record.algorithm not in STORED,
        not 0 < record.raw_bytes <= XATTR_VALUE_BYTES_MAX,
        record.stored_bytes > STORED_BYTES_MAX,
        record.birth > image.superblock.generation,
        record.address > BLOCK_MASK or not image.holds(record.address, 1),
    )
    return sum(map(bool, senseless)) <= 1
