"""Another mount namespace: mount(8) and umount(8) have their helpers go into the one that -N names."""

import ctypes
import os

from razortools.service.mountpoints import MountRefused, NoPermission

CLONE_NEWNS = 0x00020000


def opened(namespace: str | None) -> int:
    """Open the mount namespace that -N names; -1 for ours. Raises MountRefused."""
    if namespace is None:
        return -1
    path = f"/proc/{namespace}/ns/mnt" if namespace.isdigit() else namespace
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as failed:
        raise MountRefused(f"{path}: not a mount namespace: {failed.strerror}") from None


def enter(descriptor: int) -> None:
    """Go into a mount namespace."""
    if descriptor < 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNS) != 0:
        raise NoPermission(f"the mount namespace cannot be entered: {os.strerror(ctypes.get_errno())}")
