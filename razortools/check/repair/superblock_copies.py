"""The copies of the superblock: which of them is right where they disagree, and writing all of them.

What never changes must be the same in all copies; a backup is written right after its slot, so of one generation all copies say
the same. Where they do not, the majority is asked, and each answer is tried out: the one under which a check finds the most files
and the fewest problems is believed.

Invariant: a number of files or problems never decides between states of different age, for that would forget what was safe. The
newest state whose root can be read is the truth. Only a generation that cannot have come about (the copy tells of fewer
transactions than copies that call themselves older and confirm one another) makes a copy old.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from razortools.check.bitflip import mend_sealed
from razortools.check.image import Image
from razortools.check.runner import Options, check_quietly
from razortools.check.size_before import ALL_BUT_PLACE, FIXED_FOR_EVER
from razortools.check.superblock_pass import all_copies
from razortools.check.tree import read_node
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.superblocks import backup_guesses, backup_images, slot_image
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.geometry import geometry_of
from razortools.format.layout import COUNT_MAX, layout_fault
from razortools.format.node import NodeHeader
from razortools.format.superblock import BLOCK_BYTES_CHOICES, MAGIC, SLOT_COUNT, SUPERBLOCK_BYTES, Superblock

WRONG_FIELDS_MAX = 2  # of a superblock that is taken for ours all the same
NODE_STARTS_AT = NodeHeader.skipped_bytes()  # behind magic and checksum
TRIED_PHASES = frozenset((2, 3, 4, 5))


def settle(device: Device, truth: Superblock) -> None:
    """Let every copy of the superblock say what *truth* says."""
    before = replace(truth, generation=max(truth.generation - 1, 0))
    for offset, data in (slot_image(before), slot_image(truth), *backup_images(truth, geometry_of(truth))):
        device.write(offset, data.ljust(truth.block_bytes, b"\0"))


def elected(device: Device, truth: Superblock) -> Superblock:
    """Return the superblock to believe: *truth*, or what other copies say instead of it."""
    copies = all_copies_of(device)
    told = [*_disguised(device, truth), *_candidates(copies, truth, device.size_bytes)]
    candidates = _of_the_newest_state(device, copies, list(dict.fromkeys([*told, *_by_the_root(device, truth)])))
    best = min(candidates, key=lambda one: _badness_under(device, one)) if len(candidates) > 1 else next(iter(candidates), truth)
    return _of_a_sane_generation(copies, best)


def _of_a_sane_generation(copies: Sequence[Superblock], superblock: Superblock) -> Superblock:
    """Return *superblock*; if no image can have come to its generation, with the one that follows on the others."""
    if superblock.generation <= COUNT_MAX:
        return superblock
    told = [copy.generation for copy in copies] + [superblock.root.generation]
    return replace(superblock, generation=max((number for number in told if number <= COUNT_MAX), default=0) + 1)


def rolls_back(device: Device, truth: Superblock, generation: int) -> bool:
    """Return whether to believe another root, of *generation*, instead of *truth* forgets something."""
    return generation < truth.generation and not _tells_a_lie(all_copies_of(device), truth)


def _of_the_newest_state(device: Device, copies: Sequence[Superblock], candidates: list[Superblock]) -> list[Superblock]:
    """Return those of the *candidates* that tell of the newest state that can be read; all if none can."""
    readable = [candidate for candidate in candidates if _root_is_readable(device, candidate)]
    if not readable:
        return candidates
    newest = max(readable, key=lambda candidate: (not _tells_a_lie(copies, candidate), candidate.generation))
    return [one for one in candidates if one.generation == newest.generation or one.root == newest.root]


def _root_is_readable(device: Device, candidate: Superblock) -> bool:
    return read_node(Image(device, candidate, geometry_of(candidate)), candidate.root).raw is not None


def _tells_a_lie(copies: Sequence[Superblock], superblock: Superblock) -> bool:
    """Return whether the generation of *superblock* cannot be: two or more others, alike and older, tell of more transactions."""
    if sum(copy.generation == superblock.generation for copy in copies) > 1:
        return False  # another copy confirms it
    later = Counter(
        (copy.generation, copy.root)
        for copy in copies
        if copy.generation < superblock.generation and copy.transaction > superblock.transaction
    )
    return any(count > 1 for count in later.values())


def mendable(device: Device) -> Iterator[tuple[int, Superblock]]:
    """Yield (place in units of 4 KiB, what it holds) of each copy that verifies once a single bit is turned back."""
    for offset in sorted({0, *BLOCK_BYTES_CHOICES, *backup_guesses(device.size_bytes)}):
        mended = mended_at(device, offset // SUPERBLOCK_BYTES)
        if mended is not None and mended.address * mended.block_bytes == offset and not layout_fault(mended):
            yield offset // SUPERBLOCK_BYTES, mended


def mended_at(device: Device, place: int) -> Superblock | None:
    """Return the superblock at *place* (in units of 4 KiB) with its one wrong bit turned back; None if that is not the case."""
    try:
        raw = device.read(place * SUPERBLOCK_BYTES, SUPERBLOCK_BYTES)
        mended = mend_sealed(raw, MAGIC)
        return None if mended is None or mended == raw else Superblock.decode(mended)
    except (CorruptImage, DeviceFailed):
        return None


def all_copies_of(device: Device) -> list[Superblock]:
    """Return the valid copies, slots first."""
    return [copy.superblock for copy in all_copies(device) if copy.superblock is not None]


def differences(truth: Superblock, other: Superblock) -> list[str]:
    """Return the fields in which two superblocks differ, but for those that tell where a copy lies."""
    return [name for name in ALL_BUT_PLACE if getattr(truth, name) != getattr(other, name)]


def _disguised(device: Device, truth: Superblock) -> Iterator[Superblock]:
    """Yield what is newer than *truth* by one, verifies, and is only unusable because of fields that never change."""
    for place in (0, 1, *geometry_of(truth).backups):
        try:
            raw = device.read(place * truth.block_bytes, SUPERBLOCK_BYTES)
            found = Superblock.decode(MAGIC + raw[len(MAGIC) :])
        except (CorruptImage, DeviceFailed):
            continue
        wrong = [name for name in FIXED_FOR_EVER if getattr(found, name) != getattr(truth, name)]
        if found.generation == truth.generation + 1 and len(wrong) <= WRONG_FIELDS_MAX:
            yield replace(_with_fixed(found, truth), slot=truth.slot, address=truth.address)


def _by_the_root(device: Device, truth: Superblock) -> Iterator[Superblock]:
    """Yield *truth* with the level that its root itself tells, if the root verifies."""
    read = read_node(Image(device, truth, geometry_of(truth)), truth.root)
    level = (
        NodeHeader(*NodeHeader.STRUCT.unpack_from(read.raw, NODE_STARTS_AT)).level if read.raw is not None else truth.root_level
    )
    if level != truth.root_level:
        yield replace(truth, root_level=level)


def _with_fixed(superblock: Superblock, other: Superblock) -> Superblock:
    """Return *superblock* with what *other* says about what never changes."""
    fixed: dict[str, Any] = {name: getattr(other, name) for name in FIXED_FOR_EVER}
    return replace(superblock, **fixed)


def _candidates(copies: Sequence[Superblock], truth: Superblock, size_bytes: int) -> Iterator[Superblock]:
    """Yield what may be the truth, the most trusted first."""
    for believed in _newest_plausible(copies, truth):
        merged = _by_majority(copies, believed)
        for candidate in (merged, believed, *(_with_fixed(believed, copy) for copy in copies)):
            if not layout_fault(candidate) and candidate.block_count * candidate.block_bytes <= size_bytes:
                yield replace(candidate, slot=truth.slot, address=truth.address)


def _newest_plausible(copies: Sequence[Superblock], truth: Superblock) -> Iterator[Superblock]:
    """Yield *truth*; if its generation is not plausible, the next newest before it."""
    if not _is_plausible(copies, truth):
        others = [copy for copy in copies if copy.generation != truth.generation]
        if others:
            yield max(others, key=lambda copy: (copy.generation, -copy.slot))
    yield truth


def _is_plausible(copies: Sequence[Superblock], truth: Superblock) -> bool:
    """Return whether the generation of *truth* can have come about: slots take turns, and backups follow them."""
    if sum(copy.generation == truth.generation for copy in copies) > 1:
        return True  # what is another one's too came about, however old the other slot is
    slots = [copy.generation for copy in copies if copy.slot < SLOT_COUNT]
    if truth.slot >= SLOT_COUNT:
        return len(slots) < SLOT_COUNT or truth.generation <= max(slots) + 1  # the write of its slot may have been lost
    other = [copy.generation for copy in copies if copy.slot == 1 - truth.slot]
    return not other or truth.generation - other[0] in (0, 1)


def _by_majority(copies: Sequence[Superblock], truth: Superblock) -> Superblock:
    """Return *truth* with what most copies say, where they have to say the same."""
    alike = [copy for copy in copies if copy.generation == truth.generation]
    changes: dict[str, Any] = {}
    for name in ALL_BUT_PLACE:
        asked = copies if name in FIXED_FOR_EVER else alike
        (value, votes), *_ = Counter(getattr(copy, name) for copy in asked).most_common(1) or [(getattr(truth, name), 0)]
        mine = sum(getattr(copy, name) == getattr(truth, name) for copy in asked)
        if votes > mine:
            changes[name] = value
    return replace(truth, **changes)


def _badness_under(device: Device, candidate: Superblock) -> tuple[int, int]:
    """Return a pair that is the smaller, the more files a check finds if *candidate* is believed, and then the fewer problems."""
    trial = OverlayDevice(device)
    settle(trial, candidate)
    report = check_quietly(trial, Options(only=TRIED_PHASES, threads=1))
    return -report.summary.files - report.summary.directories, report.problem_count
