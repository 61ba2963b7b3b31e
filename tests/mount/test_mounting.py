"""mount.razorfs and umount.razorfs: what they accept, what they refuse and with which words, and how a mount ends."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, redirect_stderr, suppress
from pathlib import Path

import pytest

from razortools import mount, umount
from razortools.cli import app as cli
from razortools.engine.store.device import open_image
from razortools.engine.store.mounts import Mount, mounts
from razortools.engine.volume import open_volume
from razortools.format.superblock import State
from razortools.service import awaiting, kernel_mount, mount_users, mountpoints, opening
from razortools.service.control import Farewell, Waiter
from razortools.service.kernel_mount import root_connection
from razortools.units import MIB
from tests.images import make_image
from tests.mount.mounts import ANSWER_S, MOUNT, UMOUNT, Mounted, run
from tests.mount.users import as_root

pytestmark = pytest.mark.mount


def refusal(*arguments: str | Path) -> tuple[int, str]:
    """Return (exit code, message) of a mount that must not work. Runs in this process, which takes a tenth of the time."""
    said = io.StringIO()
    with redirect_stderr(said):
        code = cli.invoke(mount.app, "mount.razorfs", cli.MOUNT_CODES, [str(argument) for argument in arguments])
    assert code != 0
    assert said.getvalue().count("\n") == 1, said.getvalue()  # one sentence
    assert said.getvalue().startswith("mount.razorfs: ")
    return code, said.getvalue()


# Starting


def test_mount_returns_when_the_mount_answers(unmounted: Mounted) -> None:
    unmounted.mount()
    found = mountpoints.mount_at(str(unmounted.path))
    assert found is not None
    assert (found.filesystem, found.source) == ("fuse.razorfs", os.fsencode(unmounted.image))
    assert os.listdir(unmounted.path) == []


def test_mount_in_the_foreground_serves_until_told_to_end(unmounted: Mounted) -> None:
    command = [*MOUNT, str(unmounted.image), str(unmounted.path), "--foreground"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "mounted at" in process.stderr.readline()
            (unmounted.path / "file").write_text("x")
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=ANSWER_S)[1]
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert "closed" in said
    assert mountpoints.mount_at(str(unmounted.path)) is None
    unmounted.mount()
    assert (unmounted.path / "file").read_text() == "x"


def test_the_options_of_mount_and_fstab_are_accepted(unmounted: Mounted) -> None:
    done = run(
        MOUNT, unmounted.image, unmounted.path, "-s", "-n", "-v", "-t", "fuse.razorfs", "-o", f"rw,noatime,log={unmounted.log}",
        "-o", "defaults,_netdev,nofail,user,x-systemd.automount,nosuid,sync,commit=1,checkpoint=3,cache=16M,bogus",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mounted at" in done.stderr
    assert os.statvfs(unmounted.path).f_flag & os.ST_NOSUID


@pytest.mark.parametrize("closing", ["2>&-", "<&- >&-", ">&-", "<&- >&- 2>&-"])
def test_regression_a_mount_whose_standard_streams_were_closed_keeps_its_image(unmounted: Mounted, closing: str) -> None:
    """The image was opened as descriptor 2, which the daemon then let lead nowhere: no descriptor led to the image any more.

    With 0 and 1 closed the same happened to the pipe that the command waits at, for ever.
    """
    script = ["sh", "-c", f'exec "$@" {closing}', "sh", *MOUNT]
    assert run(script, unmounted.image, unmounted.path).returncode == 0  # no log: the first to be opened is the image
    assert Path(f"/proc/{unmounted.pid}/fd/2").readlink() == Path(os.devnull)
    (unmounted.path / "file").write_text("x")
    unmounted.umount()
    with open_image(unmounted.image, writable=False) as device, open_volume(device, read_only=True) as volume:
        assert volume.store.superblock.state == State.CLEAN
    unmounted.mount()
    assert (unmounted.path / "file").read_text() == "x"


def test_regression_a_log_that_cannot_be_written_is_told_in_one_sentence(unmounted: Mounted) -> None:
    """It was a traceback of Python's logging."""
    done = run(MOUNT, unmounted.image, unmounted.path, "-o", "log=/dev/full")
    assert (done.returncode, done.stderr) == (0, "mount.razorfs: the log cannot be written: No space left on device\n")
    (unmounted.path / "file").write_text("x")
    assert run(UMOUNT, unmounted.path).returncode == 0


def test_a_faked_mount_checks_and_mounts_nothing(unmounted: Mounted) -> None:
    assert run(MOUNT, "-f", unmounted.image, unmounted.path).returncode == 0
    assert mountpoints.mount_at(str(unmounted.path)) is None


def test_a_mount_that_nobody_answers_for_is_seen_without_asking_it(tmp_path: Path, fuse: None) -> None:
    """lstat(2) of a mount point asks the mounted filesystem. Whoever looks for a daemon that hangs would hang with it."""
    connection = root_connection(str(tmp_path), "nobody serves this", "razorfs", {"rw"})
    try:
        found = mountpoints.mount_at(str(tmp_path))
        assert found is not None
        assert found.source == b"nobody serves this"
        assert mountpoints.canonical(str(tmp_path)) == str(tmp_path)
    finally:
        connection.abandon()
    assert mountpoints.mount_at(str(tmp_path)) is None


def test_fsname_and_subtype_show_in_the_mount_table(unmounted: Mounted) -> None:
    unmounted.mount("fsname=my\\,image", "subtype=other")
    found = mountpoints.mount_at(str(unmounted.path))
    assert found is not None
    assert (found.filesystem, found.source) == ("fuse.other", b"my,image")


def test_paths_may_hold_blanks_commas_and_letters_beyond_ascii(tmp_path: Path, fuse: None) -> None:
    folder = tmp_path / "gr\u00fc\u00df, 1 \\ 2"
    folder.mkdir()
    made = Mounted(folder)
    try:
        assert run(MOUNT, made.image, made.path).returncode == 0
        (made.path / "file").write_text("x")
        made.umount()
    finally:
        made.take_away()


def end_behind_a_folder_that_was_replaced(folder: Path) -> list[object]:
    (folder / "theirs").mkdir()
    made = Mounted(folder / "theirs").mount()
    (made.path / "file").write_text("x")
    (folder / "theirs").rename(folder / "moved")
    (folder / "theirs").mkdir()
    made.path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "another", made.path], check=True)
    (made.path / "file").write_text("another's")
    device = next(mount for mount in mounts() if mount.filesystem == "fuse.razorfs").device
    with closing(Waiter(device)) as waiter:
        os.kill(waiter.greeting.pid, signal.SIGTERM)
        closed = waiter.wait(ANSWER_S)
    is_there = (made.path / "file").read_text()
    left = [mount.filesystem for mount in mounts() if os.fsencode(folder) in mount.path]
    return [closed == Farewell(), is_there, left]


def test_a_signal_unmounts_what_is_ours_wherever_it_has_gone(fuse: None, tmp_path: Path) -> None:
    """The path led to another's filesystem by then: that one was unmounted, and our own mount left behind, dead."""
    closed, is_there, left = as_root(end_behind_a_folder_that_was_replaced, tmp_path)
    assert (closed, is_there) == (True, "another's")
    assert "tmpfs" in left and "fuse.razorfs" not in left


def live_beside_an_odd_mount(folder: Path) -> list[object]:
    made = Mounted(folder).mount()
    odd = folder / "a\rb \x0c\x85\u2028"
    odd.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "odd\rname", odd], check=True)
    (made.path / "file").write_text("x")
    codes = [made.try_umount().returncode, run(MOUNT, made.image, made.path, "-o", f"log={made.log}").returncode]
    codes.append(subprocess.run(["umount", odd]).returncode)
    told = (made.path / "file").read_text()
    codes.append(made.try_umount().returncode)
    return [codes, told, made.complaints, mountpoints.mount_at(str(made.path)) is None]


def test_a_carriage_return_in_the_name_of_another_mount_ends_no_daemon(fuse: None, tmp_path: Path) -> None:
    """Any user can make such a mount, with fusermount3. Each daemon ended, and nothing could be mounted or unmounted any more."""
    assert as_root(live_beside_an_odd_mount, tmp_path) == [[0, 0, 0, 0], "x", [], True]


@pytest.mark.parametrize("failure", [OSError(errno.EMFILE, "no descriptor"), IndexError("list index out of range")])
def test_a_mount_table_that_cannot_be_read_leaves_no_dead_mount_behind(
    tmp_path: Path, fuse: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    gone = root_connection(str(tmp_path), "nobody serves this", "razorfs", {"rw"})
    mountpoints.detach(str(tmp_path))
    connection = root_connection(str(tmp_path), "nobody serves this", "razorfs", {"rw"})
    with monkeypatch.context() as patched:

        def table(connection: kernel_mount.Connection) -> int | None:
            raise failure

        patched.setattr(kernel_mount.Connection, "_topmost_id", table)
        gone.abandon()
        assert mountpoints.mount_at(str(tmp_path)) is not None  # it is another's
        connection.abandon()
    assert mountpoints.mount_at(str(tmp_path)) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert f"the mount table cannot be read: {failure}" in caplog.text


def test_readahead_is_set_on_the_mount(unmounted: Mounted) -> None:
    unmounted.mount("readahead=2M")
    device = unmounted.path.stat().st_dev
    assert Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").read_text().strip() == "2048"


# Reading only


def test_a_read_only_mount_shows_everything_and_changes_not_a_byte(mounted: Mounted) -> None:
    (mounted.path / "file").write_text("x")
    mounted.umount()
    before = mounted.image.read_bytes()
    mounted.mount("ro")
    assert (mounted.path / "file").read_text() == "x"
    assert os.statvfs(mounted.path).f_flag & os.ST_RDONLY
    attempts: list[Callable[[], object]] = [
        (mounted.path / "new").touch,
        lambda: os.unlink(mounted.path / "file"),
        lambda: os.chmod(mounted.path / "file", 0o600),
        lambda: os.setxattr(mounted.path / "file", "user.a", b""),
        lambda: os.rename(mounted.path / "file", mounted.path / "other"),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, check=lambda failure: failure.errno == errno.EROFS):
            attempt()
    mounted.umount()
    assert mounted.image.read_bytes() == before


def test_a_crashed_image_mounted_read_only_is_recovered_in_memory_only(mounted: Mounted) -> None:
    descriptor = os.open(mounted.path / "file", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"synced")
    os.fsync(descriptor)
    mounted.send(signal.SIGKILL)
    with suppress(OSError):
        os.close(descriptor)
    before = mounted.image.read_bytes()
    mounted.mount("ro")
    assert (mounted.path / "file").read_text() == "synced"
    mounted.remount("ro", "norecovery")
    assert not (mounted.path / "file").exists()  # the last checkpoint as it is
    mounted.umount()
    assert mounted.image.read_bytes() == before


def test_two_read_only_mounts_share_an_image(mounted: Mounted, tmp_path: Path) -> None:
    mounted.remount("ro")
    second = tmp_path / "second"
    second.mkdir()
    try:
        assert run(MOUNT, mounted.image, second, "-o", "ro").returncode == 0
        assert os.listdir(second) == []
    finally:
        assert run(UMOUNT, second).returncode == 0


# Refusing


def test_wrong_images_are_refused(tmp_path: Path, fuse: None) -> None:
    target = tmp_path / "mnt"
    target.mkdir()
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(b"nonsense" * 1000)
    empty = tmp_path / "empty"
    empty.touch()
    assert refusal(tmp_path / "nothing", target)[0] == 32
    assert "no such file" in refusal(tmp_path / "nothing", target)[1]
    for path in (nonsense, empty, tmp_path, Path("/dev/null")):
        code, message = refusal(path, target)
        assert code == 32
        assert str(path) in message
    assert mountpoints.mount_at(str(target)) is None


def test_a_truncated_image_is_refused(unmounted: Mounted) -> None:
    os.truncate(unmounted.image, 30 << 20)
    code, message = refusal(unmounted.image, unmounted.path)
    assert code == 32
    assert str(unmounted.image) in message


def test_an_image_in_use_is_refused_with_the_pid_that_holds_it(mounted: Mounted, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    code, message = refusal(mounted.image, second)
    assert code == 32
    assert f"is mounted at {mounted.path} by pid {mounted.pid}" in message
    (mounted.path / "still").write_text("well")


def test_an_image_that_something_else_than_a_mount_uses_is_refused_with_its_pid(
    unmounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "BUSY_GRACE_S", 0.05)
    with open_image(unmounted.image, writable=True):
        code, message = refusal(unmounted.image, unmounted.path)
    assert code == 32
    assert f"is in use by pid {os.getpid()}" in message


def test_who_was_in_the_mount_for_a_moment_only_does_not_keep_it_from_being_unmounted(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen in a test run: somebody looked at all mounts of the machine, and umount.razorfs gave up over it."""
    held = [os.open(mounted.path, os.O_RDONLY)]
    found = mount_users.users_of

    def holders(mount: Mount) -> list[mount_users.MountUser]:
        for descriptor in held:
            os.close(descriptor)
        held.clear()
        return found(mount)

    monkeypatch.setattr(mount_users, "users_of", holders)
    assert cli.invoke(umount.app, "umount.razorfs", cli.MOUNT_CODES, [str(mounted.path)]) == 0
    assert not held and mountpoints.mount_at(str(mounted.path)) is None
    assert mounted.complaints == []


def test_a_loop_device_of_a_file_in_it_is_named_as_the_holder(mounted: Mounted) -> None:
    """The kernel holds it, no process does: root was told to ask root."""
    (mounted.path / "disk").write_bytes(bytes(MIB))
    made = subprocess.run(["losetup", "--show", "-f", str(mounted.path / "disk")], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no loop devices: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        refused = mounted.try_umount()
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    assert refused.returncode and f"kernel  {device}  {mounted.path}/disk" in refused.stderr
    assert "run as root" not in refused.stderr


@pytest.mark.parametrize(("limit", "said"), [("-n 20", "only 20 files may be open here at once"), ("-Sn 20", "")])
def test_a_mount_takes_no_fewer_descriptors_than_it_needs(unmounted: Mounted, limit: str, said: str) -> None:
    """It was served, and said to be mounted nowhere: the mount table could not be read."""
    words = ["sh", "-c", f'ulimit {limit} && exec "$@"', "sh", *MOUNT]
    done = run(words, unmounted.image, unmounted.path, "-o", f"log={unmounted.log}")
    assert (done.returncode == 0) == (not said) and said in done.stderr and done.stderr.count("\n") == bool(said)
    if not said:
        assert unmounted.greeting.image == str(unmounted.image)


def test_an_image_on_a_read_only_filesystem_is_no_matter_of_permission(unmounted: Mounted, tmp_path: Path) -> None:
    """Root was told to run it as root."""
    folder = tmp_path / "media"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    try:
        (folder / "image").write_bytes(unmounted.image.read_bytes())
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        refused = run(MOUNT, folder / "image", unmounted.path)
    finally:
        subprocess.run(["umount", folder], check=True)
    assert refused.returncode == 32
    assert refused.stderr == f"mount.razorfs: {folder}/image: lies on a read-only filesystem; open it read-only\n"


def test_symlinks_are_not_followed_if_the_mount_says_so(unmounted: Mounted) -> None:
    unmounted.mount("nosymfollow")
    (unmounted.path / "file").write_text("here")
    os.symlink("file", unmounted.path / "link")
    with pytest.raises(OSError, check=lambda failure: failure.errno == errno.ELOOP):
        (unmounted.path / "link").read_text()
    unmounted.remount()
    assert (unmounted.path / "link").read_text() == "here"


def test_a_mount_on_a_mount_of_itself_names_the_holder(mounted: Mounted) -> None:
    code, message = refusal(mounted.image, mounted.path, "-o", "ro,nonempty")
    assert code == 32
    assert f"is mounted at {mounted.path} by pid {mounted.pid}" in message


def test_wrong_mount_points_are_refused(unmounted: Mounted, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    full = tmp_path / "full"
    (full / "something").mkdir(parents=True)
    assert "does not exist" in refusal(unmounted.image, tmp_path / "nothing")[1]
    assert "not a directory" in refusal(unmounted.image, tmp_path / "file")[1]
    code, message = refusal(unmounted.image, full)
    assert code == 32
    assert "not empty" in message
    try:
        assert run(MOUNT, unmounted.image, full, "-o", "nonempty").returncode == 0
        assert os.listdir(full) == []
    finally:
        run(UMOUNT, full)
    assert os.listdir(full) == ["something"]


def test_a_mount_point_that_is_taken_by_a_razorfs_is_called_that(
    mounted: Mounted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was "not empty" if there was anything in it, and mounted over if not; and a stopped daemon was waited for."""
    other = make_image(tmp_path / "other.img")
    wanted = (32, f"mount.razorfs: {mounted.path}: {mounted.image} is already mounted there; unmount it first, or mount with")
    for _ in range(2):
        code, message = refusal(other, mounted.path)
        assert (code, message[: len(wanted[1])]) == wanted
        (mounted.path / "file").touch()
    monkeypatch.setattr(mount, "MOUNTED_PATIENCE_S", 0.1)
    pid = mounted.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert "is already mounted there" in refusal(other, mounted.path)[1]
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("option", ["bogus", "commit=never", "norecovery", "compression=rar", "log=/nowhere/at/all"])
def test_wrong_options_are_usage_errors(unmounted: Mounted, option: str) -> None:
    assert refusal(unmounted.image, unmounted.path, "-o", option)[0] == 1
    assert mountpoints.mount_at(str(unmounted.path)) is None


def test_a_missing_argument_is_a_usage_error(fuse: None) -> None:
    assert refusal("image")[0] == 1
    assert refusal()[0] == 1


def test_without_fuse_the_sentence_says_so(unmounted: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "FUSE_DEVICE", "/nowhere/fuse")
    code, message = refusal(unmounted.image, unmounted.path)
    assert code == 2
    assert "FUSE is not available" in message


def test_who_may_not_use_the_image_is_told_so(unmounted: Mounted) -> None:
    os.chmod(unmounted.image, 0o600)
    for folder in (unmounted.image.parent, *unmounted.image.parent.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    os.seteuid(65_534)
    try:
        code, message = refusal(unmounted.image, unmounted.path)
    finally:
        os.seteuid(0)
    assert code == 1
    assert "no permission to read" in message


# Ending


def test_umount_returns_when_the_image_is_closed(mounted: Mounted) -> None:
    (mounted.path / "file").write_bytes(os.urandom(20 << 20))
    mounted.umount()
    assert mountpoints.mount_at(str(mounted.path)) is None
    mounted.mount()  # at once: nobody holds it any more
    assert (mounted.path / "file").stat().st_size == 20 << 20


def test_a_busy_mount_stays_and_its_users_are_listed(mounted: Mounted) -> None:
    (mounted.path / "open").touch()
    script = "import os, sys; os.chdir(sys.argv[1]); file = open('open'); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(mounted.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        try:
            assert user.stdout is not None
            assert user.stdout.readline() == "ready\n"
            done = run(UMOUNT, mounted.path)
            assert done.returncode == 32
            assert "is in use by" in done.stderr
            held = [(pid, path) for _, pid, _, path in (line.split() for line in done.stderr.splitlines()[1:])]
            assert held == [(str(user.pid), str(mounted.path)), (str(user.pid), str(mounted.path / "open"))]
            assert (mounted.path / "open").exists()
        finally:
            user.kill()
    mounted.umount()


def test_a_lazy_umount_does_not_wait_for_users(mounted: Mounted) -> None:
    with open(mounted.path / "open", "w+b") as file:
        assert run(UMOUNT, "-l", mounted.path).returncode == 0
        assert mountpoints.mount_at(str(mounted.path)) is None
        file.write(b"goes on")
        file.flush()
        os.fsync(file.fileno())
    mounted.mount()
    assert (mounted.path / "open").read_bytes() == b"goes on"


def test_what_is_not_mounted_cannot_be_unmounted(unmounted: Mounted) -> None:
    done = run(UMOUNT, unmounted.path)
    assert (done.returncode, "is not mounted" in done.stderr) == (32, True)
    done = run(UMOUNT, "/proc")
    assert (done.returncode, "not of razorfs" in done.stderr) == (32, True)


@pytest.mark.parametrize("command", [["umount"], ["fusermount3", "-u"]])
def test_the_usual_commands_unmount_too(mounted: Mounted, command: list[str]) -> None:
    (mounted.path / "file").write_text("x")
    assert run(command, mounted.path).returncode == 0
    mounted.mount()  # waits until the daemon has closed the image
    assert (mounted.path / "file").read_text() == "x"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_and_closes(mounted: Mounted, number: signal.Signals) -> None:
    (mounted.path / "file").write_text("x")
    mounted.send(number)
    assert mountpoints.mount_at(str(mounted.path)) is None
    assert mounted.log.read_text().rstrip().endswith("closed")
    mounted.mount()
    assert (mounted.path / "file").read_text() == "x"


def test_a_signal_ends_a_busy_mount_without_losing_what_was_written(mounted: Mounted) -> None:
    descriptor = os.open(mounted.path / "file", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"written")
    mounted.send(signal.SIGTERM)
    assert mountpoints.mount_at(str(mounted.path)) is None
    with pytest.raises(OSError, check=lambda failure: failure.errno == errno.ENOTCONN):
        os.close(descriptor)
    warnings = [line for line in mounted.complaints if "is in use" in line]
    assert len(warnings) == 1
    mounted.log.unlink()
    mounted.mount()
    assert (mounted.path / "file").read_bytes() == b"written"


def test_the_mount_of_a_killed_daemon_is_cleaned_by_the_next(mounted: Mounted) -> None:
    (mounted.path / "synced").write_text("x")
    with open(mounted.path / "synced", "rb") as file:
        os.fsync(file.fileno())
    mounted.send(signal.SIGKILL)
    with pytest.raises(OSError, check=lambda failure: failure.errno == errno.ENOTCONN):
        os.listdir(mounted.path)
    mounted.mount()
    assert (mounted.path / "synced").read_text() == "x"
    assert len([mount for mount in mounts() if mount.path == os.fsencode(mounted.path)]) == 1


def test_umount_does_not_wait_for_ever_for_a_stopped_daemon(mounted: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asked the mount itself whether its daemon had died, and hung with it."""
    monkeypatch.setattr(awaiting, "GREETING_PATIENCE_S", 0.1)
    pid, said = mounted.pid, io.StringIO()
    os.kill(pid, signal.SIGSTOP)
    try:
        assert not mountpoints.is_dead(str(mounted.path), 0.1)
        with redirect_stderr(said):
            for app, words in ((umount.app, []), (mount.app, [str(mounted.image), "-o", "remount,commit=1"])):
                assert cli.invoke(app, "umount.razorfs", cli.MOUNT_CODES, [*words, str(mounted.path)]) == 32
    finally:
        os.kill(pid, signal.SIGCONT)
    assert said.getvalue().count("has not answered for 0.1 s; is it stopped") == 2, said.getvalue()
    mounted.umount()


def test_a_lazy_umount_does_not_wait_for_a_stopped_daemon(mounted: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(umount, "LAZY_PATIENCE_S", 0.1)
    pid = mounted.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert cli.invoke(umount.app, "umount.razorfs", cli.MOUNT_CODES, ["-l", str(mounted.path)]) == 0
        assert mountpoints.mount_at(str(mounted.path)) is None
    finally:
        os.kill(pid, signal.SIGCONT)


def test_umount_cleans_the_mount_of_a_killed_daemon(mounted: Mounted) -> None:
    mounted.send(signal.SIGKILL)
    done = run(UMOUNT, mounted.path)
    assert (done.returncode, "daemon had died" in done.stderr) == (0, True)
    assert mountpoints.mount_at(str(mounted.path)) is None


def test_an_idle_mount_takes_no_processor_time(mounted: Mounted) -> None:
    os.listdir(mounted.path)
    pid = mounted.pid

    def used_s() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = used_s()
    time.sleep(1.0)  # the time is what is measured here
    assert used_s() - before <= 0.05


def test_a_mount_can_be_made_in_another_namespace(unmounted: Mounted) -> None:
    """mount(8) passes its -N on to helpers, which then go there by themselves."""
    command = ["unshare", "--mount", "sh", "-c", "echo ready; read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
            where = ("-N", str(other.pid))
            done = run(MOUNT, *where, unmounted.image, unmounted.path, "-o", f"log={unmounted.log}")
            assert done.returncode == 0, done.stderr
            assert mountpoints.mount_at(str(unmounted.path)) is None
            table = mounts(Path(f"/proc/{other.pid}/mountinfo"))
            assert os.fsencode(unmounted.path) in [mount.path for mount in table]
            assert run(UMOUNT, *where, unmounted.path).returncode == 0
        finally:
            other.kill()


def test_umount_does_not_wait_for_a_mount_that_another_namespace_keeps(mounted: Mounted) -> None:
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
            done = run(UMOUNT, mounted.path)
            assert (done.returncode, "is mounted elsewhere, too" in done.stderr) == (0, True)
            assert mountpoints.mount_at(str(mounted.path)) is None
        finally:
            other.kill()
    mounted.mount()  # now it is nowhere


def lines_after_hangup(mounted: Mounted, rotated: Path) -> list[str]:
    """Move the log away, send SIGHUP, and return what stands in the new log once it is there."""
    mounted.log.rename(rotated)
    os.kill(mounted.pid, signal.SIGHUP)
    end = time.monotonic() + ANSWER_S
    while not (mounted.log.exists() and mounted.log.read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return mounted.log.read_text().splitlines()


def test_a_hangup_opens_the_log_again_and_does_not_end_the_mount(mounted: Mounted, tmp_path: Path) -> None:
    rotated = tmp_path / "log.1"
    lines = lines_after_hangup(mounted, rotated)
    before = rotated.read_bytes()
    assert len(lines) == 1 and lines[0].endswith("SIGHUP: the log is opened again")
    (mounted.path / "file").write_text("x")
    mounted.umount()
    assert rotated.read_bytes() == before
    assert mounted.log.read_text().rstrip().endswith("closed")


def test_a_log_that_cannot_be_opened_again_goes_on_where_it_was(tmp_path: Path, fuse: None) -> None:
    """Logging must never raise: a request that met it would be answered by the end of the mount."""
    made = Mounted(tmp_path)
    folder = tmp_path / "logs"
    folder.mkdir()
    log = folder / "log"
    done = run(MOUNT, made.image, made.path, "-o", f"log={log}")
    assert done.returncode == 0, done.stderr
    try:
        folder.rename(tmp_path / "moved")
        os.kill(made.pid, signal.SIGHUP)
        (made.path / "file").write_text("x")
        made.umount()
    finally:
        made.take_away()
    lines = (tmp_path / "moved" / "log").read_text().splitlines()
    assert any(f"{log}: cannot be opened again: No such file or directory" in line for line in lines)
    assert lines[-1].endswith("closed")


def test_a_relative_log_lies_where_the_command_was_run(unmounted: Mounted, tmp_path: Path) -> None:
    done = run([*MOUNT[:1], "-c", "from razortools.mount import main; main()"], unmounted.image, unmounted.path, "-o", "log=here",
               cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mounted at" in (tmp_path / "here").read_text()


def test_a_log_inside_of_the_mount_is_refused(unmounted: Mounted) -> None:
    """To write it the daemon would wait for itself."""
    code, message = refusal(unmounted.image, unmounted.path, "-o", f"log={unmounted.path}/log")
    assert code == 1
    assert "option log" in message


def test_unlinked_files_are_gone_when_their_mount_ends(mounted: Mounted) -> None:
    with open(mounted.path / "file", "wb", buffering=0) as file:
        file.write(b"x" * 1_000_000)
        os.unlink(mounted.path / "file")
        mounted.send(signal.SIGTERM)
        with suppress(OSError):
            file.close()
    assert [line for line in mounted.complaints if "is in use" not in line] == []
    mounted.log.unlink()
    with open_volume(open_image(mounted.image, writable=False), read_only=True) as volume:
        assert volume.statistics().inode_count == 1
        assert volume.store.superblock.state == State.CLEAN
