"""Images to damage: small, in order, and together with every structure of the format in them."""

import functools
from collections.abc import Callable

from razortools.engine import files, namespace
from razortools.engine.store.device import Device
from razortools.format.data import Patch
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import patch_key
from razortools.units import MIB
from tests.check.editing import editing, find_inode
from tests.check.samples import Copy, filled, healthy, late_paged, opened, unclean

LARGE_BYTES = 160 * MIB  # more blocks than one page of the space map has bits for; sparse in memory


@functools.cache
def orphaned() -> Device:
    """Return an image that a crash left with a deleted file that was open."""
    device = healthy(1)
    volume = opened(device)
    ino = namespace.create(volume, ROOT_INODE, b"gone", 0o644, 0, 0)
    files.write(volume, ino, 0, b"open when it was deleted " * 999)
    namespace.hold(volume, ino)
    namespace.unlink(volume, ROOT_INODE, b"gone")
    volume.checkpoint()
    return device


@functools.cache
def large() -> Device:
    """Return an image whose space map has two levels."""
    return filled(LARGE_BYTES)


@functools.cache
def patched() -> Device:
    """Return an image in which a patch lies over the middle of a file, as a commit too large for the journal leaves it."""
    device = healthy(1)
    with editing(device) as store:
        store.tree.put(patch_key(find_inode(device, "/docs/many"), 8192), Patch(0, b"changed").encode())
    return device


BASES: dict[str, Callable[[], Device]] = {
    "at rest": lambda: healthy(1),
    "at rest, nodes twice": lambda: healthy(2),
    "blocks of 16 KiB": lambda: healthy(2, 16384),
    "journal pending": lambda: unclean(3, 1),
    "orphan pending": lambda: Copy(orphaned()),
    "patch pending": lambda: Copy(patched()),
    "late pages": late_paged,
    "two levels of space map": lambda: Copy(large()),
}


def before_the_last(name: str) -> list[Device]:
    """Return the image as it is if the last transaction in its journal never arrived; nothing if there is none."""
    return [unclean(2, 1)] if name == "journal pending" else []


def base(name: str) -> Device:
    """Return a copy of its own of one of the images."""
    return BASES[name]()
