"""The place of a plan: a file that may be written, because nothing stands there but an older plan.

Invariants: what is no plan is never overwritten, least of all the image; a file under the name is whole.
"""

import os
import stat
from pathlib import Path

from razortools.errors import DeviceFailed, UsageError

NEW = ".new"  # behind the name, and a number, while the plan is written


def judge_place(path: str, image: str, head: str) -> None:
    """Raise UsageError if a plan for *image* may not be written to *path*; *head* is how plans begin."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        _judge_directory(path)
        return
    except (OSError, ValueError) as failed:
        raise UsageError(f"{path}: no plan can be written there: {getattr(failed, 'strerror', None) or failed}") from None
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path}: is no regular file; a plan goes to a file of its own")
    if os.path.exists(image) and os.path.samestat(found, os.stat(image)):
        raise UsageError(f"{path}: is the image itself; a plan goes to a file of its own")
    if found.st_size and not _begins_with(path, head):
        raise UsageError(f"{path}: exists, and is no plan of a repair; name another file")
    _judge_directory(path)


def place(path: str, text: str) -> None:
    """Make *text* what stands at *path*, stable, or leave what stood there. Raises DeviceFailed."""
    target = os.path.realpath(path)  # a symbolic link stays one
    new = f"{target}.{os.getpid()}{NEW}"
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.rename(new, target)
        except BaseException:
            Path(new).unlink(missing_ok=True)
            raise
    except OSError as failed:
        raise DeviceFailed(f"{path}: the plan cannot be written: {failed.strerror}") from None


def _judge_directory(path: str) -> None:
    directory = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(directory):
        raise UsageError(f"{path}: there is no directory {directory}")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: nothing can be written to the directory {directory}")


def _begins_with(path: str, head: str) -> bool:
    wanted = head.encode("ascii")
    try:
        with open(path, "rb") as file:
            return file.read(len(wanted)) == wanted
    except OSError:
        return False
