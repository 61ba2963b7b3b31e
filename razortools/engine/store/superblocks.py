"""Superblock copies: which one is the truth, and how the next one is written.

Invariants: of the filesystem that is there, the valid copy with the highest generation is the truth. A slot is written only when
everything that it points to has been flushed; backups are written after the slot has been flushed, so a valid backup is never
ahead of the truth.

Where something else was before, copies of an older filesystem may be left, of more generations than the one that is there has.
So generations are compared within one filesystem only, and a backup counts only where its own geometry has one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from razortools.engine.store.device import Device
from razortools.errors import CorruptImage, DeviceFailed, NotAnImage, UnsupportedFormat
from razortools.format.geometry import BACKUP_SPACING, Geometry, geometry_of
from razortools.format.layout import layout_fault, working_fault
from razortools.format.superblock import (
    BLOCK_BYTES_CHOICES,
    KNOWN_INCOMPAT,
    KNOWN_READ_ONLY_COMPAT,
    MAGIC,
    SLOT_COUNT,
    SUPERBLOCK_BYTES,
    VERSION_MAJOR,
    Superblock,
)
from razortools.units import format_size


@dataclass(frozen=True, slots=True)
class Copy:
    """What was found where a superblock may lie. *superblock* is None if it is not valid; *reason* says why."""

    offset: int  # in bytes
    superblock: Superblock | None
    reason: str
    had_magic: bool
    unreadable: bool = False  # the device refused to read it: what lies there is not known


def read_copy(device: Device, offset: int) -> Copy:
    """Return what lies at *offset*, judged by its checksum and its own address."""
    try:
        raw = device.read(offset, SUPERBLOCK_BYTES)
    except DeviceFailed as failed:
        return Copy(offset, None, str(failed), had_magic=False, unreadable=True)
    had_magic = raw[: len(MAGIC) - 1] == MAGIC[:-1]
    try:
        found = Superblock.decode(raw)
    except CorruptImage as broken:
        return Copy(offset, None, str(broken), had_magic)
    if found.block_bytes not in BLOCK_BYTES_CHOICES or found.address * found.block_bytes != offset:
        return Copy(offset, None, f"superblock at byte {offset} says that it lies at block {found.address}", had_magic)
    return Copy(offset, found, "", had_magic)


def find_copies(device: Device) -> list[Copy]:
    """Return every copy that can be found, valid or not: the slots, then the backups."""
    slots = [read_copy(device, 0)]
    first = slots[0].superblock
    sizes = [first.block_bytes] if first else list(BLOCK_BYTES_CHOICES)
    second = [read_copy(device, size) for size in sizes]
    slots.append(next((copy for copy in second if copy.superblock), second[0]))
    known = next((copy.superblock for copy in slots if copy.superblock), None)
    if known is not None:
        return slots + [read_copy(device, place * known.block_bytes) for place in geometry_of(known).backups]
    guesses = [read_copy(device, offset) for offset in backup_guesses(device.size_bytes)]
    found = of_one_filesystem([copy.superblock for copy in guesses if copy.superblock and is_backup(copy.superblock)])
    return slots + [copy for copy in guesses if copy.superblock in found]


def of_one_filesystem(found: Sequence[Superblock]) -> list[Superblock]:
    """Return those of *found* that may be believed: of filesystems that have a slot; if none has, of the one written last."""
    here = {_filesystem(one) for one in found if one.address < SLOT_COUNT}
    if found and not here:
        here = {_filesystem(max(found, key=lambda one: (one.written_at_ns, one.generation)))}
    return [one for one in found if _filesystem(one) in here]


def _filesystem(superblock: Superblock) -> tuple[bytes, int]:
    """Return what tells one filesystem from another; a UUID may have been given twice."""
    return superblock.uuid, superblock.made_at_ns


def is_backup(superblock: Superblock) -> bool:
    """Return whether its own geometry has a backup where it lies. In other places it is a part of something else, or a rest."""
    return not layout_fault(superblock) and superblock.address in geometry_of(superblock).backups


def backup_guesses(size_bytes: int) -> list[int]:
    """Return the offsets, in bytes, where backups lie in an image of this size if no slot tells the geometry."""
    offsets: dict[int, None] = {}
    for block_bytes in BLOCK_BYTES_CHOICES:
        count = size_bytes // block_bytes
        for place in (count - 1, count // 2, count // 4, count // BACKUP_SPACING):
            offsets[max(place, 0) * block_bytes] = None
    return [offset for offset in offsets if offset + SUPERBLOCK_BYTES <= size_bytes]


def newest(device: Device) -> Superblock:
    """Return the superblock that is the truth.

    Raises NotAnImage if there is no trace of one, CorruptImage if all copies are damaged or the device is shorter than the
    image, UnsupportedFormat for versions and features that this package does not know, DeviceFailed if it cannot be told which
    copy is the truth because a slot cannot be read.
    """
    if device.size_bytes < SUPERBLOCK_BYTES * SLOT_COUNT:
        raise NotAnImage(f"{device.name}: is not a RAZORFS image; {format_size(device.size_bytes)} is too small for one")
    copies = find_copies(device)
    slots = copies[:SLOT_COUNT]
    if any(copy.superblock is None for copy in slots):  # it may have been misread, and the other slot is an older state
        again = find_copies(device)
        slots = [one if one.superblock else other for one, other in zip(slots, again[:SLOT_COUNT], strict=True)]
        copies += again
    valid = of_one_filesystem([copy.superblock for copy in copies if copy.superblock])
    unread = [copy for copy in slots if copy.unreadable]
    if unread and not (valid and (device.read_only or _is_beyond(valid, slots))):
        raise DeviceFailed(
            f"{device.name}: a superblock slot cannot be read, and it may hold the newest state: {unread[0].reason}. Try again; "
            f"if that does not help, look at the image read-only, or run razorfsck {device.name}"
        )
    if not valid:
        if any(copy.had_magic for copy in copies):
            raise CorruptImage(f"{device.name}: all copies of its superblock are damaged; run razorfsck --rebuild {device.name}")
        raise NotAnImage(f"{device.name}: is not a RAZORFS image; name another file, or make one with mkfs.razorfs")
    found = max(valid, key=lambda superblock: (superblock.generation, -superblock.slot))
    judge(device, found)
    return found


def _is_beyond(valid: list[Superblock], slots: list[Copy]) -> bool:
    """Whether a backup is newer than the slot that can be read: then it is a copy of the other one, for slots take turns."""
    readable = [copy.superblock.generation for copy in slots if copy.superblock]
    return bool(readable) and max(superblock.generation for superblock in valid) > readable[0]


def traces(device: Device, image_bytes: int) -> list[int]:
    """Return the offsets of all that looks like a superblock and lies where one is looked for.

    That is in the slots, where what lies there tells of backups, and where backups are guessed from the size of the device or
    from *image_bytes*, the size of an image in it.
    """
    offsets = {0, *BLOCK_BYTES_CHOICES, *backup_guesses(device.size_bytes), *backup_guesses(image_bytes)}
    offsets = {offset for offset in offsets if offset + SUPERBLOCK_BYTES <= device.size_bytes}
    for told in [read_copy(device, offset).superblock for offset in sorted(offsets)]:
        if told is not None and not layout_fault(told):
            offsets |= {place * told.block_bytes for place in geometry_of(told).backups}
    inside = sorted(offset for offset in offsets if offset + SUPERBLOCK_BYTES <= device.size_bytes)
    return [offset for offset in inside if read_copy(device, offset).had_magic]


def judge(device: Device, found: Superblock) -> None:
    """Raise UnsupportedFormat or CorruptImage if *found* cannot be worked with on *device*."""
    if found.version_major != VERSION_MAJOR:
        raise UnsupportedFormat(
            f"{device.name}: has format version {found.version_major}, this is version {VERSION_MAJOR}; use newer razortools"
        )
    unknown = found.incompat & ~KNOWN_INCOMPAT
    if unknown:
        raise UnsupportedFormat(f"{device.name}: uses unknown features {unknown:#x}; use newer razortools")
    unknown = found.read_only_compat & ~KNOWN_READ_ONLY_COMPAT
    if unknown and not device.read_only:
        raise UnsupportedFormat(f"{device.name}: uses unknown features {unknown:#x}; open it read-only, or use newer razortools")
    wanted = found.block_count * found.block_bytes
    if device.size_bytes < wanted:
        raise CorruptImage(
            f"{device.name}: is truncated: {format_size(device.size_bytes)} of {format_size(wanted)} are left; "
            f"restore the rest, then run razorfsck {device.name}"
        )
    fault = layout_fault(found) or working_fault(found)
    if fault:
        raise CorruptImage(f"{device.name}: its superblock makes no sense: {fault}; run razorfsck {device.name}")


def slot_image(superblock: Superblock) -> tuple[int, bytes]:
    """Return (offset, bytes) of the slot whose turn it is: generations alternate between the two."""
    slot = superblock.generation % SLOT_COUNT
    return slot * superblock.block_bytes, replace(superblock, slot=slot, address=slot).encode()


def backup_images(superblock: Superblock, geometry: Geometry) -> list[tuple[int, bytes]]:
    """Return (offset, bytes) of every backup."""
    return [
        (place * superblock.block_bytes, replace(superblock, slot=SLOT_COUNT + number, address=place).encode())
        for number, place in enumerate(geometry.backups)
    ]
