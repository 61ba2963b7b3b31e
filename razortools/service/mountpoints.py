"""Mount points: what is mounted where, and how to take it away."""

import ctypes
import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from razortools.engine.store.mounts import Mount, mounts
from razortools.errors import ImageBusy, RazorError, UsageError

PROC = Path("/proc")
MNT_DETACH = 2
ANSWER_PATIENCE_S = 5.0  # with a filesystem that is asked something
UMOUNT_NOFOLLOW = 8


class MountRefused(RazorError):
    """The host does not let us mount or unmount: see what it says."""


class NoPermission(UsageError):
    """The caller may not do this: become somebody who may."""


def mount_at(path: str) -> Mount | None:
    """Return what is mounted at *path*, the topmost; None if it is no mount point. Never asks the mounted filesystem."""
    return topmost(canonical(path))


def topmost(path: str) -> Mount | None:
    """Return what is mounted last at *path*, which is canonical."""
    wanted = os.fsencode(path)
    return next((mount for mount in reversed(mounts()) if mount.path == wanted), None)


def mount_of(device: tuple[int, int], path: str) -> Mount | None:
    """Return the FUSE mount with a device number that can be reached: at *path*, if it is still there; None: nowhere.

    Whoever owns a folder above *path* can put another one in its place, with a mount of somebody else's in it.
    """
    tops = {mount.path: mount for mount in mounts()}  # of mounts at one place the last one counts
    ours = [mount for mount in tops.values() if mount.is_fuse and mount.device == device]
    return next((mount for mount in ours if mount.path == os.fsencode(path)), next(iter(ours), None))


def is_source(image: str) -> bool:
    """Whether some FUSE mount in this namespace is one of *image*, an absolute path."""
    wanted = os.fsencode(image)
    return any(mount.is_fuse and mount.source == wanted for mount in mounts())


def canonical(path: str) -> str:
    """Return *path* absolute, symlinks resolved, without asking what is mounted there: its daemon may be dead or stopped."""
    whole = os.path.abspath(path)
    head, tail = os.path.split(whole)
    seen = os.path.join(os.path.realpath(head), tail) if tail else whole
    if topmost(seen) is None and os.path.islink(seen):  # nothing can be mounted on a symlink
        return os.path.realpath(seen)
    return seen


def prepare(path: str, *, nonempty: bool) -> None:
    """Make sure that something can be mounted at *path*, after taking a dead mount away.

    Raises UsageError or MountRefused for a place that is missing, no directory, or has entries although not *nonempty*.
    """
    while is_dead(path):  # one may lie upon the other
        detach(path)
    try:
        entries = os.listdir(path)
    except FileNotFoundError:
        raise MountRefused(f"{path}: mount point does not exist; make it with mkdir") from None
    except NotADirectoryError:
        raise MountRefused(f"{path}: mount point is not a directory") from None
    except PermissionError:
        raise NoPermission(f"{path}: no permission to use this mount point") from None
    except OSError as failed:
        raise MountRefused(f"{path}: {failed.strerror}") from None
    if entries and not nonempty:
        raise MountRefused(f"{path}: mount point is not empty; choose another, or mount with -o nonempty to hide what is in it")


def is_dead(path: str, patience_s: float = ANSWER_PATIENCE_S) -> bool:
    """Whether a FUSE mount at *path* has lost its daemon ("Transport endpoint is not connected").

    The kernel says so at once. A daemon that is there and gives no answer for *patience_s*, stopped for instance, is not dead.
    """
    mount = mount_at(path)
    if mount is None or not mount.is_fuse:
        return False
    found: list[int | None] = []
    asking = threading.Thread(target=lambda: found.append(_failure(path)), daemon=True)  # it waits for as long as the daemon does
    asking.start()
    asking.join(patience_s)
    return found in ([errno.ENOTCONN], [errno.ECONNABORTED])


def _failure(path: str) -> int | None:
    """Ask the filesystem at *path* what the kernel cannot answer from its caches; return the number of its failure."""
    try:
        os.statvfs(path)
    except OSError as failed:
        return failed.errno
    return None


def is_elsewhere(gone: Mount) -> bool:
    """Whether the filesystem of a mount that has been taken away is mounted somewhere else, in any namespace that we may see."""
    same = (gone.device, gone.filesystem, gone.source)
    return any((mount.device, mount.filesystem, mount.source) == same for table in mount_tables() for mount in table)


def mount_tables() -> Iterator[list[Mount]]:
    """Yield what is mounted in each namespace that we may see."""
    seen = set()
    for process in PROC.iterdir():
        if not process.name.isdigit():
            continue
        try:
            namespace = os.readlink(process / "ns" / "mnt")
            table = None if namespace in seen else mounts(process / "mountinfo")
        except OSError:
            continue  # gone meanwhile, or not ours to look at
        seen.add(namespace)
        if table is not None:
            yield table


def detach(path: str) -> None:
    """Take away a mount even though it is in use; who uses it keeps what is left of it. Raises MountRefused."""
    _unmount(path, MNT_DETACH)


def unmount(path: str) -> None:
    """Take away a mount; its daemon must go on serving. Raises ImageBusy if it is in use, MountRefused, NoPermission."""
    _unmount(path, 0)


def _unmount(path: str, flags: int) -> None:
    if os.geteuid() != 0:
        _unmount_as_user(path, flags)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), flags | UMOUNT_NOFOLLOW) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EBUSY:
        raise ImageBusy(f"{path}: is in use")
    raise MountRefused(f"{path}: cannot be unmounted: {os.strerror(number)}")


def _unmount_as_user(path: str, flags: int) -> None:
    """Let the set-uid fusermount3 do what needs privileges."""
    program = shutil.which("fusermount3")
    if program is None:
        raise MountRefused(f"{path}: cannot be unmounted: fusermount3 is missing; install the package fuse3")
    lazily = ["-z"] if flags & MNT_DETACH else []
    done = subprocess.run([program, "-u", *lazily, "--", path], capture_output=True, text=True, env={"LC_ALL": "C"})
    if done.returncode == 0:
        return
    if "busy" in done.stderr:
        raise ImageBusy(f"{path}: is in use")
    if "not permitted" in done.stderr or "not found in /etc/mtab" in done.stderr:
        raise NoPermission(f"{path}: {done.stderr.strip().removeprefix('fusermount3: ')}; only who mounted it may unmount it")
    raise MountRefused(f"{path}: cannot be unmounted: {done.stderr.strip()}")
