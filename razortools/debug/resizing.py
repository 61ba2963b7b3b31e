"""resize: an image of another size, with the same files. The work is done in check/resize; here it is told, and a file is cut.

A file that gets shorter is cut when everything else is written and stable, so whatever is cut off before has the old length.
"""

import argparse
import os
from dataclasses import dataclass

from razortools.check.repair.undo_shelf import HostShelf, default_undo_file
from razortools.check.repair.write_out import write_out
from razortools.check.resize.resize import Resized, judged, least_bytes, resize
from razortools.debug.answers import Answer, Lines
from razortools.debug.arguments import size
from razortools.debug.session import Command, Session, Words
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.errors import DeviceFailed, UsageError
from razortools.units import format_size


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
    moved_bytes: int
    nodes_written: int
    undo_file: str | None  # that takes it back


def resize_image(session: Session, options: argparse.Namespace) -> Answer:
    """resize: give the filesystem another size, or tell how small it can get."""
    if options.size is None:
        return _tell(session)
    device = session.at_rest()
    try:
        _judge_size(device, options.size)
        done = _resized(device, options.size)
    finally:
        session.reopen()
    if done.bytes_before == done.bytes_after:
        return Lines([f"the filesystem has {done.bytes_after} bytes already"], done)
    lines = [
        f"{format_size(done.bytes_before)} -> {format_size(done.bytes_after)} ({done.bytes_after} bytes); "
        f"{format_size(done.moved_bytes)} of contents moved, {done.nodes_written} nodes written"
    ]
    lines += [f"razorfsck --undo {device.name} takes it back, as long as {done.undo_file} is kept"] if done.undo_file else []
    return Lines(lines, done)


def _tell(session: Session) -> Answer:
    """Return how large it is, and how small it can get. An image that was not closed is judged as the next mount leaves it."""
    superblock = session.superblock()
    told = Size(superblock.block_count * superblock.block_bytes, least_bytes(judged(session.device)), session.device.size_bytes)
    lines = [
        f"the filesystem has {told.bytes} bytes ({format_size(told.bytes)}), the file or device {told.device_bytes}",
        f"it can get as small as {told.least_bytes} bytes ({format_size(told.least_bytes)})",
    ]
    return Lines(lines, told)


def _judge_size(device: Device, size_bytes: int) -> None:
    """Raise UsageError for a size that a block device has not."""
    if size_bytes > device.size_bytes and not os.path.isfile(device.name):
        raise UsageError(
            f"{device.name}: has {device.size_bytes} bytes, and its filesystem cannot get larger; make the device larger first"
        )


def _resized(device: Device, size_bytes: int) -> Done:
    """Resize, and cut a file that may be shorter. Raises what check/resize raises; then the image is as it was."""
    undo_path = default_undo_file(device.name)
    HostShelf(undo_path, device.name).judge()
    written: list[str] = []

    def write(overlay: OverlayDevice) -> None:
        written.append(write_out(overlay, device, undo_path, is_sound=True).undo_path)

    done: Resized = resize(device, size_bytes, write)
    if device.size_bytes > done.bytes_after and os.path.isfile(device.name):
        _cut_tail(device, done.bytes_after)
        for path in written[-1:]:  # of no use any more: what lay behind the end is gone
            os.unlink(path)
        written.clear()
    undo_file = written[-1] if written else None
    return Done(done.bytes_before, done.bytes_after, device.size_bytes, done.moved_bytes, done.nodes_written, undo_file)


def _cut_tail(device: Device, size_bytes: int) -> None:
    """Give a file the length of the filesystem in it. Raises DeviceFailed; the image is whole then, and too long."""
    try:
        device.resize(size_bytes)
        device.flush()
    except DeviceFailed as failed:
        raise DeviceFailed(
            f"the filesystem has its new size, but the file could not be cut: {failed}; run the same again"
        ) from None


_RESIZE = Words("resize")
_RESIZE.add_argument(
    "size",
    nargs="?",
    type=size,
    metavar="SIZE",
    help="the new size; without it, how large it is and how small it can get is told",
)

COMMANDS = (
    Command("resize", "give the filesystem another size: a file grows and shrinks with it", _RESIZE, resize_image,
            ("resize", "resize 200G")),
)  # fmt: skip
