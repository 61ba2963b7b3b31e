"""Which images are asked for, and how each is: what its daemon tells of a mount, and what the image shows by itself."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from razortools.engine.health import Health, Reason, Thresholds, Verdict, about_failure, examine, worst
from razortools.engine.store.device import Device, open_image
from razortools.engine.store.mounts import mounts
from razortools.engine.store.undo_place import default_undo_file, has_undo_file
from razortools.errors import ImageBusy, RazorError, UsageError, sentence
from razortools.service import mountpoints

PATIENCE_S = 5.0  # for the daemon to tell how it is: it answers between two requests
CHECKPOINTS_TRIED = 3
UNTOLD = "is served, and tells more only to root and to whoever has mounted it; this is its last checkpoint"


def examined(target: str | None, thresholds: Thresholds, *, for_programs: bool) -> list[Health]:
    """Return the health of the images that are asked for.

    Programs get an answer, unknown, also for a directory with no mount and for what they may not look at. For people that raises
    UsageError or OSError.
    """
    try:
        found = images(target)
    except (UsageError, OSError) as refused:
        if target is None or not for_programs:
            raise
        return [Health(target, Verdict.UNKNOWN, (Reason(Verdict.UNKNOWN, "Image", sentence(refused)),), None, None)]
    return [_examine(image, thresholds) for image in found]


def images(target: str | None) -> list[str]:
    """Return the images to examine. Raises UsageError if a directory is given that is no mount, or one that does not answer."""
    if target is None:
        return _mounted_images()
    mount = mountpoints.mount_at(target)  # asks nothing of the mount itself, whose daemon may have died
    if mount is not None and mount.is_fuse:
        from razortools.service.asking import Silent, image_at  # late: only a mount needs it

        try:
            image = image_at(mount, PATIENCE_S)
        except Silent as silent:
            raise UsageError(str(silent)) from None
        if image is not None:
            return [image]
    if Path(target).is_dir():
        raise UsageError(f"{target}: no RAZORFS is mounted there; name an image or a mount point")
    return [target]


def _mounted_images() -> list[str]:
    """Return the images that are mounted in this namespace. Of one whose daemon says nothing, what the mount table calls it."""
    from razortools.service.asking import Silent, image_at  # late: only a mount needs it

    found = set()
    for mount in mounts():
        if mount.is_fuse:
            try:
                image = image_at(mount, PATIENCE_S)
            except Silent:
                image = os.fsdecode(mount.source)
            if image is not None:
                found.add(image)
    return sorted(found)


@dataclass(frozen=True, slots=True)
class Live:
    """What a mount says of itself, judged, and as it said it."""

    reasons: tuple[Reason, ...] = ()
    document: Mapping[str, object] | None = None


def _examine(image: str, thresholds: Thresholds) -> Health:
    """Return the health of *image*; what keeps us from knowing it is an answer too."""
    live = Live()
    try:
        try:
            device = open_image(image, writable=False)
        except ImageBusy:
            live = _live(image, thresholds)
            return _in_use(image, live, thresholds)
        with device:
            return examine(device, time.time_ns(), thresholds, live=[*_dead_mounts(image), *_cut_off(device)])
    except (RazorError, OSError) as failure:
        reasons = (*live.reasons, Reason(Verdict.UNKNOWN, "Image", sentence(failure)))
        return Health(image, worst([reason.verdict for reason in reasons]), reasons, None, live.document)


def _dead_mounts(image: str) -> list[Reason]:
    """Return what to say of the mount points of *image*, which nobody has open: whoever uses them gets errors only."""
    sources = {os.fsencode(image), os.fsencode(os.path.realpath(image))}
    mounted = [os.fsdecode(mount.path) for mount in mounts() if mount.is_fuse and mount.source in sources]
    places = [place for place in mounted if mountpoints.is_dead(place)]
    text = "the daemon that served it at {} has died, and programs get errors there; to go on: mount.razorfs {} {}"
    return [Reason(Verdict.CRITICAL, "Mount", text.format(place, image, place)) for place in places]


def _cut_off(device: Device) -> list[Reason]:
    """Return what to say of changes that were cut off before they took effect."""
    found: list[str] = []
    if has_undo_file(device.name, found.append):
        from razortools.check.repair.cut_off import about_unfinished  # late: it loads slowly, and hardly ever is there one

        found.append(about_unfinished(device, default_undo_file(device.name)).removeprefix(f"{device.name}: "))
    return [Reason(Verdict.WARNING, "Changes", told) for told in found if told]


def _in_use(image: str, live: Live, thresholds: Thresholds) -> Health:
    """Return the health of an image that somebody has open: what he says, and for the rest what its last checkpoint shows."""
    for tries_left in reversed(range(CHECKPOINTS_TRIED)):
        with open_image(image, writable=False, lock=False) as device:
            found = examine(device, time.time_ns(), thresholds, in_use=True)
        # It may have been written over while it was looked at. A daemon that tells how it is would have met true damage.
        if found.figures is not None or not tries_left:
            break
    told = {reason.subject for reason in live.reasons}
    reasons = (*live.reasons, *(reason for reason in found.reasons if reason.subject not in told))
    return Health(image, worst([reason.verdict for reason in reasons]), reasons, found.figures, live.document)


def _live(image: str, thresholds: Thresholds) -> Live:
    """Return what the mount of *image* says of itself; nothing if something else than a mount has it open."""
    from razortools.service import wellness  # late: only an image that is in use needs it
    from razortools.service.asking import Silent, connection

    try:
        waiter = connection(image, PATIENCE_S)
    except Silent as silent:
        return Live((Reason(Verdict.UNKNOWN, "Mount", str(silent)),))
    if waiter is None:
        return Live()
    with closing(waiter):
        figures = waiter.figures()
    if figures is None:
        return Live(about_failure(waiter.greeting.failure) or (Reason(Verdict.OK, "Mount", UNTOLD),))
    return Live(wellness.judge(figures, time.time_ns(), thresholds), figures.document())


def fill_percents(one: Health) -> Iterator[tuple[float, float]]:
    """Yield how full an image and its journal are, if that is known."""
    if one.live is not None:
        from razortools.service import wellness
        from razortools.service.figures import MountFigures

        live = MountFigures.from_document(one.live)
        yield wellness.used_percent(live), wellness.journal_percent(live)
    elif one.figures is not None:
        yield one.figures.used_percent, one.figures.journal_used_percent
