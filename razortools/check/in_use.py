"""A look at an image that is mounted: through its last checkpoint, while the mount goes on writing.

Only what is damaged may be reported, never what has merely moved. A witness tells the one from the other (check/witness.py). The
frame is the part that every checkpoint writes anew in place: superblocks and space maps. It is copied into memory at a moment
when no checkpoint was on its way, so all phases judge one state. What the checkpoint names besides is read where it lies. It is
judged against checksums that go back to the frame, so whatever verifies is what it was; and what does not verify counts only if
the checkpoint still stood after it was read. Otherwise the look begins anew from the next checkpoint, a few times.

Invariants: nothing is written; a finding is told only after it was confirmed; what could not be confirmed is said to be so.
"""

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from razortools.check import problems
from razortools.check.image import Image
from razortools.check.map_rules import map_pages
from razortools.check.report import Report, Summary
from razortools.check.runner import Live, MovedOn, Options, Step, check
from razortools.check.superblock_pass import all_copies
from razortools.check.witness import Witness
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.errors import DeviceFailed
from razortools.format.geometry import Geometry, geometry_of
from razortools.format.superblock import SLOT_COUNT

LOOKS = 3
SETTLE_TRIES = 10  # it takes a millisecond or so to copy the frame, and a checkpoint takes longer
MAP_PAGES_MAX = 16_384  # copied at most: 64 MiB, the map of 2 TiB in use


@dataclass(frozen=True, slots=True)
class LookBegins:
    """A look at a checkpoint begins. *refusal*: why the mount does not hold it; empty: it does."""

    number: int  # of the look: above 1, the image has moved on under the one before
    generation: int
    refusal: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The image with its frame as it was at one moment."""

    device: Device
    generation: int
    has_map: bool  # the space map is among what was copied


LookStep = Step | LookBegins


def look(device: Device, witnesses: Callable[[], Witness], options: Options) -> Generator[LookStep, None, Report]:
    """Check the image on *device* while somebody writes to it; *witnesses* finds who knows of that, anew for each look."""
    unconfirmed: Report | None = None
    for number in range(1, LOOKS + 1):
        witness = witnesses()
        try:
            frame = freeze(device, witness)
            if frame is None:
                continue
            yield LookBegins(number, frame.generation, witness.refusal)
            live = Live(witness, has_map=frame.has_map)
            report = yield from _kept(check(frame.device, options, live), witness)
            return replace(report, in_use=_words(frame, witness, number))
        except MovedOn as moved:
            unconfirmed = replace(moved.report, in_use=_words(frame, witness, LOOKS))
        finally:
            witness.close()
    left = unconfirmed or Report(device.name, (), (), Summary(), in_use=_words(None, witness, LOOKS))
    return replace(left, findings=(*left.findings, problems.MOVED_ON.found(count=LOOKS)))


def _words(frame: Frame | None, witness: Witness, looks: int) -> dict[str, object]:
    """Return what the document tells of a look."""
    return {"generation": frame.generation if frame else None, "held": not witness.refusal, "looks": looks}


def _kept(steps: Generator[Step, None, Report], witness: Witness) -> Generator[Step, None, Report]:
    """Run a check, and let the witness know that it goes on."""
    try:
        while True:
            step = next(steps)
            witness.keep()
            yield step
    except StopIteration as done:
        report: Report = done.value
        return report
    finally:
        steps.close()


def freeze(device: Device, witness: Witness) -> Frame | None:
    """Return the image with its frame copied while no checkpoint was written; None if there never was such a moment."""
    known = next((copy.superblock for copy in all_copies(device) if copy.superblock), None)
    if known is None:
        return Frame(OverlayDevice(device), 0, has_map=False)
    geometry = geometry_of(known)  # which nothing changes
    for _ in range(SETTLE_TRIES):
        if not witness.settle():
            return None
        frame = _copied(device, geometry)
        if not witness.has_written():
            return frame
    return None


def _copied(device: Device, geometry: Geometry) -> Frame:
    """Return an overlay that holds the superblocks and the space map that is the truth, as they are read now."""
    overlay = OverlayDevice(device)
    block_bytes = geometry.block_bytes
    for block in (*range(SLOT_COUNT), *geometry.backups):
        _keep(overlay, block * block_bytes, block_bytes)
    copies = [copy.superblock for copy in all_copies(overlay) if copy.superblock]
    truth = max(copies, key=lambda superblock: superblock.generation, default=None)
    if truth is None:
        return Frame(overlay, 0, has_map=False)
    kept = 0
    for page in islice(map_pages(Image(overlay, truth, geometry), truth.spacemap_active & 1, truth.spacemap_top), MAP_PAGES_MAX):
        if page.raw is None:
            _keep(overlay, page.block * block_bytes, block_bytes)
        else:
            overlay.write(page.block * block_bytes, page.raw)
        kept += 1
    overlay.read_only = True
    return Frame(overlay, truth.generation, has_map=kept < MAP_PAGES_MAX)


def _keep(overlay: OverlayDevice, offset: int, length: int) -> None:
    """Have the overlay remember what a range holds; what cannot be read now cannot be read later."""
    with suppress(DeviceFailed):
        overlay.write(offset, overlay.read(offset, length))
