"""What an image holds, read without a mount: the judge of what was lost."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from razortools.engine import directories, files
from razortools.engine.store.device import open_image
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage
from razortools.format.inode import ROOT_INODE
from razortools.units import InodeNo


def contents_of(image: Path) -> dict[str, bytes]:
    """Return the contents of every regular file, by its path from the root; of what cannot be read, what is said of it."""
    with open_volume(open_image(image, writable=False), read_only=True) as volume:
        return dict(_below(volume, ROOT_INODE, ""))


def _below(volume: Volume, directory: InodeNo, prefix: str) -> Iterator[tuple[str, bytes]]:
    for _, name, entry in directories.entries(volume, directory):
        ino, path = InodeNo(entry.inode), prefix + os.fsdecode(name)
        inode = volume.inodes.get(ino)
        if inode.is_directory:
            yield from _below(volume, ino, f"{path}/")
        elif inode.is_regular:
            try:
                yield path, files.read(volume, ino, 0, inode.size)
            except CorruptImage as damaged:
                yield path, str(damaged).encode()


def differences(found: Mapping[str, bytes], wanted: Mapping[str, bytes]) -> list[str]:
    """Return, a sentence each, what is missing in *found*, what is different, and what should not be there."""
    told = [f"{path}: lost" for path in wanted if path not in found]
    told += [f"{path}: not what was written" for path in wanted if path in found and found[path] != wanted[path]]
    return told + [f"{path}: nobody has made this" for path in found if path not in wanted]
