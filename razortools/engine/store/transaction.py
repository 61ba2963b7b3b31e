"""Transactions: what changed since the last commit, key by key, with the values before and after.

Hot keys cost one entry a commit however often they change. Within a transaction each operation keeps its own way back, so an
operation that fails half-way leaves nothing. Invariant: undoing all entries gives the state of the last commit.
"""

from dataclasses import dataclass, field

from razortools.format.data import Run
from razortools.format.journal import ENTRY_HEAD_BYTES, Operation

Step = tuple[bytes, bytes | None, bytes | None]  # key, value before, value after; None: absent
First = tuple[bytes | None, int, int]  # value before the transaction; the operation and inode that changed it first


@dataclass(slots=True)
class Transaction:
    """A set of changes that becomes durable as a whole."""

    number: int
    # Two maps with the same keys in the same order: what changes often is one store into the second. Their values are bytes and
    # plain tuples, which Python's garbage collector soon stops to follow.
    undo: dict[bytes, First] = field(default_factory=dict)
    redo: dict[bytes, bytes | None] = field(default_factory=dict)  # value now
    freed: list[Run] = field(default_factory=list)  # blocks that its changes let go
    placed: list[Run] = field(default_factory=list)  # blocks that its changes took
    operation_count: int = 0
    is_touched: bool = False
    estimated_bytes: int = 0  # of its journal entries, without the commit entry

    def note(self, steps: list[Step], operation: Operation, inode: int) -> None:
        """Record what an operation changed, in order. What was made and removed since the last commit leaves no trace."""
        undo, redo = self.undo, self.redo
        number = int(operation)  # a member of an enumeration is an object that the garbage collector follows
        grown = 0
        for key, before, after in steps:
            first = undo.get(key)
            if first is None:
                undo[key] = (before, number, inode)
                grown += ENTRY_HEAD_BYTES
                if before is not None:
                    grown += len(before)
            else:
                if before is not None:  # what a step finds is what the step before it left: that entry shrinks by it
                    grown -= len(before)
                if after is None and first[0] is None:
                    del undo[key], redo[key]
                    grown -= ENTRY_HEAD_BYTES
                    continue
            if after is not None:
                grown += len(after)
            redo[key] = after
        self.is_touched = self.is_touched or bool(steps)
        self.estimated_bytes += grown

    @property
    def is_empty(self) -> bool:
        """Whether nothing was changed, not even something that was changed back: that may have let blocks go."""
        return not self.is_touched


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
