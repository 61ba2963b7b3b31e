"""A campaign of repairs: hurt images by seed, a real repair of each, and every power cut inside of it.

Image number n of a campaign follows from the seed plus n alone, so one with a violation is repeated as the first of another.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from razortools.check.repair.repair import Wishes, repair
from razortools.check.runner import Options
from razortools.check.steps import finished
from razortools.debug.crashtest.hurting import Hurt, hurt
from razortools.debug.crashtest.repairs import NothingToMend, RepairDepth, RepairExplorer
from razortools.engine.store.pages import OverlayDevice
from razortools.errors import RazorError

Progress = Callable[["RepairResult"], None]


@dataclass(frozen=True, slots=True)
class RepairViolation:
    """A promise that a repair broke."""

    seed: int
    story: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(slots=True)
class RepairResult:
    """What a campaign found."""

    image_count: int = 0
    repaired_count: int = 0
    state_count: int = 0  # distinct ones of each image
    tried_count: int = 0
    judged_count: int = 0
    seconds: float = 0.0
    violations: list[RepairViolation] = field(default_factory=list)


def mend(overlay: OverlayDevice) -> None:
    """Repair what *overlay* shows as razorfsck does. Raises NothingToMend if nothing is to be kept."""
    done = finished(repair(overlay.base, Wishes(check=Options(threads=1))))
    if not done.changes:
        raise NothingToMend(done.refused)
    overlay.resize(done.overlay.size_bytes)
    for offset, page in done.overlay.written_pages():
        overlay.write(offset, page)


def run_repairs(
    count: int, seed: int, depth: RepairDepth, seconds_max: float | None = None, progress: Progress = lambda result: None
) -> RepairResult:
    """Explore the repairs of *count* images; stop at the first that breaks a promise."""
    result = RepairResult()
    started = time.monotonic()
    for number in range(count):
        _explore(hurt(seed + number), seed + number, depth, result)
        result.seconds = time.monotonic() - started
        progress(result)
        if result.violations or (seconds_max is not None and result.seconds >= seconds_max):
            break
    return result


def _explore(image: Hurt, seed: int, depth: RepairDepth, result: RepairResult) -> None:
    explorer = RepairExplorer(image.image, mend, seed, depth)
    reasons: list[str] = []
    result.image_count += 1
    try:
        result.repaired_count += explorer.explore().is_written
    except RazorError as failed:  # whatever stops a repair is reported
        reasons.append(f"{type(failed).__name__}: {failed}")
    tally = explorer.tally
    result.state_count += len(tally.states)
    result.tried_count += sum(tally.stages.values())
    result.judged_count += tally.judged_count
    reasons += tally.violations
    if reasons:
        result.violations.append(RepairViolation(seed, image.story, tuple(reasons)))
