"""The three standard streams: before a command opens anything, each of them leads somewhere.

Whoever starts a command may have closed one (`2>&-`). What is opened next, the image, gets its number then: what is meant for
people would be written into it, and a daemon that lets its streams lead nowhere would lose it.
Invariant: nothing is imported here that takes time.
"""

import os
import sys

LAST = 2  # stdin 0, stdout 1, stderr 2


def secure() -> None:
    """Let each standard stream that is closed lead nowhere: reading ends at once, what is written is dropped."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= LAST:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    # Of a stream that was closed when the interpreter started there is none in Python; the number may be something else's by now.
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def drop(descriptor: int) -> None:
    """Let a standard stream lead nowhere from now on: the interpreter writes what is left of it when it ends, or complains."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
