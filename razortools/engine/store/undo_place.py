"""Where the undo file of an image lies on the host, unless somebody wants it elsewhere. A mount looks there, too."""

import os
import stat
from collections.abc import Callable

from razortools.engine.store.belief import believed_users

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


def has_undo_file(image: str, tell: Callable[[str], object] = lambda text: None) -> bool:
    """Return whether there is one in the usual place that may be believed unasked: what it says is written into the image.

    *tell* gets a sentence about one that is there and not believed.
    """
    told = distrust(image)
    if told:
        tell(told)
    return not told and os.path.exists(default_undo_file(image))


def distrust(image: str) -> str:
    """Return why the file in the usual place is not believed unasked, and what to do; nothing if it is, or if there is none.

    Beside an image in a folder where everybody may write, as /tmp, anybody may have put it. It is believed if it belongs to root,
    to who asks, or to the image's owner, all of whom could write the image itself.
    """
    path = default_undo_file(image)
    try:
        entry = os.lstat(path)
    except OSError:
        return ""
    if not stat.S_ISREG(entry.st_mode):
        return f"{path}: is no regular file, and is not looked at; find out who has put it there, and remove it"
    if entry.st_uid in believed_users(image):
        return ""
    return (
        f"{path}: belongs to user {entry.st_uid}, who is neither root nor the owner of {image}, and is not believed; remove it, "
        f"or if a repair of yours has left it, take that back with razorfsck --undo --undo-file {path} {image}"
    )
