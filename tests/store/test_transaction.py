"""What a transaction knows of its changes, and what it says they will take in the journal."""

from collections import Counter
from collections.abc import Callable
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from razortools.engine import attributes
from razortools.engine.attributes import AttributeChange
from razortools.engine.store.journal import undo_values
from razortools.engine.store.transaction import PART_KEYS, Step, Transaction
from razortools.format.inode import ROOT_INODE
from razortools.format.journal import ENTRY_HEAD_BYTES, Operation
from razortools.format.keys import name_key
from razortools.units import NameId
from tests.engine.volumes import new_volume

VALUES = st.none() | st.binary(max_size=40)
VOLUME = new_volume()  # for its journal: nothing is written

Items = dict[bytes, bytes]
Changes = list[list[tuple[int, bytes | None]]]  # operations: which keys they set to what; None: deleted
CHANGES = st.lists(st.lists(st.tuples(st.integers(0, 5), VALUES), max_size=6), max_size=12)


def key_of(number: int) -> bytes:
    return bytes([number]) * 18


def do(changes: Changes, transaction: Transaction, after_each: Callable[[], None]) -> tuple[Items, Items]:
    """Let *transaction* note *changes*; return the items before and after."""
    before = {key_of(number): b"old" for number in (1, 3, 5)}
    now = dict(before)
    for number, operation in enumerate(changes):
        steps: list[Step] = []
        for key_no, after in operation:
            key = key_of(key_no)
            if key not in now and after is None:  # the store takes no such step
                continue
            steps.append((key, now.get(key), after))
            if after is None:
                del now[key]
            else:
                now[key] = after
        transaction.note(steps, Operation.WRITE, number)
        after_each()
    return before, now


@given(changes=CHANGES)
def test_it_keeps_the_first_and_the_last_value_of_each_key_and_counts_these_alone(changes: Changes) -> None:
    transaction = Transaction(1)
    before, now = do(changes, transaction, lambda: None)
    first: dict[bytes, int] = {}
    present = set(before)
    for number, operation in enumerate(changes):
        for key_no, after in operation:
            if key_of(key_no) in present or after is not None:
                first.setdefault(key_of(key_no), number)
            (present.discard if after is None else present.add)(key_of(key_no))
    assert transaction.redo == {key: now.get(key) for key in first}
    assert list(transaction.redo) == list(first)  # the journal walks them side by side
    assert transaction.before == [before.get(key) for key in first]
    counts = Counter(first.values())
    ends = dict(zip(counts, accumulate(counts.values()), strict=True))
    assert transaction.origins == [(Operation.WRITE, number, end) for number, end in ends.items()]
    assert transaction.is_empty == (not first)
    sizes = [len(value or b"") for value in (*transaction.before, *transaction.redo.values())]
    assert transaction.measure() == len(first) * ENTRY_HEAD_BYTES + sum(sizes)


@given(changes=CHANGES, ends=st.lists(st.booleans(), min_size=12, max_size=12))
def test_in_parts_it_can_be_undone_and_takes_no_more_room_than_it_said(changes: Changes, ends: list[bool]) -> None:
    journal = VOLUME.store.journal
    transaction = Transaction(1)
    end = iter(ends)
    before, now = do(changes, transaction, lambda: journal.encode_part(transaction) if next(end) else None)
    back = list(zip(transaction.redo, transaction.before, strict=True))
    for part in reversed(transaction.parts):
        back += undo_values(part)
    for key, value in back:
        if value is None:
            now.pop(key, None)
        else:
            now[key] = value
    assert now == before
    promised = transaction.measure()
    journal.encode_part(transaction)
    assert sum(map(len, transaction.parts)) == transaction.measure() <= promised


def test_what_was_made_and_removed_within_a_part_leaves_no_entry() -> None:
    transaction = Transaction(1)
    transaction.note([(key_of(0), None, b"made")], Operation.CREATE, 1)
    transaction.note([(key_of(0), b"made", None)], Operation.UNLINK, 1)
    VOLUME.store.journal.encode_part(transaction)
    assert (transaction.entry_count, transaction.measure()) == (0, 0)
    assert not transaction.is_empty  # it may have let blocks go


def test_a_key_that_changes_often_takes_no_more_room_in_the_journal_than_one_that_changes_once() -> None:
    volume = new_volume()
    generation = volume.store.superblock.generation
    for number in range(5000):
        attributes.setattr(volume, ROOT_INODE, AttributeChange(mtime_ns=number))
    assert volume.store.superblock.generation == generation, "room was made by a checkpoint that nobody needed"
    assert len(volume.store.transaction.origins) <= PART_KEYS, "what changes nothing new takes memory"


@given(operations=st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 300)), min_size=1, max_size=4), max_size=12))
def test_the_slack_that_a_transaction_counts_down_is_never_more_than_there_is(operations: list[list[tuple[int, int]]]) -> None:
    store = new_volume().store
    ring = store.journal.ring_bytes - store.journal.used_bytes - store.room.operation_journal_bytes
    assert store.room.journal_has(0)
    for number, operation in enumerate(operations):
        with store.operation(Operation.REPAIR, number):
            for key_no, length in operation:
                store.put(name_key(NameId(1000 + key_no)), bytes(length))
        assert store.transaction.slack_bytes <= ring - store.transaction.measure()
    counted = store.transaction.slack_bytes
    assert store.room.journal_has(0) and store.transaction.slack_bytes >= counted


def test_when_little_is_left_of_the_journal_the_transaction_is_measured() -> None:
    store = new_volume().store
    with store.operation(Operation.REPAIR, 0):
        store.put(name_key(NameId(1000)), bytes(100))
    assert store.room.journal_has(0)
    room = store.transaction.slack_bytes
    with store.operation(Operation.REPAIR, 0):
        store.put(name_key(NameId(1001)), bytes(100))
    left = room - ENTRY_HEAD_BYTES - 100
    assert store.transaction.slack_bytes < left
    assert store.room.has(0, 0, left, deleting=False)
    assert not store.room.has(0, 0, left + 1, deleting=False)
