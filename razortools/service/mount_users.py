"""Who keeps a mount busy: open files, directories, programs, mapped files, mounts upon it, loop devices of its files.

Invariant: the mounted filesystem is never asked; its daemon may be stopped, and whoever asks it would be, too.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from razortools.engine.store.mounts import Mount, lines_of, mounts
from razortools.printable import printable
from razortools.service.mountpoints import PROC, mount_tables

BLOCK_DEVICES = Path("/sys/block")
SHOWN_MAX = 20


@dataclass(frozen=True, slots=True, order=True)
class MountUser:
    """Somebody because of whom a mount cannot be taken away."""

    pid: int  # 0: the kernel, for a mount upon it
    command: str
    path: str


def users_of(mount: Mount) -> list[MountUser]:
    """Return who uses *mount*, as far as the caller may see: open files, directories, programs, mapped files, mounts upon it,
    loop devices of its files. Never asks the mounted filesystem: its daemon may be stopped.
    """
    # Who uses a copy in another namespace may keep this one busy, too.
    ids = frozenset(other.mount_id for table in mount_tables() for other in table if other.device == mount.device)
    found = {MountUser(0, "mount", os.fsdecode(other.path)) for other in mounts() if other.parent_id == mount.mount_id}
    below = os.fsdecode(mount.path)
    found.update(MountUser(0, device, path) for device, path in _loop_devices() if Path(path).is_relative_to(below))
    for process in PROC.iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            found.update(_held_by(process, mount.device, ids))
    return sorted(found)


def _loop_devices() -> Iterator[tuple[str, str]]:
    """Yield (device, the file that it shows)."""
    for backing in BLOCK_DEVICES.glob("loop*/loop/backing_file"):
        try:
            yield f"/dev/{backing.parts[-3]}", os.fsdecode(backing.read_bytes().removesuffix(b"\n"))
        except OSError:
            continue  # gone meanwhile


def _held_by(process: Path, device: tuple[int, int], ids: frozenset[int]) -> set[MountUser]:
    """Return what the process at /proc/PID holds of the mounts with these numbers, which show the filesystem *device*."""
    places = [process / name for name in ("cwd", "root", "exe")]
    paths = set()
    try:
        places += (process / "fd").iterdir()
        paths |= _mapped_paths((process / "maps").read_bytes(), device)
    except OSError:
        pass  # gone meanwhile, or not ours to look at
    for place in places:
        try:
            if _mount_id(place) in ids:
                paths.add(os.readlink(place))
        except OSError:
            continue
    command = _command(process)
    return {MountUser(int(process.name), command, path) for path in paths}


def _mount_id(place: Path) -> int:
    """Return the number of the mount in which that lies to which a link in /proc leads. Raises OSError.

    The kernel knows; a stat would ask the filesystem.
    """
    descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        lines = (PROC / "self" / "fdinfo" / str(descriptor)).read_bytes().split(b"\n")
    finally:
        os.close(descriptor)
    return next((int(line.removeprefix(b"mnt_id:")) for line in lines if line.startswith(b"mnt_id:")), -1)


def _mapped_paths(maps: bytes, device: tuple[int, int]) -> set[str]:
    """Return the files of *device* in the text of /proc/PID/maps."""
    wanted = b"%02x:%02x" % device
    lines = (line.split(None, 5) for line in lines_of(maps))
    return {os.fsdecode(part[5]) for part in lines if len(part) == 6 and part[3] == wanted}


def _command(process: Path) -> str:
    """Return the name of a process's command."""
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "?"


def by_whom(found: list[MountUser]) -> str:
    """Return how the sentence ends that says that a mount is in use; lines() follow."""
    if found:
        return " by:"
    return "; run as root to see by whom" if os.geteuid() else " by the kernel: swap, an NFS export, or another mount namespace"


def lines(found: list[MountUser]) -> Iterator[str]:
    """Yield a line for each of the first users, and how many more there are."""
    for user in found[:SHOWN_MAX]:
        who = f"pid {user.pid}" if user.pid else "kernel"
        yield printable(f"  {who}  {user.command}  {user.path}")
    if len(found) > SHOWN_MAX:
        yield f"  and {len(found) - SHOWN_MAX} more"
