"""Phase 1: the superblocks. Verifies both slots, the backups and the layout they describe; hands on the one to believe.

A superblock is believed if its checksum holds and its layout is possible; of several of one filesystem the highest generation
wins. Which filesystem that is, if rests of an older one are there, is decided as a mount does (engine/store/superblocks.py). If
nothing can be believed, or the image is truncated, newer or foreign, the finding is fatal and there are no facts.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from razortools.check import problems
from razortools.check.facts import SuperblockFacts
from razortools.check.findings import Event, Finding, Progress
from razortools.check.image import Image
from razortools.check.size_before import ALL_BUT_PLACE, FIXED_FOR_EVER, is_backup_from_before, is_mark_of_resizing
from razortools.check.superblock_rules import field_faults
from razortools.engine.store.admin import keeps_history
from razortools.engine.store.device import Device
from razortools.engine.store.superblocks import backup_guesses, is_backup, of_one_filesystem
from razortools.errors import CorruptImage, DeviceFailed, UsageError
from razortools.format.admin import history_fault
from razortools.format.geometry import geometry_of
from razortools.format.layout import COUNT_MAX, layout_fault
from razortools.format.superblock import (
    BLOCK_BYTES_CHOICES,
    KNOWN_INCOMPAT,
    KNOWN_READ_ONLY_COMPAT,
    MAGIC,
    SLOT_COUNT,
    SUPERBLOCK_BYTES,
    VERSION_MAJOR,
    State,
    Superblock,
)
from razortools.units import BlockNo, format_size, plural


@dataclass(frozen=True, slots=True)
class Copy:
    """What lies where a superblock may lie. *superblock* None: *reason* says why it is not valid."""

    block: BlockNo
    raw: bytes
    superblock: Superblock | None
    reason: str

    @property
    def has_magic(self) -> bool:
        """Whether it started as a superblock does, of any version."""
        return self.raw[: len(MAGIC) - 1] == MAGIC[:-1]

    @property
    def is_blank(self) -> bool:
        """Whether nothing was ever written here."""
        return self.raw.count(0) == len(self.raw)


def check(
    device: Device, backup_block: int | None = None, *, copies_rest: bool = True
) -> Generator[Event, None, SuperblockFacts | None]:
    """Judge the superblocks; *backup_block* names the backup to believe instead of searching.

    Not *copies_rest*: somebody may be writing the next superblock, so of all copies only the one that is believed is judged.
    Raises UsageError if there is no superblock: that says nothing about the image.
    """
    judge_backup(device, backup_block)
    yield Progress(0, 1)
    if device.size_bytes < SLOT_COUNT * SUPERBLOCK_BYTES:
        yield problems.NOT_AN_IMAGE.found()
        return None
    slots = _slots(device)
    usable = [copy for copy in slots if copy.superblock and not layout_fault(copy.superblock)]
    if backup_block is not None:
        chosen = next(iter(_backups_at(device, [backup_block])), None)
    else:
        # A backup counts like a slot, as for a mount: written after each checkpoint, it may be all that is left of the last.
        chosen = max(_of_one(usable + _search_backups(device, usable)), key=_rank, default=None)
    if chosen is None or chosen.superblock is None:
        yield from _nothing_usable(slots)
        return None
    truth = chosen.superblock
    fatal = list(_fatal(device, truth))
    yield from fatal
    if fatal:
        return None
    if copies_rest:
        yield from _judge_slots(slots, truth)
        if not usable and backup_block is None:
            yield problems.BACKUP_USED.found(block=chosen.block)
            yield from _of_others(device, truth)
    yield from _judge_truth(device, chosen, truth)
    other = next((copy.superblock for copy in slots if copy.superblock and copy.superblock.slot != truth.slot), None)
    if copies_rest:
        yield from _judge_backups(device, truth, other)
    else:
        yield problems.COPIES_NOT_JUDGED.found(where="superblock")
    yield Progress(1, 1)
    return SuperblockFacts(Image(device, truth, geometry_of(truth)), other)


def judge_backup(device: Device, block: int | None) -> None:
    """Raise UsageError if *block* is not None and holds no superblock to believe; say which blocks do."""
    if block is None or any(_backups_at(device, [block])):
        return
    usable = [copy for copy in _slots(device) if copy.superblock and not layout_fault(copy.superblock)]
    blocks = sorted({copy.block for copy in (_search_backups(device, usable) if usable else _guessed_backups(device))})
    hint = f"backups lie in the blocks {', '.join(map(str, blocks))}" if blocks else "no block was found that holds one"
    raise UsageError(f"-b: block {block} of {device.name} holds no superblock; {hint}")


def all_copies(device: Device) -> list[Copy]:
    """Return every copy that verifies and describes a possible layout, slots first; without a slot, of one filesystem only."""
    usable = [copy for copy in _slots(device) if copy.superblock and not layout_fault(copy.superblock)]
    return usable + _search_backups(device, usable)


def _rank(copy: Copy) -> tuple[bool, int, int]:
    """Return how far a copy is to be believed. One whose generation no image can have come to comes last."""
    assert copy.superblock is not None
    generation = copy.superblock.generation
    return generation <= COUNT_MAX, generation, -copy.superblock.slot


def _read(device: Device, block: int, block_bytes: int) -> Copy:
    """Return what lies in *block*; of a superblock the rest of the block too. Never raises for damage."""
    place = BlockNo(block)
    try:
        raw = device.read(block * block_bytes, min(SUPERBLOCK_BYTES, device.size_bytes - block * block_bytes))
        found = Superblock.decode(raw)
    except DeviceFailed as failed:
        return Copy(place, b"", None, str(failed))
    except CorruptImage as broken:
        return Copy(place, raw, None, str(broken))
    if found.block_bytes != block_bytes or found.address != block:
        return Copy(place, raw, None, f"it says that it lies at block {found.address} of {found.block_bytes} bytes each")
    rest = block_bytes - SUPERBLOCK_BYTES
    if rest:
        try:
            raw += device.read(block * block_bytes + SUPERBLOCK_BYTES, rest)
        except DeviceFailed as failed:
            return Copy(place, raw, None, str(failed))
    return Copy(place, raw, found, "")


def _slots(device: Device) -> list[Copy]:
    """Return both slots. Where the second lies depends on the block size, which either slot may tell."""
    firsts = [_read(device, 0, size) for size in BLOCK_BYTES_CHOICES]
    valid = next((copy for copy in firsts if copy.superblock), None)
    if valid is not None and valid.superblock is not None:
        return [valid, _read(device, 1, valid.superblock.block_bytes)]
    seconds = [_read(device, 1, size) for size in BLOCK_BYTES_CHOICES if 2 * size <= device.size_bytes]
    second = next((copy for copy in seconds if copy.superblock), seconds[0])
    first = firsts[0]
    if second.superblock is not None:
        first = firsts[BLOCK_BYTES_CHOICES.index(second.superblock.block_bytes)]
    return [first, second]


def _search_backups(device: Device, usable: list[Copy]) -> list[Copy]:
    """Return the valid backups where *usable* slots say that they lie; without one, those of the filesystem to believe."""
    for copy in usable:
        if copy.superblock is not None:
            size, blocks = copy.superblock.block_bytes, geometry_of(copy.superblock).backups
            found = [_read(device, place, size) for place in blocks if (place + 1) * size <= device.size_bytes]
            return [copy for copy in found if copy.superblock and not layout_fault(copy.superblock)]
    return _of_one(_guessed_backups(device))


def _guessed_backups(device: Device) -> list[Copy]:
    """Return the valid backups wherever they may lie, of any filesystem."""
    blocks = [offset // SUPERBLOCK_BYTES for offset in sorted(backup_guesses(device.size_bytes))]
    found = list(_backups_at(device, blocks, unit_bytes=SUPERBLOCK_BYTES))
    return [copy for copy in found if copy.superblock and is_backup(copy.superblock)]


def _of_one(copies: list[Copy]) -> list[Copy]:
    """Return the *copies*, all valid, of the filesystem that is to be believed."""
    believed = of_one_filesystem([copy.superblock for copy in copies if copy.superblock])
    return [copy for copy in copies if copy.superblock in believed]


def _of_others(device: Device, truth: Superblock) -> Iterator[Finding]:
    """Yield the backups of other filesystems than the one that *truth* is of."""
    found = [copy.superblock for copy in _guessed_backups(device) if copy.superblock]
    ours = of_one_filesystem(found)
    for other in found:
        if other not in ours:
            place = other.address * other.block_bytes
            yield problems.OTHER_FILESYSTEM.found(
                where=f"byte {place}", place=place, unit=other.block_bytes, other=other.uuid.hex(), uuid=truth.uuid.hex()
            )


def _backups_at(device: Device, blocks: list[int], unit_bytes: int = 0) -> Iterator[Copy]:
    """Yield the valid, usable backups at *blocks*, counted in *unit_bytes*; 0: in blocks of any size."""
    for block in blocks:
        for size in BLOCK_BYTES_CHOICES:
            offset = block * (unit_bytes or size)
            if offset % size or offset + SUPERBLOCK_BYTES > device.size_bytes:
                continue
            copy = _read(device, offset // size, size)
            if copy.superblock and not layout_fault(copy.superblock):
                yield copy


def _nothing_usable(slots: list[Copy]) -> Iterator[Finding]:
    """Say why there is no superblock to believe."""
    versions = {copy.raw[len(MAGIC) - 1] for copy in slots if copy.has_magic}
    if not versions:
        yield problems.NOT_AN_IMAGE.found()
    elif len(versions) == 1 and min(versions) > VERSION_MAJOR and all(copy.has_magic or copy.is_blank for copy in slots):
        yield problems.NEWER_VERSION.found(version=min(versions), known=VERSION_MAJOR)
    else:
        for copy in slots:
            reason = copy.reason or (layout_fault(copy.superblock) if copy.superblock else "")
            yield problems.SUPERBLOCK_DAMAGED.found(block=copy.block, reason=reason)
        yield problems.NO_SUPERBLOCK.found()


def _fatal(device: Device, truth: Superblock) -> Iterator[Finding]:
    """Yield what forbids to go on."""
    wanted = truth.block_count * truth.block_bytes
    if truth.version_major > VERSION_MAJOR:
        yield problems.NEWER_VERSION.found(version=truth.version_major, known=VERSION_MAJOR)
    elif truth.incompat & ~KNOWN_INCOMPAT:
        yield problems.UNKNOWN_FEATURE.found(bits=truth.incompat & ~KNOWN_INCOMPAT)
    elif device.size_bytes < wanted:
        yield problems.TRUNCATED.found(expected=wanted, found=device.size_bytes)


def _judge_slots(slots: list[Copy], truth: Superblock) -> Iterator[Finding]:
    """Yield what is wrong with the slots themselves, and where they disagree with the truth."""
    for copy in slots:
        found = copy.superblock
        if found is None:
            if not (copy.is_blank and truth.generation <= 1):  # the first checkpoint of all writes one slot only
                yield problems.SUPERBLOCK_DAMAGED.found(block=copy.block, reason=copy.reason)
            continue
        if layout_fault(found):
            yield problems.GEOMETRY_WRONG.found(block=copy.block, reason=layout_fault(found))
            continue
        if found.slot != copy.block:
            yield _field(copy, "slot", found.slot, copy.block)
        if copy.raw[SUPERBLOCK_BYTES:].strip(b"\0"):
            yield _field(copy, "rest of its block", "not zero", "zeros")
        if found.generation % SLOT_COUNT != copy.block:  # they are written in turn
            yield _field(copy, "generation", found.generation, "an odd number" if copy.block else "an even number")
        elif found is not truth and found.generation not in (truth.generation, truth.generation - 1):
            yield _field(copy, "generation", found.generation, truth.generation - 1)
        if found is not truth:
            yield from (_field(copy, *fault) for fault in field_faults(found))
        yield from _disagreements(copy, found, truth)


def _disagreements(copy: Copy, found: Superblock, truth: Superblock) -> Iterator[Finding]:
    """Yield what a slot says differently of what never changes."""
    if is_mark_of_resizing(found, truth):
        yield problems.RESIZED.found(block=copy.block, blocks=found.block_count)
        return
    for name in FIXED_FOR_EVER:
        if getattr(found, name) != getattr(truth, name):
            yield problems.SLOTS_DISAGREE.found(block=copy.block, field=name.replace("_", " "))


def _judge_truth(device: Device, chosen: Copy, truth: Superblock) -> Iterator[Finding]:
    """Yield what is wrong with the fields of the superblock that is believed."""
    yield from (_field(chosen, *fault) for fault in field_faults(truth))
    unknown = truth.read_only_compat & ~KNOWN_READ_ONLY_COMPAT
    if unknown:
        yield problems.UNKNOWN_READ_ONLY_FEATURE.found(bits=unknown)
    fault = history_fault(truth.admin_history) if keeps_history(truth) else ""
    if fault:
        yield problems.ADMIN_HISTORY.found(block=chosen.block, fault=fault)
    if truth.state == State.ERRORS or truth.error_count:
        met = f"mounts have met {plural(truth.error_count, 'error')}" if truth.error_count else "a repair has left problems"
        yield problems.ERRORS_RECORDED.found(block=chosen.block, errors=truth.error_count, reason=met)
    spare = device.size_bytes - truth.block_count * truth.block_bytes
    if spare >= truth.block_bytes:
        yield problems.DEVICE_LARGER.found(spare=format_size(spare))


def _judge_backups(device: Device, truth: Superblock, other: Superblock | None) -> Iterator[Finding]:
    """Yield what is wrong with the backups. They may be older than the truth, but not of another image."""
    for number, place in enumerate(geometry_of(truth).backups):
        copy = _read(device, place, truth.block_bytes)
        found = copy.superblock
        if found is None:
            yield problems.BACKUP_DAMAGED.found(block=place, reason=copy.reason)
            continue
        if is_backup_from_before(found, truth, other):
            yield problems.RESIZED.found(block=place, blocks=found.block_count)
            continue
        # A backup is written right after its slot, so one of the same generation is the same in every field.
        names = ALL_BUT_PLACE if found.generation == truth.generation else FIXED_FOR_EVER
        for name in names:
            if getattr(found, name) != getattr(truth, name):
                yield problems.BACKUP_FOREIGN.found(block=place, field=name.replace("_", " "))
        if found.slot != SLOT_COUNT + number:
            yield problems.BACKUP_FOREIGN.found(block=place, field="its number")
        if found.generation > truth.generation:
            yield problems.BACKUP_FOREIGN.found(block=place, field=f"the generation ({found.generation}, {truth.generation})")
        if copy.raw[SUPERBLOCK_BYTES:].strip(b"\0"):
            yield problems.BACKUP_DAMAGED.found(block=place, reason="the rest of its block is not zero")
        if found.reserved.strip(b"\0") or (not keeps_history(found) and found.admin_history.strip(b"\0")):
            yield problems.BACKUP_DAMAGED.found(block=place, reason="its reserved bytes are not zero")


def _field(copy: Copy, field: str, value: object, expected: object) -> Finding:
    return problems.SUPERBLOCK_FIELD.found(block=copy.block, field=field, value=value, expected=expected)
