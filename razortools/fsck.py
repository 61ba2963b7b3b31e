"""razorfsck, fsck.razorfs: check and repair a RAZORFS image. Contract: man/razorfsck.8. Exit codes add up as in fsck(8)."""

import os
import time
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Annotated, NoReturn

import typer

from razortools.check.compact.compact import compact as compacted
from razortools.check.compact.offer import offered
from razortools.check.compact.plan import Plan
from razortools.check.explain import explain
from razortools.check.in_use import look
from razortools.check.problems import PROBLEMS
from razortools.check.pulse import PulsingDevice
from razortools.check.remember import note_checked, note_in, note_repaired
from razortools.check.repair.cut_off import about_unfinished, take_back_unfinished
from razortools.check.repair.plan_file import HEAD, plan_for, read_plan, write_plan
from razortools.check.repair.plan_place import judge_place
from razortools.check.repair.repair import Choose, Repaired, RepairSteps, Wishes, follow, repair
from razortools.check.repair.surveying import believed
from razortools.check.repair.undo import undo as take_back
from razortools.check.repair.undo_shelf import HostShelf
from razortools.check.repair.write_out import write_out
from razortools.check.report import Report, Summary
from razortools.check.runner import Options, check
from razortools.check.salvage import salvage as copy_out
from razortools.cli import app as cli
from razortools.cli import deeds, render
from razortools.cli.app import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, VersionFlag
from razortools.cli.documents import OneDocument
from razortools.cli.fsck_ask import Asking
from razortools.cli.fsck_compaction import offer_as_json, show_compaction, show_offer
from razortools.cli.fsck_screen import Screen
from razortools.cli.fsck_signals import Signals
from razortools.cli.fsck_words import (
    APPLY,
    COMPACT,
    EXPLAIN,
    GOES_WITH,
    LOOK,
    PLAN,
    POLICIES,
    SALVAGE,
    UNDO,
    deed_of,
    judge_descriptor,
    not_below,
    parse_path,
    parse_phases,
    thread_count,
)
from razortools.engine.store.device import Device, open_image
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.undo_place import UNDO_DIRECTORY, default_undo_file, distrust
from razortools.errors import CannotUndo, CorruptImage, ImageBusy, RazorError, UsageError
from razortools.format.admin import Action, entry
from razortools.format.superblock import State

UNDO_FILE_HELP = f"Undo file instead of IMAGE.undo; for a block device, of {UNDO_DIRECTORY}/dev-NAME.undo."
COMPACT_HELP = "Pack a clean image: fewer nodes, strings and fragments. --undo takes it back."
EXIT_LEFT, EXIT_FAILED = 4, 8

app = cli.new_app()


@app.command(
    help="Check a RAZORFS image, and repair it if asked to. IMAGE 'explain' followed by a code tells what a finding means.",
    epilog="Exit, added up: 0 clean, 1 repaired or compacted, 4 problems left, 8 not checked, 16 usage, 32 interrupted.",
)
def fsck(
    context: typer.Context,
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
    undo_file: Annotated[str | None, typer.Option("--undo-file", metavar="FILE", help=UNDO_FILE_HELP)] = None,
    compact: Annotated[bool, typer.Option("--compact", help=COMPACT_HELP)] = False,
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
    document: OneDocument = context.obj
    given = {
        "-n": look_only, "-p": preen, "-y": everything, "-i": ask, "--rebuild": rebuild, "--plan": plan is not None,
        "--apply": apply is not None, "--undo": undo, "--compact": compact, "--salvage": salvage is not None,
        "--undo-file": undo_file is not None,
        "-f": force, "-b": backup is not None, "--only": only is not None, "--path": path is not None,
        "--threads": threads is not None, "-C": progress_fd is not None, "--json": as_json, "-q": quiet, "-v": verbose,
    }  # fmt: skip
    words = [word for word, is_given in given.items() if is_given]
    if image == EXPLAIN and code is not None:
        deeds.judge(EXPLAIN, words, GOES_WITH)
        render.pairs(explain(code))
        return 0
    if image == EXPLAIN and not os.path.exists(EXPLAIN):
        raise UsageError("explain takes the code of a finding, such as E0501")

    document.known["image"] = image
    if code is not None:
        raise UsageError(f"one image at a time; what is '{code}'?")
    deed = deed_of(words)
    options = Options(
        only=parse_phases(only), path=parse_path(path), backup_block=not_below(backup, 0, "-b"), threads=thread_count(threads)
    )
    judge_descriptor(progress_fd, image, as_json=as_json)
    screen = Screen(image, quiet=quiet or as_json, verbose=verbose, progress_fd=progress_fd)
    policy = next((word for word in words if word in POLICIES), "")
    with Signals() as signals:
        run = _Run(image, options, screen, policy, undo_file, signals, document, as_json=as_json)
        return run.do(deed, plan or apply or salvage or "", rebuilds=rebuild, force=force or backup is not None)


class _Run:
    """One run of the command."""

    def __init__(
        self,
        image: str,
        options: Options,
        screen: Screen,
        policy: str,
        undo_path: str | None,
        signals: Signals,
        document: OneDocument,
        *,
        as_json: bool,
    ) -> None:
        self._image = image
        self._options = options
        self._screen = screen
        self._policy = policy
        self._undo_path = undo_path or default_undo_file(image)
        self._distrust = "" if undo_path else distrust(image)  # who names an undo file vouches for it
        self._signals = signals
        self._document = document
        self._as_json = as_json

    def do(self, deed: str, name: str, *, rebuilds: bool, force: bool) -> int:
        """Do one of the deeds; *name* is the file or directory that it is about. Return the exit code."""
        if deed == UNDO:
            return self.undo()
        self._settle_unfinished(deed)
        if deed == COMPACT:
            return self.compact()
        if deed == SALVAGE:
            return self.salvage(name)
        if deed == PLAN:
            return self.plan(name, rebuilds=rebuilds)
        if deed == APPLY:
            return self.apply(name)
        if deed == LOOK:
            return self.look()
        if self._policy == "-p" and not force and self.is_clean():
            return self.say_clean()
        return self.repair(rebuilds=rebuilds)

    def _settle_unfinished(self, deed: str) -> None:
        """Take a commit back that was cut off before it took effect, or tell of it. Raises CorruptImage for a plan."""
        if self._distrust:
            render.message(f"razorfsck: {self._distrust}")
        if self._distrust or not os.path.exists(self._undo_path):
            return
        reads_only = deed in (LOOK, SALVAGE, PLAN)
        try:
            with open_image(self._image, writable=not reads_only) as device:
                judged = about_unfinished if reads_only else take_back_unfinished
                told = judged(device, self._undo_path)
        except ImageBusy:
            return  # whoever has it has looked already
        if told and deed == PLAN:
            raise CorruptImage(f"{told}. No plan was made: it would be about that")
        if told:
            render.message(f"razorfsck: {told}")

    def look(self) -> int:
        """Check, and show the report. An image that is mounted is looked at through its last checkpoint."""
        plan = None
        try:
            with open_image(self._image, writable=False) as device:
                report = self._screen.follow(check(device, self._options))
                plan = self._offer(device, report)
        except ImageBusy as busy:
            report = self._look_at_mounted(busy)
        if not self._as_json:
            self._screen.end(report)
            if plan is not None:
                show_offer(self._screen, plan, self._image)
        return self._told(report) if plan is None else self._told(report, compaction=offer_as_json(plan))

    def _offer(self, device: Device, report: Report) -> Plan | None:
        """Return what a compaction would do, if all of the image was checked, is clean, and that would pay."""
        if report.clean and self._is_whole:
            with suppress(RazorError):  # an offer is no reason to fail
                return offered(device, report.summary)
        return None

    @property
    def _is_whole(self) -> bool:
        """Whether all of the image is checked, by its newest superblock."""
        return self._options == Options(threads=self._options.threads)

    def _look_at_mounted(self, busy: ImageBusy) -> Report:
        """Check an image while its mount goes on. Raises *busy* if it is not a mount that uses it."""
        from razortools.service.held import mount_of, witness_for  # late: only an image that is in use needs it

        mount = mount_of(self._image)
        if mount is None:
            raise busy
        if self._options.backup_block is not None:
            raise ImageBusy(f"{busy}; a mounted image is only looked at through its newest superblock, without -b")
        self._screen.mounted_at(mount.mount_point, mount.pid)
        with open_image(self._image, writable=False, lock=False) as device:
            report = self._screen.follow(look(device, lambda: witness_for(device, mount), self._options))
        in_use = {"pid": mount.pid, "mount_point": mount.mount_point}
        return replace(report, in_use=in_use | (report.in_use or {}))

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
        return self._told(Report(self._image, (), (), Summary()), loss=None, summary=None)

    def repair(self, *, rebuilds: bool) -> int:
        """Check and repair."""
        wishes = Wishes(self._options, self._chooser(), rebuild=rebuilds, careful=self._policy == "-p")
        self._judge_undo_place()
        with self._open(writable=True) as device:
            return self._carry_out(device, repair(device, wishes))

    def apply(self, path: str) -> int:
        """Do what stands in a plan."""
        made = read_plan(path)
        self._judge_undo_place()
        with self._open(writable=True) as device:
            return self._carry_out(device, follow(device, made, self._options))

    def plan(self, path: str, *, rebuilds: bool) -> int:
        """Write down what a repair would do."""
        judge_place(path, self._image, HEAD)
        wishes = Wishes(self._options, self._chooser(), rebuild=rebuilds, careful=self._policy == "-p")
        with self._open(writable=False) as device:
            done = self._screen.follow(repair(device, wishes))
            if done.changes:
                write_plan(plan_for(device, done.rounds, self._options.backup_block), self._image, path)
        report = replace(done.report(written=False), is_refused=bool(done.refused))
        if not self._as_json:
            self._screen.end_plan(done, report, path)
        return self._told(report)

    def undo(self) -> int:
        """Take the last repair back."""
        if self._distrust:
            raise CannotUndo(self._distrust)
        with self._open(writable=True) as device, self._screen.pace.between("Taking back"):
            result = take_back(device, self._undo_path, before_writing=self._signals.hold)
        self._tell_of_signals("the repair was taken back")
        if self._as_json:
            pages = {"undone": True, "undo_file": result.undo_path, "pages": result.page_count}
            self._print(_unjudged(self._image, 0) | pages | {"older_undo_files": list(result.older_paths)})
        self._screen.say(f"{self._image}: is what it was before the repair; {result.page_count} pages were put back")
        for older in result.older_paths:
            self._screen.say(f"the repair before it can be taken back as well, with --undo --undo-file {older}")
        return 0

    def compact(self) -> int:
        """Pack the image, if it is clean."""
        self._judge_undo_place()
        began_ns, steps = time.time_ns(), count(1)

        def write(overlay: OverlayDevice) -> str:
            note_in(overlay, entry(Action.COMPACT, began_ns, detail=next(steps)))
            return write_out(overlay, device, self._undo_path, before_writing=self._signals.hold, is_sound=True).undo_path

        with open_image(self._image, writable=True) as device:
            done = self._screen.follow(compacted(device, self._options, write, lambda: bool(self._signals.came)))
        self._tell_of_signals("the step was written")
        report = done.report()
        if not self._as_json:
            show_compaction(self._screen, done, report)
        return self._told(report, compaction=done.as_json())

    def salvage(self, directory: str) -> int:
        """Copy out what can be read."""
        with open_image(self._image, writable=False) as device:
            report = self._screen.follow_progress("Copying out", copy_out(device, directory))
        exit_code = 0 if report.is_whole else EXIT_FAILED if report.is_nothing else EXIT_LEFT
        if self._as_json:
            self._print(_unjudged(self._image, exit_code) | {"salvaged_to": directory} | report.as_json())
        else:
            self._screen.end_salvage(report, directory)
        return exit_code

    def _open(self, *, writable: bool) -> Device:
        """Open and lock the image for a repair, whose work between the checks is told by what it reads and writes."""
        return PulsingDevice(open_image(self._image, writable=writable), self._screen.pace.pulse)

    def _carry_out(self, device: Device, steps: RepairSteps) -> int:
        """Follow a repair, write its result if it is worth it and wanted, and show what came of it."""
        done = self._screen.follow(steps)
        written = done.changes and self._is_wanted(done)
        undo_path = ""
        if written:
            note_repaired(done.overlay, time.time_ns(), done.report(written=True))
            with self._screen.pace.between("Writing"):
                undo_path = write_out(done.overlay, device, self._undo_path, before_writing=self._signals.hold).undo_path
            self._tell_of_signals("the repair was written")
        report = replace(done.report(written=written), is_modified=bool(undo_path), is_refused=bool(done.refused))
        self._remember(device, done, report)
        if not self._as_json:
            self._screen.end_repair(done, report, undo_path)
        return self._told(report)

    def _remember(self, device: Device, done: Repaired, report: Report) -> None:
        """Note in the image that all of it was found in order, unless a repair can be taken back: then it could not any more."""
        undo_files = (self._undo_path, default_undo_file(self._image))
        if done.changes or report.exit_code or not self._is_whole or any(map(os.path.exists, undo_files)):
            return
        self._signals.hold()
        note_checked(device, time.time_ns(), report)
        self._tell_of_signals("the check was noted")

    def _is_wanted(self, done: Repaired) -> bool:
        """Return whether the result is to be written; with -i the operator has the last word."""
        if self._policy != "-i":
            return True
        self._screen.show_before_asking(done)
        return Asking.confirm("Write the repaired image?")

    def _judge_undo_place(self) -> None:
        """Raise a RazorError if the undo file cannot lie where it is to. -p may find that none is needed, so it looks first."""
        if self._policy != "-p":
            HostShelf(self._undo_path, self._image).judge()

    def _tell_of_signals(self, done: str) -> None:
        """Say that a signal had to wait."""
        if self._signals.came:
            render.message(f"razorfsck: {self._signals.came} had to wait until {done}, and all of it was")

    def _chooser(self) -> Choose:
        """Return what decides whether a finding is repaired."""
        if self._policy == "-p":
            return lambda finding: PROBLEMS[finding.code].repair.safe
        return Asking() if self._policy == "-i" else lambda finding: True

    def _told(self, report: Report, **instead: object) -> int:
        """Print the document if that is wanted, with some keys told *instead*; return the exit code."""
        if self._as_json:
            if report.error is not None:
                render.error(f"razorfsck: {report.error}")
            self._print(report.as_json() | instead)
        return report.exit_code

    def _print(self, found: dict[str, object]) -> None:
        """Print the one document; nothing that comes while it is printed makes a second one."""
        self._signals.hold()
        self._document.print(found)


def _unjudged(image: str, exit_code: int) -> dict[str, object]:
    """Return the keys of every document, for a deed that does not judge the image."""
    return {"image": image, "clean": None, "exit_code": exit_code, "phases": [], "findings": [], "loss": None, "summary": None}


def main() -> NoReturn:
    """Run the command."""
    Signals.for_good = True
    cli.run(app, "razorfsck", cli.FSCK_CODES)


if __name__ == "__main__":
    main()
