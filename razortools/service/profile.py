"""Profiling a daemon that serves: where its time goes, as a flame graph, by py-spy, which looks from outside.

Invariants: the daemon is not stopped while it is looked at (so a few samples may be torn, which py-spy leaves out); nothing is
written but the graph.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from razortools.errors import RazorError

SAMPLES_A_SECOND = 100
GRACE_S = 30.0  # for writing the graph


class ProfilingFailed(RazorError):
    """The machine, or its rules, do not let a process be looked at."""


def find_py_spy() -> str:
    """Return the path of py-spy: beside our Python, or where commands are. Raises ProfilingFailed."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise ProfilingFailed("py-spy, which looks into the daemon, is not installed; pip install 'razortools[profile]' does it")
    return found


def record(pid: int, seconds: int, output: str) -> None:
    """Write a flame graph of the next *seconds* of a process to *output*. Raises ProfilingFailed."""
    words = [find_py_spy(), "record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(SAMPLES_A_SECOND)]
    words += ["--output", output, "--format", "flamegraph", "--threads", "--nonblocking"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + GRACE_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise ProfilingFailed(f"py-spy has not ended {GRACE_S:.0f} s after its time; is process {pid} stopped?") from None
    except OSError as failed:
        raise ProfilingFailed(f"py-spy cannot be run: {failed.strerror}") from None
    if done.returncode:
        raise ProfilingFailed(explained(pid, done.stderr))


def explained(pid: int, said: str) -> str:
    """Return in a sentence why py-spy has failed, by what it said."""
    words = said.lower()
    if "permission denied" in words or "not permitted" in words:
        return (
            f"this machine does not let process {pid} be looked at; run as root, and see that ptrace is allowed: "
            "/proc/sys/kernel/yama/ptrace_scope, and in a container the capability SYS_PTRACE"
        )
    if "no stack counts" in words:
        return f"process {pid} has done nothing meanwhile; profile it while the mount is used"
    if "no such process" in words or "no such file" in words:
        return f"process {pid} has ended meanwhile, or the graph cannot be written: {_first(said)}"
    return f"py-spy has failed: {_first(said)}"


def _first(said: str) -> str:
    """Return the line of *said* that tells what went wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if line.lower().startswith("error")), lines[0] if lines else "it gives no reason")
