"""Every operation, through the kernel, as programs use it."""

import contextlib
import errno
import mmap
import os
import socket
import stat
from pathlib import Path

import pytest

from tests.mount.mounts import Mounted, renameat2

pytestmark = pytest.mark.mount

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


def refused(number: int) -> "pytest.RaisesExc[OSError]":
    """Return a context that wants exactly this errno."""
    return pytest.raises(OSError, check=lambda failure: failure.errno == number)


# Files


def test_a_file_can_be_made_written_and_read(mnt: Path) -> None:
    (mnt / "file").write_bytes(b"contents")
    assert (mnt / "file").read_bytes() == b"contents"
    assert (mnt / "file").stat().st_size == 8


def test_reading_starts_anywhere_and_ends_at_the_end(mnt: Path) -> None:
    (mnt / "file").write_bytes(bytes(range(256)) * 4096)  # eight records
    with open(mnt / "file", "rb") as file:
        assert os.pread(file.fileno(), 600, 300_000) == (bytes(range(256)) * 4)[300_000 % 256 :][:600]
        assert os.pread(file.fileno(), 600, 256 * 4096 - 10) == bytes(range(246, 256))
        assert os.pread(file.fileno(), 600, 256 * 4096) == b""


def test_appending_goes_to_the_end(mnt: Path) -> None:
    for word in (b"one ", b"two ", b"three"):
        with open(mnt / "file", "ab") as file:
            file.write(word)
    assert (mnt / "file").read_bytes() == b"one two three"


def test_opening_with_truncate_empties_a_file(mnt: Path) -> None:
    (mnt / "file").write_bytes(b"long contents")
    (mnt / "file").write_bytes(b"x")
    assert (mnt / "file").read_bytes() == b"x"


def test_an_exclusive_create_refuses_an_existing_name(mnt: Path) -> None:
    (mnt / "file").touch()
    with refused(errno.EEXIST):
        os.open(mnt / "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY)


def test_what_was_never_written_reads_as_zeros(mnt: Path) -> None:
    with open(mnt / "holes", "wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
    os.truncate(mnt / "holes", 10 << 20)
    data = (mnt / "holes").read_bytes()
    assert data == bytes(5 << 20) + b"end" + bytes((5 << 20) - 3)


def test_a_sparse_file_of_three_gib_takes_next_to_nothing(mounted: Mounted) -> None:
    path = mounted.path / "sparse"
    with open(path, "wb") as file:
        file.truncate(3 << 30)
        file.seek(2 << 30)
        file.write(b"middle")
    mounted.remount()
    assert path.stat().st_size == 3 << 30
    assert path.stat().st_blocks * 512 < 1 << 20
    with open(path, "rb") as file:
        file.seek((2 << 30) - 4)
        assert file.read(14) == b"\0\0\0\0middle\0\0\0\0"


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 131_071, 131_072, 131_073, 300_000])
def test_truncating_cuts_and_extends_with_zeros(mnt: Path, size: int) -> None:
    whole = os.urandom(200_000)
    (mnt / "file").write_bytes(whole)
    os.truncate(mnt / "file", size)
    assert (mnt / "file").read_bytes() == whole[:size] + bytes(max(0, size - len(whole)))
    os.truncate(mnt / "file", 200_000)
    assert (mnt / "file").read_bytes() == whole[:size] + bytes(max(0, 200_000 - size)) if size < 200_000 else whole


def test_a_shared_mapping_writes_the_file(mounted: Mounted) -> None:
    (mounted.path / "file").write_bytes(bytes(10_000))
    with open(mounted.path / "file", "r+b") as file, mmap.mmap(file.fileno(), 10_000) as mapped:
        mapped[5000:5004] = b"here"
        mapped.flush()
    mounted.remount()
    assert (mounted.path / "file").read_bytes()[4999:5005] == b"\0here\0"


def test_a_file_that_is_unlinked_but_open_lives_on(mounted: Mounted) -> None:
    with open(mounted.path / "file", "w+b") as file:
        file.write(b"still here")
        os.unlink(mounted.path / "file")
        file.flush()
        file.seek(0)
        assert file.read() == b"still here"
        assert os.fstat(file.fileno()).st_nlink == 0
        assert os.listdir(mounted.path) == []
    before = os.statvfs(mounted.path).f_ffree
    mounted.remount()
    assert os.listdir(mounted.path) == []
    assert os.statvfs(mounted.path).f_files - os.statvfs(mounted.path).f_ffree == 1  # the root alone
    assert before > 0


def test_writes_through_one_descriptor_are_seen_through_another(mnt: Path) -> None:
    with open(mnt / "file", "wb", buffering=0) as writer, open(mnt / "file", "rb", buffering=0) as reader:
        writer.write(b"first")
        assert reader.read() == b"first"
        writer.write(b"second")
        assert reader.read() == b"second"


def test_direct_and_synchronous_writing_work(mnt: Path) -> None:
    descriptor = os.open(mnt / "file", os.O_CREAT | os.O_RDWR | os.O_SYNC | os.O_DIRECT)
    try:
        with mmap.mmap(-1, 8192) as aligned:
            aligned[:] = b"d" * 8192
            assert os.write(descriptor, aligned) == 8192
        assert (mnt / "file").read_bytes() == b"d" * 8192
    finally:
        os.close(descriptor)


# Names


def test_every_type_of_file_can_be_made(mnt: Path) -> None:
    os.mkdir(mnt / "directory")
    os.mkfifo(mnt / "fifo")
    os.mknod(mnt / "character", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(mnt / "block", stat.S_IFBLK | 0o600, os.makedev(259, 70_000))
    os.mknod(mnt / "regular", stat.S_IFREG | 0o600)
    os.symlink("target", mnt / "symlink")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(mnt / "socket"))
    types = {entry.name: stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) for entry in os.scandir(mnt)}
    assert types == {
        "directory": stat.S_IFDIR, "fifo": stat.S_IFIFO, "character": stat.S_IFCHR, "block": stat.S_IFBLK,
        "regular": stat.S_IFREG, "symlink": stat.S_IFLNK, "socket": stat.S_IFSOCK,
    }  # fmt: skip
    assert (mnt / "character").stat().st_rdev == os.makedev(1, 3)
    assert (mnt / "block").stat().st_rdev == os.makedev(259, 70_000)
    assert (mnt / "character").read_bytes() == b""  # root mounts devices, as mount(8) does


ODD_NAMES = [
    b"a" * 255, b" ", b"-rf", b"new\nline", b"\xff\xfe not utf-8", "gr\u00fc\u00df \U0001f600".encode(), b"back\\slash",
    b"...", b"a b*?[c]",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_are_bytes(mnt: Path, name: bytes) -> None:
    folder = os.fsencode(mnt)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(name)
    assert os.listdir(folder) == [name]
    with open(os.path.join(folder, name), "rb") as file:
        assert file.read() == name


def test_a_name_of_256_bytes_is_too_long(mnt: Path) -> None:
    for attempt in (os.mkdir, os.stat, os.unlink, lambda path: os.symlink("x", path)):
        with refused(errno.ENAMETOOLONG):
            attempt(mnt / ("n" * 256))


def test_hard_links_are_one_file(mnt: Path) -> None:
    (mnt / "one").write_text("same")
    os.link(mnt / "one", mnt / "two")
    assert (mnt / "one").stat().st_nlink == (mnt / "two").stat().st_nlink == 2
    assert (mnt / "one").stat().st_ino == (mnt / "two").stat().st_ino
    (mnt / "two").write_text("changed")
    assert (mnt / "one").read_text() == "changed"
    os.unlink(mnt / "one")
    assert (mnt / "two").stat().st_nlink == 1
    assert (mnt / "two").read_text() == "changed"


def test_directories_cannot_be_linked(mnt: Path) -> None:
    os.mkdir(mnt / "directory")
    with refused(errno.EPERM):
        os.link(mnt / "directory", mnt / "again")


@pytest.mark.parametrize("target", ["short", "x" * 4095, "../\u00fc/nowhere"])
def test_symlinks_keep_their_target(mounted: Mounted, target: str) -> None:
    os.symlink(target, mounted.path / "link")
    assert os.readlink(mounted.path / "link") == target
    mounted.remount()
    assert os.readlink(mounted.path / "link") == target
    assert (mounted.path / "link").lstat().st_size == len(target.encode())


def test_directories_count_their_subdirectories(mnt: Path) -> None:
    before = mnt.stat().st_nlink
    for number in range(5):
        os.mkdir(mnt / f"d{number}")
    assert mnt.stat().st_nlink == before + 5
    os.rmdir(mnt / "d0")
    assert mnt.stat().st_nlink == before + 4


def test_removing_judges_what_it_removes(mnt: Path) -> None:
    os.makedirs(mnt / "full" / "inside")
    (mnt / "file").touch()
    with refused(errno.ENOTEMPTY):
        os.rmdir(mnt / "full")
    with refused(errno.ENOTDIR):
        os.rmdir(mnt / "file")
    with refused(errno.EISDIR):
        os.unlink(mnt / "full")
    with refused(errno.ENOENT):
        os.unlink(mnt / "nothing")
    with refused(errno.ENOTDIR):
        os.stat(mnt / "file" / "below")


def test_a_directory_that_was_removed_while_open_takes_nothing_new(mnt: Path) -> None:
    os.mkdir(mnt / "gone")
    descriptor = os.open(mnt / "gone", os.O_RDONLY)
    try:
        os.rmdir(mnt / "gone")
        assert os.listdir(descriptor) == []
        with refused(errno.ENOENT):
            os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
    finally:
        os.close(descriptor)


# Renaming


def test_rename_moves_replaces_and_crosses_directories(mnt: Path) -> None:
    os.mkdir(mnt / "there")
    (mnt / "a").write_text("a")
    (mnt / "b").write_text("b")
    os.rename(mnt / "a", mnt / "c")
    assert sorted(os.listdir(mnt)) == ["b", "c", "there"]
    os.rename(mnt / "c", mnt / "b")
    assert (mnt / "b").read_text() == "a"
    os.rename(mnt / "b", mnt / "there" / "d")
    assert (os.listdir(mnt), os.listdir(mnt / "there")) == (["there"], ["d"])


def test_rename_of_two_names_of_one_file_does_nothing(mnt: Path) -> None:
    (mnt / "a").touch()
    os.link(mnt / "a", mnt / "b")
    os.rename(mnt / "a", mnt / "b")
    assert sorted(os.listdir(mnt)) == ["a", "b"]


def test_rename_refuses_what_posix_refuses(mnt: Path) -> None:
    os.makedirs(mnt / "d" / "sub")
    os.mkdir(mnt / "empty")
    (mnt / "file").touch()
    with refused(errno.EINVAL):
        os.rename(mnt / "d", mnt / "d" / "sub" / "d")
    with refused(errno.ENOTEMPTY):
        os.rename(mnt / "empty", mnt / "d")
    with refused(errno.EISDIR):
        os.rename(mnt / "file", mnt / "empty")
    with refused(errno.ENOTDIR):
        os.rename(mnt / "empty", mnt / "file")
    with refused(errno.ENOENT):
        os.rename(mnt / "nothing", mnt / "x")
    os.rename(mnt / "d", mnt / "empty")  # over an empty directory
    assert sorted(os.listdir(mnt)) == ["empty", "file"]


def test_rename_without_replacing(mnt: Path) -> None:
    (mnt / "a").write_text("a")
    (mnt / "b").write_text("b")
    with refused(errno.EEXIST):
        renameat2(mnt / "a", mnt / "b", RENAME_NOREPLACE)
    assert (mnt / "b").read_text() == "b"
    renameat2(mnt / "a", mnt / "c", RENAME_NOREPLACE)
    assert sorted(os.listdir(mnt)) == ["b", "c"]


def test_rename_that_exchanges(mnt: Path) -> None:
    os.makedirs(mnt / "d" / "sub")
    (mnt / "d" / "file").write_text("in d")
    os.mkdir(mnt / "e")
    renameat2(mnt / "d" / "sub", mnt / "e", RENAME_EXCHANGE)
    renameat2(mnt / "d" / "file", mnt / "e", RENAME_EXCHANGE)
    assert (mnt / "e").read_text() == "in d"
    assert sorted(os.listdir(mnt / "d")) == ["file", "sub"]
    assert (mnt / "d" / "file").is_dir()
    with refused(errno.ENOENT):
        renameat2(mnt / "e", mnt / "nothing", RENAME_EXCHANGE)


def test_rename_over_an_open_file_leaves_it_to_its_user(mnt: Path) -> None:
    (mnt / "old").write_text("old")
    (mnt / "new").write_text("new")
    with open(mnt / "old", encoding="ascii") as file:
        os.rename(mnt / "new", mnt / "old")
        assert file.read() == "old"
    assert (mnt / "old").read_text() == "new"


# Attributes


def test_attributes_are_kept(mounted: Mounted) -> None:
    path = mounted.path / "file"
    path.write_bytes(b"x" * 1000)
    os.chmod(path, 0o4751)
    os.chown(path, 12_345, 4_000_000_000)
    os.chmod(path, 0o4751)  # chown takes the set-uid bit
    os.utime(path, ns=(1_234_567_890_123_456_789, -1_000_000_001))
    before = path.stat()
    mounted.remount()
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (stat.S_IFREG | 0o4751, 12_345, 4_000_000_000)
    assert (after.st_atime_ns, after.st_mtime_ns) == (1_234_567_890_123_456_789, -1_000_000_001)
    assert (after.st_ctime_ns, after.st_ino, after.st_size) == (before.st_ctime_ns, before.st_ino, 1000)


def test_a_new_owner_takes_the_set_id_bits(mnt: Path) -> None:
    (mnt / "file").touch()
    os.chmod(mnt / "file", 0o6777)
    os.chown(mnt / "file", 1000, 1000)
    assert stat.S_IMODE((mnt / "file").stat().st_mode) == 0o777


def test_a_set_gid_directory_hands_down_its_group(mnt: Path) -> None:
    os.mkdir(mnt / "shared")
    os.chown(mnt / "shared", 0, 4242)
    os.chmod(mnt / "shared", 0o2775)
    (mnt / "shared" / "file").touch()
    os.mkdir(mnt / "shared" / "sub")
    assert (mnt / "shared" / "file").stat().st_gid == 4242
    assert (mnt / "shared" / "sub").stat().st_mode & stat.S_ISGID


def test_the_umask_applies(mnt: Path) -> None:
    before = os.umask(0o027)
    try:
        os.close(os.open(mnt / "file", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(mnt / "directory", 0o777)
    finally:
        os.umask(before)
    assert stat.S_IMODE((mnt / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((mnt / "directory").stat().st_mode) == 0o750


def test_times_move_with_what_is_done(mnt: Path) -> None:
    path = mnt / "file"
    path.write_text("x")
    os.utime(path, ns=(1000, 1000))
    os.utime(mnt, ns=(1000, 1000))
    path.write_text("y")
    assert path.stat().st_mtime_ns > 1000
    mtime_ns = path.stat().st_mtime_ns
    os.chmod(path, 0o600)
    assert path.stat().st_mtime_ns == mtime_ns
    assert path.stat().st_ctime_ns > mtime_ns
    assert mnt.stat().st_mtime_ns == 1000
    os.link(path, mnt / "link")
    assert mnt.stat().st_mtime_ns > 1000


def test_permissions_are_enforced_for_others(mnt: Path) -> None:
    (mnt / "secret").write_text("x")
    os.chmod(mnt / "secret", 0o600)
    (mnt / "open").write_text("x")
    os.chmod(mnt / "open", 0o644)
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(mnt)  # as a user nobody gets through the folders above it
            os.setgroups([])
            os.setgid(65_534)
            os.setuid(65_534)
            may = [os.access(name, os.R_OK) for name in ("open", "secret")]
            with open("open", "rb"), contextlib.suppress(PermissionError), open("secret", "rb"):
                os._exit(1)
            os._exit(0 if may == [True, False] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_statvfs_adds_up(mounted: Mounted) -> None:
    mnt = mounted.path
    before = os.statvfs(mnt)
    assert before.f_frsize * before.f_blocks <= 64 << 20
    assert 0 < before.f_bavail <= before.f_bfree <= before.f_blocks
    assert before.f_namemax == 255
    (mnt / "file").write_bytes(os.urandom(8 << 20))
    after = os.statvfs(mnt)
    taken = before.f_bfree - after.f_bfree
    assert 0.95 * (8 << 20) < taken * before.f_frsize < 1.1 * (8 << 20)  # what is kept for metadata comes and goes
    assert after.f_files - after.f_ffree == before.f_files - before.f_ffree + 1


# Extended attributes


def test_extended_attributes_are_kept(mounted: Mounted) -> None:
    path = mounted.path / "file"
    path.touch()
    values = {"user.empty": b"", "user.text": b"value", "user.large": bytes(range(256)) * 200, "trusted.t": b"\0\xff"}
    for name, value in values.items():
        os.setxattr(path, name, value)
    mounted.remount()
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == values
    os.removexattr(path, "user.text")
    with refused(errno.ENODATA):
        os.getxattr(path, "user.text")
    with refused(errno.ENODATA):
        os.removexattr(path, "user.text")


def test_trusted_attributes_are_hidden_from_others(mnt: Path) -> None:
    (mnt / "file").touch()
    for name in ("user.shown", "trusted.hidden"):
        os.setxattr(mnt / "file", name, b"x")
    assert sorted(os.listxattr(mnt / "file")) == ["trusted.hidden", "user.shown"]
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(mnt)  # as a user nobody gets through the folders above it
            os.setuid(65_534)
            os._exit(0 if os.listxattr("file") == ["user.shown"] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_extended_attributes_are_created_or_replaced_as_asked(mnt: Path) -> None:
    (mnt / "file").touch()
    with refused(errno.ENODATA):
        os.setxattr(mnt / "file", "user.a", b"1", os.XATTR_REPLACE)
    os.setxattr(mnt / "file", "user.a", b"1", os.XATTR_CREATE)
    with refused(errno.EEXIST):
        os.setxattr(mnt / "file", "user.a", b"2", os.XATTR_CREATE)
    os.setxattr(mnt / "file", "user.a", b"3", os.XATTR_REPLACE)
    assert os.getxattr(mnt / "file", "user.a") == b"3"


def test_the_compression_of_a_file_is_an_attribute(mnt: Path) -> None:
    os.mkdir(mnt / "plain")
    os.setxattr(mnt / "plain", "user.razorfs.compression", b"none")
    (mnt / "plain" / "file").write_bytes(b"a" * (1 << 20))
    (mnt / "packed").write_bytes(b"a" * (1 << 20))
    with open(mnt / "packed", "rb") as file:
        os.fsync(file.fileno())
    assert os.getxattr(mnt / "plain" / "file", "user.razorfs.compression") == b"none"
    with refused(errno.EINVAL):
        os.setxattr(mnt / "packed", "user.razorfs.compression", b"rar")


# Directories


def test_dots_lead_here_and_up(mnt: Path) -> None:
    os.makedirs(mnt / "a" / "b")
    assert (mnt / "a" / "b" / "..").stat().st_ino == (mnt / "a").stat().st_ino
    listed = os.popen(f"ls -ai1 {mnt}/a").read().split()
    assert listed[1::2] == [".", "..", "b"]
    assert listed[0] == str((mnt / "a").stat().st_ino)
    assert listed[2] == str(mnt.stat().st_ino)


def test_a_directory_of_5000_entries_can_be_emptied_while_it_is_read(mnt: Path) -> None:
    for number in range(5000):
        (mnt / f"file {number}").touch()
    seen = []
    with os.scandir(mnt) as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(entry)
    assert sorted(seen) == sorted(f"file {number}" for number in range(5000))
    assert os.listdir(mnt) == []


def test_entries_that_stay_are_listed_once_while_others_come_and_go(mnt: Path) -> None:
    staying = {f"stays {number}" for number in range(1000)}
    for name in staying:
        (mnt / name).touch()
    seen = []
    with os.scandir(mnt) as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            (mnt / f"comes {number % 50}").touch()
            if number % 3 == 0:
                os.unlink(mnt / f"comes {number % 50}")
    assert len(seen) == len(set(seen))
    assert staying <= set(seen)


def test_directories_can_be_nested_deeply(mnt: Path) -> None:
    deep = mnt.joinpath(*(f"level {number}" for number in range(40)))
    os.makedirs(deep)
    (deep / "file").write_text("down here")
    assert (deep / "file").read_text() == "down here"
    os.rename(deep / "file", mnt / "up")
    assert (mnt / "up").read_text() == "down here"


LONG_AGO = 978_307_200  # 2001: before any change that a test makes


@pytest.mark.parametrize(("option", "moves", "moves_again"), [
    ("relatime", True, False), ("strictatime", True, True), ("noatime", False, False),
])  # fmt: skip
def test_reading_moves_the_access_time_of_files_directories_and_symlinks(
    unmounted: Mounted, option: str, moves: bool, moves_again: bool
) -> None:
    """Of directories and symbolic links it never moved, whatever was asked for."""
    root = unmounted.mount(option).path
    (root / "file").write_text("read me")
    (root / "directory").mkdir()
    (root / "directory" / "entry").touch()
    os.symlink("file", root / "link")
    reading = {"file": lambda path: path.read_text(), "directory": os.listdir, "link": os.readlink}
    for name, read in reading.items():
        path = root / name
        for moves_now in (moves, moves_again):
            unmounted.make_kernel_forget()  # what it answers by itself it does not tell
            if moves_now:
                os.utime(path, ns=(LONG_AGO * 10**9, path.lstat().st_mtime_ns), follow_symlinks=False)
            before = path.lstat().st_atime_ns
            read(path)
            unmounted.make_kernel_forget()
            assert (path.lstat().st_atime_ns != before) == moves_now, (name, moves_now)
