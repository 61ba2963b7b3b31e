"""Closing undisturbed: once a mount has begun to end, no signal keeps its image from being closed.

A daemon that dies while it closes leaves an image that the next mount recovers: nothing is lost, but whoever looks meanwhile sees
an image that is not clean.

Invariant: from the first word of its end on, only SIGKILL ends the daemon before the image is closed.
"""

import signal

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def ignore_signals() -> None:
    """Ignore from now on whatever else tells us to end. Nothing takes it back: the process ends when the image is closed."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
