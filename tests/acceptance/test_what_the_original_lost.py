"""What the implementation before this one lost, each as it was seen, so that it never comes back.

The C implementation that the roadmap was written for was probed from outside. Every fault that was found is a test here, through
the mount where it shows there.
"""

import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from razortools.units import KIB, MIB
from tests.acceptance.damage import first_data_byte, flip, node_places
from tests.mount.mounts import Mounted, run

FSCK = [sys.executable, "-m", "razortools.fsck"]
TEXT = b"all work and no play makes a dull file\n" * 30_000  # 1.2 MB, compresses well
SECRET = b"SECRET! do not show this to anybody "


@pytest.fixture
def hurt(fuse: None, tmp_path: Path) -> Iterator[Mounted]:
    """Yield an image that a test damages: its mount may complain."""
    made = Mounted(tmp_path)
    try:
        yield made
    finally:
        made.take_away()


def mv(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Move with the command that people use."""
    return subprocess.run(["mv", *map(str, paths)], capture_output=True, text=True, timeout=60)


def write_and_sync(path: Path, data: bytes) -> None:
    """Write a file as a careful program does; when this returns, the data must survive anything."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def assert_clean(image: Path) -> None:
    """Let razorfsck -n find nothing."""
    done = run(FSCK, "-n", image)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


# Creating


def test_the_17th_entry_of_a_directory_is_like_the_first(mounted: Mounted) -> None:
    folder = mounted.path / "folder"
    folder.mkdir()
    for number in range(40):
        (folder / f"entry {number}").write_text(str(number))
        assert len(os.listdir(folder)) == number + 1
    mounted.remount()
    assert {name: (folder / name).read_text() for name in os.listdir(folder)} == {f"entry {n}": str(n) for n in range(40)}


def test_a_session_may_create_more_than_100_files(mounted: Mounted) -> None:
    daemon = mounted.pid
    for number in range(1000):
        (mounted.path / f"file {number}").write_text(str(number))
    assert mounted.pid == daemon
    assert sum(int((mounted.path / name).read_text()) for name in os.listdir(mounted.path)) == sum(range(1000))
    mounted.remount()
    assert sum(int((mounted.path / name).read_text()) for name in os.listdir(mounted.path)) == sum(range(1000))
    mounted.umount()
    assert_clean(mounted.image)


# Durability


def test_what_was_synced_is_there_after_kill_9(mounted: Mounted) -> None:
    chance = random.Random(9)
    wanted = {}
    for number in range(50):
        data = chance.choice((TEXT[: 1000 * number], chance.randbytes(3000 * number), b"", bytes(50_000)))
        wanted[f"file {number}"] = data
        write_and_sync(mounted.path / f"file {number}", data)
    mounted.send(signal.SIGKILL)
    mounted.mount()  # takes the dead mount away and recovers, by itself
    assert {name: (mounted.path / name).read_bytes() for name in os.listdir(mounted.path)} == wanted
    mounted.umount()
    assert_clean(mounted.image)


def test_kill_9_in_the_middle_of_work_loses_nothing_that_was_synced(mounted: Mounted) -> None:
    synced = {}
    for number in range(20):
        name = f"synced {number}"
        synced[name] = (b"version 2 of %d\n" % number) * 5000
        (mounted.path / name).write_bytes(b"version 1")
        (mounted.path / f"scratch {number}").write_bytes(TEXT)
        write_and_sync(mounted.path / name, synced[name])
        (mounted.path / f"scratch {number}").rename(mounted.path / f"moved {number}")
    descriptor = os.open(mounted.path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)
    for number in range(200):
        (mounted.path / f"never synced {number}").write_bytes(TEXT[:20_000])
    mounted.send(signal.SIGKILL)
    assert run(FSCK, "-n", mounted.image).returncode == 0, "an image that only needs its journal is not damaged"
    mounted.mount()
    assert {name: (mounted.path / name).read_bytes() for name in synced} == synced
    assert all((mounted.path / f"moved {number}").read_bytes() == TEXT for number in range(20))
    late = sorted(int(name.split()[-1]) for name in os.listdir(mounted.path) if name.startswith("never"))
    assert late == list(range(len(late))), "what was not synced is there up to some moment, and nothing of later"
    mounted.umount()
    assert_clean(mounted.image)


def test_a_clean_unmount_keeps_everything_and_so_does_the_sync_of_anything_later(mounted: Mounted) -> None:
    (mounted.path / "before the unmount").write_bytes(TEXT)
    mounted.remount()
    assert (mounted.path / "before the unmount").read_bytes() == TEXT
    (mounted.path / "before the sync").write_bytes(TEXT)
    write_and_sync(mounted.path / "another file", b"small")
    mounted.send(signal.SIGKILL)
    mounted.mount()
    assert (mounted.path / "before the sync").read_bytes() == TEXT
    assert (mounted.path / "another file").read_bytes() == b"small"


# Contents


def test_a_compressed_file_can_be_truncated(mounted: Mounted) -> None:
    sizes = (0, 1, 4096, 128 * KIB - 1, 128 * KIB, 128 * KIB + 1, 1_000_000, len(TEXT) - 1)
    for size in sizes:
        path = mounted.path / f"to {size}"
        write_and_sync(path, TEXT)
        os.truncate(path, size)
        assert path.read_bytes() == TEXT[:size]
        os.truncate(path, size + 300_000)
        assert path.read_bytes() == TEXT[:size] + bytes(300_000)
    mounted.remount()
    for size in sizes:
        assert (mounted.path / f"to {size}").read_bytes() == TEXT[:size] + bytes(300_000)
    mounted.umount()
    assert_clean(mounted.image)


def test_holes_are_zeros_and_never_what_lay_there_before(mounted: Mounted) -> None:
    secret = (SECRET * 30_000)[:MIB]
    for number in range(20):
        write_and_sync(mounted.path / f"secret {number}", secret)
    for number in range(20):
        os.unlink(mounted.path / f"secret {number}")
    os.sync()
    beyond, between, grown = (mounted.path / name for name in ("beyond", "between", "grown"))
    with open(beyond, "wb") as file:
        os.pwrite(file.fileno(), b"end", 5 * MIB)
    with open(between, "wb") as file:
        for offset in range(0, 2 * MIB, 300 * KIB):
            os.pwrite(file.fileno(), b"island", offset + 1000)
    write_and_sync(grown, secret)
    os.truncate(grown, 10)
    os.truncate(grown, MIB)
    for _ in range(2):
        assert beyond.read_bytes() == bytes(5 * MIB) + b"end"
        assert between.read_bytes().replace(b"island", bytes(6)) == bytes(between.stat().st_size)
        assert grown.read_bytes() == secret[:10] + bytes(MIB - 10)
        mounted.remount()


# Moving


def test_mv_moves(mounted: Mounted) -> None:
    (mounted.path / "a").write_bytes(TEXT)
    number = (mounted.path / "a").stat().st_ino
    assert mv(mounted.path / "a", mounted.path / "b").stderr == ""
    assert os.listdir(mounted.path) == ["b"]
    mounted.remount()
    assert os.listdir(mounted.path) == ["b"]
    assert ((mounted.path / "b").read_bytes(), (mounted.path / "b").stat().st_ino) == (TEXT, number)


def test_mv_replaces_an_existing_name(mounted: Mounted) -> None:
    (mounted.path / "new").write_bytes(TEXT)
    (mounted.path / "old").write_bytes(b"to be replaced")
    with open(mounted.path / "old", "rb") as still_open:
        assert mv(mounted.path / "new", mounted.path / "old").stderr == ""
        assert still_open.read() == b"to be replaced"
    mounted.remount()
    assert os.listdir(mounted.path) == ["old"]
    assert (mounted.path / "old").read_bytes() == TEXT


def test_mv_crosses_directories(mounted: Mounted) -> None:
    source, target = mounted.path / "from", mounted.path / "to" / "below"
    source.mkdir()
    target.mkdir(parents=True)
    (source / "file").write_bytes(TEXT)
    (source / "folder").mkdir()
    (source / "folder" / "inside").write_text("inside")
    (target / "file").write_text("to be replaced")
    number = (source / "file").stat().st_ino
    assert mv(source / "file", source / "folder", target).stderr == ""
    mounted.remount()
    assert os.listdir(source) == []
    assert (target / "file").read_bytes() == TEXT
    assert (target / "file").stat().st_ino == number, "it was moved, not copied"
    assert (target / "folder" / "inside").read_text() == "inside"
    assert (source.stat().st_nlink, target.stat().st_nlink) == (2, 3)


# What did not exist


def test_symbolic_links_exist(mounted: Mounted) -> None:
    (mounted.path / "file").write_bytes(TEXT)
    (mounted.path / "link").symlink_to("file")
    (mounted.path / "dangling").symlink_to("/no/such/" + "x" * 3000)
    mounted.remount()
    assert (mounted.path / "link").read_bytes() == TEXT
    assert os.readlink(mounted.path / "dangling") == "/no/such/" + "x" * 3000


def test_hard_links_exist(mounted: Mounted) -> None:
    (mounted.path / "one").write_bytes(b"first")
    (mounted.path / "folder").mkdir()
    os.link(mounted.path / "one", mounted.path / "folder" / "two")
    with open(mounted.path / "folder" / "two", "ab") as file:
        file.write(b" second")
    mounted.remount()
    assert (mounted.path / "one").read_bytes() == b"first second"
    assert (mounted.path / "one").stat().st_nlink == 2
    (mounted.path / "one").unlink()
    mounted.remount()
    assert (mounted.path / "folder" / "two").read_bytes() == b"first second"
    assert (mounted.path / "folder" / "two").stat().st_nlink == 1


def test_extended_attributes_exist(mounted: Mounted) -> None:
    path = mounted.path / "file"
    path.touch()
    os.setxattr(path, "user.origin", b"here")
    os.setxattr(path, "user.large", SECRET * 1000)
    mounted.remount()
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == {"user.origin": b"here", "user.large": SECRET * 1000}


def test_statfs_tells_the_truth(mounted: Mounted) -> None:
    before, image_bytes = os.statvfs(mounted.path), mounted.image.stat().st_size
    assert 0.9 * image_bytes < before.f_bfree * before.f_frsize <= before.f_blocks * before.f_frsize <= image_bytes
    write_and_sync(mounted.path / "file", random.Random(1).randbytes(16 * MIB))
    after = os.statvfs(mounted.path)
    assert abs((before.f_bfree - after.f_bfree) * before.f_frsize - 16 * MIB) < MIB
    assert (before.f_files - before.f_ffree, after.f_files - after.f_ffree) == (1, 2)
    assert after.f_namemax == 255


# Damage


def test_a_flipped_byte_of_a_file_is_an_error_and_the_check_names_the_file(hurt: Mounted) -> None:
    data = random.Random(2).randbytes(MIB)
    hurt.mount()
    (hurt.path / "folder").mkdir()
    (hurt.path / "folder" / "hurt").write_bytes(data)
    (hurt.path / "well").write_bytes(data)
    hurt.umount()
    flip(hurt.image, first_data_byte(hurt.image, b"/folder/hurt", record_no=3) + 77)
    before = hurt.image.read_bytes()
    checked = run(FSCK, "-n", hurt.image)
    assert checked.returncode == 4
    assert "/folder/hurt" in checked.stdout
    assert "/well" not in checked.stdout
    assert hurt.image.read_bytes() == before
    hurt.mount()
    record = slice(3 * 128 * KIB, 4 * 128 * KIB)
    with open(hurt.path / "folder" / "hurt", "rb", buffering=0) as file:
        with pytest.raises(OSError) as refused:
            os.pread(file.fileno(), 4096, record.start + 50_000)
        assert refused.value.errno == errno.EIO
        assert os.pread(file.fileno(), record.start - 1_000, 0) == data[: record.start - 1_000]
    with pytest.raises(OSError):
        (hurt.path / "folder" / "hurt").read_bytes()
    assert (hurt.path / "well").read_bytes() == data
    assert any("/folder/hurt" in line for line in hurt.complaints), "the log names the file too"


@pytest.mark.parametrize("copy", [0, 1])
def test_a_flipped_byte_of_metadata_is_read_from_the_other_copy(hurt: Mounted, copy: int) -> None:
    hurt.mount()
    for number in range(300):
        (hurt.path / f"file {number}").write_text(f"contents of {number}")
    hurt.umount()
    places = node_places(hurt.image)
    assert all(mirror for _, mirror in places)
    for number, both in enumerate(places):
        flip(hurt.image, both[copy] * 4096 + 200 * number % (16 * KIB))
    checked = run(FSCK, "-n", hurt.image)
    assert checked.returncode == 4
    assert checked.stdout.count("node") >= len(places)
    hurt.mount()
    found = {name: (hurt.path / name).read_text() for name in os.listdir(hurt.path)}
    assert found == {f"file {number}": f"contents of {number}" for number in range(300)}
    (hurt.path / "one more").write_text("it still works")
    hurt.remount()
    assert len(os.listdir(hurt.path)) == 301


# The check


def test_the_check_does_not_call_garbage_clean(tmp_path: Path) -> None:
    for name, data in {
        "empty": b"",
        "zeros": bytes(MIB),
        "random": random.Random(3).randbytes(2 * MIB),
        "text": TEXT,
        "only the first bytes of one": b"RAZORFS\x01" + bytes(2 * MIB),
    }.items():
        image = tmp_path / name
        image.write_bytes(data)
        checked = run(FSCK, "-n", image)
        assert checked.returncode & 8, name
        assert "clean" not in checked.stdout.lower(), name
        assert checked.stderr.startswith(f"razorfsck: {image}: ")
        assert "Traceback" not in checked.stderr
        assert image.read_bytes() == data


def test_the_check_does_not_call_a_path_that_does_not_exist_clean(tmp_path: Path) -> None:
    checked = run(FSCK, "-n", tmp_path / "no such file")
    assert (checked.returncode, checked.stdout) == (8, "")
    assert "no such file" in checked.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_check_does_not_call_what_is_left_of_a_truncated_image_clean(hurt: Mounted) -> None:
    hurt.mount()
    (hurt.path / "file").write_bytes(TEXT)
    hurt.umount()
    os.truncate(hurt.image, hurt.image.stat().st_size // 2)
    checked = run(FSCK, "-n", hurt.image)
    assert checked.returncode & (4 | 8)
    assert ": clean" not in checked.stdout
