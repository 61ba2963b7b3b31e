"""Asking the daemon that serves an image how it is: which mount that is, and what it tells."""

import os

from razortools.engine.store.mounts import Mount, mounts
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


def image_at(mount: Mount, patience_s: float) -> str | None:
    """Return the image that is mounted there; None if it is no mount of ours. Raises Silent if that cannot be known now.

    Its daemon says so: in the mount table stands what `-o fsname=` and `-o subtype=` name. Of a dead mount only the table tells.
    """
    source = os.fsdecode(mount.source)
    is_ours = mount.filesystem == FILESYSTEM_TYPE
    try:
        waiter = Waiter(mount.device, patience_s)
    except TimeoutError as silent:
        if is_ours and os.path.isabs(source):
            return source
        raise _silence(mount, silent) from None
    except OSError:
        return source if is_ours else None
    waiter.close()
    return waiter.greeting.image


def connection(image: str, patience_s: float) -> Asker | None:
    """Return a connection to the daemon that serves *image*; None if no mount of this namespace does. Raises Silent."""
    wanted = os.path.realpath(image)
    for mount in mounts():
        if not mount.is_fuse:
            continue
        try:
            asker = Asker(mount.device, patience_s)
        except OSError as silent:
            if os.fsdecode(mount.source) == wanted and mount.filesystem == FILESYSTEM_TYPE:
                raise _silence(mount, silent) from None
            continue
        if asker.serves(wanted):
            return asker
        asker.close()
    return None


def _silence(mount: Mount, why: OSError) -> Silent:
    return Silent(f"the process that serves {os.fsdecode(mount.path)} does not say how it is: {why}")
