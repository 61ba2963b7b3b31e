"""Mounting without being root: fusermount3 mounts, and the descriptor of the connection comes to us."""

import errno
import os
import signal
import stat
import struct
from pathlib import Path

import pytest

from razortools import mount, umount
from razortools.cli import app as cli
from razortools.engine.store.device import open_image
from razortools.engine.volume import open_volume
from razortools.errors import RazorError
from razortools.format.superblock import State
from razortools.service import mountpoints
from razortools.service.control import Waiter
from razortools.service.user_mount import user_connection
from razortools.units import MIB
from tests.images import make_image
from tests.mount.sidebyside import ACCESS, DEFAULT, acl
from tests.mount.users import NOBODY, as_user

pytestmark = pytest.mark.mount

FUSE_INIT = 26  # linux/fuse.h: the first request on every connection
REQUEST_HEAD = struct.Struct("<IIQQIII")  # length, opcode, unique, node, uid, gid, pid
BUFFER_BYTES = 64 * 1024


def flags_of(path: Path) -> set[str]:
    """Return the options that the kernel's mount table shows for *path*."""
    found = mountpoints.mount_at(str(path))
    return set() if found is None else set(found.options | found.shared_options)


def connect(folder: Path) -> dict[str, object]:
    target = folder / "mnt"
    target.mkdir()
    connection = user_connection(str(target), {"ro", "noexec", "default_permissions", "fsname=/i,m\\ü", "subtype=razorfs"})
    asked = REQUEST_HEAD.unpack_from(os.read(connection.descriptor, BUFFER_BYTES))
    found = mountpoints.mount_at(str(target))
    assert found is not None
    told = {
        "opcode": asked[1],
        "kind": found.filesystem,
        "source": os.fsdecode(found.source),
        "flags": sorted(flags_of(target)),
        "inherited": os.get_inheritable(connection.descriptor),
        "is_device": stat.S_ISCHR(os.fstat(connection.descriptor).st_mode),
    }
    connection.detach()
    try:
        os.read(connection.descriptor, BUFFER_BYTES)
    except OSError as failed:
        told["afterwards"] = errno.errorcode[failed.errno or 0]
    os.close(connection.descriptor)
    return told | {"is_gone": mountpoints.mount_at(str(target)) is None}


def test_a_user_gets_the_connection_of_a_mount_that_fusermount3_made(fuse: None, tmp_path: Path) -> None:
    told = as_user(connect, tmp_path)
    flags = set(told.pop("flags"))
    assert told == {
        "opcode": FUSE_INIT, "kind": "fuse.razorfs", "source": "/i,m\\ü", "inherited": False, "is_device": True,
        "afterwards": "ENODEV", "is_gone": True,
    }  # fmt: skip
    assert flags >= {"ro", "nosuid", "nodev", "noexec", "default_permissions", f"user_id={NOBODY}", f"group_id={NOBODY}"}


def abandon(folder: Path) -> list[bool]:
    target = folder / "mnt"
    target.mkdir()
    connection = user_connection(str(target), {"subtype=razorfs"})
    is_there = mountpoints.mount_at(str(target)) is not None
    connection.abandon()
    try:
        os.fstat(connection.descriptor)
    except OSError:
        return [is_there, mountpoints.mount_at(str(target)) is None]
    return []


def test_a_connection_that_nobody_serves_is_taken_back(fuse: None, tmp_path: Path) -> None:
    assert as_user(abandon, tmp_path) == [True, True]


def refusal(folder: Path, target: str, word: str) -> list[str]:
    descriptors = os.listdir("/dev/fd") if os.access("/dev/fd/", os.R_OK) else []
    try:
        user_connection(target, {word, "subtype=razorfs"})
    except RazorError as refused:
        assert descriptors == (os.listdir("/dev/fd") if descriptors else [])  # nothing is left open
        return [type(refused).__name__, str(refused)]
    return ["", ""]


@pytest.mark.parametrize(
    ("place", "word", "kind", "reason"),
    [
        ("mine", "bogus", "MountRefused", "unknown option 'bogus'"),
        ("mine", "allow_other", "NoPermission", "only allowed if 'user_allow_other' is set"),
        ("roots", "rw", "NoPermission", "no write access to mountpoint"),
        ("missing", "rw", "MountRefused", "No such file or directory"),
    ],
)
def test_a_user_is_told_why_a_mount_is_refused(  # the sentences are fusermount3's
    fuse: None, tmp_path: Path, place: str, word: str, kind: str, reason: str
) -> None:
    (tmp_path / "roots").mkdir(mode=0o755)
    (tmp_path / "mine").mkdir()
    os.chown(tmp_path / "mine", NOBODY, NOBODY)
    refused = as_user(refusal, tmp_path, str(tmp_path / place), word)
    assert refused[0] == kind
    assert refused[1].startswith(f"{tmp_path / place}: the host refuses the mount: ")
    assert reason in refused[1]


def test_a_machine_that_keeps_fuse_for_root_is_named_as_the_reason(fuse: None, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    os.chown(tmp_path / "mine", NOBODY, NOBODY)
    refused = as_user(refusal, tmp_path, str(tmp_path / "mine"), "rw", device_mode=0o600)
    assert refused[0] == "NoPermission"
    assert "this machine lets root alone use FUSE" in refused[1]


def test_without_fusermount3_the_sentence_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(mountpoints.MountRefused, match="install the package fuse3"):
        user_connection(str(tmp_path), {"rw"})


def mount_and_work(folder: Path) -> list[object]:
    target = folder / "mnt"
    target.mkdir()
    where = ["-o", f"log={folder / 'log'}"]
    codes = [cli.invoke(mount.app, "mount.razorfs", cli.MOUNT_CODES, [str(folder / "image"), str(target), *where])]
    (target / "file").write_bytes(b"mine" * 100_000)
    flags = flags_of(target) & {"rw", "nosuid", "nodev"}
    owner = os.stat(target / "file").st_uid
    codes.append(cli.invoke(umount.app, "umount.razorfs", cli.MOUNT_CODES, [str(target)]))
    return [codes, sorted(flags), owner, mountpoints.mount_at(str(target)) is None, (folder / "log").read_text()]


def remount_own(folder: Path) -> list[object]:
    target = folder / "mnt"
    target.mkdir()
    where = [str(folder / "image"), str(target), "-o"]
    told: list[object] = [
        cli.invoke(mount.app, "mount.razorfs", cli.MOUNT_CODES, [*where, options])
        for options in (f"log={folder / 'log'}", "remount,commit=1,cache=2M", "remount,ro")
    ]
    (target / "file").touch()  # the refused one has left it as it was
    told.append(cli.invoke(umount.app, "umount.razorfs", cli.MOUNT_CODES, [str(target)]))
    return [told, (folder / "log").read_text().count("remounted")]


def test_a_user_remounts_what_needs_no_privilege(fuse: None, tmp_path: Path) -> None:
    os.chown(make_image(tmp_path / "image", 16 * MIB, root_mode=0o1777), NOBODY, NOBODY)
    assert as_user(remount_own, tmp_path) == [[0, 0, 1, 0], 1]


def test_a_user_mounts_works_and_unmounts(fuse: None, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 16 * MIB, root_mode=0o1777)
    os.chown(image, NOBODY, NOBODY)
    codes, flags, owner, is_gone, log = as_user(mount_and_work, tmp_path)
    assert (codes, flags, owner, is_gone) == ([0, 0], ["nodev", "nosuid", "rw"], NOBODY, True), log
    assert log.rstrip().endswith("closed")
    with open_volume(open_image(image, writable=False), read_only=True) as volume:
        assert volume.store.superblock.state == State.CLEAN
        assert volume.statistics().inode_count == 2


def mount_and_hand_lists_down(folder: Path) -> list[object]:
    target = folder / "mnt"
    target.mkdir()
    codes = [cli.invoke(mount.app, "mount.razorfs", cli.MOUNT_CODES, [str(folder / "image"), str(target)])]
    os.mkdir(target / "folder")
    os.setxattr(target / "folder", DEFAULT, acl("u:rwx u1001:rwx g:r-x m:rwx o:---"))
    os.umask(0o077)
    for name in ("folder/inside", "outside"):
        os.close(os.open(target / name, os.O_CREAT | os.O_WRONLY, 0o666))
    modes = [f"{os.stat(target / name).st_mode:o}" for name in ("folder/inside", "outside")]
    found = os.getxattr(target / "folder/inside", ACCESS) == acl("u:rw- u1001:rwx g:r-x m:rw- o:---")
    codes.append(cli.invoke(umount.app, "umount.razorfs", cli.MOUNT_CODES, [str(target)]))
    return [codes, modes, found]


def test_lists_are_handed_down_on_a_users_mount_in_place_of_the_umask(fuse: None, tmp_path: Path) -> None:
    os.chown(make_image(tmp_path / "image", 16 * MIB, root_mode=0o1777), NOBODY, NOBODY)
    assert as_user(mount_and_hand_lists_down, tmp_path) == [[0, 0], ["100660", "100600"], True]


def lose_and_mount_again(folder: Path, option: str) -> list[object]:
    target = folder / "mnt"
    target.mkdir()
    where = [str(folder / "image"), str(target), "-o", f"log={folder / 'log'},{option}"]
    codes: list[int] = []
    for _ in range(2):
        codes.append(cli.invoke(mount.app, "mount.razorfs", cli.MOUNT_CODES, where))
        kill_the_daemon(target)
    codes.append(cli.invoke(umount.app, "umount.razorfs", cli.MOUNT_CODES, [str(target)]))
    return [codes, mountpoints.mount_at(str(target)) is None, (folder / "log").read_text()]


def kill_the_daemon(target: Path) -> None:
    found = mountpoints.mount_at(str(target))
    assert found is not None
    waiter = Waiter(found.device)
    os.kill(waiter.pid, signal.SIGKILL)
    assert waiter.wait() is None  # it has died
    waiter.close()


@pytest.mark.parametrize("option", ["fsname=SOMETHING", "fsname=a b\\,c", "fsname=none,subtype=other", "rw"])
def test_a_users_dead_mount_is_cleaned_up_whatever_it_is_called(fuse: None, tmp_path: Path, option: str) -> None:
    os.chown(make_image(tmp_path / "image", 16 * MIB, root_mode=0o1777), NOBODY, NOBODY)
    codes, is_gone, log = as_user(lose_and_mount_again, tmp_path, option)
    assert (codes, is_gone) == ([0, 0, 0], True), log
