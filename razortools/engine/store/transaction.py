"""Transactions: what changed since the last commit, key by key, with the values before and after.

Hot keys cost one entry a commit however often they change. Within a transaction each operation keeps its own way back, so an
operation that fails half-way leaves nothing. Invariant: undoing all entries gives the state of the last commit.
"""

from dataclasses import dataclass, field

from razortools.format.data import Run
from razortools.format.journal import ENTRY_HEAD_BYTES, Operation


class Change:
    """What a transaction did to one key."""

    __slots__ = ("inode", "operation", "redo", "undo")

    def __init__(self, undo: bytes | None, redo: bytes | None, operation: int, inode: int) -> None:
        self.undo = undo  # value before the transaction, None: absent
        self.redo = redo  # value now
        self.operation = operation  # the operation that changed it first
        self.inode = inode


@dataclass(slots=True)
class Transaction:
    """A set of changes that becomes durable as a whole."""

    number: int
    changes: dict[bytes, Change] = field(default_factory=dict)
    freed: list[Run] = field(default_factory=list)  # blocks that its changes let go
    placed: list[Run] = field(default_factory=list)  # blocks that its changes took
    operation_count: int = 0
    estimated_bytes: int = 0  # of its journal entries

    def note(self, key: bytes, before: bytes | None, after: bytes | None, operation: int, inode: int) -> None:
        """Record that *key* went from *before* to *after*."""
        change = self.changes.get(key)
        if change is not None:
            change.redo = after
            self.estimated_bytes += len(after) if after is not None else 0
            return
        self.changes[key] = Change(before, after, operation, inode)
        self.estimated_bytes += ENTRY_HEAD_BYTES + (len(before) if before else 0) + (len(after) if after else 0)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was changed."""
        return not self.changes

    def effective(self) -> list[tuple[bytes, Change]]:
        """Return the changes that changed something in the end."""
        return [(key, change) for key, change in self.changes.items() if change.undo != change.redo]


@dataclass(slots=True)
class RunningOperation:
    """The operation under way: how to take it back."""

    operation: Operation = Operation.COUNTERS
    inode: int = 0
    active: bool = False
    steps: list[tuple[bytes, bytes | None, bytes | None]] = field(default_factory=list)  # key, before, after
    freed: list[Run] = field(default_factory=list)
    placed: list[Run] = field(default_factory=list)
