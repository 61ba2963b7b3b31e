"""A disk that fails under a mounted image: who asked for what cannot be read is told, and nobody else; what endangers the image
makes it read-only, in the mount table too, with the reason.
"""

import errno
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from razortools.engine import directories
from razortools.engine.store.device import open_image
from razortools.engine.volume import open_volume
from razortools.format.inode import ROOT_INODE
from razortools.format.items import owned_record
from razortools.format.keys import inode_key, record_key
from razortools.service import mountpoints
from razortools.units import KIB, InodeNo
from tests.mount.mounts import ANSWER_S, MOUNT, UMOUNT, Mounted, run

pytestmark = pytest.mark.mount

FAILING = [sys.executable, "-m", "tests.mount.failing"]
HEALTH = [sys.executable, "-m", "razortools.health"]
FSCK = [sys.executable, "-m", "razortools.fsck"]
PROJECT = Path(__file__).parents[2]
RECORD_BYTES = 128 * KIB
FILE_COUNT = 400


class Disk:
    """A mounted image and what fails of the disk below it."""

    def __init__(self, mounted: Mounted, faults: Path) -> None:
        self.mounted = mounted
        self.path = mounted.path
        self.faults = faults
        self.heal()

    def fail(self, *lines: str) -> None:
        """Let the disk fail so, and nothing be answered from memory that it held."""
        self.faults.with_name("new").write_text("\n".join(lines))
        self.faults.with_name("new").rename(self.faults)

    def heal(self) -> None:
        """Let it work again."""
        self.fail()

    def mount(self, *options: str) -> None:
        """Mount, or mount anew: nothing is in memory."""
        if mountpoints.mount_at(str(self.path)) is not None:
            self.mounted.umount()
        words = ",".join((f"log={self.mounted.log}", *options))
        done = run(FAILING, self.faults, self.mounted.image, self.path, "-o", words, cwd=PROJECT)
        assert done.returncode == 0, done.stderr

    def places(self, find: Callable[..., list[tuple[int, int]]], *arguments: object) -> list[tuple[int, int]]:
        """Return the ranges of bytes that *find* finds in the image, which is not mounted then."""
        self.mounted.umount()
        with open_volume(open_image(self.mounted.image, writable=False), read_only=True) as volume:
            return find(volume, *arguments)


def number_of(volume: object, name: str) -> InodeNo:
    found = directories.find(volume, ROOT_INODE, name.encode())  # type: ignore[arg-type]
    assert found is not None
    return InodeNo(found[1].inode)


def leaf_of(volume: object, key: bytes) -> list[tuple[int, int]]:
    """Return where the copies of the leaf with *key* lie."""
    store = volume.store  # type: ignore[attr-defined]
    store.get(key)  # the way to it is in memory then
    parent, index = store.tree._path(key)[-1]
    ref = parent.children[index]
    size = store.geometry.node_bytes
    return [(place * store.block_bytes, place * store.block_bytes + size) for place in (ref.address, ref.mirror)]


def leaf_of_file(volume: object, name: str) -> list[tuple[int, int]]:
    return leaf_of(volume, inode_key(number_of(volume, name)))


def record_of_file(volume: object, name: str, record_no: int) -> list[tuple[int, int]]:
    store = volume.store  # type: ignore[attr-defined]
    key = record_key(number_of(volume, name), record_no)
    record = owned_record(key, store.get(key))
    assert record is not None
    block_bytes = store.block_bytes
    return [(start * block_bytes, (start + count) * block_bytes) for start, count in record.runs(block_bytes)]


def lines(kind: str, places: list[tuple[int, int]]) -> list[str]:
    return [f"{kind} {first} {end}" for first, end in places]


CONTENTS = random.Random(4).randbytes(8 * RECORD_BYTES)


@pytest.fixture
def disk(fuse: None, tmp_path: Path) -> Iterator[Disk]:
    """Files in several leaves of the tree, and one of eight records."""
    mounted = Mounted(tmp_path)
    made = Disk(mounted, tmp_path / "faults")
    try:
        made.mount()
        for number in range(FILE_COUNT):
            (made.path / f"{number}").write_text(f"{number}")
        (made.path / "large").write_bytes(CONTENTS)
        yield made
    finally:
        made.heal()
        mounted.take_away()


def raises(number: int) -> object:
    return pytest.raises(OSError, check=lambda failure: failure.errno == number)


def assert_it_tells_of_this_alone(disk: Disk, exit_code: int, pattern: str) -> None:
    """The mount goes on, and its health names what programs have met and nothing else."""
    told = run(HEALTH, disk.path)
    assert told.returncode == exit_code, told.stdout
    (wrong,) = [line for line in told.stdout.splitlines() if not line.startswith("OK ")]
    assert re.match(pattern, wrong)


FAILED = r"WARNING  Requests: \d+ were refused because the device failed; .*the host's disk"
# No copy of a node is left.
DAMAGED = r"CRITICAL Integrity: \d+ requests? met data that failed its check, or cannot be read; .*razorfsck"


def read_at(path: Path, offset: int, length: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        return os.pread(file.fileno(), length, offset)


def test_a_record_that_cannot_be_read_is_an_error_for_its_bytes_alone(disk: Disk) -> None:
    disk.fail(*lines("read", disk.places(record_of_file, "large", 3)))
    disk.mount()
    with raises(errno.EIO):  # type: ignore[attr-defined]
        read_at(disk.path / "large", 3 * RECORD_BYTES, 4096)
    for record_no in (0, 2, 4, 7):
        at = record_no * RECORD_BYTES
        assert read_at(disk.path / "large", at, 4096) == CONTENTS[at : at + 4096]
    assert (disk.path / "7").read_text() == "7"
    (disk.path / "new").write_text("goes on")
    assert os.statvfs(disk.path).f_bfree > 0
    complaints = disk.mounted.complaints
    assert complaints and all("/large" in line and "Input/output error" in line for line in complaints)
    assert_it_tells_of_this_alone(disk, 1, FAILED)
    disk.heal()
    assert read_at(disk.path / "large", 3 * RECORD_BYTES, 4096) == CONTENTS[3 * RECORD_BYTES : 3 * RECORD_BYTES + 4096]


def test_a_node_of_which_one_copy_can_be_read_is_no_error(disk: Disk) -> None:
    for copy in range(2):
        places = disk.places(leaf_of_file, "200")
        disk.fail(*lines("read", places[copy : copy + 1]))
        disk.mount()
        assert (disk.path / "200").read_text() == "200"
        disk.heal()
    assert disk.mounted.complaints == []


def test_a_node_that_cannot_be_read_is_an_error_for_what_stands_in_it(disk: Disk) -> None:
    disk.fail(*lines("read", disk.places(leaf_of_file, "200")))
    disk.mount()
    with raises(errno.EIO):  # type: ignore[attr-defined]
        (disk.path / "200").stat()
    with raises(errno.EIO):  # type: ignore[attr-defined]
        (disk.path / "200").write_text("changed")
    for name in ("0", "399", "large"):
        (disk.path / name).stat()
        os.utime(disk.path / name)
    assert os.statvfs(disk.path).f_bfree > 0
    with open(disk.path / "399", "r+b") as file:
        file.write(b"new")
        file.flush()
        os.fsync(file.fileno())
    assert_it_tells_of_this_alone(disk, 2, DAMAGED)
    disk.heal()
    assert (disk.path / "200").read_text() == "200"
    disk.mounted.umount()
    checked = run(FSCK, "-n", disk.mounted.image)
    assert checked.returncode == 4 and "1 problem found" in checked.stdout  # the image tells that something failed
    assert run(FSCK, "-p", disk.mounted.image).returncode == 1
    assert run(FSCK, "-n", disk.mounted.image).returncode == 0


def table_says_read_only(disk: Disk) -> bool:
    found = mountpoints.mount_at(str(disk.path))
    assert found is not None
    return found.is_read_only


def await_table(disk: Disk) -> None:
    """Return once the mount table says that it is read-only. The daemon sees to it when it can, and tells nobody."""
    end = time.monotonic() + ANSWER_S
    while not table_says_read_only(disk):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("fault", ["write", "flush"])
def test_a_failed_commit_makes_the_mount_read_only_and_everybody_can_see_why(disk: Disk, fault: str) -> None:
    disk.mount("commit=0.2")
    descriptor = os.open(disk.path / "acknowledged", os.O_CREAT | os.O_RDWR)
    os.write(descriptor, b"safe")
    os.fsync(descriptor)
    disk.fail(fault)
    os.write(descriptor, b" lost")
    with raises(errno.EIO):  # type: ignore[attr-defined]
        os.fsync(descriptor)
    with raises(errno.EROFS):  # type: ignore[attr-defined]
        (disk.path / "new").touch()
    with raises(errno.EROFS):  # type: ignore[attr-defined]
        os.write(descriptor, b"more")
    assert (disk.path / "17").read_text() == "17"
    assert os.statvfs(disk.path).f_bfree > 0
    assert not table_says_read_only(disk)  # the kernel does not allow it while a file is open for writing
    os.close(descriptor)
    await_table(disk)
    assert os.statvfs(disk.path).f_flag & os.ST_RDONLY
    told = run(HEALTH, disk.path)
    assert told.returncode == 2
    assert f"has turned read-only by itself: {disk.mounted.image}: {fault}" in told.stdout
    assert any(f"{fault}" in line and "The filesystem is read-only now" in line for line in disk.mounted.complaints)
    disk.heal()
    refused = run(MOUNT, disk.mounted.image, disk.path, "-o", "remount,rw")
    assert refused.returncode == 32
    assert "The filesystem is read-only now" in refused.stderr
    assert table_says_read_only(disk)
    closed = run(UMOUNT, disk.path)
    assert (closed.returncode, "not closed cleanly" in closed.stderr) == (32, True)
    disk.mount()
    assert (disk.path / "acknowledged").read_bytes() in (b"safe", b"safe lost")
    disk.mounted.umount()
    checked = run(FSCK, "-n", disk.mounted.image)
    assert checked.returncode == 0, checked.stdout


def test_a_commit_that_nobody_waits_for_makes_it_read_only_as_well(disk: Disk) -> None:
    disk.mount("commit=0.2")
    disk.fail("flush")
    with suppress(OSError):  # the timer may come between two of its requests
        (disk.path / "file").write_text("x")
    await_table(disk)
    with raises(errno.EROFS):  # type: ignore[attr-defined]
        (disk.path / "new").touch()
    assert run(HEALTH, disk.path).returncode == 2


def test_a_disk_that_fails_while_the_mount_is_made_read_only_is_told_to_whoever_asked(disk: Disk) -> None:
    disk.mount("commit=3600")
    (disk.path / "file").write_text("x")
    disk.fail("flush")
    told = run(MOUNT, disk.mounted.image, disk.path, "-o", "remount,ro")
    assert told.returncode == 32
    assert "failed: Input/output error" in told.stderr
    assert table_says_read_only(disk)


def test_a_flush_into_a_node_that_cannot_be_read_fails_for_those_who_wait_and_not_for_readers(disk: Disk) -> None:
    """The new data of a record may belong into a leaf that is not in memory when they are flushed."""
    with open(disk.path / "wide", "wb") as file:
        for record_no in range(600):
            file.seek(record_no * RECORD_BYTES)
            file.write(CONTENTS[record_no : record_no + 4096])

    def leaves(volume: object) -> list[tuple[int, int]]:
        found = leaf_of(volume, record_key(number_of(volume, "wide"), 300))  # others of it on both sides, nothing else
        assert found != leaf_of_file(volume, "wide")
        return found

    disk.fail(*lines("read", disk.places(leaves)))
    disk.mount("commit=3600")
    with open(disk.path / "wide", "r+b", buffering=0) as file, raises(errno.EIO):  # type: ignore[attr-defined]
        file.seek(300 * RECORD_BYTES)
        file.write(CONTENTS[:RECORD_BYTES])
        os.fsync(file.fileno())
    assert (disk.path / "17").read_text() == "17"
    disk.heal()
    with open(disk.path / "17", "r+b") as file:
        file.write(b"18")
        file.flush()
        os.fsync(file.fileno())
    assert_it_tells_of_this_alone(disk, 2, DAMAGED)
