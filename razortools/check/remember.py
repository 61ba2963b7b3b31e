"""A full check that found nothing is noted in the superblock, so that health can tell how long ago that was.

Only who may write does so, and only on an image that is clean and has nothing to recover: the note is a superblock of its own,
one generation on, with nothing else changed. A repair writes none: what it writes does not depend on the clock.
"""

from razortools.engine.store.device import Device
from razortools.engine.store.recovery import open_store
from razortools.format.superblock import State


def note_checked(device: Device, now_ns: int) -> bool:
    """Note in the image on *device* that all of it was checked just now; whether that was possible. Raises DeviceFailed."""
    store, _ = open_store(device)
    if store.superblock.state != State.CLEAN or store.journal.used_bytes:
        return False
    store.mark(now_ns, checked_at_ns=now_ns)
    device.flush()
    return True
