"""What a daemon takes of the machine: memory, descriptors, threads, and how many inodes the kernel has it keep in mind."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from razortools.service import mountpoints
from razortools.service.control import Waiter
from razortools.units import KIB, MIB

PATIENCE_S = 60.0  # for a daemon that has a lot to do


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Figures of one moment."""

    resident_bytes: int
    peak_bytes: int  # the most that was resident so far
    descriptor_count: int
    thread_count: int
    held_inodes: int
    processor_s: float

    def __str__(self) -> str:
        return (
            f"resident {self.resident_bytes / MIB:.0f} MiB (peak {self.peak_bytes / MIB:.0f} MiB), {self.descriptor_count} "
            f"descriptors, {self.thread_count} threads, {self.held_inodes} inodes held, {self.processor_s:.0f} s processor time"
        )


def figures_of(mount_point: Path) -> Figures:
    """Return the figures of the daemon that serves *mount_point*. Raises OSError if it does not answer."""
    mount = mountpoints.mount_at(str(mount_point))
    if mount is None:
        raise FileNotFoundError(f"nothing is mounted at {mount_point}")
    waiter = Waiter(mount.device, PATIENCE_S)
    waiter.close()
    greeting = waiter.greeting
    process = Path(f"/proc/{greeting.pid}")
    status = (process / "status").read_text()

    def field(name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
        assert found is not None, name
        return int(found[1])

    times = (process / "stat").read_text().rpartition(") ")[2].split()
    # The daemon notices that a client of its control socket has gone when the next one comes: sockets are not counted.
    descriptors = [_target(entry) for entry in (process / "fd").iterdir()]
    return Figures(
        resident_bytes=field("VmRSS") * KIB,
        peak_bytes=field("VmHWM") * KIB,
        descriptor_count=sum(not target.startswith("socket:") for target in descriptors),
        thread_count=field("Threads"),
        held_inodes=greeting.held_inodes,
        processor_s=(int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK"),
    )


def _target(descriptor: Path) -> str:
    """Return what a descriptor leads to; "" if it was closed meanwhile."""
    try:
        return os.readlink(descriptor)
    except FileNotFoundError:
        return "socket:"
