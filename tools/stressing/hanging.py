"""When a client hangs: what everybody involved waits for, without asking the mount, and how to get everybody away."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from razortools.service import mountpoints
from razortools.service.control import Waiter
from tests.mount.mounts import Mounted

ANSWER_S = 10.0


def report(mounted: Mounted, crew: list[subprocess.Popen[str]]) -> str:
    """Return the stacks of the daemon and of the clients, and how many requests wait."""
    lines = []
    mount = mountpoints.mount_at(str(mounted.path))
    if mount is None:
        return "nothing is mounted any more"
    with _connections() as folder:
        waiting = folder / str(os.makedev(*mount.device)) / "waiting"
        lines.append(f"requests waiting: {_text(waiting)}")
    try:
        waiter = Waiter(mount.device, ANSWER_S)
        waiter.close()
        lines.append(f"the daemon answers on its control socket: {waiter.greeting}")
    except OSError as failed:
        lines.append(f"the daemon does not answer on its control socket: {failed}")
    daemon = _server_of(mounted)
    for name, pid in (("daemon", daemon), *((f"client {number}", process.pid) for number, process in enumerate(crew))):
        for task in sorted(Path(f"/proc/{pid}/task").glob("*")) if pid else ():
            lines.append(f"{name}, thread {task.name}, in {_text(task / 'wchan')}, at {_text(task / 'syscall')}")
            lines.append(_text(task / "stack"))
    spy = shutil.which("py-spy")
    if spy and daemon:
        lines.append(subprocess.run([spy, "dump", "--pid", str(daemon)], capture_output=True, text=True).stdout)
    return "\n".join(lines)


def end(mounted: Mounted) -> None:
    """End the connection: whoever waits for the daemon gets an error, and the daemon ends."""
    mount = mountpoints.mount_at(str(mounted.path))
    if mount is not None:
        with _connections() as folder:
            (folder / str(os.makedev(*mount.device)) / "abort").write_text("1")


@contextmanager
def _connections() -> Iterator[Path]:
    """Yield the directory in which the kernel shows its FUSE connections."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "fusectl", "none", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def _server_of(mounted: Mounted) -> int:
    """Return the process that holds the image open; 0 if there is none."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(entry) == str(mounted.image) for entry in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as failed:
        return f"({failed.strerror})"
