"""Volume-wide items of the tree: counters that change with every operation and must be exact after a crash."""

from typing import Annotated

from construct import Int64ul

from razortools.format.record import Record, record


@record(frozen=False)
class Counters(Record):
    """Counters of the volume. One owner: the engine's volume."""

    next_inode: Annotated[int, Int64ul * "the next inode number"]
    next_name_id: Annotated[int, Int64ul * "the next name id"]
    inode_count: Annotated[int, Int64ul * "inodes"]
    directory_count: Annotated[int, Int64ul * "directories among them"]
    name_count: Annotated[int, Int64ul * "strings in the string table"]
    raw_bytes: Annotated[int, Int64ul * "bytes of all data records before compression"]
    data_blocks: Annotated[int, Int64ul * "blocks of all data records and out-of-line xattrs"]
