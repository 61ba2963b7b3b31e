"""Loading records before they are asked for."""

import random
import threading

import pytest

from razortools.engine import files
from razortools.engine.limits import Limits
from razortools.engine.readahead import WINDOW_BYTES_MAX, WINDOW_BYTES_MIN, SequentialReaders, apply_read, load, plan_read
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage
from razortools.format.compression import Algorithm, Policy
from razortools.units import KIB, MIB, InodeNo
from tests.engine.data_volumes import assert_memory_adds_up, data_records, new_file, new_volume

INO = InodeNo(7)
DATA = random.Random(3).randbytes(200_000)


def stored_file(limits: Limits = Limits()) -> tuple[Volume, InodeNo]:  # noqa: B008
    """Return a file of 4 KiB records that is on the device and not in memory."""
    volume = new_volume(limits=limits)
    ino = new_file(volume, 12, Policy(Algorithm.NONE))
    files.write(volume, ino, 0, DATA)
    volume.commit()
    volume.records.forget_all()
    return volume, ino


def test_what_was_loaded_in_a_thread_is_read_without_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    volume, ino = stored_file()
    plan = plan_read(volume, ino, 10_000, 50_000)
    assert [missing.record_no for missing in plan.records] == list(range(2, 15))
    found = []
    thread = threading.Thread(target=lambda: found.append(load(volume, plan)))
    thread.start()
    thread.join()
    apply_read(volume, found[0])
    assert plan_read(volume, ino, 10_000, 50_000).records == ()
    monkeypatch.setattr(volume.store, "read_record", None)
    assert files.read(volume, ino, 10_000, 50_000) == DATA[10_000:60_000]
    assert_memory_adds_up(volume)


def test_what_changed_while_it_was_loaded_is_not_taken_over() -> None:
    volume, ino = stored_file()
    loaded = load(volume, plan_read(volume, ino, 0, 200_000))
    files.write(volume, ino, 0, b"dirty")
    files.write(volume, ino, 4096, b"flushed")
    files.flush_all(volume, [ino])
    files.write(volume, ino, 8192, b"dirty")
    files.truncate(volume, ino, 20_480)
    files.truncate(volume, ino, 30_000)
    volume.records.discard(InodeNo(0))
    apply_read(volume, loaded)
    expected = bytearray(DATA[:20_480])
    expected[:5], expected[4096:4103], expected[8192:8197] = b"dirty", b"flushed", b"dirty"
    assert files.read(volume, ino, 0, 200_000) == expected + bytes(30_000 - 20_480)
    assert_memory_adds_up(volume)


def test_damage_is_left_to_the_read_that_follows() -> None:
    volume, ino = stored_file()
    block = data_records(volume, ino)[3].runs(4096)[0][0]
    volume.store.device.write(block * 4096, bytes(4096))
    loaded = load(volume, plan_read(volume, ino, 0, 200_000))
    assert 3 not in {missing.record_no for missing, _ in loaded.records}
    apply_read(volume, loaded)
    with pytest.raises(CorruptImage):
        files.read(volume, ino, 0, 200_000)


def test_a_plan_stays_within_the_file_and_the_cache() -> None:
    volume, ino = stored_file(Limits(record_cache_bytes=64 * KIB))
    assert len(plan_read(volume, ino, 0, MIB).records) == 4
    assert plan_read(volume, ino, 200_000, MIB).records == ()
    assert plan_read(volume, new_file(volume), 0, MIB).records == ()


def test_nobody_reads_ahead_of_a_random_reader() -> None:
    readers = SequentialReaders()
    assert all(readers.ahead(INO, at, 4096)[1] == 0 for at in (8192, 4096, 100_000, 50_000))


def test_a_sequential_reader_finds_everything_loaded_and_the_window_grows_to_its_limit() -> None:
    readers = SequentialReaders()
    loaded_to = 0
    windows = []
    for at in range(0, 64 * MIB, 128 * KIB):
        assert at == 0 or loaded_to > at, "the reader had to wait"
        start, size = readers.ahead(INO, at, 128 * KIB)
        if size:
            assert start >= loaded_to, "loaded twice"
            windows.append(size)
            loaded_to = start + size
    assert windows[0] == WINDOW_BYTES_MIN
    assert max(windows) <= WINDOW_BYTES_MAX < 3 * max(windows)


def test_only_the_latest_readers_are_remembered() -> None:
    readers = SequentialReaders()
    for number in range(5000):
        readers.ahead(InodeNo(number), 0, 4096)
    assert len(readers._readers) <= 1024
