"""How much memory a daemon is left: the limits of its control groups, and where the kernel tells that memory is short.

Both versions of control groups are read; a limit counts wherever above the process it is set. Nothing here changes anything but
one thing: a pressure file becomes a trigger for whoever opened it by writing to it what to tell of.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from razortools.engine.store.mounts import lines_of, mounts

LIMITS = {2: ("memory.high", "memory.max"), 1: ("memory.limit_in_bytes",)}  # at `high` the kernel slows the group down already
UNLIMITED_BYTES = 1 << 62  # version 1 writes a number like this where there is no limit
PROC, PRESSURE, MEMINFO = Path("/proc/self"), Path("/proc/pressure/memory"), Path("/proc/meminfo")
LITTLE_SHARE = 8  # of the machine's memory: with less than an eighth available there is little
# For 200 ms of 2 s some task waited for memory. Windows of other lengths are for the privileged.
TRIGGER = b"some 200000 2000000\0"


def allowed_bytes(proc: Path = PROC) -> int | None:
    """Return what the control groups of the process *proc* allow it; None: there is no limit, or none that can be read."""
    found = []
    for version, group in _groups(proc):
        for name in LIMITS[version]:
            with suppress(OSError, ValueError):  # "max" is no number
                found.append(int((group / name).read_text()))
    return min((limit for limit in found if limit < UNLIMITED_BYTES), default=None)


def is_short(proc: Path = PROC, meminfo: Path = MEMINFO) -> bool:
    """Tell whether it may be this process that lacks memory, when the kernel tells that somebody does.

    Who waits in a control group of his own, with its own limit, is no reason to drop anything here while the machine has plenty.
    """
    if allowed_bytes(proc) is not None:
        return True
    with suppress(OSError, KeyError, ValueError):
        sizes = dict(line.split()[:2] for line in meminfo.read_text().splitlines())
        return int(sizes["MemAvailable:"]) * LITTLE_SHARE < int(sizes["MemTotal:"])
    return True


def open_triggers(proc: Path = PROC, machine: Path = PRESSURE) -> list[int]:
    """Return descriptors that are urgent whenever memory is short on the *machine*, or in the control group of *proc*."""
    own = [group / "memory.pressure" for version, group in _groups(proc) if version == 2][:1]
    opened = []
    for path in (machine, *own):
        with suppress(OSError):  # no such file: an older kernel, or one that does not measure pressure
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(descriptor, TRIGGER)
            except OSError:
                os.close(descriptor)
            else:
                opened.append(descriptor)
    return opened


def _groups(proc: Path) -> Iterator[tuple[int, Path]]:
    """Yield (version, folder) of the groups that bound memory: the process's own first, then those above it that can be seen."""
    with suppress(OSError, ValueError, IndexError):
        own = [os.fsdecode(line).split(":", 2) for line in lines_of((proc / "cgroup").read_bytes())]
        for mount in mounts(proc / "mountinfo"):
            version = {"cgroup2": 2, "cgroup": 1}.get(mount.filesystem, 0)
            if not version or (version == 1 and "memory" not in mount.shared_options):
                continue
            root, point = Path(os.fsdecode(mount.root)), Path(os.fsdecode(mount.path))
            for _, controllers, path in own:
                if controllers == "" if version == 2 else "memory" in controllers.split(","):
                    inside = Path(path).relative_to(root)
                    yield from ((version, point / above) for above in (inside, *inside.parents))
