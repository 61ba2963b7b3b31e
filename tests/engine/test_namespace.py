"""Names, links and directories: the rules that the model test cannot reach, and one example of those it does."""

import errno
import os
import stat
from collections.abc import Callable

import pytest

from razortools.engine import directories, namespace
from razortools.engine.volume import Volume
from razortools.errors import OutOfSpace, PosixError, ReadOnly
from razortools.format.inode import LINK_MAX, ROOT_INODE
from razortools.format.journal import Operation
from razortools.units import InodeNo
from tests.engine.tree_rules import check_rules
from tests.engine.volumes import clock_of, new_device, new_volume, open_again

R = ROOT_INODE


def refusal(step: Callable[[], object]) -> int:
    """Return the errno with which *step* is refused."""
    with pytest.raises(PosixError) as refused:
        step()
    return refused.value.mount_errno


def set_link_count(volume: Volume, ino: InodeNo, count: int) -> None:
    inode = volume.inodes.get(ino)
    with volume.operation(Operation.REPAIR, ino):
        inode.link_count = count
        volume.inodes.put(ino, inode)


def test_a_tree_survives_closing_and_opening() -> None:
    device = new_device()
    with open_again(device) as volume:
        directory = namespace.mkdir(volume, R, b"dir", 0o750, 10, 20)
        file = namespace.create(volume, directory, b"file \xff", 0o640, 11, 21)
        namespace.symlink(volume, directory, b"link", b"file \xff", 12, 22)
    with open_again(device) as volume:
        assert namespace.resolve(volume, b"/dir/file \xff") == file
        assert namespace.readlink(volume, namespace.resolve(volume, b"/dir/link")) == b"file \xff"
        inode = volume.inodes.get(directory)
        assert (inode.mode, inode.uid, inode.gid, inode.link_count, inode.size) == (stat.S_IFDIR | 0o750, 10, 20, 2, 2)


def test_more_than_sixteen_files_in_a_directory_and_a_hundred_in_a_session() -> None:
    volume = new_volume()
    made = {b"file-%d" % number: namespace.create(volume, R, b"file-%d" % number, 0o644, 0, 0) for number in range(300)}
    assert {name: namespace.lookup(volume, R, name) for name in made} == made
    check_rules(volume)


def test_directories_forty_levels_deep() -> None:
    volume = new_volume()
    ino = R
    for _ in range(40):
        ino = namespace.mkdir(volume, ino, b"d" * 255, 0o755, 0, 0)
    path = (b"/" + b"d" * 255) * 40
    assert namespace.resolve(volume, path) == ino
    assert refusal(lambda: namespace.rename(volume, R, b"d" * 255, ino, b"below")) == errno.EINVAL


def test_resolve_knows_dots_slashes_and_what_is_no_directory() -> None:
    volume = new_volume()
    a = namespace.mkdir(volume, R, b"a", 0o755, 0, 0)
    file = namespace.create(volume, a, b"f", 0o644, 0, 0)
    assert namespace.resolve(volume, b"/") == R
    assert namespace.resolve(volume, b"//a/./../a//f") == file
    assert namespace.resolve(volume, b"/..") == R
    assert refusal(lambda: namespace.resolve(volume, b"a")) == errno.EINVAL
    assert refusal(lambda: namespace.resolve(volume, b"/a/f/")) == errno.ENOTDIR
    assert refusal(lambda: namespace.resolve(volume, b"/a/f/g")) == errno.ENOTDIR
    assert refusal(lambda: namespace.resolve(volume, b"/a/x/g")) == errno.ENOENT


def test_mknod_makes_every_type_but_directories() -> None:
    volume = new_volume()
    device_no = os.makedev(259, 1_000_000)
    for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFREG, 0):
        ino = namespace.mknod(volume, R, b"%o" % kind, kind | 0o620, device_no, 1, 2)
        inode = volume.inodes.get(ino)
        assert inode.mode == (kind or stat.S_IFREG) | 0o620
        assert inode.rdev == (device_no if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0)
    assert refusal(lambda: namespace.mknod(volume, R, b"d", stat.S_IFDIR, 0, 0, 0)) == errno.EPERM
    assert refusal(lambda: namespace.mknod(volume, R, b"d", 0o130000, 0, 0, 0)) == errno.EINVAL
    check_rules(volume)


def test_a_set_gid_directory_hands_its_group_down() -> None:
    volume = new_volume()
    shared = namespace.mkdir(volume, R, b"shared", 0o2775, 0, 100)
    below = volume.inodes.get(namespace.mkdir(volume, shared, b"d", 0o755, 5, 5))
    file = volume.inodes.get(namespace.create(volume, shared, b"f", 0o644, 5, 5))
    assert (below.mode & 0o7777, below.gid) == (0o2755, 100)
    assert (file.mode & 0o7777, file.gid) == (0o644, 100)


def test_links_end_at_the_limit() -> None:
    volume = new_volume()
    file = namespace.create(volume, R, b"f", 0o644, 0, 0)
    set_link_count(volume, file, LINK_MAX)
    assert refusal(lambda: namespace.link(volume, file, R, b"g")) == errno.EMLINK
    set_link_count(volume, file, 1)
    namespace.link(volume, file, R, b"g")
    check_rules(volume)


def test_subdirectories_end_at_the_limit_whichever_way_they_come() -> None:
    volume = new_volume()
    full = namespace.mkdir(volume, R, b"full", 0o755, 0, 0)
    namespace.mkdir(volume, R, b"d", 0o755, 0, 0)
    namespace.mkdir(volume, full, b"old", 0o755, 0, 0)
    namespace.create(volume, full, b"file", 0o644, 0, 0)
    set_link_count(volume, full, LINK_MAX)
    assert refusal(lambda: namespace.mkdir(volume, full, b"new", 0o755, 0, 0)) == errno.EMLINK
    assert refusal(lambda: namespace.rename(volume, R, b"d", full, b"new")) == errno.EMLINK
    assert refusal(lambda: namespace.rename(volume, R, b"d", full, b"file", namespace.RENAME_EXCHANGE)) == errno.EMLINK
    assert refusal(lambda: namespace.rename(volume, full, b"file", R, b"d", namespace.RENAME_EXCHANGE)) == errno.EMLINK
    namespace.rename(volume, R, b"d", full, b"old")  # one comes, one goes
    namespace.rename(volume, full, b"old", full, b"new")
    set_link_count(volume, full, 3)
    check_rules(volume)


def test_times_move_as_posix_says() -> None:
    volume = new_volume()
    clock = clock_of(volume)
    clock.now = 100
    directory = namespace.mkdir(volume, R, b"d", 0o755, 0, 0)
    clock.now = 200
    file = namespace.create(volume, directory, b"f", 0o644, 0, 0)
    clock.now = 300
    namespace.rename(volume, directory, b"f", directory, b"g")
    inode, parent = volume.inodes.get(file), volume.inodes.get(directory)
    assert (inode.btime_ns, inode.mtime_ns, inode.ctime_ns) == (200, 200, 300)
    assert (parent.btime_ns, parent.mtime_ns, parent.ctime_ns) == (100, 300, 300)


@pytest.mark.parametrize("size", [1, 500, 600, 2000, 2100, 4095])
@pytest.mark.parametrize("image_bytes", [8 << 20, 32 << 20])
def test_a_target_of_any_length_comes_back_and_goes_without_a_trace(size: int, image_bytes: int) -> None:
    volume = new_volume(image_bytes)
    target = bytes(1 + number % 255 for number in range(size))
    ino = namespace.symlink(volume, R, b"link", target, 1, 2)
    check_rules(volume)
    assert namespace.readlink(volume, ino) == target
    inode = volume.inodes.get(ino)
    assert (inode.mode, inode.size) == (stat.S_IFLNK | 0o777, size)
    namespace.unlink(volume, R, b"link")
    assert volume.counters.data_blocks == volume.counters.raw_bytes == 0
    check_rules(volume)


@pytest.mark.parametrize(("target", "number"), [(b"", errno.ENOENT), (b"t" * 4096, errno.ENAMETOOLONG), (b"a\0b", errno.EINVAL)])
def test_impossible_targets_are_refused(target: bytes, number: int) -> None:
    volume = new_volume()
    assert refusal(lambda: namespace.symlink(volume, R, b"link", target, 0, 0)) == number


def test_only_links_have_targets() -> None:
    assert refusal(lambda: namespace.readlink(new_volume(), R)) == errno.EINVAL


def test_a_read_only_volume_refuses_every_change() -> None:
    device = new_device()
    with open_again(device) as volume:
        namespace.create(volume, R, b"f", 0o644, 0, 0)
    device.read_only = True
    volume = open_again(device)
    volume._read_only = True
    for change in (
        lambda: namespace.create(volume, R, b"g", 0o644, 0, 0),
        lambda: namespace.unlink(volume, R, b"f"),
        lambda: namespace.rename(volume, R, b"f", R, b"g"),
        lambda: namespace.setattr(volume, R, namespace.AttributeChange(mode=0)),
    ):
        with pytest.raises(ReadOnly):
            change()
    namespace.touch_atime(volume, R)  # never an error


def test_a_full_volume_refuses_new_names_and_gives_everything_back() -> None:
    volume = new_volume(1 << 20)
    namespace.mkdir(volume, R, b"keep", 0o755, 0, 0)
    made = 0
    with pytest.raises(OutOfSpace):
        for made in range(100_000):
            namespace.create(volume, R, b"a rather long name, so that it does not take for ever %d" % made, 0o644, 0, 0)
    check_rules(volume)
    assert made > 100
    for _, name, _ in list(directories.entries(volume, R)):
        if name != b"keep":
            namespace.unlink(volume, R, name)
    check_rules(volume)
    assert volume.counters.inode_count == 2
    namespace.create(volume, R, b"room again", 0o644, 0, 0)
