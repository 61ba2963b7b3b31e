"""Rebuilding the tree of an image on the bench."""

from razortools.check.repair.rebuild import rebuild
from razortools.check.repair.surveying import finished
from razortools.engine.store.device import OverlayDevice


def rebuild_quietly(overlay: OverlayDevice) -> None:
    """Rebuild the tree from whatever can be read. Raises CorruptImage."""
    finished(rebuild(overlay))
