"""Findings: what a pass found wrong, as values. A pass yields them and tells how far it is; it never prints or writes."""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any

from razortools.units import BlockNo, InodeNo


class Severity(IntEnum):
    """How bad a problem is. Ordered: a phase shows its worst."""

    NOTE = 0  # nothing is wrong; worth knowing
    WARNING = 1  # wrong, but no file is hurt
    ERROR = 2  # files or directories are hurt, or will be by the next change
    FATAL = 3  # the check cannot go on; nothing was judged

    @property
    def word(self) -> str:
        """The name in JSON and on screen."""
        return self.name.lower()


class Repair(Enum):
    """What a repair does about a problem. The text completes "repair will ..."; *safe*: nothing is destroyed by it."""

    NOTHING = "do nothing: there is nothing to do", True
    REPLAY = "replay the journal, as every mount does", True
    EXPECT_WAITING = "expect what waits in the journal, and replay it", True
    REWRITE_COPY = "write the good copy over the bad one", True
    REWRITE_CHECKSUM = "compute the second checksum from the data, which verify", True
    GIVE_BACK = "take the mark away, so that the bytes can be read again", True
    RECOUNT = "set the number to what was counted", True
    RESET_STATE = "clear the mark once a full check finds nothing", True
    FINISH_ORPHAN = "finish the deletion, as every mount does", True
    FREE_BLOCKS = "mark the blocks as free", True
    MARK_USED = "mark the blocks as used", True
    REBUILD_MAP = "compute the space map anew from the tree", True
    REBUILD_LINK = "write the missing half from the other half", True
    DROP_NAME = "remove the name that nothing uses", True
    RESET_FIELD = "set the field to a value that is allowed", False
    RESIZE_RECORDS = "set the record size to the one that all records of the file agree with", False
    DROP_ITEM = "remove the item that makes no sense", False
    DROP_ENTRY = "remove the entry; what it named is in lost+found if anything of it is left", False
    RENAME_ENTRY = "give one of the two another name", False
    MAKE_INODE = "make an inode for what is left, closed to others; without a name it goes to lost+found", False
    NAME_BY_NUMBER = "give it the name #NUMBER in its directory, unless its back link tells the right one", False
    LOST_AND_FOUND = "put it into lost+found under its last known name", False
    COPY_SHARED = "give each owner a copy of its own; the checksum tells which owner's data it is", False
    CUT_OUT = "keep the rest of the file; reading these bytes gives an I/O error", False
    CUT_JOURNAL = "replay what verifies and drop the rest", False
    REPLAY_AS_MEANT = "replay the journal, and put what makes no sense where it was meant to be, if that can be told", False
    REBUILD_TREE = "rebuild the tree from the nodes that a scan finds", False
    BY_HAND = "not be able to help; see the risk and cause", False

    def __init__(self, sentence: str, safe: bool) -> None:
        self.sentence = sentence
        self.safe = safe


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong. *path* keeps bytes that are no UTF-8 as lone surrogates (os.fsencode gives them back)."""

    code: str
    severity: Severity
    message: str
    where: str  # for people: "block 12", "bytes 0 to 131071", "inode 7"
    path: str | None = None  # the file or directory that is hurt
    repair: str  # completes "repair will ..."
    repaired: bool = False
    count: int = 1  # how many of the problem's noun this stands for
    inode: InodeNo | None = None
    block: BlockNo | None = None
    byte_range: tuple[int, int] | None = None  # first byte of the file, first byte behind
    key: bytes | None = None  # the item concerned
    values: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # what the sentence was filled with


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pass is. *total* is an estimate; 0: unknown."""

    done: int
    total: int


Event = Finding | Progress
