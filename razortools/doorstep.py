"""The doorstep: from the start of a command to its own first instruction, and from its last one to the end of the process.

Python imports what the command consists of. That takes half a second, and Ctrl-C in it would show a traceback. Here it ends the
command as it does later: with one sentence and the exit code that the command's contract names. Nothing has been opened by then.
Invariant: nothing is imported here that takes time.
"""

import importlib
import os
import signal
import sys

from razortools import standard_streams

_DOCUMENT = '{{"image": null, "clean": null, "exit_code": {code}, "error": "interrupted"}}\n'
# Command: module, function, exit code of Ctrl-C, whether --json makes it a document; cli/app.py has it too, but is not there yet.
COMMANDS = {
    "mkfs.razorfs": ("razortools.mkfs", "main", 1, False),
    "mount.razorfs": ("razortools.mount", "main", 8, False),
    "umount.razorfs": ("razortools.mount", "umount_main", 8, False),
    "razorfsck": ("razortools.fsck", "main", 32, True),
    "razorfs-debug": ("razortools.debugfs", "main", 1, False),
    "razorfs-health": ("razortools.health", "main", 3, False),
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


def _enter(command: str) -> None:
    standard_streams.secure()
    module, function, code, has_documents = COMMANDS[command]

    def interrupted(*_: object) -> None:
        try:
            os.write(2, f"{command}: interrupted\n".encode())
            if has_documents and "--json" in sys.argv:
                os.write(1, _DOCUMENT.format(code=code).encode())
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
