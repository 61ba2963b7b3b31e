"""Entries of the journal that verify and make no sense: what follows them is not lost, and what they meant is found out."""

from collections.abc import Callable

import pytest

from razortools.check.repair.repair import Repaired, Wishes, repair
from razortools.check.runner import Options, check_quietly
from razortools.check.steps import finished
from razortools.engine import directories, files, namespace
from razortools.engine.store.device import Device
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage
from razortools.format.inode import ROOT_INODE
from razortools.format.journal import EntryFlag, Operation
from razortools.format.keys import COUNTERS_KEY, HIGHEST_KEY, KIND_AT, LOWEST_KEY, Kind, inode_key
from tests.check.editing import image_of, journal_entries, rewrite_entry
from tests.check.samples import opened, unclean

LATE = (b"late0", b"late1", b"late2")
KINDS = (Kind.NAME, Kind.DIRECTORY_ENTRY, Kind.BACK_LINK, Kind.INODE, Kind.DATA_RECORD, Kind.COUNTERS)


def wrong_kind(device: Device, number: int) -> None:
    key = journal_entries(image_of(device))[number].head.key
    rewrite_entry(device, number, key=key[:KIND_AT] + b"\x24" + key[KIND_AT + 1 :])


def wrong_table(device: Device, number: int) -> None:
    rewrite_entry(device, number, key=b"\0" + journal_entries(image_of(device))[number].head.key[1:])


def denied_value(device: Device, number: int) -> None:
    flags = journal_entries(image_of(device))[number].head.flags
    rewrite_entry(device, number, flags=flags & ~int(EntryFlag.HAS_REDO))


def no_key(device: Device, number: int) -> None:
    rewrite_entry(device, number, key=LOWEST_KEY)


def last_key(device: Device, number: int) -> None:
    rewrite_entry(device, number, key=HIGHEST_KEY)


def repaired(device: Device) -> Volume:
    done: Repaired = finished(repair(device, Wishes(Options(threads=1))))
    assert done.refused == "" and done.changes
    assert check_quietly(done.overlay, Options(threads=1)).exit_code == 0
    return opened(done.overlay)


def contents(volume: Volume, name: bytes) -> bytes:
    ino = namespace.lookup(volume, ROOT_INODE, name)
    return files.read(volume, ino, 0, volume.inodes.get(ino).size)


def first_of(device: Device, kind: Kind) -> int:
    return next(number for number, entry in enumerate(journal_entries(image_of(device))) if entry.head.key[KIND_AT] == kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", [wrong_kind, wrong_table, denied_value])
def test_an_entry_that_makes_no_sense_costs_nothing_where_its_right_place_can_be_told(
    kind: Kind, damage: Callable[[Device, int], None]
) -> None:
    device = unclean(3)
    damage(device, first_of(device, kind))
    volume, intact = repaired(device), opened(unclean(3))
    for name in LATE:
        assert contents(volume, name) == contents(intact, name)


@pytest.mark.parametrize("kind", KINDS[2:5])
@pytest.mark.parametrize("damage", [no_key, last_key])
def test_what_comes_behind_an_entry_that_makes_no_sense_is_not_lost(
    kind: Kind, damage: Callable[[Device, int], None]
) -> None:
    device = unclean(3)
    damage(device, first_of(device, kind))
    volume, intact = repaired(device), opened(unclean(3))
    for name in LATE[1:]:
        assert contents(volume, name) == contents(intact, name)


@pytest.mark.parametrize("damage", [no_key, last_key])
def test_new_data_of_which_nothing_tells_the_place_do_not_read_as_zeros(damage: Callable[[Device, int], None]) -> None:
    device = unclean(1)
    damage(device, first_of(device, Kind.DATA_RECORD))
    with pytest.raises(CorruptImage, match="given up as unreadable"):
        contents(repaired(device), b"late0")


@pytest.mark.parametrize("damage", [no_key, last_key, wrong_kind])
def test_a_change_of_which_the_key_is_lost_goes_where_the_value_before_it_stands(damage: Callable[[Device, int], None]) -> None:
    device = unclean(1)
    with opened(device):
        pass
    volume = opened(device)
    ino = namespace.lookup(volume, ROOT_INODE, b"late0")
    files.write(volume, ino, 0, b"written over " * 400)
    volume.commit()
    intact = contents(volume, b"late0")
    damage(device, first_of(device, Kind.DATA_RECORD))
    assert contents(repaired(device), b"late0") == intact


def test_the_next_entry_for_the_same_place_has_the_last_word() -> None:
    device = unclean(3)
    counters = [n for n, entry in enumerate(journal_entries(image_of(device))) if entry.head.key[KIND_AT] == Kind.COUNTERS]
    for number in counters[:2]:
        wrong_kind(device, number)
    roots = [n for n, entry in enumerate(journal_entries(image_of(device))) if entry.head.key == inode_key(ROOT_INODE)]
    denied_value(device, roots[0])
    volume, intact = repaired(device), opened(unclean(3))
    assert volume.inodes.get(ROOT_INODE) == intact.inodes.get(ROOT_INODE)
    assert volume.store.tree.get(COUNTERS_KEY) == intact.store.tree.get(COUNTERS_KEY)


def test_a_deletion_of_which_the_key_is_lost_is_done() -> None:
    device = unclean(1)
    with opened(device):
        pass
    volume = opened(device)
    namespace.unlink(volume, ROOT_INODE, b"late0")
    volume.commit()
    for number, entry in enumerate(journal_entries(image_of(device))):
        if entry.head.key[KIND_AT] == Kind.DIRECTORY_ENTRY and entry.head.operation != Operation.COMMIT:
            no_key(device, number)
    assert b"late0" not in {name for _, name, _ in directories.entries(repaired(device), ROOT_INODE)}
