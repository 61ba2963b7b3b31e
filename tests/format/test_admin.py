"""The admin history: bounded, in order, and whole whatever a power cut leaves of the sectors of a superblock."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.engine.create import plan_create, plan_superblock
from razortools.engine.store.admin import history_of, last_check, noted, noted_in_place, since_last_mount
from razortools.format.admin import (
    ADMIN_SECTOR_BYTES,
    ADMIN_SECTOR_ENTRIES,
    ADMIN_SECTORS,
    EMPTY_HISTORY,
    NO_ENTRY,
    OPENING_SECTORS,
    Action,
    AdminEntry,
    entry,
    history_fault,
)
from razortools.format.superblock import SUPERBLOCK_BYTES, Compat, Superblock
from razortools.units import MIB

OPENINGS, OTHERS = OPENING_SECTORS * ADMIN_SECTOR_ENTRIES, (ADMIN_SECTORS - OPENING_SECTORS) * ADMIN_SECTOR_ENTRIES
NEW = plan_superblock(plan_create(16 * MIB, uuid=bytes(16), hash_seed=bytes(16), made_at_ns=1))
OF_OTHERS = [action for action in Action if action != Action.MOUNT]
ACTIONS = st.builds(lambda some, times: some * times, st.lists(st.sampled_from(Action), max_size=30), st.integers(1, 10))


def after(superblock: Superblock, actions: list[Action]) -> Superblock:
    """Return the superblock after each of the *actions*, a second from one to the next."""
    for number, action in enumerate(actions, 1):
        superblock = replace(superblock, **noted(superblock, entry(action, number * 10**9, detail=number)))
    return superblock


def seen(superblock: Superblock) -> list[tuple[int, int]]:
    return [(one.action, one.detail) for one in history_of(superblock)]


@given(actions=ACTIONS)
def test_the_last_entries_of_each_kind_are_told_in_their_order(actions: list[Action]) -> None:
    all_of_them = [(action, number) for number, action in enumerate(actions, 1)]
    openings = [one for one in all_of_them if one[0] in (Action.MOUNT, Action.DEBUG)]
    others = [one for one in all_of_them if one not in openings]
    kept = {*openings[-OPENINGS:], *others[-OTHERS:]}
    assert seen(after(NEW, actions)) == [one for one in all_of_them if one in kept]


def test_mounting_every_day_does_not_make_a_repair_forgotten() -> None:
    told = seen(after(NEW, [Action.MKFS, Action.REPAIR, *[Action.MOUNT] * 1000]))
    assert told[:2] == [(Action.MKFS, 1), (Action.REPAIR, 2)] and len(told) == 2 + OPENINGS


def further(superblock: Superblock, added: Action | None) -> Superblock:
    """Return the superblock of the next generation, with an entry more or none."""
    changes = {} if added is None else noted(superblock, entry(added, 10**12 + superblock.generation))
    return replace(superblock, generation=superblock.generation + 1, **changes)


MAYBE = st.none() | st.sampled_from(Action)


@given(actions=ACTIONS, added=st.tuples(MAYBE, MAYBE), arrived=st.lists(st.booleans(), min_size=8, max_size=8))
def test_a_superblock_that_was_cut_off_between_its_sectors_verifies_and_tells_all(
    actions: list[Action], added: tuple[Action | None, Action | None], arrived: list[bool]
) -> None:
    before = after(NEW, actions)  # what its slot holds: slots take turns
    new = further(further(before, added[0]), added[1])
    old_raw, new_raw = before.encode(), new.encode()
    torn = b"".join(
        (new_raw if is_new else old_raw)[at : at + ADMIN_SECTOR_BYTES]
        for at, is_new in zip(range(0, SUPERBLOCK_BYTES, ADMIN_SECTOR_BYTES), arrived, strict=True)
    )
    found = Superblock.decode(torn)  # raises if the checksum is wrong
    told, wanted = seen(found), seen(new if arrived[0] else before)
    assert told[-1:] == wanted[-1:]
    # The oldest have to go for what is added: they may have gone already, or be there still.
    if arrived[0]:
        assert set(wanted) <= set(told) and len(told) <= len(wanted) + 2
    else:
        assert set(told) <= set(wanted) and len(told) >= len(wanted) - 2


@given(actions=ACTIONS, at=st.integers(0, len(EMPTY_HISTORY) - 1), bit=st.integers(0, 7))
@settings(max_examples=50)
def test_a_flipped_bit_is_noticed_and_costs_one_sector(actions: list[Action], at: int, bit: int) -> None:
    whole = after(NEW, actions)
    history = bytearray(whole.admin_history)
    history[at] ^= 1 << bit
    hurt = replace(whole, admin_history=bytes(history))
    assert history_fault(whole.admin_history) == "" != history_fault(hurt.admin_history)
    assert len(seen(whole)) - ADMIN_SECTOR_ENTRIES <= len(seen(hurt)) and set(seen(hurt)) <= set(seen(whole))
    assert history_fault(after(hurt, [*[Action.MOUNT] * OPENINGS, *[Action.LABEL] * OTHERS]).admin_history) == ""


def test_steps_of_one_action_have_one_entry() -> None:
    superblock = after(NEW, [Action.MKFS])
    for step in (1, 2, 3):
        superblock = replace(superblock, **noted(superblock, entry(Action.COMPACT, 5, detail=step)))
    assert seen(superblock) == [(Action.MKFS, 1), (Action.COMPACT, 3)]


def test_what_may_change_one_sector_only_loses_nothing_and_adds_up() -> None:
    superblock = after(NEW, [Action.MKFS, Action.MOUNT])
    for count in (1, 2, 3, 4):
        history = superblock.admin_history
        superblock = replace(superblock, **noted_in_place(superblock, entry(Action.COMMIT, count, detail=count)))
        assert superblock.admin_history is history
    assert seen(superblock) == [(Action.MKFS, 1), (Action.MOUNT, 2), (Action.COMMIT, 1), (Action.COMMIT, 2 + 3 + 4)]
    assert seen(after(superblock, [Action.MOUNT])) == [*seen(superblock), (Action.MOUNT, 1)]


def test_an_image_without_the_feature_keeps_none() -> None:
    older = replace(NEW, compat=0)
    assert noted(older, entry(Action.MOUNT, 1)) == {} and history_of(older) == []


def test_the_last_check_is_told() -> None:
    assert last_check(after(NEW, [Action.MKFS, Action.MOUNT])) is None
    found = last_check(after(NEW, [Action.CHECK, Action.REPAIR, Action.MOUNT]))
    assert found is not None and (found.action, found.detail) == (Action.REPAIR, 2)


@given(before=st.lists(st.sampled_from(Action), max_size=20), others=st.lists(st.sampled_from(OF_OTHERS), max_size=20))
def test_what_was_done_since_the_last_mount_is_told_whether_it_is_mounted_now_or_not(
    before: list[Action], others: list[Action]
) -> None:
    unmounted = after(NEW, [*before, Action.MOUNT, *others])
    done = [(action, number) for number, action in enumerate(others, len(before) + 2)]
    assert [(one.action, one.detail) for one in since_last_mount(unmounted, is_mounted=False)] == done
    mounted = after(NEW, [*before, Action.MOUNT, *others, Action.MOUNT])
    assert [(one.action, one.detail) for one in since_last_mount(mounted, is_mounted=True)] == done
    never = after(NEW, [Action.MKFS, *others])
    assert len(since_last_mount(never, is_mounted=False)) == 1 + len(others)


def test_an_entry_says_which_version_made_it() -> None:
    import razortools

    assert entry(Action.MKFS, 1).version == razortools.__version__
    assert AdminEntry.decode(NO_ENTRY.encode()) == NO_ENTRY and NEW.compat & Compat.ADMIN_HISTORY
