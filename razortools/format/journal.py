"""Journal entries: what a transaction changed, key by key, closed by a commit entry.

The journal is a ring of bytes. A transaction starts at a block boundary, its entries follow one another without gaps, the
commit entry is last, zeros fill the rest of its block. A key may stand in several entries of a transaction; they follow one
another as the changes did. Sequence numbers rise by one from entry to entry for ever, so what an
earlier round left behind is never mistaken for the present.
"""

from enum import IntEnum, IntFlag
from typing import Annotated

from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64sl, Int64ul

from razortools.format.keys import KEY_BYTES
from razortools.format.record import Record, record

JOURNAL_MAGIC = b"JRNL"


class Operation(IntEnum):
    """What an entry belongs to: of the operations whose changes it holds, the first."""

    COMMIT = 0
    CREATE = 1
    MKDIR = 2
    MKNOD = 3
    SYMLINK = 4
    LINK = 5
    UNLINK = 6
    RMDIR = 7
    RENAME = 8
    SETATTR = 9
    SETXATTR = 10
    REMOVEXATTR = 11
    WRITE = 12
    TRUNCATE = 13
    FLUSH_DATA = 14
    FINISH_ORPHAN = 15
    COUNTERS = 16
    POPULATE = 17
    REPAIR = 18
    ACCESS = 19


class EntryFlag(IntFlag):
    """Which values an entry carries; none stands for an absent key."""

    HAS_UNDO = 1
    HAS_REDO = 2


@record(magic=JOURNAL_MAGIC)
class JournalEntry(Record):
    """Head of an entry. The value before (undo) and after (redo) follow it.

    The checksum covers head and values and starts from the CRC32C of the filesystem's UUID instead of from 0, so that entries
    of an earlier filesystem on the same device are never replayed.
    """

    transaction: Annotated[int, Int64ul * "number of the transaction"]
    sequence: Annotated[int, Int64ul * "number of the entry"]
    inode: Annotated[int, Int64ul * "inode that the operation was about"]
    operation: Annotated[int, Int8ul * "first operation that changed the key; 0: this is the commit entry"]
    flags: Annotated[int, Int8ul * "bit 0: the key had a value before; bit 1: it has one now"]
    reserved: Annotated[int, Int16ul * "zero"]
    undo_bytes: Annotated[int, Int32ul * "length of the value before"]
    redo_bytes: Annotated[int, Int32ul * "length of the value after"]
    key: Annotated[bytes, Bytes(KEY_BYTES) * "the key"]


@record()
class JournalCommit(Record):
    """Redo value of a commit entry: the transaction is complete."""

    flushed_sequence: Annotated[int, Int64ul * "everything up to this entry was on stable storage when this was written"]
    first_sequence: Annotated[int, Int64ul * "sequence of the transaction's first entry"]
    committed_at_ns: Annotated[int, Int64sl * "when, nanoseconds since 1970"]
    total_bytes: Annotated[int, Int64ul * "bytes of the transaction, this entry and the zeros behind it included"]


ENTRY_HEAD_BYTES = JournalEntry.FIXED_BYTES + JournalEntry.skipped_bytes()
COMMIT_BYTES = ENTRY_HEAD_BYTES + JournalCommit.FIXED_BYTES
