"""The place of a new image: what is there now, whether it may be overwritten, and how it is left if that fails."""

import errno
import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass

from razortools.engine.make.in_use import find_use
from razortools.engine.make.signatures import HEAD_BYTES, TAIL_BYTES, find_signature
from razortools.engine.store.device import Device, FileDevice, create_image, open_image
from razortools.engine.store.superblocks import traces
from razortools.errors import DeviceFailed, ImageBusy, NotAnImage, RazorError, UsageError
from razortools.format.geometry import Geometry
from razortools.format.superblock import SUPERBLOCK_BYTES
from razortools.units import MIB, format_size


class Refused(RazorError):
    """The place holds something that somebody may want to keep: say --force, or name another place."""

    exit_code = 1


@dataclass(slots=True)
class Target:
    """Where the image goes."""

    path: str
    image_bytes: int
    existing_bytes: int | None  # None: there is nothing yet
    is_block_device: bool = False
    identity: tuple[int, int] | None = None  # (device, inode) of the file, once it is there
    device: FileDevice | None = None  # open and locked
    is_made: bool = False  # by us


def examine(path: str, size_bytes: int | None, block_bytes: int) -> Target:
    """Return what is at *path* and how large the image becomes; nothing is opened or changed. Raises UsageError, NotAnImage."""
    try:
        facts = os.stat(path)
    except FileNotFoundError:
        if size_bytes is None:
            raise UsageError(f"{path} does not exist; give the size to make it with, such as 1G") from None
        return Target(path, size_bytes, None)
    except OSError as error:
        raise DeviceFailed(f"{path}: {error.strerror}; check the path") from error
    if stat.S_ISBLK(facts.st_mode):
        existing = _device_bytes(path)
    elif stat.S_ISREG(facts.st_mode):
        existing = facts.st_size
    elif stat.S_ISDIR(facts.st_mode):
        raise NotAnImage(f"{path}: is a directory; name the file that shall hold the image")
    else:
        raise NotAnImage(f"{path}: is neither a file nor a block device")
    if size_bytes is None and not existing:
        raise UsageError(f"{path} is empty; give the size that it shall have, such as 1G")
    wanted = existing if size_bytes is None else size_bytes
    is_block_device = stat.S_ISBLK(facts.st_mode)
    if is_block_device and wanted > existing:
        raise UsageError(f"{path} has {format_size(existing)} only; {format_size(wanted)} do not fit")
    return Target(path, wanted, existing, is_block_device, (facts.st_dev, facts.st_ino))


def refuse(target: Target, held: ExitStack, *, force: bool, dry_run: bool) -> None:
    """Open and lock what is at *target*, until *held* ends. Raises ImageBusy if anybody uses it, even with *force*.

    Raises Refused if it looks like something that may be wanted, unless *force*. *dry_run* needs no permission to write.
    """
    if target.existing_bytes is None:
        return
    use = find_use(target.path)
    if use is not None:
        raise ImageBusy(f"{target.path}: {use}")
    if target.is_block_device:
        held.callback(os.close, _claim(target.path))
    device = target.device = open_image(target.path, writable=not dry_run)
    held.callback(device.close)
    if force:
        return
    head = device.read(0, min(HEAD_BYTES, target.existing_bytes))
    tail_bytes = min(TAIL_BYTES, target.existing_bytes)
    what = find_signature(head, device.read(target.existing_bytes - tail_bytes, tail_bytes))
    if what is not None:
        raise Refused(f"{target.path}: looks like {what}; nothing was changed. To overwrite it, say --force")


def prepare(target: Target, held: ExitStack, geometry: Geometry) -> Device:
    """Return the device to write to, as long as the image, reading as zeros wherever the host can make it so.

    Where it cannot, as on a block device, those blocks are zeros all the same in which *geometry* has superblocks. Raises
    DeviceFailed.
    """
    if target.device is None:
        target.device = create_image(target.path, target.image_bytes)
        target.is_made = True
        held.callback(target.device.close)
        facts = os.stat(target.path)
        target.identity = facts.st_dev, facts.st_ino
        return target.device
    if target.is_block_device:
        _blank(target.device, target.image_bytes, geometry)
        return target.device
    existing = target.existing_bytes or 0
    try:
        if existing <= target.image_bytes:
            os.truncate(target.path, 0)  # the surest way to zeros, and gives the space back
            os.truncate(target.path, target.image_bytes)
            target.device.size_bytes = target.image_bytes
        else:
            _blank(target.device, target.image_bytes, geometry)
            target.device.discard(0, target.image_bytes)
    except OSError as error:
        raise DeviceFailed(f"{target.path}: the host refuses {format_size(target.image_bytes)}: {error.strerror}") from error
    return target.device


def undo(target: Target) -> None:
    """After a failure: remove the file that was made, give an older one its length back."""
    if target.is_made:
        os.unlink(target.path)
    elif target.existing_bytes is not None and not target.is_block_device and target.device is not None:
        os.truncate(target.path, target.existing_bytes)


def settle(target: Target) -> None:
    """Make the name of a new file as durable as its contents."""
    if target.is_made:
        directory = os.open(os.path.dirname(os.path.abspath(target.path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _claim(path: str) -> int:
    """Return a descriptor that keeps the kernel from mounting the block device *path*.

    Raises ImageBusy if it uses it, or a part of it.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise ImageBusy(f"{path}: is in use by the system, or a partition of it is; unmount it first") from error
        raise DeviceFailed(f"{path}: cannot be opened: {error.strerror}") from error


def _device_bytes(path: str) -> int:
    """Return the size of a block device."""
    with open_image(path, writable=False, lock=False) as device:
        return device.size_bytes


def _blank(device: Device, image_bytes: int, geometry: Geometry) -> None:
    """Overwrite the places where filesystems and partition tables leave their marks, if they are not zeros; stable at return.

    What was here before is gone then, whatever becomes of what is made. Superblocks of an older RAZORFS would be believed once
    those of the new one are lost, for they may tell of more generations. The blocks of its own backups are blanked whole, since a
    superblock fills the first 4 KiB of its block only; those of its slots are a part of the head.
    """
    for offset in traces(device, image_bytes):
        device.write(offset, bytes(SUPERBLOCK_BYTES))
    size = geometry.block_bytes
    backups = [(place * size, (place + 1) * size) for place in geometry.backups]
    ends = (0, min(HEAD_BYTES, image_bytes)), (max(0, device.size_bytes - TAIL_BYTES), device.size_bytes)
    for start, end in (*ends, *backups):
        while start < end:
            length = min(MIB, end - start)
            if device.read(start, length).strip(b"\0"):
                device.write(start, bytes(length))
            start += length
    device.flush()
