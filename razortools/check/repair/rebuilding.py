"""Rebuilding the tree of an image on the bench."""

from razortools.check.repair.rebuild import RebuildResult, rebuild
from razortools.check.repair.surveying import finished
from razortools.engine.store.device import OverlayDevice


def rebuild_quietly(overlay: OverlayDevice) -> RebuildResult:
    """Rebuild the tree from whatever can be read; return what was found. Raises CorruptImage."""
    return finished(rebuild(overlay))
