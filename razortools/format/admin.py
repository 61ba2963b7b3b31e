"""Admin history: what was done to the image as a whole, when, by which version, with what result.

Every copy of the superblock holds the last entries, so a history survives what its superblock survives. An entry is in the first
sector, which a disk writes whole or not at all, and so comes with what it tells of; it is in the sectors behind as well, with the
older ones. What a power cut leaves of these must not make the whole invalid. So each ends with a checksum of its own, begun with
zero and not inverted, and thereby adds nothing to that of the superblock, which is the same whatever of these sectors has reached
the disk. What a sector then holds is two generations old, for slots take turns: hence two entries in the first one. The price is
that nobody notices a sector that was wiped, or is an older one. Less is told then, and nothing wrong.

Where the feature is not set all of it is zeros.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from enum import IntEnum
from typing import Annotated

import crc32c
from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64sl, Int64ul

import razortools
from razortools.format.record import Record, record

ADMIN_SECTOR_BYTES = 512  # what a disk writes whole or not at all
ADMIN_SECTORS = 7  # what is left of a superblock behind its first sector
ADMIN_SECTOR_ENTRIES = 14
OPENING_SECTORS = 3  # the first of them hold mounts, the others all else: mounting every day does not make a repair forgotten
_COUNT_MAX = (1 << 32) - 1
_DETAIL_MAX = (1 << 64) - 1
_INVERTED = 0xFFFF_FFFF


class Action(IntEnum):
    """What was done; behind it what `detail` tells."""

    MKFS = 1  # made: bytes of the image
    MOUNT = 2  # mounted for writing: transactions that were replayed
    DEBUG = 3  # opened for writing by razorfs-debug: transactions that were replayed
    CHECK = 4  # checked in full by razorfsck, which found nothing to repair
    REPAIR = 5  # repaired by razorfsck: problems that are left
    COMPACT = 6  # compacted by razorfsck: steps
    RESIZE = 7  # bytes of the image since then
    COMMIT = 8  # fields set by razorfs-debug: how many
    LABEL = 9  # another label
    UUID = 10  # another UUID
    FEATURE = 11  # a feature bit switched: the incompatible ones since then, the compatible ones 32 bits higher
    UNDELETE = 12  # inode number of the deleted file
    DEFRAG = 13  # files stored anew in one piece
    RECOMPRESS = 14  # files compressed in another way


class Outcome(IntEnum):
    """How it ended. What failed leaves the image as it was, and no entry."""

    DONE = 1
    RECOVERED = 2  # it had not been closed before, and its journal was replayed
    PROBLEMS_LEFT = 3  # not everything could be repaired


@record()
class AdminEntry(Record):
    """One entry of the admin history."""

    at_ns: Annotated[int, Int64sl * "when, nanoseconds since 1970"]
    number: Annotated[int, Int32ul * "counts the entries from 1; 0: no entry"]
    action: Annotated[int, Int8ul * "what was done"]
    outcome: Annotated[int, Int8ul * "how it ended"]
    version_major: Annotated[int, Int8ul * "version of razortools that did it"]
    version_minor: Annotated[int, Int8ul * "its second number"]
    version_patch: Annotated[int, Int16ul * "its third number"]
    reserved: Annotated[int, Int16ul * "zero"]
    errors: Annotated[int, Int32ul * "of a check or repair: errors that were found, fatal ones included"]
    warnings: Annotated[int, Int32ul * "of a check or repair: warnings that were found"]
    detail: Annotated[int, Int64ul * "what else there is to tell, see the actions"]

    @property
    def version(self) -> str:
        """The version as people write it."""
        return f"{self.version_major}.{self.version_minor}.{self.version_patch}"


ADMIN_ENTRY_BYTES = AdminEntry.FIXED_BYTES
ADMIN_HISTORY_BYTES = ADMIN_SECTORS * ADMIN_SECTOR_BYTES
_ENTRIES_BYTES = ADMIN_SECTOR_ENTRIES * ADMIN_ENTRY_BYTES
_SEALED_BYTES = ADMIN_SECTOR_BYTES - 4
_NUMBER = next(at for at, field in enumerate(AdminEntry.FIELDS) if field.name == "number")


@record()
class AdminSector(Record):
    """One sector of entries, in no order; what is not used yet is zeros."""

    entries: Annotated[bytes, Bytes(_ENTRIES_BYTES) * "entries side by side, see AdminEntry"]
    reserved: Annotated[int, Int32ul * "zero"]
    check: Annotated[int, Int32ul * "CRC32C of what is before it in the sector, begun with zero, not inverted"]


assert AdminSector.FIXED_BYTES == ADMIN_SECTOR_BYTES
EMPTY_HISTORY = bytes(ADMIN_HISTORY_BYTES)
NO_ENTRY = AdminEntry(*(0 for _ in AdminEntry.FIELDS))
_OPENINGS = (Action.MOUNT, Action.DEBUG)


def entry(action: Action, at_ns: int, outcome: Outcome = Outcome.DONE, *, detail: int = 0, errors: int = 0,
          warnings: int = 0) -> AdminEntry:  # fmt: skip
    """Return the entry of what this version does at *at_ns*; it has no number yet."""
    major, minor, patch = map(int, re.findall("[0-9]+", razortools.__version__)[:3])
    counts = min(errors, _COUNT_MAX), min(warnings, _COUNT_MAX)
    return AdminEntry(at_ns, 0, int(action), int(outcome), major, minor, patch, 0, *counts, min(detail, _DETAIL_MAX))


def entries(history: bytes) -> Iterator[AdminEntry]:
    """Yield the entries of the sectors that verify, in no order."""
    for number in range(ADMIN_SECTORS):
        sector = _sector(history, number)
        for place, fields in enumerate(AdminEntry.STRUCT.iter_unpack(sector[:_ENTRIES_BYTES])):
            if fields[_NUMBER]:
                yield AdminEntry.decode(sector[place * ADMIN_ENTRY_BYTES : (place + 1) * ADMIN_ENTRY_BYTES])


def with_entry(history: bytes, added: AdminEntry) -> bytes:
    """Return *history* with *added* in the place of its number, or of the oldest of its kind. One sector changes, or none."""
    numbers = range(OPENING_SECTORS) if added.action in _OPENINGS else range(OPENING_SECTORS, ADMIN_SECTORS)
    places = {
        (number, place): fields[_NUMBER]
        for number in numbers
        for place, fields in enumerate(AdminEntry.STRUCT.iter_unpack(_sector(history, number)[:_ENTRIES_BYTES]))
    }
    number, place = min(places, key=lambda where: -1 if places[where] == added.number else places[where])
    at = place * ADMIN_ENTRY_BYTES
    raw = bytearray(_sector(history, number))
    raw[at : at + ADMIN_ENTRY_BYTES] = added.encode()
    start = number * ADMIN_SECTOR_BYTES
    return history[:start] + _sealed(bytes(raw)) + history[start + ADMIN_SECTOR_BYTES :]


def history_fault(history: bytes) -> str:
    """Return which sector of a history does not verify, or an empty string."""
    wrong = [number for number in range(ADMIN_SECTORS) if not _verifies(_raw_sector(history, number))]
    return f"sector {wrong[0]} of its admin history does not verify" if wrong else ""


def _raw_sector(history: bytes, number: int) -> bytes:
    return history[number * ADMIN_SECTOR_BYTES : (number + 1) * ADMIN_SECTOR_BYTES]


def _sector(history: bytes, number: int) -> bytes:
    """Return a sector; zeros for one that does not verify."""
    raw = _raw_sector(history, number)
    return raw if _verifies(raw) else bytes(ADMIN_SECTOR_BYTES)


def _sealed(raw: bytes) -> bytes:
    """Return a sector with a right checksum."""
    return replace(AdminSector.decode(raw), check=crc32c.crc32c(raw[:_SEALED_BYTES], _INVERTED) ^ _INVERTED).encode()


def _verifies(raw: bytes) -> bool:
    return crc32c.crc32c(raw, _INVERTED) == _INVERTED  # the remainder of a sector and its checksum is zero
