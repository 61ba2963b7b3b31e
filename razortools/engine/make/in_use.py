"""Whether the host uses a file or device right now: mounted, behind a loop device, as swap, or under another volume.

Such a place is never overwritten. What another razortools process holds is told by the image's lock (store/device.py).
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from razortools.engine.store.mounts import mounts, unescaped

PROC = Path("/proc")
SYS = Path("/sys")


def find_use(path: str, proc: Path = PROC, sys: Path = SYS) -> str | None:
    """Return what the host uses *path* for, in words that follow the path, or None. *proc* and *sys* are for tests."""
    place = os.path.realpath(os.fsencode(path))
    try:
        facts = os.stat(place)
    except FileNotFoundError:
        return None
    device = f"{os.major(facts.st_rdev)}:{os.minor(facts.st_rdev)}" if stat.S_ISBLK(facts.st_mode) else None
    return _mounted(place, device, proc) or _swap(place, proc) or _looped(place, sys) or _held(device, sys)


def _mounted(place: bytes, device: str | None, proc: Path) -> str | None:
    """Look for a mount whose source is *place*, or whose device number is *device*."""
    try:
        table = mounts(proc / "self" / "mountinfo")
    except OSError:
        return None
    for mount in table:
        is_source = mount.source.startswith(b"/") and os.path.realpath(mount.source) == place
        if is_source or (device is not None and f"{mount.device[0]}:{mount.device[1]}" == device):
            return f"is mounted at {os.fsdecode(mount.path)}; unmount it first"
    return None


def _swap(place: bytes, proc: Path) -> str | None:
    """Look for *place* among the swap areas."""
    for line in list(_lines(proc / "swaps"))[1:]:
        if line and os.path.realpath(unescaped(line.split(b" ")[0])) == place:
            return "is in use as swap; run swapoff first"
    return None


def _looped(place: bytes, sys: Path) -> str | None:
    """Look for a loop device over *place*."""
    for backing in sorted((sys / "block").glob("loop*/loop/backing_file")):
        for line in _lines(backing):
            if line and os.path.realpath(line.rstrip(b"\n")) == place:
                loop = backing.parent.parent.name
                return f"is attached to /dev/{loop}; detach it first: losetup -d /dev/{loop}"
    return None


def _held(device: str | None, sys: Path) -> str | None:
    """Look for volumes (LVM, RAID, dm-crypt) that lie on the block device *device*."""
    if device is None:
        return None
    for holder in sorted((sys / "dev" / "block" / device / "holders").glob("*")):
        return f"is in use by /dev/{holder.name}; stop that first"
    return None


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file of the kernel; none if it is not there."""
    try:
        yield from path.read_bytes().split(b"\n")
    except OSError:
        return
