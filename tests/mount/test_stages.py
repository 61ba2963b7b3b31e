"""A daemon that dies at any stage of mounting or unmounting leaves an image that the next mount takes."""

import errno
import os
import signal
import sys
from pathlib import Path

import pytest

from razortools.engine.store.device import open_image
from razortools.engine.store.mounts import mounts
from razortools.engine.store.superblocks import newest
from razortools.format.superblock import State
from razortools.service import mountpoints
from tests.mount.mounts import UMOUNT, Mounted, run

pytestmark = [pytest.mark.mount, pytest.mark.slow]

STAGES = [sys.executable, "-m", "tests.mount.stages"]
FSCK = [sys.executable, "-m", "razortools.fsck"]
UNSYNCED = "unsynced"
PROJECT = Path(__file__).parents[2]

MOUNTING = [
    "before,razortools.service.opening:open_image",
    "after,razortools.service.opening:open_image",
    "before,razortools.engine.store.checkpoint:mark",
    "after,razortools.engine.store.checkpoint:mark",
    "after,razortools.service.opening:open_volume",
    "before,razortools.service.kernel_mount:_mount",
    "after,razortools.service.kernel_mount:_mount",
    "before,razortools.service.session:Session.forward",
    "before,razortools.service.session:Session._agreed",
    "after,razortools.service.channel:Channel.pass_on",
    "before,razortools.service.control:Control.__init__",
    "after,razortools.service.control:Control.__init__",
    "before,razortools.service.daemon:_report",
]
RECOVERING = [
    "after,razortools.engine.store.recovery:_replay",
    "after,razortools.service.opening:open_volume+before,razortools.service.kernel_mount:_mount",
]
UNMOUNTING = [
    "before,razortools.service.server:Mounted._store_all",
    "before,razortools.service.server:Mounted._store_all+after,razortools.engine.store.commit:write",
    "before,razortools.engine.volume:Volume.close",
    "before,razortools.engine.volume:Volume.close+before,razortools.engine.store.checkpoint:write",
    "before,razortools.engine.volume:Volume.close+after,razortools.engine.store.checkpoint:write",
    "after,razortools.engine.volume:Volume.close",
    "before,razortools.service.control:Control.finish",
]
CLOSING = "before,razortools.service.server:Mounted._close"
TERMINATING = [
    "before,razortools.service.mountpoints:unmount",
    "after,razortools.service.mountpoints:unmount",
    "before,razortools.service.kernel_mount:Connection.detach",
]


def write_synced(path: Path, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def mount_to_die(mounted: Mounted, stage: str) -> tuple[int, str]:
    """Mount with a daemon that dies at *stage*; return what the command came to."""
    done = run(STAGES, stage, mounted.image, mounted.path, "-o", f"log={mounted.log}", cwd=PROJECT)
    return done.returncode, done.stderr


def take(mounted: Mounted, expected: dict[str, str]) -> None:
    """The next mount works, cleans the mount point, and shows what was synced."""
    mounted.mount()
    at_place = [mount for mount in mounts() if mount.path == os.fsencode(mounted.path)]
    assert len(at_place) == 1
    found = {path.name: path.read_text() for path in mounted.path.iterdir()}
    assert found.pop(UNSYNCED, "") == ""
    assert found == expected


def check(mounted: Mounted) -> None:
    mounted.umount()
    checked = run(FSCK, "-n", mounted.image)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_daemon_killed_while_it_mounts(mounted: Mounted) -> None:
    write_synced(mounted.path / "file", "x")
    for stage in MOUNTING:
        mounted.umount()
        code, said = mount_to_die(mounted, stage)
        assert (code != 0, said.count("\n"), "died: SIGKILL" in said) == (True, 1, True), (stage, code, said)
        take(mounted, {"file": "x"})
    check(mounted)


def test_a_daemon_killed_while_it_recovers(mounted: Mounted) -> None:
    write_synced(mounted.path / "file", "x")
    for stage in RECOVERING:
        mounted.send(signal.SIGKILL)
        for _ in range(2):
            code, said = mount_to_die(mounted, stage)
            assert (code != 0, "died: SIGKILL" in said) == (True, True), (stage, code, said)
        take(mounted, {"file": "x"})
        write_synced(mounted.path / "file", "x")
    check(mounted)


def test_a_daemon_killed_while_it_closes_the_image(mounted: Mounted) -> None:
    expected: dict[str, str] = {}
    for number, stage in enumerate(UNMOUNTING):
        mounted.umount()
        code, said = mount_to_die(mounted, stage)
        assert code == 0, (stage, said)
        expected[f"{number}"] = stage
        write_synced(mounted.path / f"{number}", stage)
        (mounted.path / UNSYNCED).touch()  # so that there is something to commit
        done = mounted.try_umount()
        assert (done.returncode, "its daemon died" in done.stderr) == (32, True), (stage, done.stderr)
        assert mountpoints.mount_at(str(mounted.path)) is None
        take(mounted, expected)
        (mounted.path / UNSYNCED).unlink(missing_ok=True)
    check(mounted)


def test_a_daemon_killed_while_it_obeys_a_signal(mounted: Mounted) -> None:
    expected: dict[str, str] = {}
    for number, stage in enumerate(TERMINATING):
        mounted.umount()
        code, said = mount_to_die(mounted, stage)
        assert code == 0, (stage, said)
        expected[f"{number}"] = stage
        write_synced(mounted.path / f"{number}", stage)
        mounted.send(signal.SIGTERM)
        take(mounted, expected)
    check(mounted)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP"])
@pytest.mark.parametrize("stage", ["before,razortools.service.mountpoints:unmount", CLOSING])
def test_a_second_signal_does_not_keep_the_image_from_being_closed(mounted: Mounted, stage: str, number: str) -> None:
    """Whoever shuts a system down, or is impatient, sends several. The image was left to be recovered."""
    mounted.umount()
    code, said = mount_to_die(mounted, f"{stage},{number}")
    assert code == 0, said
    (mounted.path / "file").write_text("x")
    mounted.send(signal.SIGTERM)
    with open_image(mounted.image, writable=False) as device:
        assert State(newest(device).state) == State.CLEAN
    take(mounted, {"file": "x"})


def test_a_mount_that_is_interrupted_leaves_nothing(mounted: Mounted) -> None:
    """SIGTERM before the mount answers: the daemon ends as any process does, and the command says so."""
    mounted.umount()
    code, said = mount_to_die(mounted, "after,razortools.service.kernel_mount:_mount")
    assert code != 0, said
    with pytest.raises(OSError, check=lambda failure: failure.errno == errno.ENOTCONN):
        os.listdir(mounted.path)
    assert run(UMOUNT, mounted.path).returncode == 0  # the dead mount can be taken away, too
    assert os.listdir(mounted.path) == []
