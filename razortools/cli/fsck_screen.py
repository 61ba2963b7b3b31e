"""The screen of razorfsck: phases with their findings, a progress bar, what a repair will do, the summary.

Phases and findings are results: stdout. The progress bar is not: stderr.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

import razortools
from razortools.check.compact.compact import StepPlanned
from razortools.check.findings import Finding, Progress, Severity
from razortools.check.in_use import LookBegins, LookStep
from razortools.check.loss import Loss
from razortools.check.repair.edits import Edit
from razortools.check.repair.repair import Repaired, RepairStep, RoundPlanned, WorkStarted
from razortools.check.report import PhaseResult, Report
from razortools.check.runner import PHASES, PhaseDone, PhaseStarted
from razortools.check.salvage_report import SalvageReport
from razortools.check.steps import followed
from razortools.cli import render
from razortools.cli.fsck_pace import BETWEEN, Pace
from razortools.printable import printable
from razortools.units import format_size, plural

SHOWN_PER_PHASE = 20  # findings, unless -v asks for all
SHOWN_EDITS = 40
LABEL_WIDTH = 40
_STYLES = {"ok": "green", "note": "green", "warning": "yellow", "error": "bold red", "fatal": "bold red"}

Result = TypeVar("Result")
Step = RepairStep | LookStep | StepPlanned  # what any run of razorfsck tells of itself


class Screen:
    """Shows how a check or a repair goes."""

    def __init__(self, image: str, *, quiet: bool, verbose: bool, progress_fd: int | None) -> None:
        """Show *image*; *progress_fd*: where programs are told how far it is."""
        self._image = image
        self._quiet = quiet
        self._verbose = verbose
        self.pace = Pace(image, progress_fd, quiet=quiet)
        self._has_title = False
        self._mount = ""
        self._say_to: Callable[[str], None] | None = None  # instead of stdout
        self._is_repairing = False  # the phases of the checks in between are only shown as progress

    def mounted_at(self, mount_point: str, pid: int) -> None:
        """Note that the image is in use by a mount, which a look begins with."""
        self._mount = f"is mounted at {printable(mount_point)} by pid {pid}"

    def follow(self, steps: Generator[Step, None, Result]) -> Result:
        """Run *steps* to their end and return what they come to."""
        while True:
            try:
                with self.pace.between("Repairing" if self._is_repairing else "Reading"):
                    step = next(steps)
                while isinstance(step, PhaseStarted | WorkStarted):
                    step = self._phase(step, steps)
            except StopIteration as done:
                result: Result = done.value
                return result
            if isinstance(step, PhaseDone) and not self._is_repairing:
                self._show_phase(step)
            elif isinstance(step, RoundPlanned):
                self._show_round(step)
            elif isinstance(step, LookBegins):
                self._say_look(step)
            elif isinstance(step, StepPlanned):
                self._is_repairing = True
                self.say(f"{'' if step.number > 1 else chr(10)}Compacting, step {step.number}: {step.sentence}")

    def _say_look(self, begun: LookBegins) -> None:
        """Say what is looked at, on stderr: whoever reads the results is to know that they are of a moment."""
        how = f"checked as of its checkpoint {begun.generation}, which the mount holds meanwhile"
        if begun.refusal:
            how = f"checked as of its checkpoint {begun.generation}, which the mount does not hold ({begun.refusal})"
        again = f"; look {begun.number}, for it has moved on under the one before" if begun.number > 1 else ""
        render.message(f"{self._image}: {self._mount}; {how}{again}")

    def _phase(self, started: PhaseStarted | WorkStarted, steps: Generator[Step, None, Result]) -> Step:
        """Follow one phase, or work whose whole is known; return the step that ends it."""
        number = started.number if isinstance(started, PhaseStarted) else BETWEEN
        label = f"[{number}/{len(PHASES)}] {started.label}" if number else started.label
        with self.pace.phase(number, label) as far:
            while isinstance(step := next(steps), Progress):
                far(step.done, step.total)
        return step

    def _show_phase(self, done: PhaseDone) -> None:
        result, findings = done.result, done.findings
        if self._quiet or result.status == "fatal":
            return
        if not self._has_title:
            self._has_title = True
            render.out(f"RAZORFS Filesystem Check v{razortools.__version__}")
        label = f"[{result.number}/{len(PHASES)}] {PHASES[result.number][1]}..."
        render.styled(f"{label:<{LABEL_WIDTH}}{_verdict(result, verbose=self._verbose)}", _STYLES[result.status])
        listed = sorted(findings, key=lambda finding: -finding.severity)
        limit = len(listed) if self._verbose else SHOWN_PER_PHASE
        for finding in listed[:limit]:
            for line in _finding_lines(finding, verbose=self._verbose):
                render.out(line)
        if len(listed) > limit:
            render.out(f"      and {len(listed) - limit:,} more; -v shows all")

    def _show_round(self, planned: RoundPlanned) -> None:
        self._is_repairing = True
        if self._quiet:
            return
        render.out("")
        render.out(f"Repair, round {planned.number}: {plural(len(planned.edits), 'edit')}")
        limit = len(planned.edits) if self._verbose else SHOWN_EDITS
        for line in edit_lines(planned.edits[:limit]):
            render.out(line)
        if len(planned.edits) > limit:
            render.out(f"      and {len(planned.edits) - limit:,} more; -v shows all")

    def end(self, report: Report) -> None:
        """Show the summary, or the one sentence about an image that cannot be checked."""
        fatal = [finding for finding in report.left if finding.severity is Severity.FATAL]
        if fatal:
            for finding in report.left:
                render.error(f"razorfsck: {report.image}: {finding.message}")
            return
        if self._quiet:
            for finding in report.left:
                if finding.severity > Severity.NOTE:
                    render.out(_finding_lines(finding, verbose=False)[0].strip())
            return
        for line in _summary_lines(report):
            render.out(line)

    def end_repair(self, done: Repaired, report: Report, undo_file: str) -> None:
        """Show what came of a repair; *undo_file*: what takes it back, empty if nothing was written."""
        if done.refused:
            render.error(f"razorfsck: {report.image}: nothing was changed: {done.refused}")
        elif undo_file:
            self.say("")
            self.say(_repaired_line(report))
            self.show_loss(done.loss, "Lost by damage and repair")
            self.show_older(done)
            self.say(f"razorfsck --undo {report.image} takes it back, as long as {undo_file} is kept")
        self.end(report)

    def end_plan(self, done: Repaired, report: Report, path: str) -> None:
        """Show what a repair would do and cost."""
        if done.refused:
            render.error(f"razorfsck: {report.image}: no plan was written: {done.refused}")
        elif done.changes:
            self.say("")
            self.show_loss(done.loss, "The repair would cost")
            self.show_older(done)
            left = "nothing" if done.after.clean else plural(done.after.problem_count, "problem")
            self.say(f"{left} would be left; razorfsck --apply {path} {report.image} does it")
        self.end(report)

    def show_before_asking(self, done: Repaired) -> None:
        """Show what a repair costs on stderr, where the question will stand, also if nothing else is to be printed."""
        self._say_to = render.message
        try:
            self.show_loss(done.loss, "This repair costs")
            self.show_older(done)
        finally:
            self._say_to = None

    def show_loss(self, loss: Loss | None, heading: str) -> None:
        """Show the loss statement."""
        if loss is None:
            return
        self.say(f"{heading}: {_in_figures(loss)}")
        lines = [f"      renamed: {printable(one.old)} is {printable(one.new)}" for one in loss.renamed]
        for one in loss.truncated:
            ranges = [f"bytes {first} to {behind - 1}" for first, behind in one.ranges]
            lines.append(f"      truncated: {printable(one.path)}: {', '.join([*ranges, *one.attributes])}")
        lines += [f"      lost: {printable(path)}" for path in loss.lost]
        lines += [f"      {sentence}" for sentence in loss.sentences]
        limit = len(lines) if self._verbose else SHOWN_EDITS
        for line in lines[:limit]:
            self.say(line)
        if len(lines) > limit:
            self.say(f"      and {len(lines) - limit:,} more; -v shows all")

    def show_older(self, done: Repaired) -> None:
        """Tell what a rebuild found, and name the files that may miss their last changes."""
        for remark in done.remarks:
            self.say(f"      {remark}")
        if done.older:
            self.say(f"Perhaps in an older state, without the last changes: {plural(len(done.older), 'file')}")
        limit = len(done.older) if self._verbose else SHOWN_EDITS
        for path in done.older[:limit]:
            self.say(f"      older: {printable(path)}")
        if len(done.older) > limit:
            self.say(f"      and {len(done.older) - limit:,} more; -v shows all")

    def end_salvage(self, report: SalvageReport, directory: str) -> None:
        """Show what was copied out, and what was not."""
        self.say(f"{report.amount} were copied to {directory}")
        for part in report.unreadable[: None if self._verbose else SHOWN_EDITS]:
            render.out(f"      unreadable: {printable(part.path)}: bytes {part.first} to {part.behind - 1}: {part.reason}")
        for path, reason in report.not_copied[: None if self._verbose else SHOWN_EDITS]:
            render.out(f"      not copied: {printable(path)}: {reason}")
        for remark in (*report.remarks, *(f"older state: {printable(path)}" for path in report.older)):
            self.say(f"      {remark}")
        if not report.is_whole:
            counted = f"{report.unreadable_count} unreadable ranges, {report.not_copied_count} not copied"
            render.out(f"not everything could be copied: {counted}, {report.found_again} in lost+found")

    def follow_progress(self, label: str, steps: Generator[Progress, None, Result]) -> Result:
        """Run *steps*, which only tell how far they are, to their end."""
        with self.pace.phase(BETWEEN, label) as far:
            return followed(steps, lambda step: far(step.done, step.total))

    def say(self, text: str) -> None:
        """Print a line, unless that is not wanted."""
        if self._say_to is not None:
            self._say_to(text)
        elif not self._quiet:
            render.out(text)


def _in_figures(loss: Loss) -> str:
    """Return how many files became what."""
    unchanged = f"{plural(loss.unchanged, 'file')} unchanged"
    if loss.is_none:
        return f"nothing; {unchanged}"
    if loss.is_compared:
        lost = len(loss.lost) + loss.unnamed
        told = f"{len(loss.renamed)} renamed, {len(loss.truncated)} truncated, {lost} lost; {unchanged}"
    else:
        told = "not known file by file, as no file could be seen before"
        if loss.told:
            found = loss.told - loss.unnamed
            told += f"; of {loss.told} files and directories that the superblock counts, {found} were found"
    told += f"; {loss.not_compared} found again, not compared" if loss.not_compared else ""
    return f"{told}; {loss.older} perhaps in an older state" if loss.older else told


def _repaired_line(report: Report) -> str:
    """Return the line that says what a repair has done."""
    counts = Counter(finding.code for finding in report.findings if finding.repaired)
    if not counts:
        return "Repaired: nothing was wrong; the image was written anew, as asked for"
    return f"Repaired: {', '.join(f'{count:,} x {code}' for code, count in counts.most_common())}"


def edit_lines(edits: Iterable[Edit]) -> list[str]:
    """Return a line for each of *edits*."""
    return [f"      {edit.code} {printable(edit.path) if edit.path else 'image'}: {edit.why}" for edit in edits]


def _verdict(result: PhaseResult, *, verbose: bool) -> str:
    """Return what a phase's line says behind its label."""
    counted = f" ({plural(result.checked, result.unit)})" if result.checked else ""
    seconds = f" in {result.seconds:.2f} s" if verbose else ""
    if result.status in ("ok", "note"):
        return f"OK{counted}{seconds}"
    return f"{result.status.upper()}: {result.problem}{seconds}"


def _finding_lines(finding: Finding, *, verbose: bool) -> list[str]:
    """Return the lines that show a finding."""
    subject = printable(finding.path) if finding.path is not None else finding.where
    where = f" ({finding.where})" if finding.path is not None and finding.where else ""
    lines = [f"      {finding.code} {finding.severity.word}: {subject}: {finding.message}{where}"]
    if verbose and finding.severity > Severity.NOTE:
        lines.append(f"            a repair will {finding.repair}")
    return lines


def _summary_lines(report: Report) -> list[str]:
    """Return the lines that close a report."""
    summary = report.summary
    lines = [
        "",
        f"Summary: {plural(summary.files, 'file')}, {plural(summary.directories, 'directory')}, "
        f"{format_size(summary.total_bytes)} in files, {format_size(summary.stored_bytes)} stored, ratio {summary.ratio:.2f}:1",
    ]
    if report.clean and report.part:
        return [*lines, f"{report.image}: nothing wrong in {report.part}; the rest was not judged"]
    if report.clean:
        return [*lines, f"{report.image}: clean" + (", as of that checkpoint" if report.in_use else "")]
    left = [finding for finding in report.left if finding.severity > Severity.NOTE]
    codes = sorted({finding.code for finding in left})
    hurt = {finding.path for finding in left if finding.path is not None and finding.severity is Severity.ERROR}
    lines.append(f"{report.image}: {plural(report.problem_count, 'problem')} found, {plural(len(hurt), 'path')} hurt")
    lines.append(f"Next: razorfsck explain {codes[0]} tells what this means and what it risks.")
    if report.in_use:
        lines.append(f"Unmount it before a repair; razorfsck --plan FILE {report.image} shows then what that would do.")
    elif report.repair is None:
        lines.append(
            f"razorfsck --plan FILE {report.image} shows what a repair would do; razorfsck --repair {report.image} does it."
        )
    return lines
