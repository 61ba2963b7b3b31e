"""Mounting like any filesystem: mount(8), umount(8) and fstab with a mount of ours.

The functions run as root in a mount namespace of their own, where the helpers stand in /sbin and /etc/fstab is the test's.
"""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from razortools.service import mountpoints
from razortools.service.control import Waiter
from razortools.units import MIB
from tests.images import make_image
from tests.mount.mounts import ANSWER_S
from tests.mount.users import as_root

pytestmark = pytest.mark.mount


def call(*words: str | Path) -> tuple[int, str]:
    """Run one of the system's commands; return exit code and what it said."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=ANSWER_S)
    return done.returncode, (done.stdout + done.stderr).strip()


def shown(folder: Path) -> set[str]:
    """Return the options that mount(8) shows."""
    lines = call("mount")[1].splitlines()
    line = next(line for line in lines if f" on {folder / 'mnt'} " in line)
    return set(line.rpartition("(")[2].rstrip(")").split(","))


def fstab(folder: Path, options: str) -> None:
    (folder / "fstab").write_text(f"{folder / 'image'}  {folder / 'mnt'}  razorfs  {options}  0  0\n")


@pytest.fixture
def folder(fuse: None, tmp_path: Path) -> Path:
    """An image and its mount point."""
    make_image(tmp_path / "image", 16 * MIB)
    (tmp_path / "mnt").mkdir()
    return tmp_path


def mount_by_type(folder: Path) -> list[object]:
    told: list[object] = [call("mount", "-t", "razorfs", "-o", "noatime,nosuid", folder / "image", folder / "mnt")]
    found = mountpoints.mount_at(str(folder / "mnt"))
    assert found is not None
    told += [found.filesystem, sorted(found.options)]
    (folder / "mnt" / "file").write_text("x")
    told.append(call("umount", folder / "mnt"))
    # umount(8) found our helper: the image is closed when it returns, and a mount at once finds it free
    told.append(call("fsck.razorfs", "-n", "-q", folder / "image")[0])
    return told


def test_mount_by_type_and_umount_that_returns_when_the_image_is_closed(folder: Path) -> None:
    assert as_root(mount_by_type, folder) == [
        [0, ""], "fuse.razorfs", ["noatime", "nosuid", "rw"], [0, ""], 0,
    ]  # fmt: skip


def mount_from_fstab(folder: Path, options: str) -> list[object]:
    fstab(folder, options)
    told = [call("mount", folder / "mnt")]
    options_shown = sorted(shown(folder))
    return [*told, options_shown, call("umount", folder / "mnt"), os.listdir(folder)]


def test_everything_that_fstab_says_to_others_passes_and_is_shown_where_it_should_be(folder: Path) -> None:
    options = (
        "defaults,nofail,_netdev,x-systemd.automount,x-systemd.requires=network.target,x-systemd.mount-timeout=30s,"
        "x-gvfs-show,x-gvfs-name=My%20files,comment=mine,noauto,commit=1,X-mount.mkdir=0700,nodev"
    )
    (folder / "mnt").rmdir()  # X-mount.mkdir makes it
    mounted, options_shown, unmounted, _ = as_root(mount_from_fstab, folder, options)
    assert (mounted, unmounted) == ([0, ""], [0, ""])
    kept = {"x-systemd.automount", "x-systemd.requires=network.target", "x-gvfs-show", "x-gvfs-name=My%20files"}
    assert set(options_shown) >= kept | {"rw", "nodev"}
    assert not [word for word in options_shown if word.startswith(("X-", "comment", "commit"))]


def remount_from_fstab(folder: Path) -> list[object]:
    fstab(folder, "defaults,commit=1,x-systemd.automount")
    told: list[object] = [call("mount", folder / "mnt")]
    for words in (["-o", "remount,ro"], ["-o", "remount"], ["-o", "remount,rw,commit=2,noexec"], ["-o", "remount,ro"]):
        told.append(call("mount", *words, folder / "mnt"))
        told.append("ro" in shown(folder))
    told.append(call("umount", folder / "mnt")[0])
    return told


def test_remount_with_what_fstab_says(folder: Path) -> None:
    assert as_root(remount_from_fstab, folder) == [[0, ""], [0, ""], True, [0, ""], False, [0, ""], False, [0, ""], True, 0]


def remount_without_fstab(folder: Path) -> list[object]:
    told: list[object] = [call("mount", "-t", "razorfs", "-o", "nosuid,strictatime", folder / "image", folder / "mnt")]
    before = shown(folder)
    for options in ("remount,ro", "remount,rw", "remount,ro", "remount,compression=none"):
        told.append(call("mount", "-o", options, folder / "mnt"))
        told.append(sorted(shown(folder) ^ before))
    told.append(call("umount", folder / "mnt")[0])
    return told


def test_remount_with_what_the_mount_table_says(folder: Path) -> None:
    told = as_root(remount_without_fstab, folder)
    refused = told.pop(-3)
    assert told == [[0, ""], [0, ""], ["ro", "rw"], [0, ""], [], [0, ""], ["ro", "rw"], ["ro", "rw"], 0]
    assert refused[0] != 0
    assert "option compression: cannot change while it is mounted" in refused[1]


def mount_all(folder: Path) -> list[object]:
    fstab(folder, "ro,nofail")
    told: list[object] = [call("mount", "-a", "-T", "/etc/fstab", "-t", "razorfs")[0]]
    told.append("ro" in shown(folder))
    told.append(call("mount", "-a", "-T", "/etc/fstab", "-t", "razorfs"))  # it is there already
    told.append(call("umount", "-A", folder / "image")[0])
    told.append(mountpoints.mount_at(str(folder / "mnt")) is None)
    return told


def test_mount_all_mounts_once_and_umount_of_the_image_finds_it(folder: Path) -> None:
    assert as_root(mount_all, folder) == [0, True, [0, ""], 0, True]


def refused_mount(folder: Path) -> tuple[int, str]:
    (folder / "image").write_bytes(bytes(100_000))
    return call("mount", "-t", "razorfs", folder / "image", folder / "mnt")


def test_mount_tells_why_our_helper_refuses(folder: Path) -> None:
    code, said = as_root(refused_mount, folder)
    assert code == 32
    assert said.startswith("mount.razorfs: ")
    assert "is not a RAZORFS image" in said


def wrapped(folder: Path) -> list[object]:
    """What systemd's mount units and shutdown run: mount with a list of options, remount by the system call, umount -n -l."""
    options = "rw,noatime,x-systemd.after=a.service"
    told: list[object] = [call("mount", folder / "image", folder / "mnt", "-t", "razorfs", "-o", options)]
    told.append(call("umount", "-n", folder / "mnt", "-c"))
    told.append(call("mount", folder / "image", folder / "mnt", "-t", "razorfs", "-o", options))
    told.append(call("umount", "-f", "-l", folder / "mnt"))
    told.append(mountpoints.mount_at(str(folder / "mnt")) is None)
    return told


def test_the_commands_that_systemd_runs(folder: Path) -> None:
    assert as_root(wrapped, folder) == [[0, ""], [0, ""], [0, ""], [0, ""], True]


def lost_and_mounted_again(folder: Path, options: str) -> list[object]:
    fstab(folder, options)
    told: list[object] = []
    for _ in range(2):
        told.append(call("mount", folder / "mnt"))
        found = mountpoints.mount_at(str(folder / "mnt"))
        assert found is not None
        waiter = Waiter(found.device)
        os.kill(waiter.pid, signal.SIGKILL)
        assert waiter.wait() is None  # it has died
        waiter.close()
    told.append(call("umount", folder / "mnt")[0])
    told.append(mountpoints.mount_at(str(folder / "mnt")) is None)
    return told


@pytest.mark.parametrize("options", ["fsname=SOMETHING", "fsname=a/b", "fsname=none", "subtype=other", "defaults"])
def test_a_dead_mount_is_cleaned_up_by_mount_and_umount_whatever_it_is_called(folder: Path, options: str) -> None:
    assert as_root(lost_and_mounted_again, folder, options) == [[0, ""], [0, ""], 0, True]
