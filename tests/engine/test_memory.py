"""The bounds of what is kept in memory hold for the memory that is taken, not for the bytes that were put in."""

import random
import tracemalloc
from collections.abc import Iterator

import pytest

from razortools.engine import files
from razortools.engine.limits import Limits
from razortools.engine.volume import Volume, open_volume
from razortools.units import KIB, MIB, InodeNo, RecordNo
from tests.engine.data_volumes import assert_memory_adds_up, new_file
from tests.engine.test_residence import populated
from tests.engine.volumes import new_device
from tests.workload import everything

LIMIT_BYTES = 2 * MIB
LOW_BYTES = 48 * KIB


@pytest.fixture
def volume() -> Iterator[Volume]:
    """A volume with a small cache of records."""
    with open_volume(new_device(), limits=Limits(record_cache_bytes=LIMIT_BYTES)) as opened:
        yield opened


@pytest.mark.parametrize("record_bytes", [1, 20, 200, 4096, 128 * 1024])
def test_the_cache_of_records_takes_no_more_than_its_limit_however_small_they_are(volume: Volume, record_bytes: int) -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for ino in range(1, 50_000 if record_bytes < 1000 else 1000):
            volume.records.keep(InodeNo(ino), RecordNo(0), bytes(record_bytes))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert LIMIT_BYTES // 4 < taken <= LIMIT_BYTES * 5 // 4  # dictionaries grow by doubling, so this cannot be exact


def test_writing_a_large_file_does_not_empty_the_cache_of_what_is_read(volume: Volume) -> None:
    records, read = volume.records, [(InodeNo(1), RecordNo(number)) for number in range(8)]
    for place in read:
        records.keep(*place, bytes(128 * KIB))
    ino = new_file(volume)
    for number in range(64):
        files.write(volume, ino, number * 128 * KIB, random.Random(number).randbytes(128 * KIB))
        files.flush_all(volume)
        assert_memory_adds_up(volume)
    assert all(records.is_in_memory(*place) for place in read)
    last = [number for number in range(64) if records.is_in_memory(ino, RecordNo(number))]
    assert last == list(range(64 - len(last), 64)) and last, "the newest are kept"
    files.read(volume, ino, last[0] * 128 * KIB, 1)  # from now on it counts as read
    for number in range(64, 80):
        files.write(volume, ino, number * 128 * KIB, random.Random(number).randbytes(128 * KIB))
        files.flush_all(volume)
    assert records.is_in_memory(ino, RecordNo(last[0]))
    assert_memory_adds_up(volume)


def test_what_was_written_of_a_file_that_is_deleted_is_forgotten(volume: Volume) -> None:
    """It was not: it counted for good, and once that was more than its share of the cache, the loop that drops it had no end."""
    for _ in range(3):
        ino = new_file(volume)
        files.write(volume, ino, 0, random.Random(1).randbytes(1 * MIB))
        files.flush_all(volume)
        volume.records.discard(ino)
        assert_memory_adds_up(volume)
        assert not volume.records.is_in_memory(ino, RecordNo(0))


def test_a_lower_limit_of_the_metadata_cache_is_kept_at_once_even_by_a_reader() -> None:
    with open_volume(populated().copy(), read_only=True) as volume:
        everything(volume)
        assert volume.store.nodes.cached_bytes > 3 * LOW_BYTES
        volume.set_limits(Limits(metadata_cache_bytes=LOW_BYTES))
        assert volume.store.nodes.cached_bytes <= 2 * LOW_BYTES, "what was used lately may stay for one more look"
        everything(volume)
        assert volume.store.nodes.cached_bytes <= 2 * LOW_BYTES
