"""Mounting for those who may not call mount(2): the set-uid fusermount3 mounts, and hands over the descriptor.

The protocol is fusermount3's own, and that of every FUSE library: it finds the number of one end of a socket pair in its
environment (_FUSE_COMMFD), opens /dev/fuse, mounts, and sends the descriptor through the socket (SCM_RIGHTS) with one byte. It
says on stderr why it does not. It opens /dev/fuse with the rights of its caller, so the device must be open to users (mode 0666
is usual).
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterable

from razortools.errors import RazorError
from razortools.service import mountpoints
from razortools.service.kernel_mount import Connection
from razortools.service.mountpoints import MountRefused, NoPermission

_PROGRAM = "fusermount3"
_FORBIDDEN = ("ermission denied", "not permitted", "only allowed", "no write access", "not owned by")
_DEVICE_CLOSED = "failed to open /dev/fuse: Permission denied"


def user_connection(mount_point: str, words: Iterable[str]) -> Connection:
    """Mount at *mount_point* through fusermount3 and return the connection; its `detach` uses fusermount3, too.

    *words* are options as fusermount3 has them (``ro``, ``default_permissions``, ``fsname=…``, ``subtype=…``), each plain: they
    are escaped here. Raises NoPermission for what this user may not do, MountRefused for anything else.
    """
    target = mountpoints.canonical(mount_point)  # now: later it would ask the mount, which nobody serves yet
    program = shutil.which(_PROGRAM)
    if program is None:
        raise MountRefused(f"{mount_point}: cannot be mounted by users: {_PROGRAM} is missing; install the package fuse3")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [program, "-o", ",".join(sorted(map(_escaped, words))), "--", target],
            pass_fds=(theirs.fileno(),),
            env={"LC_ALL": "C", "_FUSE_COMMFD": str(theirs.fileno())},
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        theirs.close()
        descriptor = _received(ours)
    if descriptor is None:
        raise _why_not_mounted(mount_point, done.stderr.decode(errors="replace"))
    return Connection(target, descriptor)


def _received(ours: socket.socket) -> int | None:
    """Return the descriptor that was sent; None if there was none. The other end is closed everywhere, so this never waits."""
    _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        return None
    os.set_inheritable(descriptors[0], False)  # recv_fds of Python 3.11 passes no flags on, so MSG_CMSG_CLOEXEC would be lost
    return descriptors[0]


def _escaped(word: str) -> str:
    """Return *word* for a list separated by commas; fusermount3 takes backslashes back in names only, where they matter."""
    if word.startswith(("fsname=", "subtype=")):
        return word.replace("\\", "\\\\").replace(",", "\\,")
    return word


def _why_not_mounted(mount_point: str, said: str) -> RazorError:
    """Return the error for a mount that fusermount3 refused with these words."""
    reasons = "; ".join(line.removeprefix(f"{_PROGRAM}: ") for line in said.splitlines())
    sentence = f"{mount_point}: the host refuses the mount: {reasons or 'it gives no reason'}"
    if _DEVICE_CLOSED in said:
        return NoPermission(f"{sentence}; this machine lets root alone use FUSE: mount as root, or have the device opened")
    return NoPermission(sentence) if any(words in said for words in _FORBIDDEN) else MountRefused(sentence)
