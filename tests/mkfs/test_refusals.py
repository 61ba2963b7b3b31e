"""What mkfs.razorfs never overwrites, and what only with --force."""

import fcntl
import gzip
import io
import os
import shutil
import sqlite3
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from razortools.engine.make.in_use import find_use
from razortools.engine.make.signatures import HEAD_BYTES, TABLE, TAIL_BYTES, find_signature
from razortools.engine.store.device import open_image
from razortools.units import MIB
from tests.mkfs.conftest import Mkfs

IMAGE_BYTES = 4 * MIB


def _mke2fs(path: Path) -> None:
    subprocess.run(["/sbin/mke2fs", "-q", "-F", str(path)], check=True, capture_output=True)


def _mkswap(path: Path) -> None:
    subprocess.run(["/sbin/mkswap", str(path)], check=True, capture_output=True)


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("name", b"contents")


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("name"), io.BytesIO())


def _sqlite(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (x)")


def _gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(b"contents"))


def _at(offset: int, magic: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
            file.write(magic)

    return write


REAL: dict[str, Callable[[Path], None]] = {
    "zip": _zip,
    "tar": _tar,
    "SQLite": _sqlite,
    "gzip": _gzip,
    "partition": _at(510, b"\x55\xaa"),
    "GPT": _at(-512, b"EFI PART"),
}
if shutil.which("mke2fs", path="/sbin:/usr/sbin"):
    REAL["ext"] = _mke2fs
if shutil.which("mkswap", path="/sbin:/usr/sbin"):
    REAL["swap"] = _mkswap


@pytest.mark.parametrize("what", sorted(REAL))
def test_what_other_programs_made_is_refused_and_told_by_name(run_mkfs: Mkfs, image: Path, what: str) -> None:
    if what not in ("zip", "tar", "SQLite", "gzip"):
        image.write_bytes(bytes(IMAGE_BYTES))
    REAL[what](image)
    before = image.read_bytes()
    run = run_mkfs(image, "4M")
    assert run.code == 1
    assert what in run.err
    assert "--force" in run.err
    assert image.read_bytes() == before


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.what} at {row.offset}")
def test_every_row_of_the_table_is_found(row: object) -> None:
    made = bytearray(IMAGE_BYTES)
    start = row.offset % IMAGE_BYTES  # type: ignore[attr-defined]
    made[start : start + len(row.magic)] = row.magic  # type: ignore[attr-defined]
    assert find_signature(bytes(made[:HEAD_BYTES]), bytes(made[-TAIL_BYTES:])) == row.what  # type: ignore[attr-defined]


def test_every_row_lies_in_what_is_looked_at() -> None:
    assert max(row.offset + len(row.magic) for row in TABLE) <= HEAD_BYTES
    assert min(row.offset for row in TABLE) >= -TAIL_BYTES


@pytest.mark.parametrize("contents", [b"", b"\0", bytes(100), b"plain text\n" * 1000])
def test_what_looks_like_nothing_is_not_called_something(contents: bytes) -> None:
    assert find_signature(contents, contents[-TAIL_BYTES:]) is None


def test_a_tar_from_before_posix_is_known_by_its_checksum(tmp_path: Path) -> None:
    header = bytearray(512)
    header[:4] = b"name"
    header[100:108] = b"0000644\0"
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    assert find_signature(bytes(header), bytes(header)) == "a tar archive"


def test_an_older_filesystem_of_ours_is_refused_even_without_its_first_block(run_mkfs: Mkfs, image: Path) -> None:
    assert run_mkfs(image, "4M").code == 0
    assert "RAZORFS" in run_mkfs(image).err
    with image.open("r+b") as file:
        file.write(bytes(4096))
    if image.read_bytes()[4096:4104] != bytes(8):  # the second slot may not have been written yet
        assert run_mkfs(image).code == 1


def test_force_overwrites(run_mkfs: Mkfs, image: Path) -> None:
    image.write_bytes(bytes(IMAGE_BYTES))
    _at(510, b"\x55\xaa")(image)
    _at(-512, b"EFI PART")(image)
    assert run_mkfs(image, "-f").code == 0
    assert find_signature(image.read_bytes()[:HEAD_BYTES], image.read_bytes()[-TAIL_BYTES:]) == "a RAZORFS filesystem"
    assert b"EFI PART" not in image.read_bytes()


def test_force_on_part_of_a_file_clears_the_marks_behind_it(run_mkfs: Mkfs, image: Path) -> None:
    image.write_bytes(b"\x77" * (2 * IMAGE_BYTES))
    _at(-512, b"EFI PART")(image)
    assert run_mkfs(image, "4M", "-f").code == 0
    assert image.stat().st_size == 2 * IMAGE_BYTES
    assert b"EFI PART" not in image.read_bytes()
    assert image.read_bytes()[IMAGE_BYTES : IMAGE_BYTES + 4096] == b"\x77" * 4096


@pytest.mark.parametrize("force", [[], ["-f"]])
@pytest.mark.parametrize("writable", [True, False])
def test_an_open_image_is_never_overwritten(run_mkfs: Mkfs, image: Path, force: list[str], writable: bool) -> None:
    assert run_mkfs(image, "4M").code == 0
    before = image.read_bytes()
    with open_image(image, writable=writable):
        run = run_mkfs(image, *force)
    assert run.code == 1
    assert f"pid {os.getpid()}" in run.err
    assert image.read_bytes() == before


def test_a_lock_of_another_process_counts(run_mkfs: Mkfs, image: Path) -> None:
    image.write_bytes(bytes(IMAGE_BYTES))
    holder = subprocess.Popen(["flock", str(image), "cat"], stdin=subprocess.PIPE)
    try:
        with image.open("rb") as file:
            while True:  # until the other process has it: the kernel tells, no clock does
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    break
                fcntl.flock(file, fcntl.LOCK_UN)
        assert run_mkfs(image, "-f").code == 1
    finally:
        holder.communicate()


@pytest.fixture
def loop_device(image: Path) -> Iterator[str]:
    """A loop device over an image of zeros."""
    image.write_bytes(bytes(IMAGE_BYTES))
    made = subprocess.run(["losetup", "--show", "-f", str(image)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip("this machine makes no loop devices")
    device = made.stdout.strip()
    yield device
    subprocess.run(["losetup", "-d", device], check=True)


def test_a_file_behind_a_loop_device_is_in_use(run_mkfs: Mkfs, image: Path, loop_device: str) -> None:
    run = run_mkfs(image, "-f")
    assert run.code == 1
    assert loop_device in run.err


def test_a_block_device_takes_a_filesystem(run_mkfs: Mkfs, loop_device: str) -> None:
    assert run_mkfs(loop_device).code == 0
    assert run_mkfs(loop_device).code == 1
    assert run_mkfs(loop_device, "2M", "-f", "--json").document["size_bytes"] == 2 * MIB
    assert run_mkfs(loop_device, "8M", "-f").code == 2


def test_a_mounted_block_device_is_never_overwritten(run_mkfs: Mkfs, tmp_path: Path, loop_device: str) -> None:
    place = tmp_path / "mounted"
    place.mkdir()
    _mke2fs(Path(loop_device))
    if subprocess.run(["mount", loop_device, str(place)], capture_output=True).returncode:
        pytest.skip("this machine does not mount")
    try:
        run = run_mkfs(loop_device, "-f")
        assert run.code == 1
        assert str(place) in run.err
    finally:
        subprocess.run(["umount", str(place)], check=True)


def host_with(tmp_path: Path, *, mounts: bytes = b"", swaps: bytes = b"", loop: bytes = b"") -> tuple[Path, Path]:
    """Return /proc and /sys of a host that tells these things."""
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "mountinfo").write_bytes(mounts)
    (proc / "swaps").write_bytes(b"Filename Type Size Used Priority\n" + swaps)
    (sys / "block" / "loop3" / "loop").mkdir(parents=True)
    (sys / "block" / "loop3" / "loop" / "backing_file").write_bytes(loop)
    return proc, sys


def test_an_image_that_is_mounted_through_fuse_is_in_use(tmp_path: Path) -> None:
    image = tmp_path / "an image"
    image.write_bytes(b"x")
    source = os.fsencode(image).replace(b" ", b"\\040")
    line = b"40 28 0:45 / /mnt/with\\040blank rw,nosuid - fuse.razorfs %b rw,user_id=0\n" % source
    proc, sys = host_with(tmp_path, mounts=b"28 1 8:1 / / rw - ext4 /dev/root rw\n" + line)
    use = find_use(str(image), proc, sys)
    assert use is not None
    assert "/mnt/with blank" in use


def test_swap_and_loop_devices_are_in_use(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"x")
    link = tmp_path / "link"
    link.symlink_to(image)
    proc, sys = host_with(tmp_path, swaps=os.fsencode(image) + b" file 1 2 3\n")
    assert "swap" in (find_use(str(link), proc, sys) or "")
    proc, sys = host_with(tmp_path / "other", loop=os.fsencode(image) + b"\n")
    assert "/dev/loop3" in (find_use(str(link), proc, sys) or "")


def test_what_nobody_uses_is_not_in_use(tmp_path: Path) -> None:
    proc, sys = host_with(tmp_path, mounts=b"garbage\n- -\n28 1 8:1 / / rw - ext4\n")
    image = tmp_path / "image"
    assert find_use(str(image), proc, sys) is None
    image.write_bytes(b"x")
    assert find_use(str(image), proc, sys) is None
    assert find_use(str(image), tmp_path / "nowhere", tmp_path / "nowhere") is None


def test_directories_and_fifos_are_no_places_for_an_image(run_mkfs: Mkfs, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("", "fifo"):
        run = run_mkfs(tmp_path / name, "4M", "-f")
        assert run.code == 1
        assert str(tmp_path / name).rstrip("/") in run.err
