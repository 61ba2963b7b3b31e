"""Transactions: what changed since the last commit, key by key, with the values before and after.

What is noted is kept as values until PART_KEYS keys have changed; the journal then encodes them as one part, and noting starts
anew. So what is noted stays in the processor's cache, each value is encoded while it is still there, and a long transaction
lies in memory as bytes. A key costs one entry a part however often it changes. Within a transaction each operation keeps its own
way back, so an operation that fails half-way leaves nothing. Invariants: undoing what is noted, then the parts from the last to
the first, gives the state of the last commit; a part holds whole operations.
"""

from dataclasses import dataclass, field

from razortools.format.data import Run
from razortools.format.journal import ENTRY_HEAD_BYTES, Operation

# Fewer keys: what is changed again soon after takes an entry more often. More: they leave the cache.
PART_KEYS = 512

Step = tuple[bytes, bytes | None, bytes | None]  # key, value before, value after; None: absent
Origin = tuple[Operation, int, int]  # operation, inode, how many keys had changed after it


@dataclass(slots=True)
class Transaction:
    """A set of changes that becomes durable as a whole."""

    number: int
    # What the parts do not hold yet. A map and lists side by side, in the order in which keys changed first: what changes again
    # is one store into the map, and bytes are nothing that Python's garbage collector has to follow.
    redo: dict[bytes, bytes | None] = field(default_factory=dict)  # value now
    before: list[bytes | None] = field(default_factory=list)  # value before, for each key of redo
    origins: list[Origin] = field(default_factory=list)  # the operations that changed one first
    parts: list[bytes] = field(default_factory=list)  # encoded
    entry_count: int = 0  # in the parts
    freed: list[Run] = field(default_factory=list)  # blocks that its changes let go
    placed: list[Run] = field(default_factory=list)  # blocks that its changes took
    operation_count: int = 0
    parts_bytes: int = 0
    # How many more bytes fit into the journal for certain. Each step takes the most that one can, which is a subtraction instead
    # of looking at its values; whoever finds too little left measures anew.
    slack_bytes: int = -1

    def note(self, steps: list[Step], operation: Operation, inode: int) -> int:
        """Record what an operation changed, in order. Return how many keys are noted."""
        redo, add_before = self.redo, self.before.append
        known = len(redo)
        for key, before, after in steps:
            if key not in redo:
                add_before(before)
            redo[key] = after
        count = len(redo)
        if count != known:
            self.origins.append((operation, inode, count))
        return count

    def measure(self) -> int:
        """Return the bytes of its journal entries, without the commit entry: never less than they will be."""
        values = sum(map(len, filter(None, self.before))) + sum(map(len, filter(None, self.redo.values())))
        return self.parts_bytes + len(self.redo) * ENTRY_HEAD_BYTES + values

    def end_part(self, encoded: bytes, entry_count: int) -> None:
        """Keep *encoded*, which holds *entry_count* entries, in place of what was noted."""
        self.parts.append(encoded)
        self.parts_bytes += len(encoded)
        self.entry_count += entry_count
        self.redo.clear()
        self.before.clear()
        self.origins.clear()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was changed, not even something that was changed back: that may have let blocks go."""
        return not self.redo and not self.parts


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
