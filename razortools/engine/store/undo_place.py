"""Where the undo file of an image lies on the host, unless somebody wants it elsewhere. A mount looks there, too."""

import os
import stat

UNDO_DIRECTORY = "/var/lib/razorfs"  # for the undo files of block devices: beside the device they would lie in memory
UNDO_SUFFIX = ".undo"  # behind the image's name


def default_undo_file(image: str) -> str:
    """Return where a repair of *image* keeps the means to take it back: beside a file, but not in /dev, which lies in memory.

    A symbolic link and what it leads to have the same place, so that it does not matter by which name the image is called.
    """
    real = os.path.realpath(image)
    if not os.path.exists(real) or not stat.S_ISBLK(os.stat(real).st_mode):
        return (real if os.path.islink(image) else image) + UNDO_SUFFIX
    return os.path.join(UNDO_DIRECTORY, real.strip("/").replace("/", "-") + UNDO_SUFFIX)


def has_undo_file(image: str) -> bool:
    """Return whether there is one in the usual place."""
    return os.path.exists(default_undo_file(image))
