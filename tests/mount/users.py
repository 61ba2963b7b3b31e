"""Functions of tests that run in a mount namespace of their own: as nobody, or as root on a machine where we are installed.

On some machines /dev/fuse belongs to root alone. That is for whoever runs the machine to say, so it stays as it is; these
functions see a device of their own in its place, and defaults in place of /etc/fuse.conf. An interpreter in a home that is closed
to others is seen as if it were open.
"""

import ctypes
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from razortools.engine.store.mounts import mounts
from razortools.service import mountpoints
from tests.mount.mounts import ANSWER_S

NOBODY = 65_534
ROOT_FOLDER = Path(__file__).parents[2]
CLONE_NEWNS = 0x00020000
FUSE_NUMBER = os.makedev(10, 229)


def as_user(function: Callable[..., Any], folder: Path, *arguments: str, device_mode: int = 0o666) -> Any:
    """Return what *function*, of a test's module, returns to a user; it must fit JSON. It is given *folder* and *arguments*.

    *folder* and what leads there is opened for the user, who may make things in it.
    """
    folder.chmod(0o777)
    for above in folder.parents[:-2]:
        above.chmod(above.stat().st_mode | 0o011)
    return _run(function, f"{device_mode:o}", folder, *arguments)


def as_root(function: Callable[..., Any], folder: Path, *arguments: str) -> Any:
    """Return what *function*, of a test's module, returns to root; it must fit JSON. It is given *folder* and *arguments*.

    Our commands stand in /sbin, where mount(8) and fsck(8) look for helpers, and /etc/fstab is the file fstab in *folder*.
    """
    return _run(function, "root", folder, *arguments)


def _run(function: Callable[..., Any], who: str, folder: Path, *arguments: str) -> Any:
    where = [function.__module__, function.__name__, who, str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.mount.users", *where, *arguments],
        capture_output=True, text=True, timeout=ANSWER_S, cwd=ROOT_FOLDER,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _enter_namespace() -> None:
    """Mount for ourselves only from now on."""
    assert ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
    _mount("--make-rprivate", "/")
    for mount in mounts():  # other tests' mounts: a copy here would keep them alive
        if mount.filesystem == "fuse.razorfs":
            mountpoints.detach(os.fsdecode(mount.path))


def _see_own_devices(devices: Path, mode: int) -> None:
    """Let /dev/fuse have *mode*. *devices* is a new folder that is used for it."""
    os.umask(0)
    devices.mkdir()
    _mount("-t", "tmpfs", "-o", "dev", "devices", devices)
    os.mknod(devices / "fuse", stat.S_IFCHR | mode, FUSE_NUMBER)
    _mount("--bind", devices / "fuse", "/dev/fuse")
    if Path("/etc/fuse.conf").exists():
        (devices / "fuse.conf").touch()
        _mount("--bind", devices / "fuse.conf", "/etc/fuse.conf")


def _open_the_way(devices: Path) -> None:
    """Let a user see the interpreter and this project wherever they lie: other things in closed folders are out of sight."""
    needed = [Path(prefix).resolve() for prefix in {sys.base_prefix, sys.prefix, str(ROOT_FOLDER)}]
    closed = {folder for path in needed for folder in path.parents if not folder.stat().st_mode & stat.S_IXOTH}
    for number, path in enumerate(needed):
        (devices / f"{number}").mkdir()
        _mount("--bind", path, devices / f"{number}")
    for folder in sorted(closed, key=lambda folder: len(folder.parts))[:1]:
        _mount("-t", "tmpfs", "-o", "mode=755", "cover", folder)
    for number, path in enumerate(needed):
        path.mkdir(parents=True, exist_ok=True)
        _mount("--bind", devices / f"{number}", path)


def _install(folder: Path) -> None:
    """Let /sbin show our commands beside the system's, and /etc/fstab the test's."""
    sbin, original = folder / "sbin", folder / "original-sbin"
    (folder / "fstab").touch()
    original.mkdir()
    sbin.mkdir()
    _mount("--bind", "/sbin", original)
    for command in original.iterdir():
        (sbin / command.name).symlink_to(command)
    for name in ("mount.razorfs", "mount.fuse.razorfs", "umount.razorfs", "umount.fuse.razorfs", "fsck.razorfs"):
        module = name.partition(".")[0]
        text = f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT_FOLDER)!r})\n"
        (sbin / name).write_text(f"{text}from razortools.{module} import main\nmain()\n")
        (sbin / name).chmod(0o755)
    _mount("--bind", sbin, "/sbin")
    _mount("--bind", folder / "fstab", "/etc/fstab")
    if Path("/run").is_dir():
        _mount("-t", "tmpfs", "run", "/run")  # mount(8) keeps its notes there


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def main(module: str, name: str, who: str, folder: str, *arguments: str) -> None:
    """Run one function and print what it returns."""
    if who == "root":
        _enter_namespace()
        _install(Path(folder))
    else:
        devices = Path(folder) / "devices"
        _enter_namespace()
        _see_own_devices(devices, int(who, 8))
        _open_the_way(devices)
        _become_nobody()
    function = getattr(import_module(module), name)
    print(json.dumps(function(Path(folder), *arguments)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
