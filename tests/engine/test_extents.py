"""Data and holes of a file: what lseek(2) is told, compared with what was written."""

import errno
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.engine import extents, files
from razortools.errors import PosixError
from razortools.units import KIB
from tests.engine.data_volumes import new_file, new_volume

RECORD_LOG2 = 12
RECORD_BYTES = 1 << RECORD_LOG2


def told(volume, ino, size):  # type: ignore[no-untyped-def]
    """Return the data of a file as lseek walks over it: (start, end) pairs."""
    found, at = [], 0
    while at < size:
        try:
            start = extents.next_data(volume, ino, at)
        except PosixError as refused:
            assert refused.mount_errno == errno.ENXIO
            break
        at = extents.next_hole(volume, ino, start)
        assert start < at <= size
        found.append((start, at))
    return found


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3 * RECORD_BYTES), st.booleans()), max_size=6),
    size=st.integers(1, 60 * RECORD_BYTES),
)
def test_every_byte_that_is_not_zero_is_told_as_data(pieces: list[tuple[int, int, bool]], size: int) -> None:
    with new_volume() as volume:
        ino = new_file(volume, RECORD_LOG2)
        for record_no, length, commits in pieces:
            files.write(volume, ino, record_no * RECORD_BYTES, b"\1" * length)
            if commits:
                volume.commit()
        files.truncate(volume, ino, size)
        pairs = told(volume, ino, size)
        assert all(before[1] < after[0] for before, after in pairwise(pairs))
        contents = files.read(volume, ino, 0, size)
        outside = bytearray(contents)
        for start, end in pairs:
            outside[start:end] = bytes(end - start)
        assert outside == bytes(size)
        # and nothing more than the rest of a record
        touched = {place // RECORD_BYTES for place, byte in enumerate(contents) if byte}
        assert {place // RECORD_BYTES for start, end in pairs for place in range(start, end, KIB)} <= touched


def test_a_hole_begins_where_the_data_of_a_record_end() -> None:
    with new_volume() as volume:
        ino = new_file(volume, RECORD_LOG2)
        files.write(volume, ino, 0, b"x" * 100)
        files.write(volume, ino, 10 * RECORD_BYTES, b"x" * 5000)
        for _ in range(2):  # dirty, then from the tree
            assert told(volume, ino, 10 * RECORD_BYTES + 5000) == [(0, 100), (10 * RECORD_BYTES, 10 * RECORD_BYTES + 5000)]
            volume.commit()


@pytest.mark.parametrize(("offset", "number"), [(4, errno.ENXIO), (-1, errno.ENXIO), (10**15, errno.ENXIO)])
def test_beyond_the_end_there_is_neither(offset: int, number: int) -> None:
    with new_volume() as volume:
        ino = new_file(volume)
        files.write(volume, ino, 0, b"data")
        for asked in (extents.next_data, extents.next_hole):
            with pytest.raises(PosixError) as refused:
                asked(volume, ino, offset)
            assert refused.value.mount_errno == number


def test_a_directory_has_neither() -> None:
    with new_volume() as volume, pytest.raises(PosixError) as refused:
        extents.next_data(volume, 1, 0)  # type: ignore[arg-type]
    assert refused.value.mount_errno == errno.EINVAL
