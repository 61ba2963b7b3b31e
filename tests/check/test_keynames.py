"""What stands for keys in findings and remarks is meant for people."""

import pytest

from razortools.check.keynames import range_words
from razortools.format.keys import HIGHEST_KEY, LOWEST_KEY, inode_key, name_key, record_key
from razortools.units import InodeNo, NameId, RecordNo


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (LOWEST_KEY, HIGHEST_KEY, "everything"),
        (LOWEST_KEY, inode_key(InodeNo(7)), "inode 1 to inode 7"),
        (record_key(InodeNo(7), RecordNo(1)), record_key(InodeNo(7), RecordNo(9)), "a part of inode 7"),
        (inode_key(InodeNo(7)), name_key(NameId(5)), "inode 7 to name 5"),
        (name_key(NameId(5)), HIGHEST_KEY, "name 5 to the end"),  # it was "patches of inode 18446744073709551615"
    ],
)
def test_a_range_of_keys_is_told_by_what_stands_in_it(low: bytes, high: bytes, words: str) -> None:
    assert range_words(low, high) == words
