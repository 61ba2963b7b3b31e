"""Transactions: what changed since the last commit, key by key, with the values before and after.

What is noted is kept as maps of values until PART_KEYS keys have changed; the journal then encodes them as one part, and the maps
start anew. So the maps stay in the processor's cache, each value is encoded while it is still there, and a long transaction
lies in memory as bytes. A key costs one entry a part however often it changes. Within a transaction each operation keeps its own
way back, so an operation that fails half-way leaves nothing. Invariants: undoing the maps, then the parts from the last to the
first, gives the state of the last commit; a part holds whole operations.
"""

from dataclasses import dataclass, field

from razortools.format.data import Run
from razortools.format.journal import ENTRY_HEAD_BYTES, Operation

# Fewer keys: what is changed again soon after takes an entry more often. More: the maps leave the cache.
PART_KEYS = 512

Step = tuple[bytes, bytes | None, bytes | None]  # key, value before, value after; None: absent
Origin = tuple[Operation, int]  # operation, inode


@dataclass(slots=True)
class Transaction:
    """A set of changes that becomes durable as a whole."""

    number: int
    # What the parts do not hold yet. Two maps and a list side by side: what changes again is one store into the second map, and
    # maps from bytes to bytes are nothing that Python's garbage collector has to follow.
    undo: dict[bytes, bytes | None] = field(default_factory=dict)  # value before
    redo: dict[bytes, bytes | None] = field(default_factory=dict)  # value now
    origins: list[Origin] = field(default_factory=list)  # what changed it first
    parts: list[bytes] = field(default_factory=list)  # encoded
    entry_count: int = 0  # in the parts
    freed: list[Run] = field(default_factory=list)  # blocks that its changes let go
    placed: list[Run] = field(default_factory=list)  # blocks that its changes took
    operation_count: int = 0
    parts_bytes: int = 0
    estimated_bytes: int = 0  # of its journal entries, without the commit entry: never less than they will be

    def note(self, steps: list[Step], operation: Operation, inode: int) -> None:
        """Record what an operation changed, in order."""
        undo, redo = self.undo, self.redo
        origin = (operation, inode)
        grown = 0
        for key, before, after in steps:
            if key in undo:
                if before is not None:  # what a step finds is what the step before it left: that entry shrinks by it
                    grown -= len(before)
            else:
                undo[key] = before
                self.origins.append(origin)
                grown += ENTRY_HEAD_BYTES if before is None else ENTRY_HEAD_BYTES + len(before)
            redo[key] = after
            if after is not None:
                grown += len(after)
        self.estimated_bytes += grown

    def end_part(self, encoded: bytes, entry_count: int) -> None:
        """Keep *encoded*, which holds *entry_count* entries, in place of the maps."""
        self.parts.append(encoded)
        self.parts_bytes += len(encoded)
        self.entry_count += entry_count
        self.estimated_bytes = self.parts_bytes
        self.undo.clear()
        self.redo.clear()
        self.origins.clear()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was changed, not even something that was changed back: that may have let blocks go."""
        return not self.undo and not self.parts


class UnloggedTransaction(Transaction):
    """A transaction of which only the blocks are remembered: for measuring what the journal costs."""

    __slots__ = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was done."""
        return not self.operation_count


@dataclass(slots=True)
class RunningOperation:
    """The operation under way: how to take it back."""

    operation: Operation = Operation.COUNTERS
    inode: int = 0
    active: bool = False
    steps: list[Step] = field(default_factory=list)
    freed: list[Run] = field(default_factory=list)
    placed: list[Run] = field(default_factory=list)
