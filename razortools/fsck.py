"""razorfsck, fsck.razorfs: check a RAZORFS image. Contract: man/razorfsck.8. Exit codes add up as in fsck(8)."""

import os
import re
from contextlib import ExitStack
from typing import Annotated, NoReturn

import typer

import razortools
from razortools.check.explain import explain
from razortools.check.findings import Finding, Progress, Severity
from razortools.check.paths import printable
from razortools.check.report import PhaseResult, Report
from razortools.check.runner import PHASES, Options, PhaseDone, PhaseStarted, Step, Steps, check, plural
from razortools.cli import app as cli
from razortools.cli import render
from razortools.cli.app import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, VersionFlag
from razortools.engine.store.device import open_image
from razortools.errors import UsageError
from razortools.units import format_size

SHOWN_PER_PHASE = 20  # findings, unless -v asks for all
LABEL_WIDTH = 40
PROGRESS_PARTS = 1000
THREADS_MAX = 64
_STYLES = {"ok": "green", "note": "green", "warning": "yellow", "error": "bold red", "fatal": "bold red"}

app = cli.new_app()


@app.command(
    help="Check a RAZORFS image, without writing to it. IMAGE 'explain' followed by a code tells what a finding means.",
    epilog="Exit: 0 clean, 4 problems left, 8 the check could not be made, 16 usage, 32 interrupted.",
)
def fsck(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image file or block device.", show_default=False)],
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="With 'explain': the code.", show_default=False)] = None,
    look_only: Annotated[bool, typer.Option("-n", help="Look only; this is the default.")] = False,
    force: Annotated[bool, typer.Option("-f", help="Check although the image is marked clean; it always is.")] = False,
    backup: Annotated[int | None, typer.Option("-b", metavar="BLOCK", help="Believe the backup superblock here.")] = None,
    only: Annotated[str | None, typer.Option("--only", metavar="N,N", help="Only these phases, such as 1,5.")] = None,
    path: Annotated[str | None, typer.Option("--path", metavar="DIR", help="Only what lies in this directory.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", metavar="N", help="Threads that verify data.")] = None,
    progress_fd: Annotated[int | None, typer.Option("-C", metavar="FD", help="Write progress for programs to FD.")] = None,
    preen: Annotated[bool, typer.Option("-p", "-a", help="Safe repairs only; not in this version.")] = False,
    repair: Annotated[bool, typer.Option("-y", "--repair", help="Repair everything; not in this version.")] = False,
    ask: Annotated[bool, typer.Option("-i", help="Ask before each repair; not in this version.")] = False,
    plan: Annotated[str | None, typer.Option("--plan", metavar="FILE", help="Not in this version.")] = None,
    apply: Annotated[str | None, typer.Option("--apply", metavar="FILE", help="Not in this version.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Not in this version.")] = False,
    undo_file: Annotated[str | None, typer.Option("--undo-file", metavar="FILE", help="Not in this version.")] = None,
    salvage: Annotated[str | None, typer.Option("--salvage", metavar="DIR", help="Not in this version.")] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Not in this version.")] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
    version: VersionFlag = False,
    debug: DebugFlag = False,
) -> int:
    """Check an image and show the report."""
    if image == "explain" and code is not None:
        render.pairs(explain(code))
        return 0
    if code is not None:
        raise UsageError(f"one image at a time; what is '{code}'?")
    asked = {
        "-p": preen, "--repair": repair, "-i": ask, "--plan": plan, "--apply": apply, "--undo": undo, "--undo-file": undo_file,
        "--salvage": salvage, "--rebuild": rebuild,
    }  # fmt: skip
    for option, value in asked.items():
        if value:
            raise UsageError(f"{option}: this version of razorfsck only checks, it does not repair; nothing was done to {image}")
    options = Options(
        only=_parse_phases(only), path=_parse_path(path), backup_block=_not_below(backup, 0, "-b"), threads=_thread_count(threads)
    )
    shown = _Screen(image, quiet=quiet or as_json, verbose=verbose, progress_fd=progress_fd)
    with open_image(image, writable=False) as device:
        report = shown.follow(check(device, options))
    if as_json:
        render.document(report.as_json())
    else:
        shown.end(report)
    return report.exit_code


class _Screen:
    """Shows how a check goes. Phases and findings are results: stdout. The progress bar is not: stderr."""

    def __init__(self, image: str, *, quiet: bool, verbose: bool, progress_fd: int | None) -> None:
        self._image = image
        self._quiet = quiet
        self._verbose = verbose
        self._fd = progress_fd
        self._has_title = False

    def follow(self, steps: Steps) -> Report:
        """Run the check to its end and return its report."""
        while True:
            try:
                step = next(steps)
                while isinstance(step, PhaseStarted):
                    step = self._phase(step, steps)
            except StopIteration as done:
                report: Report = done.value
                return report
            if isinstance(step, PhaseDone):
                self._show_phase(step)

    def _phase(self, started: PhaseStarted, steps: Steps) -> Step:
        """Follow one phase; return the step that ends it."""
        with ExitStack() as stack:
            label = f"[{started.number}/{len(PHASES)}] {started.label}"
            advance = stack.enter_context(render.progress(label, PROGRESS_PARTS, quiet=self._quiet))
            reached = 0
            self._tell_program(started.number, 0)
            while isinstance(step := next(steps), Progress):
                parts = min(step.done * PROGRESS_PARTS // step.total, PROGRESS_PARTS) if step.total else 0
                if parts > reached:
                    advance(parts - reached)
                    reached = parts
                    self._tell_program(started.number, reached)
            self._tell_program(started.number, PROGRESS_PARTS)
        return step

    def _tell_program(self, phase: int, parts: int) -> None:
        """Write a line as e2fsck does: phase, done, total, image. A reader that went away is no reason to stop."""
        if self._fd is not None:
            try:
                os.write(self._fd, f"{phase} {parts} {PROGRESS_PARTS} {self._image}\n".encode("utf-8", "surrogateescape"))
            except OSError as failed:
                self._fd = None
                render.message(f"razorfsck: -C: progress is not told any more: {failed.strerror}")

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

    def end(self, report: Report) -> None:
        """Show the summary, or the one sentence about an image that cannot be checked."""
        fatal = [finding for finding in report.findings if finding.severity is Severity.FATAL]
        if fatal:
            for finding in report.findings:
                render.error(f"razorfsck: {report.image}: {finding.message}")
            return
        if self._quiet:
            for finding in report.findings:
                if finding.severity > Severity.NOTE:
                    render.out(_finding_lines(finding, verbose=False)[0].strip())
            return
        for line in _summary_lines(report):
            render.out(line)


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
    if report.clean:
        return [*lines, f"{report.image}: clean"]
    codes = sorted({finding.code for finding in report.findings if finding.severity > Severity.NOTE})
    hurt = {finding.path for finding in report.findings if finding.path is not None and finding.severity is Severity.ERROR}
    lines.append(f"{report.image}: {plural(report.problem_count, 'problem')} found, {plural(len(hurt), 'path')} hurt")
    lines.append(f"Next: razorfsck explain {codes[0]} tells what this means and what it risks.")
    lines.append("This version does not repair. Copy the image before anything else, and restore damaged files from a backup.")
    return lines


def _parse_phases(text: str | None) -> frozenset[int]:
    """Return the phases that ``1,5`` or ``3-6`` name. Raises UsageError."""
    if text is None:
        return frozenset(PHASES)
    chosen: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d)(?:-(\d))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= len(PHASES):
            raise UsageError(f"--only: '{part}' is no phase; they have the numbers 1 to {len(PHASES)}, as in --only 1,5")
        chosen |= set(range(first, last + 1))
    return frozenset(chosen)


def _parse_path(text: str | None) -> str | None:
    """Return the path within the image. Raises UsageError."""
    if text is not None and not text.startswith("/"):
        raise UsageError(f"--path: '{text}' does not start with '/'; it is a path within the image")
    return text


def _not_below(number: int | None, lowest: int, option: str) -> int | None:
    if number is not None and number < lowest:
        raise UsageError(f"{option}: {number} is below {lowest}")
    return number


def _thread_count(wanted: int | None) -> int:
    if wanted is not None and not 1 <= wanted <= THREADS_MAX:
        raise UsageError(f"--threads: {wanted} is not possible; choose 1 to {THREADS_MAX}")
    return wanted or min(os.cpu_count() or 1, THREADS_MAX)


def main() -> NoReturn:
    """Run the command."""
    cli.run(app, "razorfsck", cli.FSCK_CODES)


if __name__ == "__main__":
    main()
