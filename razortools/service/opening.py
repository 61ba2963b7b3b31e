"""Opening the image that is to be served: locked, recovered, with the options' limits. Who has it is told, or waited for."""

import time
from dataclasses import dataclass
from functools import partial

from razortools.engine.store.device import Device, FileDevice, open_image
from razortools.engine.store.recording import RecordingDevice
from razortools.engine.store.undo_place import default_undo_file, has_undo_file
from razortools.engine.volume import Volume, open_volume
from razortools.errors import ImageBusy
from razortools.service import mountpoints
from razortools.service.control import waiter_for
from razortools.service.logs import log
from razortools.service.options import MountOptions
from razortools.service.remount_plan import limits_of

BUSY_GRACE_S = 5.0  # umount(8) returns before the daemon has closed the image: a mount right after it is worth some patience
BUSY_LOOK_S = 0.02
HOLDER_PATIENCE_S = 1.0  # its name is worth that much


@dataclass(frozen=True, slots=True)
class Place:
    """What is served where."""

    image: str
    mount_point: str


def open_place(place: Place, options: MountOptions) -> Volume:
    """Open the image; waits for a daemon that has been unmounted and is about to be done."""
    limits = limits_of(options)
    device: Device = _locked(place.image, writable=not options.read_only)
    try:
        if has_undo_file(place.image, partial(log.warning, "%s")):
            _settle_unfinished(device, writable=not options.read_only)
        if options.record is not None:
            device = RecordingDevice(device, options.record)
        volume = open_volume(device, read_only=options.read_only, recover=options.recover, limits=limits)
    except BaseException:
        device.close()
        raise
    volume.store.discards = options.discard
    if options.compression is not None:
        volume.default_policy = options.compression
    return volume


def _settle_unfinished(device: Device, *, writable: bool) -> None:
    """Take changes back that were cut off before they took effect, or tell of them. Raises DeviceFailed."""
    from razortools.check.repair.cut_off import about_unfinished, take_back_unfinished  # late: hardly ever is there any

    judged = take_back_unfinished if writable else about_unfinished
    told = judged(device, default_undo_file(device.name))
    if told:
        log.warning("%s", told)


def _locked(image: str, *, writable: bool) -> FileDevice:
    """Open and lock the image. If somebody holds it, but not for a mount that can be seen, wait for a moment."""
    end = time.monotonic() + BUSY_GRACE_S
    while True:
        try:
            return open_image(image, writable=writable)
        except ImageBusy:
            waiter = waiter_for(image, HOLDER_PATIENCE_S)
            if waiter is not None:
                waiter.close()
                where = f"is mounted at {waiter.greeting.mount_point} by pid {waiter.greeting.pid}"
                raise ImageBusy(f"{image}: {where}; use it there, or unmount it first") from None
            if time.monotonic() > end or mountpoints.is_source(image):
                raise
        time.sleep(BUSY_LOOK_S)
