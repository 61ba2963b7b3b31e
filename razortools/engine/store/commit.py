"""Commits: how the running transaction ends. It is encoded and written to the journal with one flush, or it is dropped.

Freezing encodes in memory and cannot fail; writing is I/O only; finishing says that the device holds it. Invariants: nothing is
added to a transaction that is frozen; one that is dropped leaves items and blocks as they were before it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from razortools.engine.store.journal import undo_values
from razortools.engine.store.transaction import Transaction

if TYPE_CHECKING:
    from razortools.engine.store.store import Store


@dataclass(frozen=True, slots=True)
class FrozenCommit:
    """A transaction that nothing is added to any more, encoded, on its way to the journal."""

    number: int
    position: int
    parts: tuple[bytes, ...]
    last_sequence: int


def freeze(store: "Store", now_ns: int) -> FrozenCommit | None:
    """End the running transaction; return what must be written, or None if nothing changed.

    Raises nothing. A transaction too large for the ring gets no position and is not journaled: the caller makes a
    checkpoint instead, which is as atomic.
    """
    transaction, journal = store.transaction, store.journal
    if transaction.is_empty:
        return None
    parts = journal.encode(transaction, now_ns) if store.journaling else ()
    length = sum(map(len, parts))
    position = journal.place(length) if journal.fits(length) else -1
    end_transaction(store)
    return FrozenCommit(transaction.number, position, parts, journal.next_sequence - 1)


def end_transaction(store: "Store") -> None:
    """What is changed from now on belongs to the next transaction; what this one let go is free after a checkpoint."""
    store.maps.free_later(store.transaction.freed)
    store.transaction = type(store.transaction)(store.transaction.number + 1)


def write(store: "Store", frozen: FrozenCommit) -> None:
    """Write and flush a frozen transaction. May run in a thread. Raises DeviceFailed."""
    assert frozen.position >= 0, "a transaction larger than the journal needs a checkpoint"
    if frozen.parts:
        store.journal.write(frozen.position, frozen.parts)
    store.device.flush()


def finish(store: "Store", frozen: FrozenCommit) -> None:
    """The frozen transaction is durable."""
    store.journal.note_flushed(frozen.last_sequence)


def drop(store: "Store") -> list[bytes]:
    """Make items and blocks what they were before the running transaction; return the keys that had changed.

    Nothing may be under way to the device.
    """
    assert store.journaling, "without a journal nobody knows what there was before"
    transaction, tree = store.transaction, store.tree
    changes = list(zip(transaction.redo, transaction.before, strict=True))
    for part in reversed(transaction.parts):
        changes += undo_values(part)
    for key, before in changes:
        if before is None:
            tree.delete(key)
        else:
            tree.put(key, before)
    # Blocks that it took and let go again stand in both lists; each is free exactly once.
    for start, count in dict(transaction.placed).items():
        store.maps.free_now(start, count)
    store.transaction = Transaction(transaction.number)
    return [key for key, _ in changes]
