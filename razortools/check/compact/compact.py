"""Compaction: check, then step by step plan, carry out in an overlay, check the result, write it as a repair is written.

A step only uses what is free, and frees what it gives up; so on a full image one step makes room for the next. Steps end when
there is nothing left to gain, or no room to gain it in. Invariants: an image that is not clean is not touched; a step is only
written if all eight phases find its result clean, if it holds the same files item by item, and if it takes no more room.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

from razortools.check import problems
from razortools.check.compact.layout import Layout, Measured, measure
from razortools.check.compact.plan import Limits, Plan, make_plan
from razortools.check.compact.sameness import difference
from razortools.check.compact.write import carry_out
from razortools.check.findings import Finding, Severity
from razortools.check.image import Image
from razortools.check.repair.bench import Bench
from razortools.check.repair.edits import Edit, Verb
from razortools.check.repair.journal import scanned
from razortools.check.repair.surveying import believed, recovered
from razortools.check.report import Report
from razortools.check.runner import Options, Step, check
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.errors import CorruptImage, OutOfSpace
from razortools.units import plural

STEPS_MAX = 16  # a full image that is much broken up gets the rest from the next run
SHARES = (1, 4, 16, 64, 256, 1024)  # where not everything fits at once, a part of it is tried

_FRAME = Edit(verb=Verb.FRAME, code=problems.REPLAY_PENDING.code, why="replay what waits in the journal")

Write = Callable[[OverlayDevice], str]  # makes the image what the overlay shows; returns the name of the undo file


@dataclass(frozen=True, slots=True)
class StepPlanned:
    """A step is planned, and its result will be checked."""

    number: int
    sentence: str


@dataclass(slots=True)
class Compacted:
    """What a compaction came to."""

    before: Report
    after: Report
    refused: str = ""  # why nothing, or nothing more, was done
    layout_before: Layout | None = None
    layout_after: Layout | None = None
    step_count: int = 0  # that were written
    undo_path: str = ""  # of the last of them
    moved_bytes: int = 0
    strings_dropped: int = 0
    fragments_left: int = 0  # for want of room
    nodes_left: int = 0
    is_cut_short: bool = False  # there is more to do: the steps of one run are used up, or a signal came

    def report(self) -> Report:
        """Return the report of the whole run."""
        findings = self.before.findings
        if self.strings_dropped:
            findings = tuple(replace(one, repaired=_is_dropped(one)) for one in findings)
        return replace(
            self.before, findings=findings, summary=self.after.summary, is_modified=bool(self.step_count),
            is_refused=bool(self.refused) and self.before.worst is not Severity.FATAL,
        )  # fmt: skip

    def as_json(self) -> dict[str, object]:
        """Return what --json tells under "compaction"."""
        return {
            "done": bool(self.step_count),
            "refused": self.refused or None,
            "before": self.layout_before.as_json() if self.layout_before else None,
            "after": self.layout_after.as_json() if self.layout_after else None,
            "freed_bytes": self.freed_bytes,
            "strings_dropped": self.strings_dropped,
            "moved_bytes": self.moved_bytes,
            "left": {"fragments": self.fragments_left, "nodes": self.nodes_left, "cut_short": self.is_cut_short},
            "steps": self.step_count,
            "undo_file": self.undo_path or None,
        }

    @property
    def freed_bytes(self) -> int:
        """Bytes of the image that are free now and were not before."""
        if self.layout_before is None or self.layout_after is None:
            return 0
        return self.layout_before.used_bytes - self.layout_after.used_bytes


CompactionSteps = Generator[Step | StepPlanned, None, Compacted]


def compact(device: Device, options: Options, write: Write, is_to_stop: Callable[[], bool] = lambda: False) -> CompactionSteps:
    """Compact the image on *device*; each step is written by *write*. Raises what that raises, and RazorErrors of reading."""
    before = yield from check(device, options)
    done = Compacted(before, before)
    done.refused = _objection(before)
    if done.refused:
        return done
    done.layout_before = done.layout_after = measure(_seen(device)).layout()
    for number in range(1, STEPS_MAX + 2):
        made = _replayed(device) or _step(device, done)
        if made is None:
            return done
        if number > STEPS_MAX or is_to_stop():
            done.is_cut_short = True
            return done
        yield StepPlanned(number, made.sentence)
        report = yield from check(made.overlay, options)
        done.refused = _wrong(made, report) or _grown(made, done.layout_after)
        if done.refused:
            return done
        done.undo_path = write(made.overlay)
        done.step_count += 1
        done.after, done.layout_after = report, made.layout
        if made.plan is not None:
            done.moved_bytes += made.plan.moved_bytes
            done.strings_dropped += made.plan.strings.dropped_count
    raise AssertionError


@dataclass(slots=True)
class _Made:
    """One step in an overlay."""

    overlay: OverlayDevice
    before: Measured
    after: Measured
    layout: Layout  # after it
    plan: Plan | None
    sentence: str


def _objection(report: Report) -> str:
    """Return why the image may not be touched; empty: it may."""
    left = [finding for finding in report.left if finding.severity > Severity.NOTE and not _is_dropped(finding)]
    if report.worst is Severity.FATAL:
        return "it cannot be checked"
    if left:
        return f"it is not clean ({left[0].code} and what else is listed); repair it first: razorfsck --repair {report.image}"
    if any(finding.code == problems.UNKNOWN_READ_ONLY_FEATURE.code for finding in report.findings):
        return "it uses features that this razorfsck does not know, so it may only be read; use newer razortools"
    return ""


def _is_dropped(finding: Finding) -> bool:
    """Return whether compacting is the cure of this finding."""
    return problems.UNUSED_NAME.code in (finding.code, finding.values.get("code"))  # itself, or as what is not listed


def _seen(device: Device) -> Image:
    """Return the image as the next mount will see it."""
    facts = believed(device)
    if facts is None:
        raise CorruptImage(f"{device.name}: its superblock cannot be read any more; run razorfsck")
    return recovered(facts)


def _replayed(device: Device) -> _Made | None:
    """Replay what waits in the journal; None: nothing does. It is a step of its own, for a plan needs a tree that lies still."""
    facts = believed(device)
    if facts is None or not scanned(facts.image).transactions:
        return None
    overlay = OverlayDevice(device)
    before = measure(_seen(device))
    Bench(overlay).apply((_FRAME,))
    after = measure(_seen(overlay))
    return _Made(overlay, before, after, after.layout(), None, "replay what waits in the journal")


def _step(device: Device, done: Compacted) -> _Made | None:
    """Make one step; None: nothing is left to gain, or there is no room for it."""
    before = measure(_seen(device))
    whole = make_plan(before)
    for share in SHARES:
        plan = whole if share == 1 else make_plan(before, _part(whole, share))
        if not plan.is_worth_it:
            break
        overlay = OverlayDevice(device)
        try:
            after = measure(carry_out(plan, overlay))
        except OutOfSpace:
            continue
        return _Made(overlay, before, after, after.layout(), plan, in_words(plan))
    done.fragments_left = whole.fragments_left + whole.fragments_joined
    done.nodes_left = max(whole.nodes_saved, 0)
    return None


def _part(whole: Plan, share: int) -> Limits:
    """Return the limits of a step that does a part of what *whole* does, or of what there is room for."""
    image = whole.measured.image
    moved = whole.moved_bytes // image.block_bytes // share
    leaves = sum(len(section.packed) for section in whole.sections)
    return Limits(moved, leaves // share, drops_strings=False)


def _wrong(made: _Made, report: Report) -> str:
    """Return what is wrong with a step's result; empty: nothing."""
    wrong = _difference(made, report)
    return f"the result would not be right: {wrong}; that is a defect of razorfsck, please report it" if wrong else ""


def _difference(made: _Made, report: Report) -> str:
    left = [finding for finding in report.left if finding.severity > Severity.NOTE]
    if made.plan is None:
        left = [finding for finding in left if not _is_dropped(finding)]
    if left:
        return f"{left[0].code}, {left[0].message}"
    changed = difference(made.before.tree, made.after.tree)
    return f"{changed} would not be what it is" if changed else ""


def _grown(made: _Made, before: Layout | None) -> str:
    """Return why a step that takes more room is not made; empty: it does not. A replay makes nodes, as every mount does."""
    if made.plan is None or before is None or made.layout.used_bytes <= before.used_bytes:
        return ""
    return (
        "it would take more room than before. A rebuild that had no room for two copies has left nodes with one, and what is "
        "written gets both"
    )


def in_words(plan: Plan) -> str:
    """Return what a step does."""
    parts = []
    if plan.fragments_joined:
        parts.append(f"join {plural(plan.fragments_joined, 'fragment')}")
    if plan.strings.dropped_count:
        parts.append(f"drop {plural(plan.strings.dropped_count, 'string')}")
    if plan.nodes_saved > 0:
        parts.append(f"save {plural(plan.nodes_saved, 'node')}")
    return ", ".join(parts)
