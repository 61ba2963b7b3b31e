"""Repair: rounds of check, plan and apply on an overlay, until nothing worse than a note is left or a round brings nothing new.

Nothing here writes to the image. Whether the result is worth keeping is judged at the end; whoever asked for it writes it out.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace

from razortools.check import problems
from razortools.check.comparison import comparing
from razortools.check.findings import Finding, Severity
from razortools.check.inventory import Inventory, take_inventory
from razortools.check.loss import UNKNOWN, Changed, Loss
from razortools.check.repair import superblock_copies
from razortools.check.repair.bench import Bench
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import IN_PLACE, Edit, Purpose, Round, Verb, removed_items
from razortools.check.repair.journal import changed_inodes, dropped_inodes
from razortools.check.repair.newer_state import Younger, find_younger
from razortools.check.repair.plan_file import Plan, judge_plan
from razortools.check.repair.planning import plan
from razortools.check.repair.reference import reference
from razortools.check.repair.surveying import believed, indexed, recovered
from razortools.check.repair.verdict import objection
from razortools.check.report import Report
from razortools.check.runner import Options, Step, Steps, check
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.errors import CorruptImage, DeviceFailed, NotAnImage, OutOfSpace
from razortools.format.keys import object_of
from razortools.format.record import Record
from razortools.format.superblock import SLOT_COUNT, State, Superblock

ROUNDS_MAX = 24
FINDINGS_PER_CODE = 20_000
FOUND_PART_MIN = 2  # a rebuild that finds less than the half (one in 2) of all inodes is only kept if it was asked for
STOPS = (CorruptImage, DeviceFailed, NotAnImage, OutOfSpace)  # what damage may lead to while a round is applied

_DAMAGED_COPIES = (problems.SUPERBLOCK_DAMAGED.code, problems.BACKUP_DAMAGED.code, problems.NO_SUPERBLOCK.code)
_NODE_WRONG = (problems.NODE_LOST.code, problems.NODE_FIELD.code, problems.NODE_KEYS.code)
_SLOT_WRONG = (problems.SUPERBLOCK_DAMAGED.code, problems.SUPERBLOCK_FIELD.code)
_MAP_DAMAGE = {problems.MAP_PAGE_DAMAGED.code, problems.MAP_COUNT.code}
_TREE_DAMAGE = {problem.code for problem in (problems.NODE_LOST, problems.NODE_FIELD, problems.NODE_KEYS, problems.NODE_SHARED)}
_MISLEADING = {problems.REPLAY_FAILED.code, problems.JOURNAL_FIELD.code}

Choose = Callable[[Finding], bool]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What may be repaired."""

    check: Options = field(default_factory=Options)
    choose: Choose = lambda finding: True
    rebuild: bool = False  # rebuild the tree from a scan, whatever the check says
    careful: bool = False  # only edits that destroy nothing, and nothing at all if one did; what -p asks for

    def takes(self, finding: Finding) -> bool:
        """Return whether *finding* is to be answered."""
        return self.choose(finding) and (problems.PROBLEMS[finding.code].repair.safe or not self.careful)


@dataclass(frozen=True, slots=True)
class RoundPlanned:
    """A round is planned and will be applied to the overlay."""

    number: int
    edits: Round


@dataclass(frozen=True, slots=True)
class WorkStarted:
    """Work between the checks begins of which the whole is known; progress follows, until it is done."""

    label: str  # for people


@dataclass(frozen=True, slots=True)
class WorkDone:
    """That work is done."""


@dataclass(slots=True)
class Repaired:
    """What a repair came to. *overlay* shows the image as it would be."""

    overlay: OverlayDevice
    before: Report
    after: Report
    rounds: list[Round] = field(default_factory=list)
    refused: str = ""  # why nothing is kept; empty: it is worth keeping
    loss: Loss | None = None
    remarks: list[str] = field(default_factory=list)  # of a rebuild, for people
    older: list[str] = field(default_factory=list)  # paths of files that may be in an older state, without their last changes

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.rounds) and not self.refused

    def report(self, *, written: bool) -> Report:
        """Return what was found, with what of it is gone if the changes were *written*, and what is left."""
        told: dict[str, object] = {
            "kept": written,
            "refused": self.refused or None,
            "edits": [edit.as_json() for one in self.rounds for edit in one],
            "older": list(self.older),
            "remarks": list(self.remarks),
        }
        costs = self.loss.as_json() if self.loss is not None and self.changes else None
        if not written:
            return replace(self.before, repair=told, loss=costs)
        left = {_identity(finding) for finding in self.after.findings}
        if not self.after.clean:  # the mark is set again
            left |= {_identity(finding) for finding in self.before.findings if finding.code == problems.ERRORS_RECORDED.code}
        known = {_identity(finding) for finding in self.before.findings}
        findings = [
            replace(finding, repaired=finding.severity > Severity.NOTE and _identity(finding) not in left)
            for finding in self.before.findings
        ]
        findings += [finding for finding in self.after.findings if _identity(finding) not in known]
        return Report(self.before.image, self.before.phases, tuple(findings), self.after.summary, loss=costs, repair=told)


RepairStep = Step | RoundPlanned | WorkStarted | WorkDone
RepairSteps = Generator[RepairStep, None, Repaired]


def repair(device: Device, wishes: Wishes | None = None) -> RepairSteps:
    """Plan and apply a repair of the image on *device*, in an overlay. The device is only read."""
    wishes = wishes or Wishes()
    done = yield from _begun(device, wishes.check)
    if done.refused or (done.before.clean and not wishes.rebuild):
        return done
    bench = Bench(done.overlay, wishes.check.backup_block)
    seen: set[Round] = set()
    while len(done.rounds) < ROUNDS_MAX and not done.refused:
        edits = _next_round(done, wishes)
        if not edits or edits in seen:
            break
        seen.add(edits)
        yield RoundPlanned(len(done.rounds) + 1, edits)
        if _apply(done, bench, edits):
            done.after = yield from _check_again(done.overlay, wishes.check)
    done.remarks += bench.remarks
    if not done.after.clean and _was_capped(done):
        done.remarks.append("there were too many problems for one run: run razorfsck again for those that are left")
    yield from _judged(done, device, wishes.check, bench, careful=wishes.careful)
    if done.changes and not wishes.rebuild:
        done.refused = _too_little(bench)
    if done.changes and not done.after.clean:
        _apply(done, bench, (_mark_of_errors(),))
    return done


def follow(device: Device, made: Plan, options: Options | None = None) -> RepairSteps:
    """Apply the plan *made* to the image on *device*, in an overlay. Raises UsageError if it is not for this image as it is."""
    options = replace(options or Options(), backup_block=made.backup_block)
    judge_plan(made, device)
    done = yield from _begun(device, options)
    if done.refused:
        return done
    bench = Bench(done.overlay, made.backup_block)
    bench.may_drop = any(edit.verb is Verb.REPLAY for edits in made.rounds for edit in edits)
    # Whether the image is to be marked as hurt is decided by the result, not by the plan: lines of it may have been deleted.
    rounds = [edits for edits in made.rounds if edits != (_mark_of_errors(),)]
    for number, edits in enumerate(rounds, 1):
        yield RoundPlanned(number, edits)
        if not _apply(done, bench, edits):
            break
    if done.rounds and not done.refused:
        done.after = yield from _check_again(done.overlay, options)
    done.remarks += bench.remarks
    yield from _judged(done, device, options, bench)
    if done.changes and not done.after.clean:
        _apply(done, bench, (_mark_of_errors(),))
    return done


def _begun(device: Device, options: Options) -> RepairSteps:
    """Check the image; note why nothing may be changed in it, if that is so."""
    overlay = OverlayDevice(device)
    before = yield from check(overlay, replace(options, findings_per_code=FINDINGS_PER_CODE))
    done = Repaired(overlay, before, before)
    if any(finding.code == problems.UNKNOWN_READ_ONLY_FEATURE.code for finding in before.findings):
        done.refused = "it uses features that this razorfsck does not know, so it may only be read; use newer razortools"
    return done


def _apply(done: Repaired, bench: Bench, edits: Round) -> bool:
    """Apply a round; return whether that was possible."""
    try:
        bench.apply(edits)
    except STOPS as stopped:
        done.refused = str(stopped)
        return False
    except Exception as stopped:  # damage can take any shape, and the engine's parts trust what verifies
        reason = " ".join(f"{type(stopped).__name__}: {stopped}".split())
        done.refused = f"the repair met damage of a kind that it does not foresee ({reason}); copy the files out with --salvage"
        return False
    done.rounds.append(edits)
    return True


def _check_again(overlay: OverlayDevice, options: Options) -> Steps:
    """Check the result, by all phases."""
    report = yield from check(overlay, Options(threads=options.threads, findings_per_code=FINDINGS_PER_CODE))
    return report


def _judged(
    done: Repaired, device: Device, options: Options, bench: Bench, *, careful: bool = False
) -> Generator[RepairStep, None, None]:
    """Find out what the repair costs, and whether it is worth it."""
    yield from ()
    if not done.changes:
        return
    before = take_inventory(reference(device, done.before, done.rounds, options.backup_block), options.threads)
    after = take_inventory(done.overlay, options.threads)
    yield WorkStarted("Comparing files")
    done.loss = yield from comparing(before, after)
    yield WorkDone()
    edits = [edit for one in done.rounds for edit in one]
    done.loss.mended = sorted({edit.path or "?" for edit in edits if edit.verb is Verb.FLIP and edit.code >= "E05"})
    done.loss.dropped_transactions = bench.dropped.transactions
    done.loss.told, done.loss.missing = bench.inodes_counted, bench.inodes_missing
    done.loss.removed = sum(map(removed_items, done.rounds))
    _tell_of_new_inodes(done, after)
    done.loss.dropped = bench.dropped.paths(after)
    done.older = [after.path(number) for number in sorted(bench.older_inodes) if after.find(number) >= 0]
    done.loss.older = len(done.older)
    told = any(edit.verb is Verb.REPLAY for edit in edits)
    facts = believed(device, options.backup_block)
    dropped = dropped_inodes(facts.image) if facts is not None else set()
    if facts is not None and any(finding.code == problems.REPLAY_FAILED.code for finding in done.before.findings):
        dropped |= changed_inodes(facts.image)  # the inventory of before knows nothing of what the journal does to them
    dropped |= {object_of(edit.key) for edit in edits if edit.code == problems.JOURNAL_FIELD.code and edit.key}
    done.refused = objection(done.before, done.after, before, done.loss, dropped, careful=careful, told=told)


def _tell_of_new_inodes(done: Repaired, after: Inventory) -> None:
    """Say of which files the inode was made anew: whose they were, and who may read them, nobody knows any more."""
    assert done.loss is not None
    numbers = {object_of(edit.key) for one in done.rounds for edit in one if edit.purpose is Purpose.ANEW and edit.key}
    for number in sorted(numbers):
        if after.find(number) >= 0:
            done.loss.add(done.loss.changed, Changed(after.path(number), UNKNOWN))


def _was_capped(done: Repaired) -> bool:
    """Return whether there was more to do than one run does."""
    many = {problem.code for problem in problems.TOO_MANY.values()}
    findings = (*done.before.findings, *done.after.findings)
    return len(done.rounds) >= ROUNDS_MAX or any(one.code in many and one.severity > Severity.NOTE for one in findings)


def _too_little(bench: Bench) -> str:
    """Return why a rebuild that nobody asked for is not kept, if far fewer files were found than there must have been."""
    if bench.inodes_found * FOUND_PART_MIN >= bench.inodes_told:
        return ""
    return (
        f"of {bench.inodes_told} files and directories that the superblock counts, a rebuild finds {bench.inodes_found} only; "
        "--rebuild does it all the same, --salvage copies out what can be read"
    )


def _mark_of_errors() -> Edit:
    """Return the edit by which the image says that something is left to repair."""
    why = "mark the image as hurt: problems are left"
    return Edit(verb=Verb.SUPERBLOCK, code=problems.ERRORS_RECORDED.code, why=why, field="state", value=int(State.ERRORS))


def _identity(finding: Finding) -> tuple[object, ...]:
    """Return what tells a problem from another one of the same image."""
    return finding.code, finding.where, finding.path, finding.key, finding.inode, finding.block


def _next_round(done: Repaired, wishes: Wishes) -> Round:
    """Return the edits of the next round; none: the repair is at its end. What was mended in its place gets a frame at last."""
    edits = () if done.rounds and done.after.clean else _plan_round(done, wishes)
    if _would_mark_again(edits, done.after):
        edits = ()
    if not edits and done.rounds and all(edit.verb in IN_PLACE for one in done.rounds for edit in one):
        why = "write the frame anew around what was mended in its place"
        return (Edit(verb=Verb.FRAME, code=done.rounds[0][0].code, why=why),)
    return edits


def _would_mark_again(edits: Round, found: Report) -> bool:
    """Return whether *edits* only clear the mark of errors, while other problems that were *found* stay: they need it.

    What is wrong with copies of the superblock goes with the mark.
    """
    others = (finding for finding in found.left if finding.code > "E02" and finding.severity > Severity.NOTE)
    return all(edit.code == problems.ERRORS_RECORDED.code for edit in edits) and any(others)


def _plan_round(done: Repaired, wishes: Wishes) -> Round:
    """Return the edits that answer what was found last."""
    is_first = not done.rounds
    if is_first and wishes.rebuild:
        why = "rebuild the tree from everything that can be read, as asked for"
        return (Edit(verb=Verb.REBUILD, code=problems.NO_SUPERBLOCK.code, why=why),)
    facts = believed(done.overlay, wishes.check.backup_block if is_first else None)
    if is_first:
        mends = tuple(_mends(done, facts.image.superblock.generation if facts is not None else 0, wishes))
        if mends:
            return mends
    if facts is None:
        return tuple(_from_nothing(done.after, wishes))
    if len(done.rounds) <= 1:
        choice = tuple(_superblock_edits(done, facts.image.superblock, wishes))
        if choice:
            return choice
    draft = Draft(indexed(recovered(facts)), facts.image)
    draft.is_careful = wishes.careful
    draft.is_rebuilt = any(edit.verb is Verb.REBUILD for edits in done.rounds for edit in edits)
    return plan(draft, _before_the_rest(done.after.findings, wishes, draft), wishes.takes)


def _before_the_rest(findings: tuple[Finding, ...], wishes: Wishes, draft: Draft) -> tuple[Finding, ...]:
    """Return what must be mended before anything else can be judged: all, unless the replay has not shown what it should.

    Where the journal could not be replayed, the check has seen an older state. What it found in the files there may be changed or
    deleted by what waits in the journal: an edit of theirs would bring back a part of a file that is gone. Where an entry of it
    makes no sense, the check has seen nonsense. Where the tree on the device is damaged all goes together.
    """
    taken = [finding for finding in findings if wishes.takes(finding)]
    codes = {finding.code for finding in taken}
    if not codes & _MISLEADING or any(one.code in _TREE_DAMAGE and one.block in draft.pointers for one in taken):
        return findings
    return tuple(finding for finding in findings if finding.code < "E03" or finding.code in _MAP_DAMAGE)


def _mends(done: Repaired, generation: int, wishes: Wishes) -> Iterator[Edit]:
    """Yield the superblocks in which a single bit is wrong, if one of them is newer than what is believed without."""
    doubts = [one for one in done.after.findings if one.code in _DAMAGED_COPIES and wishes.takes(one)]
    found = list(superblock_copies.mendable(done.overlay)) if doubts and wishes.check.backup_block is None else []
    if any(superblock.generation > generation for _, superblock in found):
        for place, superblock in found:
            why = f"turn back the one wrong bit of the superblock at block {superblock.address}"
            yield Edit(verb=Verb.MEND, code=doubts[0].code, why=why, block=place)


def _from_nothing(report: Report, wishes: Wishes) -> Iterator[Edit]:
    """Yield what can be done where no superblock is left, if anything can."""
    for finding in report.findings:
        if finding.code == problems.NO_SUPERBLOCK.code and wishes.takes(finding):
            yield Edit(verb=Verb.REBUILD, code=finding.code, why="rebuild the filesystem from everything that a scan finds")


def _superblock_edits(done: Repaired, truth: Superblock, wishes: Wishes) -> Iterator[Edit]:
    """Yield the fields that other copies of the superblock, or a newer tree, tell better than the one that was believed."""
    if wishes.check.backup_block is not None:
        return
    doubts = [one for one in done.after.findings if wishes.takes(one) and _is_about_a_newer_state(one, truth)]
    is_damaged = any(one.code == problems.JOURNAL_DAMAGED.code for one in doubts)
    younger = find_younger(done.overlay, truth, journal_is_damaged=is_damaged) if doubts else Younger()
    newer = younger.superblock
    if younger.generation > truth.generation + 1 and (newer is None or wishes.careful):
        done.refused = _left_behind(younger, truth)
        return
    if newer is not None and not wishes.careful:
        done.remarks.append(
            f"a newer state was found than any superblock tells of: generation {newer.generation}, not {truth.generation}"
        )
        yield from _believe(newer, truth, doubts[0], "believe the newest tree about")
        return
    at_root = (truth.root.address, truth.root.mirror)
    doubted = [
        one
        for one in done.after.findings
        if one.severity > Severity.NOTE and (one.code.startswith("E01") or (one.code in _NODE_WRONG and one.block in at_root))
    ]
    doubts = [finding for finding in doubted if wishes.takes(finding)]
    if not doubts:
        return
    better = superblock_copies.elected(done.overlay, truth)
    if better.root != truth.root and superblock_copies.rolls_back(done.overlay, truth, better.generation):
        return  # what can be read of the newest state is worth more than all of an older one: the tree is rebuilt
    yield from _believe(better, truth, doubts[0], "believe other copies of the superblock about")


def _left_behind(younger: Younger, truth: Superblock) -> str:
    """Return why nothing may be built upon an old state: a newer one is there, in parts at least."""
    told = f"there are parts of a newer state (generation {younger.generation}) than any superblock tells of ({truth.generation})"
    if younger.superblock is not None:
        return f"{told}; --repair goes on from the newer one"
    return f"{told}, but it is not whole; -b {truth.address} goes on from the old state and gives the newer one up"


def _is_about_a_newer_state(finding: Finding, truth: Superblock) -> bool:
    """Return whether a finding may mean that a newer superblock than *truth* is lost: looking for it costs a scan."""
    if finding.severity <= Severity.NOTE:
        return False
    if finding.code in _SLOT_WRONG:
        return finding.block == (truth.generation + 1) % SLOT_COUNT
    return finding.code.startswith("E02") or finding.code in _MAP_DAMAGE


def _believe(better: Superblock, truth: Superblock, finding: Finding, why: str) -> Iterator[Edit]:
    """Yield the edits that make *truth* say what *better* says."""
    for name in superblock_copies.differences(truth, better):
        value = getattr(better, name)
        if isinstance(value, Record):
            value = tuple(type(value)._FLATTEN(value))
        words = f"{why} {name.replace('_', ' ')}"
        yield Edit(verb=Verb.SUPERBLOCK, code=finding.code, why=words, field=name, value=value)
