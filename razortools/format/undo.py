"""Undo files: what a repair needs to be taken back, bit for bit. No part of an image; razorfsck keeps one beside it.

    header    512 bytes
    pages     what each page of the image held before a stage of the repair wrote it, in the order of the stages
    end       how many pages there are, and a checksum over their checksums
    mark      in the last 512 bytes of the file, which begin at a multiple of 512: what became of the repair

A repair is written in stages, and a flush ends each. Taking it back goes through the stages the other way round, so the image is
the old filesystem or the new one at every moment of both. Wherever the repair or its taking back was cut off, every sector of a
page that is named here holds what stands here or what the repair wrote, which its checksum tells. A sector that holds anything
else was written by somebody else since, and then the repair cannot be taken back any more.
"""

from enum import IntEnum, IntFlag
from typing import Annotated

from construct import Bytes, GreedyBytes, Int8ul, Int32ul, Int64sl, Int64ul

from razortools.format.record import Record, record

UNDO_MAGIC = b"RZUNDO\x00\x01"
UNDO_VERSION = 1
UNDO_PAGE_BYTES = 4096  # what is kept at once
UNDO_SECTOR_BYTES = 512  # what a disk writes whole or not at all
SECTORS_PER_PAGE = 8
_RESERVED_BYTES = 436
_AFTER_BYTES = 4 * SECTORS_PER_PAGE


class Stage(IntEnum):
    """When a page is written. Each stage is flushed before the next one begins."""

    MARK = 0  # a superblock like the old one that asks for a check
    AHEAD = 1  # what the old filesystem does not need, and the new one does
    TRUTH = 2  # the superblock slot that makes the new filesystem the truth
    BEHIND = 3  # what the new filesystem does not need any more


class PageFlag(IntFlag):
    """What is special about a page."""

    ZEROS = 1  # it held nothing but zeros, which are not stored


class Fate(IntEnum):
    """What became of the repair that an undo file belongs to."""

    BEGUN = 1  # it may have been cut off
    WRITTEN = 2  # it is complete
    TAKEN_BACK = 3  # the image is what it was: the file is not needed any more


@record(magic=UNDO_MAGIC)
class UndoHeader(Record):
    """Head of an undo file."""

    version: Annotated[int, Int32ul * "1; another number cannot be read"]
    page_bytes: Annotated[int, Int32ul * "size of a page"]
    uuid: Annotated[bytes, Bytes(16) * "identity of the filesystem as the repair leaves it"]
    generation: Annotated[int, Int64ul * "generation that the repair leaves"]
    made_at_ns: Annotated[int, Int64sl * "when the repair began to write, nanoseconds since 1970"]
    bytes_before: Annotated[int, Int64ul * "length of the image before"]
    bytes_after: Annotated[int, Int64ul * "length of the image after"]
    file_bytes: Annotated[int, Int64ul * "length of this file"]
    reserved: Annotated[bytes, Bytes(_RESERVED_BYTES) * "zeros"]


@record(magic=b"RZUP")
class UndoPage(Record):
    """One page of the image as it was before a stage of the repair wrote it. The checksum covers the contents as well."""

    number: Annotated[int, Int64ul * "number of the page in this file, from 0"]
    offset: Annotated[int, Int64ul * "where it lies in the image, in bytes"]
    length: Annotated[int, Int32ul * "its length: less than a page only at the end of the image"]
    stage: Annotated[int, Int8ul * "when it is written"]
    flags: Annotated[int, Int8ul * "bit 0: it held only zeros, and no contents follow"]
    unreadable: Annotated[int, Int8ul * "bit 0 for the first sector and so on: it could not be read, zeros stand for it"]
    reserved: Annotated[int, Int8ul * "zero"]
    after: Annotated[bytes, Bytes(_AFTER_BYTES) * "CRC32C (u32) of each sector as the repair writes it, zeros behind the end"]
    before: Annotated[bytes, GreedyBytes * "what it held"] = b""


@record(magic=b"RZUE")
class UndoEnd(Record):
    """Behind the last page: the file is whole."""

    page_count: Annotated[int, Int64ul * "pages in the file"]
    checksums: Annotated[int, Int32ul * "CRC32C of the checksums (u32) of all pages, in their order"]


@record(magic=b"RZUM")
class UndoMark(Record):
    """The last sector, rewritten in place. If it cannot be read, the repair may have been cut off."""

    fate: Annotated[int, Int32ul * "what became of the repair"]
    at_ns: Annotated[int, Int64sl * "since when, nanoseconds since 1970"]


UNDO_HEAD_BYTES = UndoHeader.FIXED_BYTES + UndoHeader.skipped_bytes()
UNDO_PAGE_HEAD_BYTES = UndoPage.FIXED_BYTES + UndoPage.skipped_bytes()
UNDO_END_BYTES = UndoEnd.FIXED_BYTES + UndoEnd.skipped_bytes()
UNDO_MARK_BYTES = UndoMark.FIXED_BYTES + UndoMark.skipped_bytes()
assert UNDO_HEAD_BYTES == UNDO_SECTOR_BYTES
