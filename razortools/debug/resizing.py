"""resize: an image of another size, with the same files. The work is done in check/resize; here it is told."""

import argparse

from razortools.debug.answers import Answer, Lines
from razortools.debug.arguments import size
from razortools.debug.session import Command, Session, Words
from razortools.units import format_size


def resize(session: Session, options: argparse.Namespace) -> Answer:
    """resize: give the filesystem another size, or tell how small it can get."""
    from razortools.check.resize import image_file  # late: the check loads slowly, and few commands need it

    if options.size is None:
        sizes = image_file.sizes_of(session.device)
        lines = [
            f"the filesystem has {sizes.bytes} bytes ({format_size(sizes.bytes)}), the file or device {sizes.device_bytes}",
            f"it can get as small as {sizes.least_bytes} bytes ({format_size(sizes.least_bytes)})",
        ]
        return Lines(lines, sizes)
    device = session.at_rest()
    try:
        done = image_file.resize_image(device, options.size, options.undo_file)
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


_RESIZE = Words("resize")
_RESIZE.add_argument(
    "--undo-file", dest="undo_file", metavar="HOST_PATH", help="instead of IMAGE.undo, to take it back with razorfsck --undo"
)
_RESIZE.add_argument("size", nargs="?", type=size, metavar="SIZE", help="the new size; without it, how small it can get is told")

COMMANDS = (
    Command("resize", "give the filesystem another size: a file grows and shrinks with it", _RESIZE, resize,
            ("resize", "resize 200G")),
)  # fmt: skip
