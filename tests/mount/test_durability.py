"""What fsync promised is there after the daemon was killed, and everything is there after an unmount."""

import errno
import os
import random
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.mount.mounts import Mounted

pytestmark = pytest.mark.mount


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and sync it, but not its directory: here that comes along."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def test_synced_files_survive_the_death_of_the_daemon(mounted: Mounted) -> None:
    source = random.Random(1)
    expected: dict[str, bytes] = {}
    for turn in range(3):
        for number in range(40):
            name = f"{turn} {number}"
            expected[name] = source.randbytes(source.choice([0, 10, 3000, 5000, 200_000]))
            write_durably(mounted.path / name, expected[name])
        gone = source.choice(sorted(expected))
        del expected[gone]
        os.unlink(mounted.path / gone)
        descriptor = os.open(mounted.path, os.O_RDONLY)
        os.fsync(descriptor)  # of the directory: the removal is durable too
        os.close(descriptor)
        mounted.send(signal.SIGKILL)
        mounted.mount()
        assert {path.name: path.read_bytes() for path in mounted.path.iterdir()} == expected


def test_a_prefix_of_what_was_not_synced_survives(mounted: Mounted) -> None:
    for number in range(500):
        (mounted.path / f"{number:03}").write_bytes(b"x" * number)
        if number == 250:
            write_durably(mounted.path / "synced", b"")
    mounted.send(signal.SIGKILL)
    mounted.mount()
    names = sorted(name for name in os.listdir(mounted.path) if name != "synced")
    assert len(names) >= 251
    assert names == [f"{number:03}" for number in range(len(names))]
    # The last one may have been made and not written yet; all before it are whole.
    assert all((mounted.path / name).stat().st_size == int(name) for name in names[:-1])


def test_files_opened_for_synchronous_writing_need_no_fsync(mounted: Mounted) -> None:
    descriptor = os.open(mounted.path / "file", os.O_CREAT | os.O_WRONLY | os.O_SYNC)
    os.write(descriptor, b"synchronous")
    mounted.send(signal.SIGKILL)
    with suppress(OSError):
        os.close(descriptor)
    mounted.mount()
    assert (mounted.path / "file").read_bytes() == b"synchronous"


def test_many_threads_sync_at_once(mounted: Mounted) -> None:
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for number in range(20):
                write_durably(mounted.path / f"{worker}-{number}", bytes([worker]) * (1000 * number))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    mounted.send(signal.SIGKILL)
    mounted.mount()
    for worker in range(8):
        for number in range(20):
            assert (mounted.path / f"{worker}-{number}").read_bytes() == bytes([worker]) * (1000 * number)


def test_more_data_than_may_be_dirty_is_written_completely(unmounted: Mounted) -> None:
    unmounted.mount("dirty=2M", "cache=4M")
    blocks = [random.Random(number).randbytes(1 << 20) for number in range(8)]
    with open(unmounted.path / "file", "wb") as file:
        for number in range(40):
            file.write(blocks[number % 8])
    unmounted.remount()
    with open(unmounted.path / "file", "rb") as file:
        assert all(file.read(1 << 20) == blocks[number % 8] for number in range(40))


def test_a_full_image_says_so_and_lives_on(tmp_path: Path, fuse: None) -> None:
    small = Mounted(tmp_path, 4 << 20)
    try:
        small.mount()
        source = random.Random(2)
        written = 0
        with pytest.raises(OSError, match="No space left"):
            while True:
                (small.path / f"{written}").write_bytes(source.randbytes(100_000))
                written += 1
        assert written > 10
        os.unlink(small.path / "0")
        os.unlink(small.path / "1")
        write_durably(small.path / "room again", b"x" * 50_000)
        small.remount()
        assert (small.path / "room again").read_bytes() == b"x" * 50_000
        for name in os.listdir(small.path):
            os.unlink(small.path / name)
        assert small.complaints == []
    finally:
        small.take_away()


def test_an_unsynced_mapping_is_written_before_the_mount_ends(mounted: Mounted) -> None:
    script = (
        "import mmap, os, sys; file = open(sys.argv[1], 'w+b'); file.truncate(8192); "
        "m = mmap.mmap(file.fileno(), 8192); m[4096:4100] = b'here'; os._exit(0)"
    )
    subprocess.run(["python3", "-c", script, str(mounted.path / "file")], check=True)
    mounted.remount()
    assert (mounted.path / "file").read_bytes() == bytes(4096) + b"here" + bytes(4092)


def test_a_flipped_byte_is_an_error_for_its_reader_and_for_nobody_else(mounted: Mounted) -> None:
    source = random.Random(3)
    marks = {name: source.randbytes(150_000) for name in ("hurt", "sound")}
    for name, data in marks.items():
        (mounted.path / name).write_bytes(data)
    mounted.umount()
    image = bytearray(mounted.image.read_bytes())
    place = image.index(marks["hurt"][140_000:140_100])
    image[place] ^= 1
    mounted.image.write_bytes(image)
    mounted.mount()
    with open(mounted.path / "hurt", "rb") as file:
        assert file.read(4096) == marks["hurt"][:4096]  # in the record before the damaged one
        with pytest.raises(OSError, check=lambda failure: failure.errno == errno.EIO):
            os.pread(file.fileno(), 100, 140_000)
    assert (mounted.path / "sound").read_bytes() == marks["sound"]
    complaints = mounted.complaints
    assert complaints
    assert all("read of /hurt" in line and "checksum" in line for line in complaints)
    mounted.umount()
    mounted.log.unlink()


def test_caching_writes_in_the_kernel_loses_nothing_on_the_way_out(unmounted: Mounted) -> None:
    unmounted.mount("writeback")
    data = random.Random(4).randbytes(1_000_000)
    with open(unmounted.path / "file", "wb") as file:
        for start in range(0, len(data), 1000):
            file.write(data[start : start + 1000])
        assert os.fstat(file.fileno()).st_blocks, "programs take a file of no blocks for one of zeros and do not read it"
    os.utime(unmounted.path / "file", ns=(1, 2))
    assert (unmounted.path / "file").read_bytes() == data
    unmounted.remount()
    assert (unmounted.path / "file").read_bytes() == data
    assert (unmounted.path / "file").stat().st_mtime_ns == 2
