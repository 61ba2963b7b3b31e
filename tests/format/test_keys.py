"""Keys: the order of the bytes is the order of the tables, objects, kinds and offsets."""

from hypothesis import given
from hypothesis import strategies as st

from razortools.format import keys
from razortools.format.keys import Key, Kind, Table
from razortools.units import InodeNo, NameId

parts = st.tuples(st.integers(0, 255), st.integers(0, 2**64 - 1), st.integers(0, 255), st.integers(0, 2**64 - 1))
objects = st.integers(0, 2**64 - 1)


@given(st.lists(parts))
def test_encoded_keys_sort_like_tuples(many: list[tuple[int, int, int, int]]) -> None:
    assert sorted(Key(*one).encode() for one in many) == [Key(*one).encode() for one in sorted(many)]


@given(parts)
def test_the_parts_of_a_key_can_be_read_without_decoding_it(one: tuple[int, int, int, int]) -> None:
    key = Key(*one).encode()
    assert (key[0], keys.object_of(key), keys.kind_of(key), keys.offset_of(key)) == one


@given(objects, objects)
def test_every_item_of_an_inode_lies_in_the_range_of_its_object(number: int, offset: int) -> None:
    inode = InodeNo(number)
    low, high = keys.object_range(Table.FILES, inode)
    made = [
        keys.inode_key(inode),
        keys.back_link_key(inode, offset),
        keys.xattr_key(inode, offset),
        keys.inline_key(inode),
        keys.record_key(inode, offset),
        keys.entry_key(inode, offset),
    ]
    assert all(low <= key <= high for key in made)
    assert made == sorted(made)  # the inode comes first, then what leads to it, then what it holds
    table_low, table_high = keys.table_range(Table.FILES)
    assert table_low <= low <= high <= table_high


@given(objects, objects, objects)
def test_the_range_of_a_kind_holds_that_kind_of_that_inode_and_nothing_else(number: int, other: int, offset: int) -> None:
    low, high = keys.kind_range(InodeNo(number), Kind.DATA_RECORD)
    assert low <= keys.record_key(InodeNo(number), offset) <= high
    assert not low <= keys.entry_key(InodeNo(number), offset) <= high
    assert not low <= keys.xattr_key(InodeNo(number), offset) <= high
    assert number == other or not low <= keys.record_key(InodeNo(other), offset) <= high


@given(objects)
def test_the_tables_do_not_overlap(number: int) -> None:
    in_order = [
        keys.LOWEST_KEY,
        keys.inode_key(InodeNo(number)),
        keys.name_key(NameId(number)),
        keys.orphan_key(InodeNo(number)),
        keys.COUNTERS_KEY,
        keys.HIGHEST_KEY,
    ]
    assert in_order == sorted(in_order)
    assert len({key[0] for key in in_order}) == len(in_order)
