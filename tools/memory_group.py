"""A control group that bounds memory: processes that enter it get no more than its limit, or are killed.

Version 2 (`memory.max`) or 1 (`memory.limit_in_bytes`), whichever has the memory controller here. The group is made in the one
in which this process is, or, where that cannot be (in version 2 a group with processes has no children with a limit), at the
top. Only the group itself is changed, and it goes when the block ends; processes in it must have ended by then.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from razortools.engine.store.mounts import lines_of, mounts

NAMES = {2: ("memory.max", "memory.peak"), 1: ("memory.limit_in_bytes", "memory.max_usage_in_bytes")}


class NoGroup(Exception):
    """No group can be made on this machine, and why."""


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A group of processes and what it has taken."""

    path: Path
    version: int

    def command(self, words: list[str]) -> list[str]:
        """Return the command that enters the group and then runs *words*."""
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.path), *words]

    @property
    def peak_bytes(self) -> int:
        """The most that was taken at once, the kernel's caches of files included."""
        with suppress(FileNotFoundError):  # some kernels of version 2 do not keep it
            return int((self.path / NAMES[self.version][1]).read_text())
        return 0

    @property
    def kill_count(self) -> int:
        """Processes that were killed because the limit was reached."""
        events = self.path / ("memory.events" if self.version == 2 else "memory.oom_control")
        found = re.search(r"^oom_kill (\d+)$", events.read_text(), re.MULTILINE)
        return int(found[1]) if found else 0


@contextmanager
def memory_group(limit_bytes: int, name: str = f"razorfs-{os.getpid()}") -> Iterator[MemoryGroup]:
    """Give a group with a limit. Raises NoGroup where none can be made."""
    group = _make(limit_bytes, name)
    try:
        yield group
    finally:
        group.path.rmdir()


def _make(limit_bytes: int, name: str) -> MemoryGroup:
    reasons = []
    for version, parent in _parents():
        path = parent / name
        try:
            path.mkdir()
        except OSError as refused:
            reasons.append(f"{path}: {refused.strerror}")
            continue
        try:
            (path / NAMES[version][0]).write_text(str(limit_bytes))
        except OSError as refused:  # without the memory controller there is no such file
            reasons.append(f"{path / NAMES[version][0]}: {refused.strerror}")
            path.rmdir()
            continue
        return MemoryGroup(path, version)
    raise NoGroup("no control group with a memory limit can be made here: " + ("; ".join(reasons) or "none is mounted"))


def _parents() -> Iterator[tuple[int, Path]]:
    """Yield (version, folder) wherever a group may be made."""
    own = [os.fsdecode(line).split(":", 2) for line in lines_of(Path("/proc/self/cgroup").read_bytes())]
    for mount in mounts():
        point, has_memory = Path(os.fsdecode(mount.path)), "memory" in mount.shared_options
        version = 2 if mount.filesystem == "cgroup2" else 1 if mount.filesystem == "cgroup" and has_memory else 0
        for _, controllers, path in own if version else ():
            if (not controllers) if version == 2 else ("memory" in controllers.split(",")):
                inside = os.path.relpath(path, os.fsdecode(mount.root))
                if not inside.startswith(".."):
                    yield version, point / inside
        if version:
            yield version, point
