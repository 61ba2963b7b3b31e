"""Closing undisturbed: once a mount has begun to end, no signal keeps its image from being closed; if it hangs, it says where.
And what is told of how it ended, to whoever asks: one and the same in the log, in the farewell and in the audit log.

A daemon that dies while it closes leaves an image that the next mount recovers: nothing is lost, but whoever looks meanwhile sees
an image that is not clean.

Invariant: from the first word of its end on, only SIGKILL ends the daemon before the image is closed.
"""

import ctypes
import faulthandler
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from razortools.errors import sentence
from razortools.service import logs
from razortools.service.logs import log

PATIENCE_S = 120.0  # closing takes a second; a disk that hangs may take longer than this, and is worth a word, too
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def ignore_signals() -> None:
    """Ignore from now on whatever else tells us to end. Nothing takes it back: the process ends when the image is closed."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def telling_where_it_hangs() -> Iterator[None]:
    """Have the log tell where each thread is if what is done inside takes longer than PATIENCE_S. Nothing is ended by that."""
    try:
        descriptor = os.dup(logs.descriptor())  # the log may close its own when it is opened again, and a file get that number
    except (OSError, ValueError):  # no such file: closed, or none of the system
        yield
        return
    try:
        faulthandler.dump_traceback_later(PATIENCE_S, repeat=False, file=descriptor)
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        os.close(descriptor)


class Ending:
    """What did not become durable as one mount ended. Any thread may tell of it."""

    def __init__(self) -> None:
        """All is well so far."""
        self._told: list[str] = []

    def lose(self, text: str) -> None:
        """Note, and log, something that is lost although the image may be closed cleanly."""
        log.warning("%s", text)
        self._told.append(text)

    def fail(self, failure: Exception) -> None:
        """Note that the image is not clean. Whoever catches *failure* logs it."""
        self._told.append(f"the image was not closed cleanly: {sentence(failure)}")

    @property
    def reason(self) -> str:
        """Why not everything is durable, and the image clean; empty: it is."""
        return "; ".join(self._told)

    def document(self) -> dict[str, object]:
        """Return it for the audit log."""
        reason = self.reason
        return {"clean": False, "reason": reason} if reason else {"clean": True}


def write_back(mount_point: str) -> str:
    """Have the kernel write what it keeps of mapped files; return why it could not, empty: it has."""
    try:
        descriptor = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _syncfs(descriptor)
        finally:
            os.close(descriptor)
    except OSError as failed:
        return failed.strerror or str(failed)
    return ""


def _syncfs(descriptor: int) -> None:
    """Call syncfs(2). Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
