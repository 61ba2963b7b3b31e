"""Closing undisturbed: once a mount has begun to end, no signal keeps its image from being closed; if it hangs, it says where.

A daemon that dies while it closes leaves an image that the next mount recovers: nothing is lost, but whoever looks meanwhile sees
an image that is not clean.

Invariant: from the first word of its end on, only SIGKILL ends the daemon before the image is closed.
"""

import faulthandler
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from razortools.service import logs

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
