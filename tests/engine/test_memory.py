"""The bounds of what is kept in memory hold for the memory that is taken, not for the bytes that were put in."""

import tracemalloc
from collections.abc import Iterator

import pytest

from razortools.engine.limits import Limits
from razortools.engine.volume import Volume, open_volume
from razortools.units import KIB, MIB, InodeNo, RecordNo
from tests.engine.test_residence import populated
from tests.engine.volumes import new_device
from tests.workload import everything

LIMIT_BYTES = 2 * MIB
LOW_BYTES = 64 * KIB


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


def test_a_lower_limit_of_the_metadata_cache_is_kept_at_once_even_by_a_reader() -> None:
    with open_volume(populated().copy(), read_only=True) as volume:
        everything(volume)
        assert volume.store.nodes.cached_bytes > 3 * LOW_BYTES
        volume.set_limits(Limits(metadata_cache_bytes=LOW_BYTES))
        assert volume.store.nodes.cached_bytes <= 2 * LOW_BYTES, "what was used lately may stay for one more look"
        everything(volume)
        assert volume.store.nodes.cached_bytes <= 2 * LOW_BYTES
