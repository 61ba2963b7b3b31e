"""Copying out: a file or a tree of the volume becomes files of the host, with everything that the host lets us keep.

Invariants: nothing that exists on the host is overwritten; a symlink on the host is never followed; runs of zeros become holes; a
directory gets its times when everything is in it.
"""

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from razortools.check.host_copy import write_but_zeros
from razortools.engine import directories, files, namespace, xattrs
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage, UsageError
from razortools.file_counts import FileCounts
from razortools.format.directory import is_possible_name
from razortools.format.inode import Inode
from razortools.printable import printable_name
from razortools.units import MIB, InodeNo

PIECE_BYTES = 1 * MIB
_REFUSED = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL)
_NO_ROOM_BESIDE = (errno.ENOSPC, errno.EDQUOT, errno.E2BIG, errno.ERANGE)  # what hosts say that have little of it for attributes


@dataclass(slots=True)
class Copied(FileCounts):
    """What was copied out. *not_kept* names what the host refused."""

    not_kept: set[str] = field(default_factory=set)


def copy(volume: Volume, ino: InodeNo, target: bytes) -> Copied:
    """Copy what *ino* leads to, with all below it, to the host as *target*, which must not exist.

    Raises UsageError if it exists, OSError if the host cannot take it, CorruptImage with the path of a file that is damaged.
    """
    if os.path.lexists(target):
        raise UsageError(f"{os.fsdecode(target)}: exists already on the host; choose another name or remove it")
    copier = _Copier(volume)
    copier.copy(ino, target)
    return copier.done


def _possible(name: bytes, directory: bytes) -> bytes:
    """Return *name* if a file can have it. Raises CorruptImage: another one could lead out of the place that was asked for."""
    if not is_possible_name(name):
        told = f"{printable_name(directory)}: an entry has the impossible name {printable_name(name)!r}"
        raise CorruptImage(f"{told}; razorfsck --salvage copies all that can be copied")
    return name


class _Copier:
    """Copies one tree. Knows where the files with several names went."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.done = Copied()
        self._first_paths: dict[InodeNo, bytes] = {}

    def copy(self, ino: InodeNo, target: bytes) -> None:
        """Copy one file or, with a list instead of recursion because depth has no bound, a tree."""
        finished: list[tuple[InodeNo, bytes]] = []
        waiting = [(ino, target)]
        while waiting:
            ino, target = waiting.pop()
            inode = self.volume.inodes.get(ino)
            if not inode.is_directory:
                self._copy_file(ino, inode, target)
                continue
            os.mkdir(target, 0o700)
            self.done.directories += 1
            finished.append((ino, target))
            below = [(name, InodeNo(entry.inode)) for _, name, entry in directories.entries(self.volume, ino)]
            waiting += [(child, target + b"/" + _possible(name, target)) for name, child in sorted(below, reverse=True)]
        for ino, target in reversed(finished):
            self._describe(ino, self.volume.inodes.get(ino), target)

    def _copy_file(self, ino: InodeNo, inode: Inode, target: bytes) -> None:
        first = self._first_paths.get(ino)
        if first is not None:
            os.link(first, target, follow_symlinks=False)
            self.done.hard_links += 1
            return
        if inode.is_regular:
            self._copy_contents(ino, inode, target)
        elif inode.is_symlink:
            os.symlink(namespace.readlink(self.volume, ino), target)
            self.done.symlinks += 1
        elif not self._allowed("device nodes", lambda: os.mknod(target, inode.mode, inode.rdev)):
            return
        else:
            self.done.specials += 1
        self._describe(ino, inode, target)
        if inode.link_count > 1:
            self._first_paths[ino] = target

    def _copy_contents(self, ino: InodeNo, inode: Inode, target: bytes) -> None:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, inode.size)
            for offset in range(0, inode.size, PIECE_BYTES):
                write_but_zeros(descriptor, offset, files.read(self.volume, ino, offset, PIECE_BYTES))
        except CorruptImage as damaged:
            raise CorruptImage(f"{os.fsdecode(target)} could not be copied whole: {damaged}") from damaged
        finally:
            os.close(descriptor)
        self.done.files += 1
        self.done.total_bytes += inode.size

    def _describe(self, ino: InodeNo, inode: Inode, target: bytes) -> None:
        """Give a file its attributes: the owner first, because chown takes set-id bits away; the times last."""
        self._allowed("owners", lambda: os.chown(target, inode.uid, inode.gid, follow_symlinks=False))
        for name in xattrs.names(self.volume, ino):
            value = xattrs.get(self.volume, ino, name)
            keep = partial(os.setxattr, target, name, value, follow_symlinks=False)
            self._allowed("extended attributes", keep, _REFUSED + _NO_ROOM_BESIDE)
        if not inode.is_symlink:
            self._allowed("modes", lambda: os.chmod(target, stat.S_IMODE(inode.mode)))
        self._allowed("times", lambda: os.utime(target, ns=(inode.atime_ns, inode.mtime_ns), follow_symlinks=False))

    def _allowed(self, what: str, action: Callable[[], object], refusals: tuple[int, ...] = _REFUSED) -> bool:
        """Do something that the host may refuse; note *what* is lost then."""
        try:
            action()
        except OSError as refused:
            if refused.errno not in refusals:
                raise
            self.done.not_kept.add(what)
            return False
        return True
