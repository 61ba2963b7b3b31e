"""Copying in: a file or a tree of the host becomes part of the volume, with everything that is kept of it."""

import os
import stat
from collections.abc import Iterator
from dataclasses import replace

from razortools.engine import namespace
from razortools.engine.populate.directory import DirectorySource
from razortools.engine.populate.entry import Chunks, Entry, data_chunks
from razortools.engine.populate.writer import populate
from razortools.engine.volume import Volume
from razortools.errors import PosixError, UsageError
from razortools.file_counts import FileCounts
from razortools.units import InodeNo


def copy(volume: Volume, source: str, parent: InodeNo, name: bytes) -> FileCounts:
    """Copy *source* of the host to *name* in *parent*. A directory that exists is added to, any other file replaced.

    The image that it is copied into is left out of a directory. Durable after the next commit. Raises UsageError if there is no
    such source, or if it is that image; SourceFailed, OutOfSpace.
    """
    image = _identity(volume.store.device.name)
    try:
        facts = os.lstat(source)
    except OSError as failed:
        raise UsageError(f"{source}: {failed.strerror}; name a file or directory of the host") from None
    if stat.S_ISDIR(facts.st_mode):
        return populate(volume, source, DirectorySource(source, lambda: image).entries(), into=_directory(volume, parent, name))
    if (facts.st_dev, facts.st_ino) == image:
        raise UsageError(f"{source}: is the image that it would be copied into; copy another one")
    return populate(volume, source, [_entry(source, name, facts)], into=parent)


def _identity(path: str) -> tuple[int, int] | None:
    """Return (device, inode) of a file of the host; None if it is not there."""
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _directory(volume: Volume, parent: InodeNo, name: bytes) -> InodeNo:
    """Return the directory *name* in *parent*, made if it is not there; its attributes come from the source."""
    try:
        ino = namespace.lookup(volume, parent, name)
    except PosixError:
        return namespace.mkdir(volume, parent, name, 0o700, os.geteuid(), os.getegid(), inherits=False)
    if not volume.inodes.get(ino).is_directory:
        raise UsageError(f"{os.fsdecode(name)} exists in the image and is not a directory; choose another name")
    return ino


def _entry(source: str, name: bytes, facts: os.stat_result) -> Entry:
    """Return the entry of a single file."""
    entry = Entry(
        path=name,
        mode=facts.st_mode,
        uid=facts.st_uid,
        gid=facts.st_gid,
        mtime_ns=facts.st_mtime_ns,
        atime_ns=facts.st_atime_ns,
        rdev=facts.st_rdev if stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode) else 0,
        xattrs=tuple(_xattrs(source)),
    )
    if stat.S_ISLNK(facts.st_mode):
        return replace(entry, target=os.fsencode(os.readlink(source)))
    if stat.S_ISREG(facts.st_mode):
        return replace(entry, size=facts.st_size, chunks=lambda: _chunks(source, facts.st_size))
    return entry


def _chunks(source: str, size: int) -> Chunks:
    """Yield the contents, zeros left out."""
    with open(source, "rb", buffering=0) as file:

        def read_at(offset: int, length: int) -> bytes:
            file.seek(offset)
            data = b"".join(iter(lambda: file.read(length - file.tell() + offset), b""))
            return data + bytes(length - len(data))

        yield from data_chunks(size, [(0, size)], read_at)


def _xattrs(source: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield the attributes that may be read."""
    try:
        names = sorted(os.listxattr(source, follow_symlinks=False))
    except OSError:
        return
    for name in names:
        try:
            yield os.fsencode(name), os.getxattr(source, name, follow_symlinks=False)
        except OSError:
            continue
