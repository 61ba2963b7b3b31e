"""The string table stores a name once and counts its uses."""

import pytest

from razortools.engine import names as names_module
from razortools.engine.names import NameTable
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage
from razortools.format.journal import Operation
from razortools.format.keys import name_key
from razortools.format.name import Name, hash_name
from razortools.units import InodeNo, NameId
from tests.engine.volumes import new_volume


def intern(volume: Volume, name: bytes) -> NameId:
    with volume.operation(Operation.CREATE, InodeNo(1)):
        return volume.names.intern(name)


def release(volume: Volume, name_id: NameId) -> None:
    with volume.operation(Operation.UNLINK, InodeNo(1)):
        volume.names.release(name_id)


def count(volume: Volume, name_id: NameId) -> int:
    value = volume.store.get(name_key(name_id))
    return 0 if value is None else Name.decode(value).reference_count


def test_a_name_used_twice_is_stored_once_and_counted() -> None:
    volume = new_volume()
    first = intern(volume, b"name")
    assert intern(volume, b"name") == first
    assert count(volume, first) == 2
    assert volume.counters.name_count == 1
    assert volume.names.text(first) == b"name"


def test_the_last_release_deletes_the_string_and_its_id_is_not_used_again() -> None:
    volume = new_volume()
    first = intern(volume, b"name")
    release(volume, first)
    assert volume.store.get(name_key(first)) is None
    assert volume.counters.name_count == 0
    assert intern(volume, b"name") > first


def test_a_name_that_the_table_forgot_is_stored_again_and_both_work() -> None:
    volume = new_volume()
    first = intern(volume, b"name")
    volume.names.forget_all()
    second = intern(volume, b"name")
    assert second != first
    assert volume.names.matches(first, b"name")
    assert volume.names.matches(second, b"name")
    assert not volume.names.matches(second, b"other")
    release(volume, first)
    assert volume.names.text(second) == b"name"


def test_an_operation_that_is_taken_back_leaves_no_name_under_an_id_that_is_handed_out_again() -> None:
    volume = new_volume()
    with pytest.raises(RuntimeError), volume.operation(Operation.CREATE, InodeNo(1)):
        lost = volume.names.intern(b"lost")
        raise RuntimeError
    kept = intern(volume, b"kept")
    assert kept == lost
    assert not volume.names.matches(kept, b"lost")
    assert volume.names.text(kept) == b"kept"
    assert intern(volume, b"lost") != kept


def test_the_same_holds_when_the_table_is_too_small_to_remember_the_string() -> None:
    volume = new_volume()
    volume.names = NameTable(volume, capacity=2)
    with pytest.raises(RuntimeError), volume.operation(Operation.CREATE, InodeNo(1)):
        for number in range(5):
            volume.names.intern(b"lost-%d" % number)
        raise RuntimeError
    made = [intern(volume, b"kept-%d" % number) for number in range(5)]
    assert [volume.names.text(name_id) for name_id in made] == [b"kept-%d" % number for number in range(5)]
    assert not any(volume.names.matches(name_id, b"lost-%d" % number) for number, name_id in enumerate(made))


def test_a_count_that_is_full_leads_to_a_second_string(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "REFERENCES_MAX", 2)
    volume = new_volume()
    ids = [intern(volume, b"name") for _ in range(4)]
    assert ids == [ids[0], ids[0], ids[2], ids[2]]
    assert ids[0] != ids[2]


def test_a_missing_string_is_damage_and_says_so() -> None:
    with pytest.raises(CorruptImage, match="string 77 is missing"):
        new_volume().names.text(NameId(77))


def test_the_hash_is_the_one_that_the_format_defines() -> None:
    volume = new_volume()
    assert volume.names.hash(b"name") == hash_name(b"name", volume.store.superblock.hash_seed)
    assert volume.names.hash(b"name") == volume.names.hash(b"name")
