"""razorfsck, fsck.razorfs: check and repair a RAZORFS image. Contract: man/razorfsck.8. Exit codes add up as in fsck(8)."""

import os
import re
from typing import Annotated, NoReturn

import typer

from razortools.check.explain import explain
from razortools.check.problems import PROBLEMS
from razortools.check.repair.plan_file import plan_for, read_plan, write_plan
from razortools.check.repair.repair import Choose, Repaired, RepairSteps, Wishes, follow, repair
from razortools.check.repair.surveying import believed
from razortools.check.repair.undo import undo as take_back
from razortools.check.repair.write_out import write_out
from razortools.check.report import Report, Summary
from razortools.check.runner import PHASES, Options, check
from razortools.check.salvage import salvage as copy_out
from razortools.cli import app as cli
from razortools.cli import render
from razortools.cli.app import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, VersionFlag
from razortools.cli.fsck_ask import Asking
from razortools.cli.fsck_screen import Screen
from razortools.engine.store.device import Device, open_image
from razortools.errors import UsageError
from razortools.format.superblock import State

THREADS_MAX = 64
UNDO = ".undo"  # behind the image's name: where a repair keeps the means to take it back
EXIT_LEFT = 4
_LOOKING = ("", "-n")

app = cli.new_app()


@app.command(
    help="Check a RAZORFS image, and repair it if asked to. IMAGE 'explain' followed by a code tells what a finding means.",
    epilog="Exit, added up: 0 clean, 1 repaired, 4 problems left, 8 the check could not be made, 16 usage, 32 interrupted.",
)
def fsck(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image file or block device.", show_default=False)],
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="With 'explain': the code.", show_default=False)] = None,
    look_only: Annotated[bool, typer.Option("-n", help="Look only; this is the default.")] = False,
    preen: Annotated[
        bool, typer.Option("-p", "-a", help="Only repairs that destroy nothing; clean images are left alone.")
    ] = False,
    everything: Annotated[bool, typer.Option("-y", "--repair", help="Repair everything that can be repaired.")] = False,
    ask: Annotated[bool, typer.Option("-i", help="Ask about each problem before it is repaired.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Repair, the tree built anew from a scan.")] = False,
    plan: Annotated[str | None, typer.Option("--plan", metavar="FILE", help="Write the repair to FILE, change nothing.")] = None,
    apply: Annotated[str | None, typer.Option("--apply", metavar="FILE", help="Do what --plan has written to FILE.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the last repair back, bit for bit.")] = False,
    undo_file: Annotated[str | None, typer.Option("--undo-file", metavar="FILE", help="Undo file instead of IMAGE.undo.")] = None,
    salvage: Annotated[
        str | None, typer.Option("--salvage", metavar="DIR", help="Copy what is readable to DIR, no more.")
    ] = None,
    force: Annotated[bool, typer.Option("-f", help="Check although the image is marked clean; only -p needs that.")] = False,
    backup: Annotated[int | None, typer.Option("-b", metavar="BLOCK", help="Believe the backup superblock here.")] = None,
    only: Annotated[str | None, typer.Option("--only", metavar="N,N", help="Only these phases, such as 1,5.")] = None,
    path: Annotated[str | None, typer.Option("--path", metavar="DIR", help="Only what lies in this directory.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", metavar="N", help="Threads that verify data.")] = None,
    progress_fd: Annotated[int | None, typer.Option("-C", metavar="FD", help="Write progress for programs to FD.")] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
    version: VersionFlag = False,
    debug: DebugFlag = False,
) -> int:
    """Do what is asked for, and show it."""
    if image == "explain" and code is not None:
        render.pairs(explain(code))
        return 0
    if code is not None:
        raise UsageError(f"one image at a time; what is '{code}'?")
    options = Options(
        only=_parse_phases(only), path=_parse_path(path), backup_block=_not_below(backup, 0, "-b"), threads=_thread_count(threads)
    )
    policy = _only_one({"-n": look_only, "-p": preen, "-y": everything, "-i": ask})
    deed = _only_one({"--plan": plan, "--apply": apply, "--undo": undo, "--salvage": salvage})
    _judge(policy, deed, options, rebuilds=rebuild, has_undo_file=undo_file is not None)
    screen = Screen(image, quiet=quiet or as_json, verbose=verbose, progress_fd=progress_fd)
    run = _Run(image, options, screen, policy, undo_file or image + UNDO, as_json=as_json)
    if undo:
        return run.undo()
    if salvage is not None:
        return run.salvage(salvage)
    if plan is not None:
        return run.plan(plan, rebuilds=rebuild)
    if apply is not None:
        return run.apply(apply)
    if policy in _LOOKING and not rebuild:
        return run.look()
    if policy == "-p" and not force and run.is_clean():
        return run.say_clean()
    return run.repair(rebuilds=rebuild)


class _Run:
    """One run of the command."""

    def __init__(self, image: str, options: Options, screen: Screen, policy: str, undo_path: str, *, as_json: bool) -> None:
        self._image = image
        self._options = options
        self._screen = screen
        self._policy = policy
        self._undo_path = undo_path
        self._as_json = as_json

    def look(self) -> int:
        """Check, and show the report."""
        with open_image(self._image, writable=False) as device:
            report = self._screen.follow(check(device, self._options))
        if not self._as_json:
            self._screen.end(report)
        return self._told(report)

    def is_clean(self) -> bool:
        """Return whether the image says that it is clean, and its superblocks verify."""
        with open_image(self._image, writable=False) as device:
            facts = believed(device)
            report = Screen(self._image, quiet=True, verbose=False, progress_fd=None).follow(
                check(device, Options(only=frozenset((1,))))
            )
        return facts is not None and facts.image.superblock.state == State.CLEAN and report.exit_code == 0

    def say_clean(self) -> int:
        """Say that nothing was checked, for nothing had to be."""
        self._screen.say(f"{self._image}: clean, not checked; -f checks it")
        return self._told(Report(self._image, (), (), Summary()))

    def repair(self, *, rebuilds: bool) -> int:
        """Check and repair."""
        wishes = Wishes(self._options, self._chooser(), rebuild=rebuilds, careful=self._policy == "-p")
        with open_image(self._image, writable=True) as device:
            return self._carry_out(device, repair(device, wishes))

    def apply(self, path: str) -> int:
        """Do what stands in a plan."""
        made = read_plan(path)
        with open_image(self._image, writable=True) as device:
            return self._carry_out(device, follow(device, made, self._options))

    def plan(self, path: str, *, rebuilds: bool) -> int:
        """Write down what a repair would do."""
        wishes = Wishes(self._options, self._chooser(), rebuild=rebuilds, careful=self._policy == "-p")
        with open_image(self._image, writable=False) as device:
            done = self._screen.follow(repair(device, wishes))
            if done.changes:
                write_plan(plan_for(device, done.rounds, self._options.backup_block), self._image, path)
        report = done.report(written=False)
        if not self._as_json:
            self._screen.end_plan(done, report, path)
        return self._told(report)

    def undo(self) -> int:
        """Take the last repair back."""
        with open_image(self._image, writable=True) as device:
            result = take_back(device, self._undo_path)
        if self._as_json:
            render.document({"image": self._image, "undone": True, "undo_file": result.undo_path, "pages": result.page_count})
        self._screen.say(f"{self._image}: is what it was before the repair; {result.page_count} pages were put back")
        for older in result.older_paths:
            self._screen.say(f"an earlier repair can be taken back with --undo --undo-file {older}")
        return 0

    def salvage(self, directory: str) -> int:
        """Copy out what can be read."""
        with open_image(self._image, writable=False) as device:
            report = self._screen.follow_progress("Copying out", copy_out(device, directory))
        if self._as_json:
            render.document({"image": self._image, "salvaged_to": directory} | report.as_json())
        else:
            self._screen.end_salvage(report, directory)
        return 0 if report.is_whole else EXIT_LEFT

    def _carry_out(self, device: Device, steps: RepairSteps) -> int:
        """Follow a repair, write its result if it is worth it and wanted, and show what came of it."""
        done = self._screen.follow(steps)
        written = done.changes and self._is_wanted(done)
        undo_path = write_out(done.overlay, device, self._undo_path).undo_path if written else ""
        report = done.report(written=written)
        if not self._as_json:
            self._screen.end_repair(done, report, undo_path)
        return self._told(report)

    def _is_wanted(self, done: Repaired) -> bool:
        """Return whether the result is to be written; with -i the operator has the last word."""
        if self._policy != "-i":
            return True
        self._screen.show_loss(done.loss, "This repair costs")
        return Asking.confirm("Write the repaired image?")

    def _chooser(self) -> Choose:
        """Return what decides whether a finding is repaired."""
        if self._policy == "-p":
            return lambda finding: PROBLEMS[finding.code].repair.safe
        return Asking() if self._policy == "-i" else lambda finding: True

    def _told(self, report: Report) -> int:
        """Print the document if that is wanted; return the exit code."""
        if self._as_json:
            render.document(report.as_json())
        return report.exit_code


def _only_one(wishes: dict[str, object]) -> str:
    """Return the option among *wishes* that was given, or an empty string. Raises UsageError for two of them."""
    given = [option for option, value in wishes.items() if value]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} do not go together")
    return given[0] if given else ""


def _judge(policy: str, deed: str, options: Options, *, rebuilds: bool, has_undo_file: bool) -> None:
    """Raise UsageError for options that contradict one another."""
    if deed in ("--apply", "--undo", "--salvage") and (policy or rebuilds):
        raise UsageError(f"{deed} and {policy or '--rebuild'} do not go together")
    if policy == "-n" and (deed == "--plan" or rebuilds):
        raise UsageError(f"-n only looks; it does not go together with {'--rebuild' if rebuilds else deed}")
    if policy == "-p" and rebuilds:
        raise UsageError("-p only does what is safe; a rebuild is not")
    changes = policy not in _LOOKING or deed in ("--plan", "--apply") or rebuilds
    if changes and (options.path is not None or options.only != frozenset(PHASES)):
        raise UsageError("--only and --path are for looking; a repair concerns the whole image")
    if has_undo_file and not (changes or deed == "--undo"):
        raise UsageError("--undo-file makes sense with a repair or with --undo only")


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
