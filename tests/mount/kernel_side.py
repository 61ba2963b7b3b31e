"""One side of the comparison: a directory of a mounted filesystem, reached through the kernel.

Each call is made with that directory as the root of this process, so that "/", ".." and the targets of symbolic links mean the
same on every side. Files stay open in slots; a slot is a small number that is the same on all sides.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.mount.mounts import renameat2
from tests.mount.sidebyside import picture, tried

_libc = ctypes.CDLL(None, use_errno=True)
# struct linux_dirent64: inode and cookie of 8 bytes, length of the record of 2, type of 1, the name with a NUL.
COOKIE, LENGTH, NAME = slice(8, 16), slice(16, 18), 19


class KernelSide:
    """What the machine of test_three_sides.py asks, asked of the kernel."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slots: dict[int, int] = {}
        self._outside = os.open("/", os.O_RDONLY)
        self._inside = os.open(folder, os.O_RDONLY)

    def leave(self) -> None:
        """Close everything."""
        for slot in list(self.slots):
            self.close(slot)
        os.close(self._inside)
        os.close(self._outside)

    @contextmanager
    def _there(self) -> Iterator[None]:
        os.fchdir(self._inside)
        os.chroot(".")
        try:
            yield
        finally:
            os.fchdir(self._outside)
            os.chroot(".")

    def call(self, name: str, *words: object) -> object:
        """Return what a call with paths answers, or the name of its errno."""
        with self._there():
            return tried(CALLS.get(name) or getattr(os, name), *words)

    # Open files

    def open(self, slot: int, path: str, flags: int, mode: int = 0o666) -> object:
        """Open a file in a slot that is free."""
        answer = self.call("open", path, flags, mode)
        if isinstance(answer, int):
            self.slots[slot] = answer
            return "opened"
        return answer

    def close(self, slot: int) -> None:
        os.close(self.slots.pop(slot))

    def on(self, slot: int, call: str, *words: object) -> object:
        """Return what a call of os about an open file answers."""
        answer = tried(getattr(os, call), self.slots[slot], *words)
        return (mode_of_status(answer), answer.st_nlink) if isinstance(answer, os.stat_result) else answer

    def entries(self, slot: int, room_bytes: int) -> list[tuple[str, int]] | str:
        """Return as many of the next (name, cookie) of a directory as fit in so many bytes; none at the end.

        In a directory that was removed Linux says ENOENT, whatever the filesystem, and readdir(3) takes that for the end.
        """
        buffer = ctypes.create_string_buffer(room_bytes)
        got = _libc.getdents64(self.slots[slot], buffer, room_bytes)
        if got < 0:
            number = ctypes.get_errno()
            is_removed = number == errno.ENOENT and not os.fstat(self.slots[slot]).st_nlink
            return [] if is_removed else os.strerror(number)
        found, at = [], 0
        while at < got:
            record = buffer.raw[at : at + int.from_bytes(buffer.raw[at + LENGTH.start : at + LENGTH.stop], "little")]
            name = record[NAME : record.index(b"\0", NAME)]
            found.append((os.fsdecode(name), int.from_bytes(record[COOKIE], "little")))
            at += len(record)
        return found

    def seek(self, slot: int, cookie: int) -> None:
        """Go on behind the entry with this cookie, at the beginning for 0."""
        os.lseek(self.slots[slot], cookie, os.SEEK_SET)

    def statvfs(self) -> os.statvfs_result:
        return os.fstatvfs(self._inside)


def mode_of_status(status: os.stat_result) -> str:
    """Type, permissions, owner, and size of what has contents."""
    size = "" if stat.S_ISDIR(status.st_mode) else f" {status.st_size}"
    return f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}{size}"


def status(path: str) -> object:
    """What a reader of ls sees of a file."""
    seen = os.lstat(path)
    return mode_of_status(seen), seen.st_nlink


def set_times(path: str, atime_ns: int, mtime_ns: int) -> object:
    """Set both times and say what they are then."""
    os.utime(path, ns=(atime_ns, mtime_ns))
    seen = os.stat(path)
    return seen.st_atime_ns, seen.st_mtime_ns


def user_attributes(path: str) -> list[str]:
    """Names of the attributes that are there on all filesystems alike."""
    return sorted(name for name in os.listxattr(path) if name.startswith("user."))


CALLS: dict[str, Callable[..., object]] = {
    "rename": renameat2,
    "link": lambda old, new: os.link(old, new, follow_symlinks=False),
    "status": status,
    "set_times": set_times,
    "listxattr": user_attributes,
    "listdir": lambda path: sorted(os.listdir(path)),
    "picture": picture,
}
