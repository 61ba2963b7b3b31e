"""A commit of surgery that a power cut has ended before it took effect: found by its undo file, and taken back.

Surgery changes nodes where they lie. Of a node with one copy neither the old nor the new state can be read until the commit is
complete or taken back, and to a repair it looks like damage. So whoever is going to write to an image, or judges it, asks here
first. Taking it back is exact, and loses nothing: nobody was told that the commit had succeeded.

Repairs, compactions and resizings leave the old filesystem or the new one at every moment. Nothing has to be done about them.
"""

from razortools.check.repair.undo import has_no_effect_yet, undo
from razortools.check.repair.undo_shelf import HostShelf
from razortools.engine.store.device import Device


def about_unfinished(image: Device, undo_path: str) -> str:
    """Return a sentence if a commit was cut off before it took effect, and how to take it back; otherwise nothing. Reads only."""
    if not has_no_effect_yet(image, HostShelf(undo_path, image.name)):
        return ""
    return (
        f"{image.name}: changes of razorfs-debug were cut off while they were written, and what they were about may look damaged "
        f"now; razorfsck --undo --undo-file {undo_path} {image.name} takes them back, and so does the next mount for writing"
    )


def take_back_unfinished(image: Device, undo_path: str) -> str:
    """Take such a commit back; return a sentence about it, nothing if there was none. Raises DeviceFailed."""
    if not has_no_effect_yet(image, HostShelf(undo_path, image.name)):
        return ""
    undo(image, undo_path)
    return (
        f"{image.name}: changes of razorfs-debug had been cut off while they were written, before they took effect; "
        "they were taken back, make them anew"
    )
