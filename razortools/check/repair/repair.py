"""Repair: rounds of check, plan and apply on an overlay, until nothing worse than a note is left or a round brings nothing new.

Nothing here writes to the image. Whether the result is worth keeping is judged at the end; whoever asked for it writes it out.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace

from razortools.check import problems
from razortools.check.findings import Finding, Severity
from razortools.check.repair import superblock_copies
from razortools.check.repair.bench import Bench
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Edit, Round, Verb
from razortools.check.repair.planning import plan
from razortools.check.repair.surveying import believed, indexed, recovered
from razortools.check.report import Report
from razortools.check.runner import Options, Step, Steps, check
from razortools.engine.store.device import Device, OverlayDevice
from razortools.errors import CorruptImage, OutOfSpace
from razortools.format.record import Record
from razortools.format.superblock import Superblock

ROUNDS_MAX = 24
FINDINGS_PER_CODE = 20_000

Choose = Callable[[Finding], bool]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What may be repaired."""

    check: Options = field(default_factory=Options)
    choose: Choose = lambda finding: True
    rebuild: bool = False  # rebuild the tree from a scan, whatever the check says


@dataclass(frozen=True, slots=True)
class RoundPlanned:
    """A round is planned and will be applied to the overlay."""

    number: int
    edits: Round
    findings: int


@dataclass(slots=True)
class Repaired:
    """What a repair came to. *overlay* shows the image as it would be."""

    overlay: OverlayDevice
    before: Report
    after: Report
    rounds: list[Round] = field(default_factory=list)
    refused: str = ""  # why nothing is kept; empty: it is worth keeping

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.rounds) and not self.refused

    def report(self) -> Report:
        """Return what was found, with what of it is gone if the changes are written, and what is left."""
        if not self.changes:
            return replace(self.before, repair=self._told())
        left = {_identity(finding) for finding in self.after.findings}
        known = {_identity(finding) for finding in self.before.findings}
        findings = [
            replace(finding, repaired=finding.severity > Severity.NOTE and _identity(finding) not in left)
            for finding in self.before.findings
        ]
        findings += [finding for finding in self.after.findings if _identity(finding) not in known]
        return Report(
            self.before.image, self.before.phases, tuple(findings), self.after.summary, repair=self._told()
        )  # fmt: skip

    def _told(self) -> dict[str, object]:
        edits = [edit.as_json() for one in self.rounds for edit in one]
        return {"kept": self.changes, "refused": self.refused or None, "edits": edits}


def _identity(finding: Finding) -> tuple[object, ...]:
    """Return what tells a problem from another one of the same image."""
    return finding.code, finding.where, finding.path, finding.key, finding.inode, finding.block


RepairStep = Step | RoundPlanned
RepairSteps = Generator[RepairStep, None, Repaired]


def repair(device: Device, wishes: Wishes = Wishes()) -> RepairSteps:
    """Plan and apply a repair of the image on *device*, in an overlay. The device is only read."""
    overlay = OverlayDevice(device)
    options = replace(wishes.check, findings_per_code=FINDINGS_PER_CODE)
    before = yield from check(overlay, options)
    done = Repaired(overlay, before, before)
    if before.clean and not wishes.rebuild:
        return done
    if any(finding.code == problems.UNKNOWN_READ_ONLY_FEATURE.code for finding in before.findings):
        done.refused = "it uses features that this razorfsck does not know, so it may only be read; use newer razortools"
        return done
    bench: Bench | None = None
    seen: set[Round] = set()
    while len(done.rounds) < ROUNDS_MAX:
        edits = plan_round(overlay, done.after, wishes, is_first=not done.rounds)
        if not edits or edits in seen:
            break
        seen.add(edits)
        yield RoundPlanned(len(done.rounds) + 1, edits, done.after.problem_count)
        bench = bench or Bench(overlay, wishes.check.backup_block)
        try:
            bench.apply(edits)
        except (CorruptImage, OutOfSpace) as stopped:
            done.refused = str(stopped)
            break
        done.rounds.append(edits)
        done.after = yield from _again(overlay, wishes)
        if done.after.clean:
            break
    _judge(done)
    return done


def _again(overlay: OverlayDevice, wishes: Wishes) -> Steps:
    """Check the result, by all phases."""
    report = yield from check(overlay, Options(threads=wishes.check.threads, findings_per_code=FINDINGS_PER_CODE))
    return report


def _judge(done: Repaired) -> None:
    """Note why the result is not worth keeping, if it is not."""
    if done.refused or not done.rounds:
        return
    if done.after.problem_count >= done.before.problem_count and not done.after.clean:
        counts = f"{done.before.problem_count} problems before, {done.after.problem_count} after"
        done.refused = f"the repair would not have made it better: {counts}"


def plan_round(overlay: OverlayDevice, report: Report, wishes: Wishes, *, is_first: bool) -> Round:
    """Return the edits that answer the findings of *report*."""
    facts = believed(overlay, wishes.check.backup_block if is_first else None)
    if facts is None:
        return tuple(_from_nothing(report, wishes))
    if is_first:
        choice = tuple(_superblock_edits(overlay, facts.image.superblock, report, wishes))
        if choice:
            return choice
    draft = Draft(indexed(recovered(facts)), facts.image)
    return plan(draft, report.findings, wishes.choose)


def _from_nothing(report: Report, wishes: Wishes) -> Iterator[Edit]:
    """Yield what can be done where no superblock is left, if anything can."""
    for finding in report.findings:
        if finding.code == problems.NO_SUPERBLOCK.code and wishes.choose(finding):
            yield Edit(verb=Verb.REBUILD, code=finding.code, why="rebuild the filesystem from everything that a scan finds")


def _superblock_edits(overlay: OverlayDevice, truth: Superblock, report: Report, wishes: Wishes) -> Iterator[Edit]:
    """Yield the fields that other copies of the superblock tell better than the one that was believed."""
    doubted = [one for one in report.findings if one.code.startswith("E01") and one.severity > Severity.NOTE]
    doubts = [finding for finding in doubted if wishes.choose(finding)]
    if not doubts or wishes.check.backup_block is not None:
        return
    better = superblock_copies.elected(overlay, truth)
    for name in superblock_copies.differences(truth, better):
        value = getattr(better, name)
        if isinstance(value, Record):
            value = tuple(type(value)._FLATTEN(value))
        why = f"believe other copies of the superblock about {name.replace('_', ' ')}"
        yield Edit(verb=Verb.SUPERBLOCK, code=doubts[0].code, why=why, field=name, value=value)
