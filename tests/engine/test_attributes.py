"""Changing attributes: what comes back, what moves along, and when reading moves the access time."""

import errno
import stat

import pytest

from razortools.engine import files, namespace
from razortools.engine.attributes import DAY_NS
from razortools.engine.namespace import AtimePolicy, AttributeChange
from razortools.engine.volume import Volume
from razortools.errors import OutOfSpace, PosixError
from razortools.format.inode import ROOT_INODE, TIME_MAX_NS, TIME_MIN_NS
from razortools.units import MIB, InodeNo
from tests.engine.volumes import clock_of, new_volume

R = ROOT_INODE


def new_file(volume: Volume, mode: int = 0o644) -> InodeNo:
    return namespace.create(volume, R, b"f", mode, 10, 20)


def test_a_mode_replaces_the_permissions_and_never_the_type() -> None:
    volume = new_volume()
    ino = new_file(volume)
    clock_of(volume).now += 5
    inode = namespace.setattr(volume, ino, AttributeChange(mode=stat.S_IFDIR | 0o4711))
    assert inode.mode == stat.S_IFREG | 0o4711
    assert inode.ctime_ns == clock_of(volume).now


@pytest.mark.parametrize(
    ("mode", "after"), [(0o6755, 0o755), (0o4755, 0o755), (0o2755, 0o755), (0o2745, 0o2745), (0o6744, 0o2744)]
)
def test_a_new_owner_loses_the_set_id_bits(mode: int, after: int) -> None:
    volume = new_volume()
    ino = new_file(volume, mode)
    assert namespace.setattr(volume, ino, AttributeChange(uid=7)).mode == stat.S_IFREG | after
    named = namespace.setattr(volume, ino, AttributeChange(gid=7, mode=mode))
    assert (named.mode, named.uid, named.gid) == (stat.S_IFREG | mode, 7, 7)


def test_a_directory_keeps_them() -> None:
    volume = new_volume()
    ino = namespace.mkdir(volume, R, b"d", 0o6755, 0, 0)
    assert namespace.setattr(volume, ino, AttributeChange(uid=7, gid=7)).mode == stat.S_IFDIR | 0o6755


def test_times_keep_their_nanoseconds_and_are_moved_to_the_edge_of_what_fits() -> None:
    volume = new_volume()
    ino = new_file(volume)
    inode = namespace.setattr(volume, ino, AttributeChange(atime_ns=-1, mtime_ns=1_234_567_890_123_456_789, ctime_ns=77))
    assert (inode.atime_ns, inode.mtime_ns, inode.ctime_ns) == (-1, 1_234_567_890_123_456_789, 77)
    inode = namespace.setattr(volume, ino, AttributeChange(atime_ns=-(1 << 70), mtime_ns=1 << 70))
    assert (inode.atime_ns, inode.mtime_ns) == (TIME_MIN_NS, TIME_MAX_NS)


def test_size_and_other_attributes_change_in_one_call() -> None:
    volume = new_volume()
    ino = new_file(volume)
    files.write(volume, ino, 0, b"0123456789")
    inode = namespace.setattr(volume, ino, AttributeChange(size=4, mode=0o600, mtime_ns=5))
    assert (inode.size, inode.mode & 0o7777, inode.mtime_ns) == (4, 0o600, 5)
    assert files.read(volume, ino, 0, 10) == b"0123"


def test_nothing_to_change_changes_nothing() -> None:
    volume = new_volume()
    ino = new_file(volume)
    before = volume.inodes.get(ino).encode()
    clock_of(volume).now += 5
    assert namespace.setattr(volume, ino, AttributeChange()).encode() == before


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (AttributeChange(size=0), errno.EISDIR),
        (AttributeChange(uid=-1), errno.EINVAL),
        (AttributeChange(gid=(1 << 32) - 1), errno.EINVAL),
    ],
)
def test_what_is_refused_for_a_directory(change: AttributeChange, number: int) -> None:
    with pytest.raises(PosixError) as refused:
        namespace.setattr(new_volume(), R, change)
    assert refused.value.mount_errno == number


def test_a_fifo_has_no_size() -> None:
    volume = new_volume()
    fifo = namespace.mknod(volume, R, b"fifo", stat.S_IFIFO | 0o600, 0, 0, 0)
    with pytest.raises(PosixError) as refused:
        namespace.setattr(volume, fifo, AttributeChange(size=0))
    assert refused.value.mount_errno == errno.EINVAL


def test_relatime_moves_the_access_time_after_a_change_and_once_a_day() -> None:
    volume = new_volume()
    clock = clock_of(volume)
    ino = new_file(volume)

    def touched(policy: AtimePolicy = AtimePolicy.RELATIVE) -> bool:
        clock.now += 1
        namespace.touch_atime(volume, ino, policy)
        return volume.inodes.get(ino).atime_ns == clock.now

    ctime_ns = volume.inodes.get(ino).ctime_ns
    assert touched()
    assert not touched()
    assert touched(AtimePolicy.ALWAYS)
    assert not touched(AtimePolicy.NEVER)
    clock.now += DAY_NS
    assert touched()
    assert volume.inodes.get(ino).ctime_ns == ctime_ns
    files.write(volume, ino, 0, b"x")
    assert touched()


def test_reading_on_a_full_image_makes_no_checkpoints() -> None:
    """The operation that notes the access found no room, made a checkpoint for it, failed, and did so again at the next read."""
    volume = new_volume(2 * MIB)
    ino = new_file(volume)
    files.write(volume, ino, 0, b"x")
    with pytest.raises(OutOfSpace):
        for number in range(10**6):
            namespace.create(volume, R, f"{number}".encode(), 0o644, 0, 0)
    volume.checkpoint()
    generation, atime_ns = volume.statistics().generation, volume.inodes.get(ino).atime_ns
    assert not volume.has_room_now()
    for _ in range(10):
        clock_of(volume).now += DAY_NS
        namespace.touch_atime(volume, ino, AtimePolicy.ALWAYS)
    assert (volume.statistics().generation, volume.inodes.get(ino).atime_ns) == (generation, atime_ns)
    for number in range(100):
        namespace.unlink(volume, R, f"{number}".encode())
    volume.checkpoint()
    assert volume.has_room_now()
    namespace.touch_atime(volume, ino, AtimePolicy.ALWAYS)
    assert volume.inodes.get(ino).atime_ns == clock_of(volume).now
