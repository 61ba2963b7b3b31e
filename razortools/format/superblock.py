"""Superblocks: where everything starts. Two slots are written in turn; copies lie at fixed places up to the last block."""

from enum import IntEnum, IntFlag
from typing import Annotated

from construct import Bytes, Int8sl, Int8ul, Int16ul, Int32ul, Int64sl, Int64ul

from razortools.format.admin import ADMIN_HISTORY_BYTES, AdminEntry
from razortools.format.node import ChildPointer
from razortools.format.record import Record, embed, record
from razortools.format.spacemap import SpaceMapEntry

MAGIC = b"RAZORFS\x01"
SUPERBLOCK_BYTES = 4096
VERSION_MAJOR = 1
VERSION_MINOR = 0
LABEL_BYTES_MAX = 64
SLOT_COUNT = 2
BLOCK_BYTES_CHOICES = (4096, 8192, 16384, 32768, 65536)


class State(IntEnum):
    """How the volume was left."""

    CLEAN = 1
    DIRTY = 2  # mounted, or not unmounted: the journal will be replayed
    ERRORS = 3  # an error was seen: razorfsck is due


ERROR_COUNT_MAX = (1 << 32) - 1  # what its field holds: counting ends here


class Compat(IntFlag):
    """Features that an implementation may ignore."""

    ADMIN_HISTORY = 1  # the superblock tells what was done to the image


class ReadOnlyCompat(IntFlag):
    """Features whose unknown bits allow reading only."""


class Incompat(IntFlag):
    """Features whose unknown bits forbid opening."""

    ZSTD = 1  # records may be compressed with zstd
    LZ4 = 2
    ZLIB = 4
    STRING_TABLE = 8  # names are stored once, in the string table
    PATCHES = 16  # bytes of files may stand in patches over their records
    SECOND_CHECKSUM = 32  # data records may have a second checksum
    LATE_PAGES = 64  # data records may have late pages


KNOWN_COMPAT = sum(Compat)
KNOWN_READ_ONLY_COMPAT = 0
KNOWN_INCOMPAT = sum(Incompat)


@record(magic=MAGIC)
class Superblock(Record):
    """One copy of the superblock. The valid copy with the highest generation is the truth.

    Copies of an older filesystem may be left where one is made. Only those of the same `uuid` and `made_at_ns` as a valid slot
    count; if no slot is valid, as the backup with the latest `written_at_ns`. Where no slot tells where backups lie, one counts
    only in a place that its own fields name.
    """

    version_major: Annotated[int, Int16ul * "1; another number cannot be read"]
    version_minor: Annotated[int, Int16ul * "0; rises with additions that feature bits announce"]
    slot: Annotated[int, Int32ul * "0 and 1: the slots; from 2: a backup"]
    address: Annotated[int, Int64ul * "block in which this copy lies"]
    compat: Annotated[int, Int64ul * "features that may be ignored when unknown"]
    read_only_compat: Annotated[int, Int64ul * "features that allow reading only when unknown"]
    incompat: Annotated[int, Int64ul * "features that forbid opening when unknown"]
    uuid: Annotated[bytes, Bytes(16) * "identity of the filesystem"]
    label: Annotated[bytes, Bytes(LABEL_BYTES_MAX) * "its label in UTF-8, padded with NUL"]
    hash_seed: Annotated[bytes, Bytes(16) * "key of the name hash"]
    block_bytes: Annotated[int, Int32ul * "size of a block"]
    node_bytes: Annotated[int, Int32ul * "size of a tree node"]
    record_bytes: Annotated[int, Int32ul * "record size of new files"]
    metadata_copies: Annotated[int, Int8ul * "copies of each new tree node: 1 or 2"]
    compression: Annotated[int, Int8ul * "policy for new files"]
    compression_level: Annotated[int, Int8sl * "level for new files, 0 for the usual one"]
    state: Annotated[int, Int8ul * "1 clean, 2 dirty, 3 errors seen"]
    block_count: Annotated[int, Int64ul * "blocks of the image"]
    spacemap_a: Annotated[int, Int64ul * "first block of space map A"]
    spacemap_b: Annotated[int, Int64ul * "first block of space map B"]
    spacemap_active: Annotated[int, Int32ul * "0: map A tells the truth; 1: map B"]
    spacemap_top: Annotated[SpaceMapEntry, embed(SpaceMapEntry, "what the topmost page of the active map must hold")]
    journal_start: Annotated[int, Int64ul * "first block of the journal"]
    journal_blocks: Annotated[int, Int64ul * "blocks of the journal"]
    journal_tail: Annotated[int, Int64ul * "where replay starts: bytes written since mkfs, modulo the journal's size"]
    journal_sequence: Annotated[int, Int64ul * "sequence of the first entry to replay"]
    generation: Annotated[int, Int64ul * "rises by one with every checkpoint"]
    transaction: Annotated[int, Int64ul * "last transaction that the tree contains, or that recovery gave up"]
    root: Annotated[ChildPointer, embed(ChildPointer, "root of the tree")]
    root_level: Annotated[int, Int32ul * "level of the root node"]
    free_blocks: Annotated[int, Int64ul * "free blocks, as the active space map counts them"]
    inode_count: Annotated[int, Int64ul * "inodes"]
    directory_count: Annotated[int, Int64ul * "directories among them"]
    made_at_ns: Annotated[int, Int64sl * "when mkfs made it, nanoseconds since 1970"]
    mounted_at_ns: Annotated[int, Int64sl * "last time it was opened for writing"]
    written_at_ns: Annotated[int, Int64sl * "last checkpoint"]
    checked_at_ns: Annotated[int, Int64sl * "last full check that found nothing; 0: never"]
    mount_count: Annotated[int, Int32ul * "times it was opened for writing"]
    error_count: Annotated[int, Int32ul * "errors seen since the last check"]
    node_count: Annotated[int, Int64ul * "nodes of the tree"]
    admin_last: Annotated[AdminEntry, embed(AdminEntry, "what was done to the image last")]
    admin_before: Annotated[AdminEntry, embed(AdminEntry, "and before that")]
    reserved: Annotated[bytes, Bytes(88) * "zeros"]
    admin_history: Annotated[bytes, Bytes(ADMIN_HISTORY_BYTES) * "all that is known of it, see AdminSector"]


assert Superblock.FIXED_BYTES + Superblock.skipped_bytes() == SUPERBLOCK_BYTES
