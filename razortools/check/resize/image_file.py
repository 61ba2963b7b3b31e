"""Resizing an image with its file: the file gets longer before anything is written, and shorter after everything is.

So a power cut leaves a file that is too long at the worst, and running the same again cuts it.
"""

import os
import time
from dataclasses import dataclass

from razortools.check.repair.undo_shelf import HostShelf
from razortools.check.repair.write_out import write_out
from razortools.check.resize.resize import judged, least_bytes, resize
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.undo_place import default_undo_file
from razortools.errors import DeviceFailed, UsageError


@dataclass(frozen=True, slots=True)
class Size:
    """How large the filesystem is, and can get."""

    bytes: int
    least_bytes: int  # in one go
    device_bytes: int


@dataclass(frozen=True, slots=True)
class Done:
    """What was done."""

    bytes_before: int
    bytes_after: int
    device_bytes: int
    moved_bytes: int  # of contents
    nodes_written: int
    undo_file: str | None  # that takes it back


def sizes_of(device: Device) -> Size:
    """Return the size of the filesystem on *device*. One that was not closed is judged as the next mount leaves it.

    Raises CorruptImage if it is not sound.
    """
    measured = judged(device)
    image = measured.image
    return Size(image.geometry.block_count * image.block_bytes, least_bytes(measured), device.size_bytes)


def resize_image(device: Device, size_bytes: int, undo_path: str | None = None) -> Done:
    """Resize the filesystem on *device*, which is at rest, and the file. Raises as resize() does; then the image is as it was.

    *undo_path*: where the means to take it back are kept; None: in the usual place.
    """
    judge_size(device, size_bytes)
    shelf = HostShelf(undo_path or default_undo_file(device.name), device.name)
    shelf.judge()
    written: list[str] = []

    def write(overlay: OverlayDevice) -> None:
        written.append(write_out(overlay, device, shelf.name, is_sound=True).undo_path)

    done = resize(device, size_bytes, write, time.time_ns())
    if device.size_bytes > done.bytes_after and os.path.isfile(device.name):
        _cut_tail(device, done.bytes_after)
        # Of no use any more: what lay behind the end is gone. The steps before the last one are the latest that were moved away.
        for path in [*written[-1:], *shelf.older()[: max(len(written) - 1, 0)]]:
            os.unlink(path)
        written.clear()
    undo_file = written[-1] if written else None
    return Done(done.bytes_before, done.bytes_after, device.size_bytes, done.moved_bytes, done.nodes_written, undo_file)


def judge_size(device: Device, size_bytes: int) -> None:
    """Raise UsageError for a size that a block device has not, DeviceFailed for one that the host has no file of."""
    length_bytes = device.size_bytes
    if size_bytes > length_bytes and os.path.isfile(device.name):
        device.resize(size_bytes)  # before a plan is made, whose map of so much space may take all memory
        device.resize(length_bytes)
    elif size_bytes > length_bytes:
        raise UsageError(
            f"{device.name}: has {device.size_bytes} bytes, and its filesystem cannot get larger; make the device larger first"
        )


def _cut_tail(device: Device, size_bytes: int) -> None:
    """Give a file the length of the filesystem in it. Raises DeviceFailed; the image is whole then, and too long."""
    try:
        device.resize(size_bytes)
        device.flush()
    except DeviceFailed as failed:
        raise DeviceFailed(f"the filesystem has its new size, but its file was not cut: {failed}; run the same again") from None
