"""What the kernel does before it asks a filesystem: walking a path, name by name.

Symbolic links, dots, slashes at the end; the order of refusals is that of Linux (fs/namei.c). It stands on lookup and readlink of
the engine alone.
"""

import errno
import os

from razortools.engine import directories, namespace
from razortools.engine.volume import Volume
from razortools.format.inode import ROOT_INODE, Inode
from razortools.units import InodeNo

PATH_BYTES_MAX = 4095
LINKS_MAX = 40  # symbolic links on one path
DOTS = (b".", b"..")
Place = tuple[InodeNo, bytes, bool]  # (directory, name, whether a slash follows); the name of the root is empty


def refuse(number: int) -> OSError:
    """Return the refusal with this errno."""
    return OSError(number, os.strerror(number))


class Walker:
    """Walks paths on a volume; the root is the working directory too."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self._links = 0  # followed on this path so far

    def _walk(self, path: str, *, follow: bool = True) -> InodeNo:
        """Return the file at *path*; a symbolic link itself unless *follow*."""
        return self._step(self._parent(path), follow=follow)

    def _parent(self, path: str) -> Place:
        """Return where the last name of *path* stands, or would."""
        self._links = 0
        return self._place(path)

    def _place(self, path: str | bytes, start: InodeNo = ROOT_INODE) -> Place:
        """Return what the last part of *path* is a name of."""
        name = os.fsencode(path)
        if len(name) > PATH_BYTES_MAX:
            raise refuse(errno.ENAMETOOLONG)
        if not name:
            raise refuse(errno.ENOENT)
        directory = ROOT_INODE if name.startswith(b"/") else start
        parts = [part for part in name.split(b"/") if part]
        trailing = bool(parts) and name.endswith(b"/")
        for part in parts[:-1]:
            directory = self._step((directory, part, True))
        return directory, parts[-1] if parts else b"", trailing

    def _step(self, place: Place, *, follow: bool = True) -> InodeNo:
        """Return what is at *place*; with a slash at the end only a directory will do."""
        directory, name, trailing = place
        while True:
            ino = namespace.lookup(self.volume, directory, name) if name else directory
            inode = self._inode(ino)
            if not inode.is_symlink or not (follow or trailing):
                if trailing and not inode.is_directory:
                    raise refuse(errno.ENOTDIR)
                return ino
            directory, name, slash = self._followed(directory, ino)
            trailing |= slash

    def _followed(self, directory: InodeNo, link: InodeNo) -> Place:
        """Return what the target of a symbolic link in *directory* is a path of."""
        self._links += 1
        if self._links > LINKS_MAX:
            raise refuse(errno.ELOOP)
        return self._place(namespace.readlink(self.volume, link), directory)

    def _inode(self, ino: InodeNo) -> Inode:
        return self.volume.inodes.get(ino)

    def _found(self, place: Place) -> Inode | None:
        found = directories.find(self.volume, *place[:2])
        return None if found is None else self._inode(InodeNo(found[1].inode))

    def _new_place(self, path: str, *, slash_may_follow: bool = False) -> Place:
        """Return where a new name may go."""
        place = self._parent(path)
        directory, name, trailing = place
        if not name or name in DOTS:
            raise refuse(errno.EEXIST)
        if trailing and not slash_may_follow:
            directories.check_name(name)
            raise refuse(errno.EEXIST if self._found(place) else errno.ENOENT)
        return directory, name, trailing
