"""Items: which record each kind of key holds, and which blocks a value owns."""

from razortools.errors import CorruptImage
from razortools.format.data import DataRecord, InlineData, Patch, Run, changed_runs
from razortools.format.directory import BackLink, DirectoryEntry
from razortools.format.inode import Inode, Orphan
from razortools.format.keys import KIND_AT, Kind, kind_of
from razortools.format.name import Name
from razortools.format.record import Record
from razortools.format.volume import Counters
from razortools.format.xattr import Xattr, XattrFlag

ITEMS: dict[int, type[Record]] = {
    Kind.INODE: Inode,
    Kind.BACK_LINK: BackLink,
    Kind.XATTR: Xattr,
    Kind.INLINE_DATA: InlineData,
    Kind.DATA_RECORD: DataRecord,
    Kind.DIRECTORY_ENTRY: DirectoryEntry,
    Kind.NAME: Name,
    Kind.ORPHAN: Orphan,
    Kind.COUNTERS: Counters,
    Kind.PATCH: Patch,
}


# Plain numbers: to combine members of a flag takes longer than all else here, and each replayed entry is asked.
_DATA_RECORD, _XATTR = int(Kind.DATA_RECORD), int(Kind.XATTR)
_OUT_OF_LINE = int(XattrFlag.OUT_OF_LINE)
OWNING_KINDS = frozenset((_DATA_RECORD, _XATTR))  # whose items may own blocks


def decode_item(key: bytes, value: bytes) -> Record:
    """Return the record of an item. Raises CorruptImage for an unknown kind or a value of the wrong shape."""
    kind = kind_of(key)
    if kind not in ITEMS:
        raise CorruptImage(f"item of unknown kind {kind:#04x}")
    return ITEMS[kind].decode(value)


def owned_record(key: bytes, value: bytes) -> DataRecord | None:
    """Return the data record whose blocks this item owns, or None. Freeing an item's value frees these blocks."""
    kind = key[KIND_AT]
    if kind == _DATA_RECORD:
        return DataRecord.decode(value)
    if kind == _XATTR and value[1:2] and value[1] & _OUT_OF_LINE:
        return Xattr.decode(value).out_of_line
    return None


def changed_blocks(key: bytes, before: bytes | None, after: bytes | None, block_bytes: int) -> tuple[list[Run], list[Run]]:
    """Return the runs that an item lets go and takes when its value changes; None: it is absent.

    A value before that cannot be read lets nothing go: nobody can tell which blocks were its own, and razorfsck finds those that
    are nobody's. Else what it describes could not even be deleted. Raises CorruptImage for such a value after.
    """
    new = owned_record(key, after) if after is not None else None
    try:
        old = owned_record(key, before) if before is not None else None
        return changed_runs(old, new, block_bytes)
    except CorruptImage:
        return changed_runs(None, new, block_bytes)
