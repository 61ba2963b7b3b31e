"""Remounting: what changes while a mount is served, what is refused and by which name, and that the image is safe meanwhile."""

import errno
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from razortools.engine.attributes import AtimePolicy
from razortools.engine.store.device import open_image
from razortools.engine.store.mounts import Mount
from razortools.engine.store.superblocks import newest
from razortools.engine.volume import open_volume
from razortools.errors import UsageError
from razortools.format.superblock import State
from razortools.service import kernel_mount, mountpoints
from razortools.service.options import MountOptions, parse_options
from razortools.service.remount_plan import kernel_words, kernel_words_after, options_after
from razortools.units import GIB, MIB
from tests.mount.mounts import ANSWER_S, MOUNT, Mounted, run
from tests.mount.users import as_user

FSCK = [sys.executable, "-m", "razortools.fsck"]


def remount(mounted: Mounted, *options: str) -> subprocess.CompletedProcess[str]:
    """Remount, and return what the command said."""
    return run(MOUNT, mounted.image, mounted.path, "-o", ",".join(("remount", *options)))


def remounted(mounted: Mounted, *options: str) -> Mounted:
    """Remount; it must work."""
    done = remount(mounted, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return mounted


def table_of(mounted: Mounted) -> Mount:
    """Return the line of the kernel's mount table."""
    found = mountpoints.mount_at(str(mounted.path))
    assert found is not None
    return found


def state_of(image: Path) -> State:
    """Return the state that stands in an image, mounted or not."""
    with open_image(image, writable=False, lock=False) as device:
        return State(newest(device).state)


def await_that(is_so: object, *, what: str) -> None:
    """Return once *is_so()*; what is waited for happens in another process, which tells nobody."""
    assert callable(is_so)
    end = time.monotonic() + ANSWER_S
    while not is_so():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.01)


# Deciding


def test_what_is_not_named_stays_as_it_is() -> None:
    current = parse_options(["commit=1,cache=1G,noatime,nosuid,compression=lz4"])
    assert options_after(current, ["remount"]) == current
    changed = options_after(current, ["remount,checkpoint=9", "metadata_cache=2M,dirty=3M,loglevel=debug,strictatime"])
    assert (changed.commit_interval_s, changed.record_cache_bytes, changed.compression) == (1, GIB, current.compression)
    assert (changed.checkpoint_interval_s, changed.metadata_cache_bytes, changed.dirty_bytes) == (9, 2 * MIB, 3 * MIB)
    assert (changed.log_level, changed.atime) == ("debug", AtimePolicy.ALWAYS)


@pytest.mark.parametrize(
    "option",
    ["allow_other", "fsname=other", "subtype=other", "compression=none", "readahead=0", "writeback", "discard", "record=/r",
     "log=/l", "dirsync"],
)  # fmt: skip
def test_what_cannot_change_is_refused_by_its_name(option: str) -> None:
    with pytest.raises(UsageError, match=f"option {option.partition('=')[0]}: cannot change while it is mounted"):
        options_after(MountOptions(), [f"remount,commit=1,{option}"])


def test_what_keeps_its_value_is_no_change() -> None:
    text = "allow_other,fsname=other,subtype=other,compression=none,readahead=0,writeback,discard,dirsync"
    assert options_after(parse_options([text]), ["remount", text]) == parse_options([text])


def test_what_mount_reads_in_fstab_and_the_mount_table_is_passed_over() -> None:
    text = "remount,defaults,relatime,user_id=0,group_id=0,default_permissions,x-systemd.automount,comment=c,_netdev,uhelper=h"
    assert options_after(MountOptions(), [text]) == MountOptions()


def test_unknown_options_are_refused_unless_sloppy() -> None:
    with pytest.raises(UsageError, match="'bogus' is not a mount option"):
        options_after(MountOptions(), ["remount,bogus"])
    assert options_after(MountOptions(), ["remount,bogus"], sloppy=True) == MountOptions()


def mount_with(options: str, shared: str) -> Mount:
    words = [frozenset(text.split(",")) for text in (options, shared)]
    return Mount(1, 0, (0, 1), b"/m", "fuse.razorfs", b"/i", *words)


def test_the_kernels_flags_are_those_of_the_table_with_what_is_named_changed() -> None:
    mount = mount_with("rw,nosuid,noexec,relatime", "rw,sync,user_id=0")
    assert kernel_words(mount) == {"rw", "nosuid", "noexec", "sync", "relatime"}
    assert kernel_words_after(mount, ["remount"]) == kernel_words(mount)
    assert kernel_words_after(mount, ["ro,suid,nodev,async,noatime"]) == {"ro", "nodev", "noexec", "noatime"}
    assert kernel_words(mount_with("rw", "ro")) == {"ro", "strictatime"}
    assert kernel_words_after(mount_with("ro,noatime", "ro"), ["rw,relatime"]) == {"rw", "relatime"}


# Between reading and writing


@pytest.mark.mount
def test_a_remount_to_read_only_leaves_a_clean_image_that_others_may_read(mounted: Mounted) -> None:
    (mounted.path / "file").write_text("x")
    remounted(mounted, "ro")
    assert {"ro"} <= table_of(mounted).options & table_of(mounted).shared_options
    assert os.statvfs(mounted.path).f_flag & os.ST_RDONLY
    with pytest.raises(OSError, check=lambda failure: failure.errno == errno.EROFS):
        (mounted.path / "new").touch()
    assert (mounted.path / "file").read_text() == "x"
    assert state_of(mounted.image) == State.CLEAN
    checked = run(FSCK, "-n", mounted.image)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    before = mounted.image.read_bytes()
    os.listdir(mounted.path)
    mounted.umount()
    assert mounted.image.read_bytes() == before


@pytest.mark.mount
def test_writing_is_taken_up_again(mounted: Mounted) -> None:
    (mounted.path / "first").write_text("1")
    for number in range(3):
        remounted(mounted, "ro")
        assert state_of(mounted.image) == State.CLEAN
        remounted(mounted, "rw")
        assert state_of(mounted.image) == State.DIRTY
        (mounted.path / f"{number}").write_bytes(os.urandom(1 * MIB))
    mounted.remount()
    assert sorted(os.listdir(mounted.path)) == ["0", "1", "2", "first"]
    mounted.umount()
    checked = run(FSCK, "-n", mounted.image)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.mount
def test_a_mount_that_began_read_only_can_become_writable(unmounted: Mounted) -> None:
    remounted(unmounted.mount("ro"), "rw")
    (unmounted.path / "file").write_text("x")
    assert run(MOUNT, unmounted.image, "/proc", "-o", "ro").returncode != 0  # it is not shared any more
    unmounted.remount()
    assert (unmounted.path / "file").read_text() == "x"


@pytest.mark.mount
def test_an_image_that_others_read_does_not_become_writable(unmounted: Mounted, tmp_path: Path) -> None:
    unmounted.mount("ro")
    with open_image(unmounted.image, writable=False):
        done = remount(unmounted, "rw")
        assert done.returncode == 32
        assert f"is in use by pid {os.getpid()}" in done.stderr
        assert table_of(unmounted).is_read_only
    remounted(unmounted, "rw")
    (unmounted.path / "file").touch()


@pytest.fixture
def protected_device(unmounted: Mounted) -> Iterator[str]:
    """The image as a block device that is write-protected, which opens for writing all the same."""
    made = subprocess.run(["losetup", "--show", "-f", str(unmounted.image)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no loop devices: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        subprocess.run(["blockdev", "--setro", device], check=True)
        unmounted.image = Path(device)
        yield device
        unmounted.take_away()
    finally:
        subprocess.run(["blockdev", "--setrw", device], check=True)  # or whoever gets it next finds it protected
        subprocess.run(["losetup", "-d", device], check=True)


@pytest.mark.mount
def test_a_write_protected_device_does_not_become_writable_and_its_mount_stays_as_it_was(
    unmounted: Mounted, protected_device: str
) -> None:
    """The daemon tried to write, and called the disk of a mount that was well broken from then on."""
    unmounted.mount("ro")
    done = remount(unmounted, "rw")
    assert (done.returncode, done.stderr) == (
        32,
        f"mount.razorfs: {protected_device}: the device is write-protected; open it read-only\n",
    )
    assert table_of(unmounted).is_read_only
    health = run([sys.executable, "-m", "razortools.health"], unmounted.path)
    assert "CRITICAL" not in health.stdout and "has turned read-only by itself" not in health.stdout
    remounted(unmounted, "cache=64M")
    open_image(protected_device, writable=False).close()  # it is shared with readers as before
    subprocess.run(["blockdev", "--setrw", protected_device], check=True)
    remounted(unmounted, "rw")
    (unmounted.path / "file").touch()


@pytest.mark.mount
def test_a_write_protected_device_is_not_mounted_for_writing_and_nobody_is_sent_to_the_hosts_log(
    unmounted: Mounted, protected_device: str
) -> None:
    for done in (
        run(MOUNT, protected_device, unmounted.path),
        run(FSCK, "-y", "--undo-file", f"{unmounted.log}.undo", protected_device),
    ):
        assert done.returncode and "the device is write-protected; open it read-only" in done.stderr
        assert "check the host's disk" not in done.stderr


@pytest.mark.mount
def test_an_image_that_others_changed_meanwhile_does_not_become_writable(unmounted: Mounted) -> None:
    """They cannot, if all keep to the lock. If somebody does not, what is in memory must not be written over what he wrote."""
    unmounted.mount("ro")
    copy = unmounted.image.with_name("copy")
    copy.write_bytes(unmounted.image.read_bytes())
    open_volume(open_image(copy, writable=True)).close()
    with open(unmounted.image, "r+b") as file:
        file.write(copy.read_bytes())
    done = remount(unmounted, "rw")
    assert (done.returncode, "was changed by somebody else" in done.stderr) == (32, True)


@pytest.mark.mount
def test_a_crashed_image_that_is_only_looked_at_does_not_become_writable(mounted: Mounted) -> None:
    descriptor = os.open(mounted.path, os.O_RDONLY)
    (mounted.path / "file").touch()
    os.fsync(descriptor)
    os.close(descriptor)
    mounted.send(signal.SIGKILL)
    mounted.mount("ro")
    done = remount(mounted, "rw")
    assert (done.returncode, "was not closed cleanly" in done.stderr) == (32, True)
    assert table_of(mounted).is_read_only


@pytest.mark.mount
def test_files_open_for_writing_keep_a_mount_writable_and_their_users_are_listed(mounted: Mounted) -> None:
    script = "import sys; file = open(sys.argv[1], 'w'); print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(mounted.path / "open")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        try:
            assert user.stdout is not None
            assert user.stdout.readline() == "ready\n"
            done = remount(mounted, "ro", "commit=1")
            assert done.returncode == 32
            assert "files are open for writing" in done.stderr
            assert f"pid {user.pid} " in done.stderr
            assert not table_of(mounted).is_read_only
            (mounted.path / "new").touch()
        finally:
            user.kill()
    remounted(mounted, "ro")


@pytest.mark.mount
def test_what_the_kernel_holds_of_mapped_files_is_written_before_the_mount_is_read_only(mounted: Mounted) -> None:
    (mounted.path / "file").write_bytes(bytes(8192))
    with open(mounted.path / "file", "r+b") as file, mmap.mmap(file.fileno(), 8192) as view:
        view[4096:4100] = b"here"
    remounted(mounted, "ro")
    mounted.umount()
    mounted.mount("ro")
    assert (mounted.path / "file").read_bytes()[4096:4100] == b"here"


@pytest.mark.mount
def test_deleted_files_leave_nothing_behind_in_a_read_only_image(mounted: Mounted) -> None:
    for number in range(50):
        (mounted.path / f"{number}").write_bytes(os.urandom(200_000))
        os.unlink(mounted.path / f"{number}")
    remounted(mounted, "ro")
    checked = run(FSCK, "-n", mounted.image)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.fixture
def bare_remount(mounted: Mounted) -> Iterator[Mounted]:
    """A mount that somebody remounts by mount(2) alone, as a system that shuts down does."""
    yield mounted
    mounted.umount()
    checked = run(FSCK, "-n", mounted.image)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.mount
def test_the_image_follows_a_mount_that_the_kernel_alone_was_told_to_make_read_only(bare_remount: Mounted) -> None:
    mounted = bare_remount
    for number in range(3):
        (mounted.path / f"{number}").write_text("x")
        kernel_mount.remount(str(mounted.path), {"ro"})
        await_that(lambda: state_of(mounted.image) == State.CLEAN, what="the image is clean")
        kernel_mount.remount(str(mounted.path), {"rw"})
        await_that(lambda: state_of(mounted.image) == State.DIRTY, what="the image is in use again")
    assert sorted(os.listdir(mounted.path)) == ["0", "1", "2"]


# Other options


@pytest.mark.mount
def test_the_kernels_flags_change(mounted: Mounted) -> None:
    remounted(mounted, "nosuid,nodev,noexec,noatime")
    assert table_of(mounted).options >= {"rw", "nosuid", "nodev", "noexec", "noatime"}
    remounted(mounted, "exec,relatime")
    assert table_of(mounted).options >= {"nosuid", "nodev", "relatime"}
    assert not table_of(mounted).options & {"noexec", "noatime"}


@pytest.mark.mount
def test_access_times_follow_the_new_policy(mounted: Mounted) -> None:
    def atime_after_reading() -> int:
        os.utime(mounted.path / "file", ns=(time.time_ns() - 10**12, 10**9))  # in the last day, and after the last change
        with open(mounted.path / "file", "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            before = os.fstat(file.fileno()).st_atime_ns
            file.read()
        return (mounted.remount("noatime").path / "file").stat().st_atime_ns - before  # not what the kernel remembers

    (mounted.path / "file").write_bytes(b"x" * 10_000)
    remounted(mounted, "noatime")
    assert atime_after_reading() == 0
    remounted(mounted, "strictatime")
    assert atime_after_reading() > 0


@pytest.mark.mount
def test_intervals_limits_and_log_level_change_at_once(unmounted: Mounted) -> None:
    unmounted.mount("commit=3600", "checkpoint=3600", "loglevel=error")
    assert unmounted.complaints == []
    (unmounted.path / "file").write_text("x")
    generation = newest(open_image(unmounted.image, writable=False, lock=False)).generation
    remounted(unmounted, "commit=0.05,checkpoint=0.05,cache=1M,metadata_cache=1M,dirty=2M,loglevel=info")
    await_that(
        lambda: newest(open_image(unmounted.image, writable=False, lock=False)).generation > generation, what="a checkpoint"
    )
    (unmounted.path / "large").write_bytes(bytes(range(256)) * 4 * 4096 * 4)
    assert (unmounted.path / "large").read_bytes() == bytes(range(256)) * 4 * 4096 * 4
    assert "remounted" in unmounted.log.read_text()


# Refusing


@pytest.mark.mount
def test_a_refused_remount_changes_nothing(mounted: Mounted) -> None:
    before = table_of(mounted)
    for option in ("compression=none", "bogus", "allow_other=1"):
        done = remount(mounted, "ro,nosuid,commit=1", option)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert option.partition("=")[0] in done.stderr
    assert table_of(mounted) == before
    (mounted.path / "file").touch()


@pytest.mark.mount
def test_only_what_is_mounted_can_be_remounted(mounted: Mounted, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for place, reason in ((elsewhere, "is not mounted"), (Path("/proc"), "is a mount of proc, not of razorfs")):
        done = run(MOUNT, mounted.image, place, "-o", "remount,ro")
        assert (done.returncode, reason in done.stderr) == (32, True), done.stderr
    done = run(MOUNT, "/some/other/image", mounted.path, "-o", "remount,ro")
    assert (done.returncode, f"is a mount of {mounted.image}, not of /some/other/image" in done.stderr) == (32, True)
    mounted.send(signal.SIGKILL)
    done = remount(mounted, "ro")
    assert (done.returncode, "its daemon has died" in done.stderr) == (32, True)


def ask_for_remount(folder: Path, major: str, minor: str) -> str | None:
    from razortools.service.control import Waiter

    waiter = Waiter((int(major), int(minor)))
    return waiter.ask({"options": ["ro"]})


@pytest.mark.mount
def test_a_user_cannot_have_roots_mount_remounted(mounted: Mounted, tmp_path: Path) -> None:
    place = tmp_path / "user"
    place.mkdir()
    device = table_of(mounted).device
    assert as_user(ask_for_remount, place, *map(str, device)) == "only root, or who has mounted it, may ask for this"
    (mounted.path / "file").touch()
