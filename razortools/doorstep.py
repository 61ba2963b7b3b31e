"""The doorstep: from the start of a command to its own first instruction, and from its last one to the end of the process.

Python imports what the command consists of. That takes half a second, and Ctrl-C in it would show a traceback. Here it ends the
command as it does later: with one sentence and the exit code that the command's contract names. Nothing has been opened by then.
Invariant: nothing is imported here that takes time.
"""

import importlib
import json
import os
import signal
import sys

from razortools import standard_streams
from razortools.cli import documents

# Command: module, function, exit code of Ctrl-C; cli/app.py has it too, but is not there yet.
COMMANDS = {
    "mkfs.razorfs": ("razortools.mkfs", "main", 1),
    "mount.razorfs": ("razortools.mount", "main", 8),
    "umount.razorfs": ("razortools.umount", "main", 8),
    "razorfsck": ("razortools.fsck", "main", 32),
    "razorfs-debug": ("razortools.debugfs", "main", 1),
    "razorfs-health": ("razortools.health", "main", 3),
}


def mkfs() -> None:
    """Run mkfs.razorfs."""
    _enter("mkfs.razorfs")


def mount() -> None:
    """Run mount.razorfs."""
    _enter("mount.razorfs")


def umount() -> None:
    """Run umount.razorfs."""
    _enter("umount.razorfs")


def fsck() -> None:
    """Run razorfsck."""
    _enter("razorfsck")


def debug() -> None:
    """Run razorfs-debug."""
    _enter("razorfs-debug")


def health() -> None:
    """Run razorfs-health."""
    _enter("razorfs-health")


def _document(command: str, code: int) -> bytes:
    """Return what --json prints of Ctrl-C; nothing if it was not asked for."""
    name = f"{command} crashtest" if sys.argv[1:2] == ["crashtest"] else command
    if not documents.is_wanted(name, sys.argv[1:]):
        return b""
    return json.dumps(documents.failure(name, code, "interrupted"), indent=2).encode() + b"\n"


def _enter(command: str) -> None:
    standard_streams.secure()
    module, function, code = COMMANDS[command]

    def interrupted(*_: object) -> None:
        try:
            os.write(2, f"{command}: interrupted\n".encode())
            os.write(1, _document(command, code))
        finally:
            os._exit(code)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # as nohup wants it
        main = getattr(importlib.import_module(module), function)
    else:
        signal.signal(signal.SIGINT, interrupted)
        main = getattr(importlib.import_module(module), function)
        signal.signal(signal.SIGINT, before)
    try:
        main()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # while the interpreter ends they would kill it
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_IGN)  # what has been done has its exit code
