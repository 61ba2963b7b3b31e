"""What a transaction knows of its changes, and what it says they will take in the journal."""

from hypothesis import given
from hypothesis import strategies as st

from razortools.engine import attributes
from razortools.engine.attributes import AttributeChange
from razortools.engine.store.transaction import Transaction
from razortools.format.inode import ROOT_INODE
from razortools.format.journal import ENTRY_HEAD_BYTES, Operation
from tests.engine.volumes import new_volume

VALUES = st.none() | st.binary(max_size=40)


@given(changes=st.lists(st.lists(st.tuples(st.integers(0, 5), VALUES), max_size=6), max_size=12))
def test_it_keeps_the_first_and_the_last_value_of_each_key_and_counts_these_alone(
    changes: list[list[tuple[int, bytes | None]]],
) -> None:
    transaction = Transaction(1)
    touched = False
    now: dict[bytes, bytes | None] = {}
    first: dict[bytes, tuple[bytes | None, int, int]] = {}
    for number, operation in enumerate(changes):
        steps = []
        for key_no, after in operation:
            key = bytes([key_no]) * 18
            before = now.get(key, b"old" if key_no % 2 else None)
            if before is None and after is None:  # the store takes no such step
                continue
            first.setdefault(key, (before, int(Operation.WRITE), number))
            steps.append((key, before, after))
            now[key] = after
            if after is None and first[key][0] is None:  # made and removed: it never was
                del now[key], first[key]
        transaction.note(steps, Operation.WRITE, number)
        touched = touched or bool(steps)
    assert (transaction.undo, transaction.redo) == (first, now)
    assert transaction.is_empty == (not touched)
    assert list(transaction.undo) == list(transaction.redo)  # the journal walks them side by side
    sizes = [len(value or b"") for value in (*now.values(), *(before for before, _, _ in first.values()))]
    assert transaction.estimated_bytes == len(now) * ENTRY_HEAD_BYTES + sum(sizes)


def test_a_key_that_changes_often_takes_no_more_room_in_the_journal_than_one_that_changes_once() -> None:
    volume = new_volume()
    generation = volume.store.superblock.generation
    for number in range(5000):
        attributes.setattr(volume, ROOT_INODE, AttributeChange(mtime_ns=number))
    assert volume.store.superblock.generation == generation, "room was made by a checkpoint that nobody needed"
