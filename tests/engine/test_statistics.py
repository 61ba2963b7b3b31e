"""The figures of a volume agree with the work that was done on it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from razortools.engine import files, namespace, xattrs
from razortools.engine.adaptive import Verdict
from razortools.engine.limits import Limits
from razortools.engine.store.device import open_image
from razortools.engine.store.throughput import Throughput, Work
from razortools.engine.volume import Volume, open_volume
from razortools.format.compression import Algorithm
from razortools.format.inode import ROOT_INODE
from razortools.units import KIB
from tests.images import make_image, open_for_writing

TEXT = b"the same again and again " * 10_000  # two records


def reopened(path: Path) -> Volume:
    return open_volume(open_image(path, writable=True), limits=Limits())


def with_file(path: Path) -> None:
    with open_for_writing(make_image(path)) as volume:
        ino = namespace.create(volume, ROOT_INODE, b"text", 0o644, 0, 0)
        files.write(volume, ino, 0, TEXT)


def test_a_record_is_missed_once_and_hit_from_then_on(tmp_path: Path) -> None:
    with_file(tmp_path / "a.img")
    with reopened(tmp_path / "a.img") as volume:
        ino = namespace.lookup(volume, ROOT_INODE, b"text")
        for _ in range(5):
            files.read(volume, ino, 0, 4 * KIB)
        files.read(volume, ino, 128 * KIB, 4 * KIB)
        told = volume.statistics()
        assert (told.record_hits, told.record_misses) == (4, 2)
        files.write(volume, ino, 0, b"changed")  # which needs the rest of the record
        files.read(volume, ino, 0, 10)
        assert (volume.statistics().record_hits, volume.statistics().record_misses) == (6, 2)


def test_nodes_that_are_read_are_counted_with_the_walks_that_needed_them(tmp_path: Path) -> None:
    with_file(tmp_path / "a.img")
    with reopened(tmp_path / "a.img") as volume:
        told = volume.statistics()
        assert told.node_walks >= 1
        assert told.node_misses >= 1
        namespace.lookup(volume, ROOT_INODE, b"text")
        assert volume.statistics().node_misses == told.node_misses  # one leaf holds all of this image


def test_commits_checkpoints_and_aborts_are_counted_and_timed(tmp_path: Path) -> None:
    with open_for_writing(make_image(tmp_path / "a.img")) as volume:
        store = volume.store
        before = sum(store.commit_times.counts), sum(store.checkpoint_times.counts)
        namespace.mkdir(volume, ROOT_INODE, b"one", 0o755, 0, 0)
        assert volume.statistics().journal_entries == 0
        volume.commit()
        assert volume.statistics().journal_entries > 0
        volume.commit()  # nothing to do, so there is none
        assert (sum(store.commit_times.counts), sum(store.checkpoint_times.counts)) == (before[0] + 1, before[1])
        volume.checkpoint()
        assert volume.statistics().journal_entries == 0
        assert sum(store.checkpoint_times.counts) == before[1] + 1
        namespace.mkdir(volume, ROOT_INODE, b"two", 0o755, 0, 0)
        volume.abort()
        assert volume.statistics().aborts == 1
        assert store.commit_times.total_s > 0


def test_each_flush_of_an_image_file_is_timed(tmp_path: Path) -> None:
    device = open_image(make_image(tmp_path / "a.img"), writable=True)
    with open_volume(device) as volume:
        before = sum(device.flush_times.counts)
        namespace.mkdir(volume, ROOT_INODE, b"one", 0o755, 0, 0)
        volume.commit()
        assert sum(device.flush_times.counts) == before + 1


def test_how_long_a_read_takes_lately_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    took_s = iter([0.008] * 100 + [0.0001] * 100)

    def slow_pread(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal now_s
        now_s += next(took_s)
        return bytes(length)

    with open_image(make_image(tmp_path / "a.img"), writable=True) as device:
        monkeypatch.setattr("razortools.engine.store.device.os.pread", slow_pread)
        monkeypatch.setattr("razortools.engine.store.device.time.perf_counter", lambda: now_s)
        for expected_s in (0.008, 0.0001):
            for _ in range(100):
                device.read(0, 4096)
            assert device.read_s == pytest.approx(expected_s, rel=0.2)


def test_what_recovery_did_and_how_long_it_took_is_known(tmp_path: Path) -> None:
    volume = open_for_writing(make_image(tmp_path / "a.img"))
    namespace.mkdir(volume, ROOT_INODE, b"one", 0o755, 0, 0)
    volume.commit()
    crashed = tmp_path / "crashed.img"
    crashed.write_bytes((tmp_path / "a.img").read_bytes())
    volume.close()
    with open_for_writing(crashed) as after:
        assert after.recovered.transactions == 1
        assert after.recovered.took_s > 0


def test_compressing_is_timed_by_what_became_of_it(tmp_path: Path) -> None:
    with open_for_writing(make_image(tmp_path / "a.img")) as volume:
        ino = namespace.create(volume, ROOT_INODE, b"text", 0o644, 0, 0)
        files.write(volume, ino, 0, TEXT)
        volume.commit()
        tally = volume.records.tallies.by_verdict[Verdict.ZSTD]
        assert tally.raw_bytes == len(TEXT)
        assert 0 < tally.took_s < 60


def test_decompressing_is_counted_and_timed_by_algorithm(tmp_path: Path) -> None:
    image = make_image(tmp_path / "a.img")
    with open_for_writing(image) as volume:
        for name, policy in ((b"zstd", b"zstd"), (b"lz4", b"lz4"), (b"none", b"none")):
            ino = namespace.create(volume, ROOT_INODE, name, 0o644, 0, 0)
            xattrs.set(volume, ino, xattrs.COMPRESSION, policy)
            files.write(volume, ino, 0, TEXT)
        assert volume.store.unpacked.told() == {}
    with open_for_writing(image) as volume:
        for name in (b"zstd", b"lz4", b"none", b"zstd"):  # the second time from memory
            assert files.read(volume, namespace.resolve(volume, b"/" + name), 0, len(TEXT)) == TEXT
        told = volume.store.unpacked.told()
    assert told.keys() == {Algorithm.ZSTD, Algorithm.LZ4}
    for work in told.values():
        assert (work.raw_bytes, work.count) == (len(TEXT), -(-len(TEXT) // (128 * KIB)))
        assert 0 < work.stored_bytes < work.raw_bytes
        assert 0 < work.took_s < 60


def test_many_threads_may_count_throughput_at_once() -> None:
    sums = Throughput()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(lambda: [sums.note(1, 10, 2, 0.5) for _ in range(1000)])
    assert sums.told() == {1: Work(8000, 80_000, 16_000, 4000.0)}
