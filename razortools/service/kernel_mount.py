"""A mount of ours and the descriptor through which it is served; and mounting by mount(2) itself, for root.

The mount is not libfuse's: its requests are read from a descriptor of ours (service/session.py), so taking it away is ours, too,
see `Connection.detach`. Users cannot call mount(2): service/user_mount.py.
"""

import ctypes
import os
import select
import stat
from collections.abc import Set
from contextlib import suppress

from razortools.service import mountpoints
from razortools.service.logs import log
from razortools.service.mountpoints import MountRefused, NoPermission

MS_REMOUNT = 1 << 5
_FLAGS = {
    "ro": 1, "nosuid": 1 << 1, "nodev": 1 << 2, "noexec": 1 << 3, "sync": 1 << 4, "dirsync": 1 << 7, "nosymfollow": 1 << 8,
    "noatime": 1 << 10, "nodiratime": 1 << 11, "relatime": 1 << 21, "strictatime": 1 << 24,
    "rw": 0, "suid": 0, "dev": 0, "exec": 0, "async": 0, "symfollow": 0,
}  # fmt: skip
_FUSE_DEVICE = "/dev/fuse"


class Connection:
    """A mount that has been made, and the descriptor of /dev/fuse on which the kernel sends its requests."""

    def __init__(self, mount_point: str, descriptor: int) -> None:
        """Take over *descriptor*, of the mount at *mount_point*, a canonical path. Whoever serves it closes the descriptor."""
        self._mount_point = mount_point
        self.descriptor = descriptor
        self._mount_id = self._topmost_id()

    def abandon(self) -> None:
        """Undo the mount: nobody serves it."""
        self.detach()
        os.close(self.descriptor)

    def detach(self) -> None:
        """Take the mount away if it is still there. Another one that was put on top of it stays."""
        if self._is_on_top():
            with suppress(MountRefused, NoPermission):  # gone between the two
                mountpoints.detach(self._mount_point)

    def _is_on_top(self) -> bool:
        """Whether what is mounted there last is this mount."""
        try:
            return self._mount_id is not None and self._topmost_id() == self._mount_id
        except Exception as failure:  # who would wait for a mount that nobody serves is worse off than without it
            log.warning("the mount table cannot be read: %s", failure)
            return not self._is_gone()

    def _is_gone(self) -> bool:
        """Whether the kernel has ended the connection: it is mounted nowhere any more."""
        poller = select.poll()
        poller.register(self.descriptor, 0)  # an error is told unasked
        return bool(poller.poll(0))

    def _topmost_id(self) -> int | None:
        """Return the number of what is mounted there, without asking it anything."""
        mount = mountpoints.topmost(self._mount_point)
        return None if mount is None else mount.mount_id


def root_connection(mount_point: str, source: str, subtype: str, words: Set[str]) -> Connection:
    """Mount at *mount_point*; *words* are options as libfuse has them, without names. Raises MountRefused."""
    target = mountpoints.canonical(mount_point)  # now: later it would ask the mount, which nobody serves yet
    try:
        descriptor = os.open(_FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as failed:
        raise MountRefused(f"{_FUSE_DEVICE}: {failed.strerror}") from None
    try:
        _mount(target, source, subtype, words, descriptor)
    except OSError as failed:
        os.close(descriptor)
        raise MountRefused(f"{mount_point}: the host refuses the mount: {failed.strerror}") from None
    return Connection(target, descriptor)


def _mount(mount_point: str, source: str, subtype: str, words: Set[str], descriptor: int) -> None:
    """Mount. Raises OSError."""
    flags = 0
    data = [f"fd={descriptor}", f"rootmode={stat.S_IFMT(os.stat(mount_point).st_mode):o}", "user_id=0", "group_id=0"]
    for word in sorted(words):
        if word in _FLAGS:
            flags |= _FLAGS[word]
        else:
            data.append(word)
    _call_mount(source, mount_point, f"fuse.{subtype}", flags, ",".join(data))


def remount(mount_point: str, words: Set[str]) -> None:
    """Give what is mounted at *mount_point* these flags and no others. Its daemon must go on serving: the kernel writes back.

    Raises OSError: EBUSY if it is to be read-only while files are open for writing.
    """
    flags = MS_REMOUNT
    for word in words:
        flags |= _FLAGS[word]
    _call_mount("none", mount_point, "none", flags, "")


def _call_mount(source: str, mount_point: str, filesystem: str, flags: int, data: str) -> None:
    """Call mount(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (os.fsencode(source), os.fsencode(mount_point), os.fsencode(filesystem))
    if libc.mount(*arguments, ctypes.c_ulong(flags), data.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
