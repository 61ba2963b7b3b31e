"""The mount answers as the host's own filesystem does: the same calls on both, results and errnos equal.

The host's filesystem is the one that the tests' temporary directory is on: ext4 or tmpfs, as a rule.
"""

import fcntl
import itertools
import mmap
import os
import resource
import shutil
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.mounts import Mounted, renameat2
from tests.mount.sidebyside import (
    ACCESS,
    ANNA,
    BERT,
    LISTS,
    ROOT,
    Story,
    acting_as,
    append,
    make,
    mode_of,
    opened,
    picture,
    played,
    random_steps,
    tried,
    working_in,
)

pytestmark = pytest.mark.mount

STEPS_PER_WALK = 3000
STEPS_PER_PICTURE = 25


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """An empty directory on the host's own filesystem."""
    folder = tmp_path / "host"
    folder.mkdir()
    return folder


def walked(folder: Path, seed: int) -> list[object]:
    """Return what a random walk in *folder* was told, step by step, with a picture of everything now and then."""
    told: list[object] = []
    folder.chmod(0o777)
    with working_in(folder):
        for number, (person, call, words) in enumerate(random_steps(seed, STEPS_PER_WALK)):
            with acting_as(person):
                answer = tried(call, *words)
            told.append((number, person, call.__name__, words, answer))
            if number % STEPS_PER_PICTURE == 0:
                told.append(picture())
        told.append(picture())
    return told


@pytest.mark.parametrize("seed", range(4))
def test_a_random_walk_of_three_people_is_told_the_same_on_the_mount_and_on_the_host(mnt: Path, host: Path, seed: int) -> None:
    for ours, theirs in zip(walked(mnt, seed), walked(host, seed), strict=True):
        assert ours == theirs


# Ground that a random walk does not reach. Each story yields what it was told; it is played on both.

def names_of_attributes_that_cannot_be() -> Iterator[object]:
    make("file")
    make("bare")
    os.setxattr("file", "user.x", b"1")  # one attribute is there, so nothing is answered from the inode alone
    for name in ("user.", "trusted.", "security.", "user", "nowhere.x", "system.x", "system.", "x"):
        for path in ("file", "bare"):
            yield name, tried(os.setxattr, path, name, b"value")
            yield name, tried(os.getxattr, path, name)
            yield name, tried(os.removexattr, path, name)


def attributes_of_what_is_neither_file_nor_directory() -> Iterator[object]:
    os.mkfifo("pipe")
    os.symlink("nowhere", "link")
    for path in ("pipe", "link"):
        for name in ("user.x", "trusted.x"):
            yield path, name, tried(os.setxattr, path, name, b"value", follow_symlinks=False)
            yield path, name, tried(os.getxattr, path, name, follow_symlinks=False)
            yield path, name, tried(os.removexattr, path, name, follow_symlinks=False)


def shortened(path: str) -> None:
    """Cut a file to one byte."""
    os.truncate(path, 1)


def emptied(path: str) -> str:
    """Open a file with O_TRUNC."""
    return opened(path, os.O_WRONLY | os.O_TRUNC)


def a_change_by_somebody_else_takes_the_set_id_bits() -> Iterator[object]:
    for kind, change in (("append", append), ("truncate", shortened), ("open", emptied)):
        for mode in (0o6777, 0o4777, 0o2777, 0o6767, 0o2767):
            for person, gid in ((ANNA, 0), (ANNA, ANNA.gid), (ANNA, 2003), (ROOT, BERT.gid)):
                path = f"{kind} {mode:o} {person.uid} {gid}"
                make(path, mode, b"content")
                os.chown(path, BERT.uid, gid)
                os.chmod(path, mode)
                with acting_as(person):
                    yield path, tried(change, path), mode_of(path)


def a_new_owner_or_group_takes_the_set_id_bits() -> Iterator[object]:
    for mode in (0o6755, 0o4755, 0o2755, 0o6745, 0o2745):
        for person, owner, group in ((ANNA, -1, 2003), (ANNA, -1, ANNA.gid), (ANNA, -1, -1), (ROOT, BERT.uid, -1), (ROOT, -1, 5)):
            for gid in (BERT.gid, ANNA.gid):
                path = f"{mode:o} {person.uid} {owner} {group} {gid}"
                make(path)
                os.chown(path, ANNA.uid, gid)
                os.chmod(path, mode)
                with acting_as(person):
                    yield path, tried(os.chown, path, owner, group), mode_of(path)


def a_chmod_outside_of_ones_groups_drops_the_set_gid_bit() -> Iterator[object]:
    for gid in (ANNA.gid, *ANNA.groups, BERT.gid):
        make(f"file {gid}")
        os.chown(f"file {gid}", ANNA.uid, gid)
        with acting_as(ANNA):
            yield tried(os.chmod, f"file {gid}", 0o6755), mode_of(f"file {gid}")


def what_is_made_in_a_set_gid_directory() -> Iterator[object]:
    os.mkdir("folder")
    os.chown("folder", BERT.uid, BERT.gid)
    os.chmod("folder", 0o2777)
    with acting_as(ANNA):
        for umask in (0o000, 0o022, 0o077):
            before = os.umask(umask)
            try:
                yield tried(opened, f"folder/file {umask}", os.O_CREAT | os.O_WRONLY, 0o6777)
                yield tried(os.mkdir, f"folder/folder {umask}", 0o777)
                yield tried(os.mkfifo, f"folder/pipe {umask}", 0o666)
                yield tried(os.symlink, "x", f"folder/link {umask}")
            finally:
                os.umask(before)
    yield [(name, mode_of(f"folder/{name}")) for name in sorted(os.listdir("folder"))]


def sticky_directories() -> Iterator[object]:
    os.mkdir("shared")
    os.chmod("shared", 0o1777)
    for owner in (ROOT, ANNA, BERT):
        for kind in ("unlink", "rename", "replace"):
            make(f"shared/{owner.uid} {kind}", 0o666)
            os.chown(f"shared/{owner.uid} {kind}", owner.uid, owner.gid)
    with acting_as(ANNA):
        make("shared/mine")
        for owner in (ROOT, ANNA, BERT):
            yield tried(os.unlink, f"shared/{owner.uid} unlink")
            yield tried(os.rename, f"shared/{owner.uid} rename", f"shared/{owner.uid} renamed")
            yield tried(os.rename, "shared/mine", f"shared/{owner.uid} replace")
    yield sorted(os.listdir("shared"))


def times_set_by_others() -> Iterator[object]:
    for mode in (0o666, 0o644, 0o600):
        make(f"file {mode}", mode)
        with acting_as(ANNA):
            yield tried(os.utime, f"file {mode}"), tried(os.utime, f"file {mode}", (1, 1))
    for times in ((-1, -1), (0, 999_999_999), (2**31, 2**32), (1, 10**18)):
        yield tried(os.utime, "file 438", ns=times), os.stat("file 438").st_atime_ns, os.stat("file 438").st_mtime_ns


def a_program_that_runs_cannot_be_written() -> Iterator[object]:
    shutil.copy("/bin/cat", "program")
    with subprocess.Popen(["./program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None and running.stdout is not None
        running.stdin.write(b"!")
        running.stdin.flush()
        assert running.stdout.read(1) == b"!"  # it runs
        yield tried(opened, "program", os.O_WRONLY), tried(os.truncate, "program", 0)
        yield tried(os.rename, "program", "renamed"), tried(os.unlink, "renamed")
        running.stdin.close()
    yield running.returncode


def a_file_without_a_name() -> Iterator[object]:
    descriptor = os.open("file", os.O_CREAT | os.O_RDWR)
    os.link("file", "second")
    os.unlink("file")
    yield os.fstat(descriptor).st_nlink
    os.unlink("second")
    yield os.fstat(descriptor).st_nlink, os.write(descriptor, b"content"), os.pread(descriptor, 7, 0)
    yield tried(os.link, f"/proc/self/fd/{descriptor}", "again", follow_symlinks=True)
    yield tried(os.fchmod, descriptor, 0o600), tried(os.ftruncate, descriptor, 3), os.fstat(descriptor).st_size
    yield tried(os.setxattr, descriptor, "user.x", b"1"), tried(os.getxattr, descriptor, "user.x")
    os.close(descriptor)
    yield os.listdir()


def a_directory_without_a_name() -> Iterator[object]:
    os.mkdir("folder")
    descriptor = os.open("folder", os.O_DIRECTORY)
    os.rmdir("folder")
    yield os.fstat(descriptor).st_nlink, tried(os.listdir, descriptor)
    for call in (os.mkdir, os.mkfifo, os.unlink, os.rmdir):
        yield tried(call, "name", dir_fd=descriptor)
    yield tried(os.open, "name", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
    yield tried(os.symlink, "x", "name", dir_fd=descriptor)
    make("file")
    yield tried(os.link, "file", "name", dst_dir_fd=descriptor), tried(os.rename, "file", "name", dst_dir_fd=descriptor)
    yield tried(os.fchmod, descriptor, 0o700), tried(os.fsync, descriptor)
    os.close(descriptor)


def locks_of_two_descriptors() -> Iterator[object]:
    make("file", 0o644, b"content")
    first, second = os.open("file", os.O_RDWR), os.open("file", os.O_RDWR)
    for one, other in itertools.product((fcntl.LOCK_SH, fcntl.LOCK_EX), repeat=2):
        yield tried(fcntl.flock, first, one | fcntl.LOCK_NB), tried(fcntl.flock, second, other | fcntl.LOCK_NB)
        fcntl.flock(first, fcntl.LOCK_UN)
        fcntl.flock(second, fcntl.LOCK_UN)
    whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    tail = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 4, 0, 0)
    ofd_setlk = 37  # F_OFD_SETLK: locks that belong to the open file, not to the process
    yield tried(fcntl.fcntl, first, ofd_setlk, tail), tried(fcntl.fcntl, second, ofd_setlk, whole)
    os.close(first)
    yield tried(fcntl.fcntl, second, ofd_setlk, whole)
    os.close(second)


def what_open_refuses() -> Iterator[object]:
    os.mkdir("folder")
    make("file")
    os.symlink("file", "link")
    os.symlink("loop", "loop")
    os.symlink("absent", "dangling")
    os.mknod("socket", stat.S_IFSOCK | 0o666)
    kinds = (os.O_RDONLY, os.O_WRONLY, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_PATH)
    paths = ("folder", "file", "file/", "link", "link/", "loop", "dangling", "socket", "absent/")
    for path, flags in itertools.product(paths, kinds):
        yield path, flags, tried(opened, path, flags)
    yield sorted(os.listdir())


def positions_that_cannot_be() -> Iterator[object]:
    descriptor = os.open("file", os.O_CREAT | os.O_RDWR)
    yield tried(os.pwrite, descriptor, b"x", -1), tried(os.pread, descriptor, 1, -1), tried(os.ftruncate, descriptor, -1)
    yield tried(os.lseek, descriptor, -1, os.SEEK_SET), tried(os.lseek, descriptor, 0, os.SEEK_DATA)
    yield tried(os.ftruncate, descriptor, 2**63 - 1), tried(os.pwrite, descriptor, b"x", 2**63 - 1)
    yield os.pread(descriptor, 10, 2**40), os.fstat(descriptor).st_size
    os.close(descriptor)


def a_limit_of_file_size() -> Iterator[object]:
    descriptor = os.open("file", os.O_CREAT | os.O_RDWR)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, usual[1]))  # Python ignores the signal; the call fails then
    try:
        yield tried(os.pwrite, descriptor, b"x" * 5000, 8000), tried(os.pwrite, descriptor, b"x", 8192)
        yield tried(os.ftruncate, descriptor, 8193), tried(os.truncate, "file", 8193), tried(os.ftruncate, descriptor, 8192)
        yield tried(os.posix_fallocate, descriptor, 0, 8193)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    yield os.fstat(descriptor).st_size
    os.close(descriptor)


def paths_that_end_in_dots() -> Iterator[object]:
    os.makedirs("a/b")
    for path in (".", "a/.", "a/..", "a/b/..", ""):
        yield path, tried(os.rmdir, path), tried(os.unlink, path), tried(os.rename, "a", path), tried(os.mkdir, path)


STORIES: tuple[Story, ...] = (
    names_of_attributes_that_cannot_be,
    attributes_of_what_is_neither_file_nor_directory,
    a_change_by_somebody_else_takes_the_set_id_bits,
    a_new_owner_or_group_takes_the_set_id_bits,
    a_chmod_outside_of_ones_groups_drops_the_set_gid_bit,
    what_is_made_in_a_set_gid_directory,
    sticky_directories,
    times_set_by_others,
    a_program_that_runs_cannot_be_written,
    a_file_without_a_name,
    a_directory_without_a_name,
    locks_of_two_descriptors,
    what_open_refuses,
    positions_that_cannot_be,
    a_limit_of_file_size,
    paths_that_end_in_dots,
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_the_mount_tells_the_same_story_as_the_host(mnt: Path, host: Path, story: Story) -> None:
    assert played(story, mnt) == played(story, host)


# What cannot be compared with the host


def test_a_read_only_mount_refuses_every_change(mounted: Mounted) -> None:
    with working_in(mounted.path):
        make("file", content=b"content")
        os.mkdir("folder")
    mounted.remount("ro")
    calls: tuple[tuple[Callable[..., object], tuple[object, ...]], ...] = (
        (opened, ("file", os.O_WRONLY)),
        (opened, ("new", os.O_CREAT | os.O_WRONLY)),
        (os.truncate, ("file", 1)),
        (os.mkdir, ("new",)),
        (os.mkfifo, ("new",)),
        (os.symlink, ("file", "new")),
        (os.link, ("file", "new")),
        (os.rename, ("file", "new")),
        (os.unlink, ("file",)),
        (os.rmdir, ("folder",)),
        (os.chmod, ("file", 0o600)),
        (os.chown, ("file", 1, 1)),
        (os.utime, ("file",)),
        (os.setxattr, ("file", "user.x", b"1")),
        (os.setxattr, ("file", ACCESS, LISTS[2])),
    )
    with working_in(mounted.path):
        assert {(call.__name__, tried(call, *words)) for call, words in calls} == {(call.__name__, "EROFS") for call, _ in calls}


def test_a_mount_is_a_device_of_its_own_and_in_use_while_mounted(mnt: Path, host: Path, shared: Mounted) -> None:
    (mnt / "file").touch()
    assert tried(os.link, mnt / "file", host / "file") == tried(os.rename, mnt / "file", host / "file") == "EXDEV"
    assert tried(os.rmdir, shared.path) == tried(os.rename, shared.path, host / "elsewhere") == "EBUSY"


def test_what_was_mapped_is_no_hole(mnt: Path) -> None:
    with working_in(mnt):
        descriptor = os.open("sparse", os.O_CREAT | os.O_RDWR)
        os.ftruncate(descriptor, 1 << 20)
        with mmap.mmap(descriptor, 1 << 20) as mapped:
            mapped[500_000:500_004] = b"data"  # the daemon does not know of it
            assert os.lseek(descriptor, 0, os.SEEK_DATA) <= 500_000
            assert os.lseek(descriptor, 500_000, os.SEEK_HOLE) >= 500_004
        os.close(descriptor)


def test_what_no_request_exists_for_is_refused_and_not_pretended(mnt: Path) -> None:
    with working_in(mnt):
        make("sparse")
        os.truncate("sparse", 1 << 20)
        descriptor = os.open("sparse", os.O_RDWR)
        assert tried(fcntl.ioctl, descriptor, 0x80086601, bytes(8)) == "ENOTTY"  # FS_IOC_GETFLAGS: lsattr
        assert os.lseek(descriptor, 0, os.SEEK_DATA) == 0  # holes are not told apart from data
        assert os.lseek(descriptor, 0, os.SEEK_HOLE) == 1 << 20
        os.posix_fallocate(descriptor, 0, 2 << 20)  # the C library does it by writing
        assert os.fstat(descriptor).st_size == 2 << 20
        os.close(descriptor)
        assert tried(os.open, ".", os.O_TMPFILE | os.O_RDWR) == "ENOTSUP"
        assert tried(renameat2, "sparse", "new", 4) == "EINVAL"  # RENAME_WHITEOUT
