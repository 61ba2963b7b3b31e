"""Asking the daemon that serves an image how it is: which mount that is, and what it tells."""

import os

from razortools.engine.store.mounts import mounts
from razortools.service.control import Waiter
from razortools.service.figures import MountFigures

FILESYSTEM_TYPE = "fuse.razorfs"


class Silent(Exception):
    """A daemon does not answer."""


class Asker(Waiter):
    """A connection to a daemon that is asked for its figures, as often as one likes."""

    def figures(self) -> MountFigures | None:
        """Return what it tells of itself now; None if it tells us nothing: not our mount, another version, or it has ended."""
        told = self.fetch("figures")
        try:
            return None if told is None else MountFigures.from_document(told)
        except (TypeError, KeyError, ValueError):
            return None


def connection(image: str, patience_s: float) -> Asker | None:
    """Return a connection to the daemon that serves *image*; None if no mount of this namespace does. Raises Silent."""
    wanted = os.path.realpath(image)
    for mount in mounts():
        if mount.filesystem != FILESYSTEM_TYPE:
            continue
        try:
            asker = Asker(mount.device, patience_s)
        except OSError as silent:
            if os.fsdecode(mount.source) == wanted:
                text = f"the process that serves {os.fsdecode(mount.path)} does not say how it is: {silent}"
                raise Silent(text) from None
            continue
        if asker.greeting.image == wanted:
            return asker
        asker.close()
    return None
