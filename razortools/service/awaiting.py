"""Waiting for a daemon to answer, or to close its image: as long as it takes, but not without a word.

A daemon that is stopped (SIGSTOP, a debugger) closes nothing before somebody lets it go on, and only who waits can tell him to.
Invariant: looking changes nothing and asks nobody but the kernel, so waiting may be broken off at any time.
"""

import time
from collections.abc import Callable
from pathlib import Path

from razortools.service.mountpoints import MountRefused

PROC = Path("/proc")
TELL_AFTER_S = 5.0  # closing takes a second
GREETING_PATIENCE_S = 30.0  # a daemon that lives greets between two requests


def silence(target: str) -> MountRefused:
    """Return what to say of a daemon that listens, so it has not died, but says nothing."""
    waited = f"its daemon has not answered for {GREETING_PATIENCE_S:g} s; is it stopped, or its disk?"
    return MountRefused(f"{target}: {waited} Nothing has been done; let it go on (kill -CONT), or detach it: umount.razorfs -l")


class Watch:
    """Tells what a daemon is waited for, once it takes long, and again whenever that changes."""

    def __init__(self, pid: int, image: str, tell: Callable[[str], None], now_s: Callable[[], float] = time.monotonic) -> None:
        """Watch process *pid*, which is to close *image*; 0: it cannot be seen from here."""
        self._pid, self._image = pid, image
        self._tell, self._now_s = tell, now_s
        self._began_s = now_s()
        self._told = ""

    def look(self) -> None:
        """Look how it is, and tell what is new, if it has taken long."""
        if self._now_s() - self._began_s < TELL_AFTER_S:
            return
        text = self._sentence()
        if text != self._told:
            self._told = text
            self._tell(text)

    def part(self) -> None:
        """Tell what goes on although nobody waits for it any more."""
        self._tell(f"not waiting any more; {self._image} is not closed yet, {self._who} still has it")

    @property
    def _who(self) -> str:
        return f"its daemon (pid {self._pid})" if self._pid else "its daemon"

    def _sentence(self) -> str:
        state = _state(self._pid)
        if state == "T":
            return f"waiting, but {self._who} is stopped and cannot close {self._image}; let it go on: kill -CONT {self._pid}"
        if state == "t":
            return f"waiting, but {self._who} is held by a debugger and cannot close {self._image}; let it go on there"
        return f"waiting for {self._who} to close {self._image}"


def _state(pid: int) -> str:
    """Return the letter that proc(5) has for the state of a process; empty if it cannot be seen."""
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
