"""Arrival: whether the data that a transaction names got to the device with it. One flush serves both, so it need not have.

What counts is what the transaction made of each record in the end. A transaction may be as large as the ring, and change more
records than memory holds. So its changes are put together in rounds: each walks all entries and keeps those of some of the keys.
"""

from collections.abc import Generator, Iterator
from contextlib import suppress

import crc32c

from razortools.engine.store.journal_reader import LoggedTransaction
from razortools.engine.store.store import Store
from razortools.errors import CorruptImage
from razortools.format.data import DataRecord, late_part
from razortools.format.items import OWNING_KINDS, owned_record
from razortools.format.keys import KIND_AT
from razortools.units import MIB

Change = tuple[bytes | None, bytes | None]  # value before, value after, whatever it was in between; None: absent
ROUND_BYTES = 32 * MIB  # of memory that the changes of a round take
CHANGE_BYTES = 300  # that a change takes beside its values
STEP_ENTRIES = 10_000  # between two signs


def data_arrived(store: Store, transaction: LoggedTransaction) -> Generator[float, None, bool]:
    """Return whether all data that *transaction* wrote verifies; yield how far it is, from 0 to 1.

    Raises DeviceFailed: what cannot be read now may have arrived all the same, and may have been acknowledged.
    """
    reached = 0.0
    for share, until, changes in owning_changes(transaction):
        reached = max(reached, share)
        yield reached
        for number, (key, (before, after)) in enumerate(changes.items()):
            new = owned_record(key, after) if after is not None else None
            if new is not None and not _verifies(store, owned_record(key, before) if before is not None else None, new):
                return False
            if new is not None or not number % STEP_ENTRIES:
                reached = max(reached, share + (until - share) * number / len(changes))
                yield reached
    return True


def owning_changes(transaction: LoggedTransaction) -> Iterator[tuple[float, float, dict[bytes, Change]]]:
    """Yield the changes of all items that may own blocks and that *transaction* changed, in as few rounds as memory allows.

    In front of them how far it is, from 0 to 1, and how far once they have been looked at; from time to time there are none.
    """
    number, rounds = 0, 1
    while number < rounds:
        changes: dict[bytes, Change] = {}
        taken_bytes = 0
        for at, entry in enumerate(transaction.entries):
            if not at % STEP_ENTRIES:
                share = (number + at / len(transaction.entries) / 2) / rounds
                yield share, share, {}
            key = entry.head.key
            if key[KIND_AT] not in OWNING_KINDS or hash(key) % rounds != number:
                continue
            known = changes.get(key)
            change = changes[key] = (entry.undo if known is None else known[0]), entry.redo
            taken_bytes += _cost(change) - (_cost(known) if known is not None else 0)
            while taken_bytes > ROUND_BYTES:
                rounds *= 2  # the keys of the rounds before are those of as many of them, so none is left out
                changes = {key: change for key, change in changes.items() if hash(key) % rounds == number}
                taken_bytes = sum(map(_cost, changes.values()))
        yield (number + 0.5) / rounds, (number + 1) / rounds, changes
        number += 1


def _cost(change: Change) -> int:
    """Return the bytes of memory that a change takes, about."""
    before, after = change
    return CHANGE_BYTES + len(before or b"") + len(after or b"")


def _verifies(store: Store, old: DataRecord | None, new: DataRecord) -> bool:
    """Return whether what was written to make *new* of *old* verifies: of late pages, only these.

    What lies before them was not read, nor written. If it is damaged, that is no reason to take back what was acknowledged.
    Looked at twice: a bit that flipped on its way here must not pass for lost data.
    """
    for _ in range(2):
        with suppress(CorruptImage):
            late = late_part(old, new, store.block_bytes)
            if late is None:
                store.read_record(new)
                return True
            runs, checksum = late
            for start, count in runs:
                checksum = crc32c.crc32c(store.device.read(start * store.block_bytes, count * store.block_bytes), checksum)
            if checksum == new.crc32c:
                return True
    return False
