"""Errors, one class for each answer to "who acts now?".

The text says what, where and what to do; sentence() has it also for what the host refuses. The class holds the exit code of a
command and the errno of a mount.
"""

import errno
import os


class RazorError(Exception):
    """Anything an operator may meet; shown as one sentence, without a traceback."""

    exit_code = 8
    mount_errno = errno.EIO


class CorruptImage(RazorError):
    """Bytes on the device are not what was written: run razorfsck."""

    exit_code = 4


class DeviceFailed(RazorError):
    """The host or its disk refused a read, a write or a flush: look at the host."""


class NotAnImage(RazorError):
    """There is no RAZORFS filesystem in this file or device: name another one."""

    mount_errno = errno.EINVAL


class UnsupportedFormat(RazorError):
    """A newer version or an unknown feature: use newer razortools."""

    mount_errno = errno.EINVAL


class ImageBusy(RazorError):
    """Another process holds the image: wait, or unmount it."""

    mount_errno = errno.EBUSY


class OutOfSpace(RazorError):
    """The image is full: delete something, or grow it."""

    mount_errno = errno.ENOSPC


class ReadOnly(RazorError):
    """The image was opened for reading, or turned read-only after an error."""

    mount_errno = errno.EROFS


class UsageError(RazorError):
    """The caller asked for something that makes no sense: ask again, corrected."""

    exit_code = 2
    mount_errno = errno.EINVAL


class CannotUndo(RazorError):
    """A repair cannot be taken back: the image has changed since, or the undo file is not whole. Nothing was written."""


class PosixError(RazorError):
    """An operation was refused by the rules of POSIX; nothing has changed."""

    exit_code = 1

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message or os.strerror(number))
        self.mount_errno = number


def sentence(failure: Exception) -> str:
    """Return what to tell an operator about *failure*, on one line."""
    if isinstance(failure, RazorError):
        text = str(failure)
    elif isinstance(failure, OSError):
        text = _about_host(failure)
    elif isinstance(failure, MemoryError):
        text = "there is not enough memory for that"
    else:
        text = f"internal error, a bug in razortools: {type(failure).__name__}: {failure}. Run again with --debug and report it"
    return " ".join(text.split())


_HOST_ADVICE = {
    errno.ENOENT: "Check the path",
    errno.ENOTDIR: "Check the path",
    errno.EACCES: "Run as a user who may, or change the permissions",
    errno.EPERM: "Run as a user who may, for instance with sudo",
    errno.EROFS: "Choose a place that can be written to",
    errno.ENOSPC: "Make room on the host's disk",
    errno.EDQUOT: "Make room within the host's quota",
    errno.EIO: "Look at the host's disk: dmesg",
}


def _about_host(failure: OSError) -> str:
    """Return the sentence for an error of the host: what, where, what to do."""
    what = failure.strerror or str(failure)
    where = f"{_shown(failure.filename)}: " if failure.filename is not None else ""
    advice = _HOST_ADVICE.get(failure.errno or 0)
    return f"{where}{what}" + (f". {advice}" if advice else "")


def _shown(path: object) -> str:
    """Return *path* as it can be printed."""
    return os.fsdecode(path) if isinstance(path, bytes) else str(path)
