"""The runner: makes the eight phases follow one another, and a report of what they found.

Invariants: nothing is written; whatever a phase raises becomes a finding, never a crash; a phase that was not asked for runs only
if a later one needs its facts, and then its findings are not told.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TypeVar

from razortools.check import (
    checksum_pass,
    compression_pass,
    data_pass,
    directory_pass,
    inode_pass,
    journal_pass,
    problems,
    string_pass,
    superblock_pass,
)
from razortools.check.facts import DataFacts, DirectoryFacts, InodeFacts, SuperblockFacts
from razortools.check.findings import Event, Finding, Progress, Severity
from razortools.check.report import PhaseResult, Report, Summary
from razortools.check.selection import find_path, is_below
from razortools.check.steps import finished
from razortools.check.witness import Witness
from razortools.engine.store.device import Device
from razortools.errors import UsageError
from razortools.format.inode import FileType
from razortools.format.superblock import SLOT_COUNT
from razortools.printable import printable
from razortools.units import plural

PHASES = {
    1: ("superblock", "Checking superblock", "superblock"),
    2: ("journal", "Verifying journal integrity", "entry"),
    3: ("inode table", "Checking inode table", "inode"),
    4: ("directory structure", "Checking directory structure", "directory"),
    5: ("file data blocks", "Checking file data blocks", "record"),
    6: ("string table", "Checking string table", "name"),
    7: ("compression integrity", "Checking compression integrity", "record"),
    8: ("checksums", "Verifying checksums", "checksum"),
}  # number: name, label on screen, what is counted
FINDINGS_PER_CODE = 1000  # listed; a ruined image must not fill the memory

Facts = TypeVar("Facts")


@dataclass(frozen=True, slots=True)
class Options:
    """What to check and how."""

    only: frozenset[int] = frozenset(PHASES)
    path: str | None = None  # judge what lies here only
    backup_block: int | None = None  # believe the backup superblock in this block
    threads: int = 2
    findings_per_code: int = FINDINGS_PER_CODE

    @property
    def part(self) -> str:
        """What of an image is looked at, in words; empty: all of it."""
        below = f"what lies below {printable(self.path)}" if self.path is not None else ""
        if self.only >= set(PHASES):
            return below
        numbers = f"phase{'s' if len(self.only) > 1 else ''} {', '.join(map(str, sorted(self.only)))}"
        return f"{numbers} of {below}" if below else numbers


@dataclass(frozen=True, slots=True)
class Live:
    """The image is in use, and its frame was copied at a moment when it stood still. See in_use.py."""

    witness: Witness
    has_map: bool  # the space map is part of the copy


class MovedOn(Exception):
    """An image in use was written over while it was looked at. *report*: what was confirmed before."""

    def __init__(self, report: Report) -> None:
        super().__init__("the image has moved on")
        self.report = report


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase begins."""

    number: int
    label: str


@dataclass(frozen=True, slots=True)
class PhaseDone:
    """A phase is over."""

    result: PhaseResult
    findings: tuple[Finding, ...]


Step = PhaseStarted | Progress | PhaseDone
Steps = Generator[Step, None, Report]


def check(device: Device, options: Options = Options(), live: Live | None = None) -> Steps:
    """Check the image on *device*; yield how it goes, return the report. *live*: somebody else writes to it meanwhile.

    Raises UsageError if options.path does not exist, or if options.backup_block holds no superblock; MovedOn if what was found
    cannot be confirmed any more.
    """
    superblock_pass.judge_backup(device, options.backup_block)
    run = _Run(device.name, options, live)
    yield from _phases(run, device)
    return run.report()


def check_quietly(device: Device, options: Options = Options()) -> Report:
    """Return the report of a check, without telling how it goes."""
    return finished(check(device, options))


def _phases(run: "_Run", device: Device) -> Generator[Step, None, None]:
    options, live = run.options, run.live
    copies_rest = live is None or live.witness.knows_all_writes
    passing1 = superblock_pass.check(device, options.backup_block, copies_rest=copies_rest)
    superblocks = yield from run.phase(1, passing1, _superblock_count)
    if superblocks is None:
        return
    passing2 = journal_pass.check(superblocks) if live is None else journal_pass.look(superblocks, live.witness.has_written)
    journal = yield from run.phase(2, passing2, lambda facts: facts.entry_count)
    if journal is None:
        return
    inodes = yield from run.phase(3, inode_pass.check(journal), lambda facts: len(facts.numbers))
    if inodes is None:
        return
    run.summary = _summary(inodes, None)
    directories: DirectoryFacts | None = None
    if options.only & {4, 6} or options.path:
        directories = yield from run.phase(4, directory_pass.check(inodes), lambda facts: facts.directory_count)
    try:
        selected = _selected(inodes, directories, options.path)
    except UsageError:
        run.confirm()
        raise
    if 5 in options.only:
        passing5 = data_pass.check(superblocks, inodes, has_map=live is None or live.has_map)
        data = yield from run.phase(5, passing5, lambda facts: facts.record_count)
        run.summary = _summary(inodes, data)
    if 6 in options.only and directories is not None:
        yield from run.phase(6, string_pass.check(directories), lambda count: count)
    contents = None
    if 7 in options.only:
        passing7 = compression_pass.check(inodes, selected, options.threads)
        contents = yield from run.phase(7, passing7, lambda facts: facts.record_count)
    if 8 in options.only:
        passing8 = checksum_pass.check(journal, inodes, contents, selected, options.threads)
        yield from run.phase(8, passing8, lambda count: count)


def _superblock_count(facts: SuperblockFacts | None) -> int:
    return SLOT_COUNT + len(facts.image.geometry.backups) if facts is not None else 0


def _selected(inodes: InodeFacts, directories: DirectoryFacts | None, path: str | None) -> bytearray | None:
    """Return which inodes lie in *path*, or None for all. Raises UsageError if there is no such path."""
    if path is None or directories is None:
        return None
    top = find_path(inodes, path)
    if top is None:
        raise UsageError(f"{path}: there is no such file or directory in the image")
    return directories.below(top)


def _summary(inodes: InodeFacts, data: DataFacts | None) -> Summary:
    directories = inodes.types.count(FileType.DIRECTORY)
    files = len(inodes.numbers) - directories
    if data is not None:
        return Summary(files, directories, data.file_bytes, data.stored_bytes, inodes.tree.leaf_fill, data.breaks)
    blocks = inodes.counters.data_blocks if inodes.counters is not None else 0
    sizes = zip(inodes.types, inodes.sizes, strict=True)
    total = sum(size for kind, size in sizes if kind == FileType.REGULAR)
    return Summary(files, directories, total, blocks * inodes.tree.image.block_bytes)


@dataclass(slots=True)
class _Run:
    """What a check gathers while it runs."""

    image: str
    options: Options
    live: Live | None
    phases: list[PhaseResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)

    def phase(
        self, number: int, passing: Generator[Event, None, Facts], count: Callable[[Facts], int]
    ) -> Generator[Step, None, Facts | None]:
        """Run one pass to its end; return its facts, or None if it could not finish."""
        asked = number in self.options.only
        if asked:
            yield PhaseStarted(number, PHASES[number][1])
        started = time.monotonic()
        gathered = _Gathered(number, self.options.path, self.options.findings_per_code)
        facts: Facts | None = None
        while True:
            try:
                event = next(passing)
            except StopIteration as done:
                facts = done.value
                break
            except Exception as stopped:  # damage can take any shape: what stops a pass is a finding about the image
                reason = f"{type(stopped).__name__}: {stopped}"
                gathered.add(problems.PASS_FAILED[number].found(where=f"phase {number}", reason=" ".join(reason.split())))
                break
            if isinstance(event, Progress):
                if asked:
                    yield event
            else:
                gathered.add(event)
                if gathered.problem_count == 1:  # soon: a look that is overtaken need not come to its end
                    self.confirm()
        if gathered.problem_count:
            self.confirm()
        findings = gathered.finish(all_of_them=asked)
        self.findings += findings
        if asked or findings:
            checked = count(facts) if facts is not None else 0
            result = _result(number, findings, checked, time.monotonic() - started)
            self.phases.append(result)
            yield PhaseDone(result, findings)
        return facts

    def confirm(self) -> None:
        """Raise MovedOn if what was found so far may be no damage."""
        if self.live is not None and self.live.witness.has_moved():
            raise MovedOn(self.report())

    def report(self) -> Report:
        """Return what was found, with the phases that were asked for and not made."""
        self._skip_the_rest()
        return Report(self.image, tuple(self.phases), tuple(self.findings), self.summary, part=self.options.part)

    def _skip_the_rest(self) -> None:
        """Note the phases that were asked for and could not be made."""
        for number in sorted(self.options.only - {phase.number for phase in self.phases}):
            name, _, unit = PHASES[number]
            self.phases.append(PhaseResult(number, name, "skipped", 0, unit, 0.0, ""))


class _Gathered:
    """The findings of one phase, bounded per code and limited to the path asked for."""

    def __init__(self, number: int, path: str | None, per_code: int) -> None:
        self._number = number
        self._per_code = per_code
        self._path = path
        self._counts: Counter[str] = Counter()
        self._kept: list[Finding] = []
        self.problem_count = 0  # findings but for notes, wherever they lie

    def add(self, finding: Finding) -> None:
        """Keep a finding, or only count it."""
        self.problem_count += finding.severity > Severity.NOTE
        if self._path is not None and finding.severity < Severity.FATAL and not is_below(finding.path, self._path):
            return
        self._counts[finding.code] += 1
        if self._counts[finding.code] <= self._per_code:
            self._kept.append(finding)

    def finish(self, *, all_of_them: bool) -> tuple[Finding, ...]:
        """Return the findings; of a phase that was not asked for only what keeps the others from being made."""
        if not all_of_them:
            ends = (problems.PASS_FAILED[self._number].code,)
            return tuple(finding for finding in self._kept if finding.severity is Severity.FATAL or finding.code in ends)
        for code, count in self._counts.items():
            if count > self._per_code:
                self._kept.append(problems.further(self._number, code, count - self._per_code))
        return tuple(self._kept)


def _result(number: int, findings: tuple[Finding, ...], checked: int, seconds: float) -> PhaseResult:
    name, _, unit = PHASES[number]
    worst = max((finding.severity for finding in findings), default=None)
    status = "ok" if worst is None else worst.word
    return PhaseResult(number, name, status, checked, unit, seconds, _in_words(findings, worst))


def _in_words(findings: tuple[Finding, ...], worst: Severity | None) -> str:
    """Return what was found in a few words, the worst only."""
    counts: Counter[str] = Counter()
    for finding in findings:
        if finding.severity == worst:
            counts[problems.PROBLEMS[finding.code].noun] += finding.count
    return ", ".join(plural(count, noun) for noun, count in counts.most_common(3))
