"""Resizing: check, plan, carry out in an overlay, check the result, write it as a repair is written.

Invariants: an image whose structures are not sound is not touched; the result is only written if the check finds it sound and it
holds the same files, item by item. A record that was damaged is damaged at its new place as well; all others that have moved are
read there, before anything that could take it back goes.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import crc32c

from razortools.check.compact.layout import Measured, measure
from razortools.check.compact.sameness import difference
from razortools.check.findings import Severity
from razortools.check.image import Image
from razortools.check.remember import note_in
from razortools.check.repair.surveying import believed, recovered
from razortools.check.resize.geometry import smallest_block_count
from razortools.check.resize.plan import Plan, are_free, make_plan, new_places
from razortools.check.resize.write import carry_out
from razortools.check.runner import Options, check_quietly
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.errors import CorruptImage, DeviceFailed, OutOfSpace, UsageError
from razortools.format.admin import Action, entry
from razortools.format.geometry import judge_block_count
from razortools.format.items import owned_record
from razortools.units import BlockNo, format_size, plural

STRUCTURES = Options(only=frozenset(range(1, 7)), threads=1)  # all phases but those that read contents

Write = Callable[[OverlayDevice], None]  # makes the image what the overlay shows


@dataclass(frozen=True, slots=True)
class Resized:
    """What a resizing came to."""

    bytes_before: int
    bytes_after: int
    moved_bytes: int  # of contents
    nodes_written: int


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction, in an overlay over the image as the step before leaves it."""

    plan: Plan
    overlay: OverlayDevice
    after: Measured


def resize(device: Device, size_bytes: int, write: Write, now_ns: int) -> Resized:
    """Give the filesystem on *device*, which is at rest, another size; *write* writes the result.

    *now_ns*: the time that the admin history tells.

    Raises CorruptImage if it is not sound, UsageError if what it holds does not fit (which says how small it can get), and what
    *write* raises.
    """
    before = judged(device)
    block_bytes = before.image.block_bytes
    bytes_before = before.image.geometry.block_count * block_bytes
    block_count = size_bytes // block_bytes
    if block_count == before.image.geometry.block_count:
        return Resized(bytes_before, bytes_before, 0, 0)
    judge_block_count(block_count, block_bytes)
    if block_count < smallest_block_count(before.image.superblock):
        raise _does_not_fit(before, block_count, "its journal and the places before it cannot move")
    try:
        steps = carried_out(before, block_count)
    except OutOfSpace as refused:
        raise _does_not_fit(before, block_count, str(refused)) from None
    noted = entry(Action.RESIZE, now_ns, detail=block_count * block_bytes)
    note_in(steps[-1].overlay, noted)
    for step in steps:
        _judge_result(before, step.after, step.overlay)
    _write(steps[0], write, device)
    if len(steps) > 1:
        # The second one shows what it moves where the first one has it from, and that place may have been overwritten by now. So
        # it is made anew, of what lies on the device.
        steps[1] = _step(judged(device), block_count, ())
        note_in(steps[1].overlay, noted)
        _judge_result(before, steps[1].after, steps[1].overlay)
        _write(steps[1], write, device)
    moved_bytes, nodes = sum(step.plan.moved_bytes for step in steps), sum(step.plan.nodes_written for step in steps)
    return Resized(bytes_before, block_count * block_bytes, moved_bytes, nodes)


def _write(step: Step, write: Write, device: Device) -> None:
    """Write a step. Raises CorruptImage if something that it has moved does not verify any more."""
    plan = step.plan
    old = {key: value for key in plan.moves if (value := plan.measured.tree.get(key)) is not None}
    sound = _verifying(plan.measured.image, old)
    write(step.overlay)
    lost = len(sound - _verifying(replace(step.after.image, device=device), plan.moves))
    if lost:
        raise CorruptImage(
            f"{device.name}: {plural(lost, 'record')} that moved cannot be verified at the new place. Take it back with "
            f"razorfsck --undo {device.name}; if that was no failure of the disk it is a defect of razortools, please report it"
        )


def _verifying(image: Image, items: Mapping[bytes, bytes]) -> set[bytes]:
    """Return the keys of those *items* whose blocks hold what their checksums say."""
    found = set()
    for key, value in items.items():
        with suppress(CorruptImage, DeviceFailed):
            record = owned_record(key, value)
            if record is not None and crc32c.crc32c(image.read_runs(record.runs(image.block_bytes))) == record.crc32c:
                found.add(key)
    return found


def carried_out(before: Measured, block_count: int) -> list[Step]:
    """Return the steps, each in an overlay over the one before: places of new backups are vacated before they become such.

    Raises OutOfSpace.
    """
    steps: list[Step] = []
    places = new_places(before, block_count)
    if not are_free(before, places):
        make_plan(before, block_count)  # not worth beginning otherwise
        # Of all of them, not only of those that are in use: what moves must not go where it would be in the way again.
        steps.append(_step(before, before.image.geometry.block_count, places))
        assert are_free(steps[0].after, places), "what was vacated is in use"
    steps.append(_step(steps[-1].after if steps else before, block_count, ()))
    return steps


def _step(before: Measured, block_count: int, vacated: Collection[BlockNo]) -> Step:
    plan, overlay = make_plan(before, block_count, vacated), OverlayDevice(before.image.device)
    return Step(plan, overlay, carry_out(plan, overlay))


def judged(device: Device) -> Measured:
    """Return the filesystem as it lies on *device*. Raises CorruptImage if its structures are not sound, or if it is in use."""
    report = check_quietly(device, STRUCTURES)
    left = [finding for finding in report.findings if finding.severity > Severity.NOTE]
    facts = believed(device)
    if left or facts is None:
        what = f"{left[0].code}: {left[0].message}" if left else "its superblock cannot be read"
        raise CorruptImage(f"{device.name}: is not sound ({what}); repair it first: razorfsck --repair {device.name}")
    return measure(recovered(facts))


def least_bytes(measured: Measured) -> int:
    """Return the smallest size that the filesystem can get in one go, as far as halving finds it."""
    least = _least(measured, smallest_block_count(measured.image.superblock), measured.image.geometry.block_count)
    return least * measured.image.block_bytes


def least_growth_bytes(measured: Measured) -> int:
    """Return to what size a filesystem can grow that is so full that it cannot do so by a little."""
    low = measured.image.geometry.block_count + 1
    step = 1
    while not _fits(measured, low + step):
        step *= 2
    return _least(measured, low, low + step) * measured.image.block_bytes


def _least(measured: Measured, low: int, high: int) -> int:
    """Return the fewest blocks from *low* on that it can have; *high* will do."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(measured, middle) else (middle + 1, high)
    return high


def _fits(measured: Measured, block_count: int) -> bool:
    try:
        carried_out(measured, block_count)
    except OutOfSpace:
        return False
    return True


def _does_not_fit(before: Measured, block_count: int, reason: str) -> UsageError:
    name, block_bytes = before.image.device.name, before.image.block_bytes
    if block_count > before.image.geometry.block_count:
        size = least_growth_bytes(before)
        return UsageError(
            f"{name}: is so full that it cannot grow by so little: {reason}. It can grow to {size} bytes ({format_size(size)}) "
            f"and more"
        )
    least = least_bytes(before)
    return UsageError(
        f"{name}: what it holds does not fit into {format_size(block_count * block_bytes)}: {reason}. It can get as small as "
        f"{least} bytes ({format_size(least)}); deleting files, then razorfsck --compact, makes that less"
    )


def _judge_result(before: Measured, after: Measured, overlay: OverlayDevice) -> None:
    """Raise CorruptImage if the result is not sound or holds anything else."""
    left = [finding for finding in check_quietly(overlay, STRUCTURES).findings if finding.severity > Severity.NOTE]
    wrong = f"{left[0].code}, {left[0].message}" if left else difference(before.tree, after.tree)
    if wrong:
        raise CorruptImage(
            f"{overlay.name}: the result would not be right: {wrong}. Nothing was changed; that is a defect of razortools, "
            f"please report it"
        )
