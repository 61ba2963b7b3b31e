"""razorfsck, fsck.razorfs: check and repair a RAZORFS image. Contract: man/razorfsck.8. Exit codes add up as in fsck(8)."""

import os
import re
from typing import Annotated, NoReturn

import typer

from razortools.check.explain import explain
from razortools.check.findings import Finding
from razortools.check.problems import PROBLEMS
from razortools.check.repair.repair import Choose, Wishes, repair
from razortools.check.repair.write_out import write_out
from razortools.check.report import Report
from razortools.check.runner import PHASES, Options, check
from razortools.cli import app as cli
from razortools.cli import render
from razortools.cli.app import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, VersionFlag
from razortools.cli.fsck_screen import Screen
from razortools.engine.store.device import open_image
from razortools.errors import UsageError

THREADS_MAX = 64
UNDO = ".undo"  # behind the image's name: where a repair keeps the means to take it back

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
        bool, typer.Option("-p", "-a", help="Only repairs that destroy nothing; an image marked clean is not checked.")
    ] = False,
    everything: Annotated[bool, typer.Option("-y", "--repair", help="Repair everything that can be repaired.")] = False,
    ask: Annotated[bool, typer.Option("-i", help="Ask about each problem before it is repaired.")] = False,
    undo_file: Annotated[str | None, typer.Option("--undo-file", metavar="FILE", help="Undo file instead of IMAGE.undo.")] = None,
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
    """Check an image, repair it if asked to, and show the report."""
    if image == "explain" and code is not None:
        render.pairs(explain(code))
        return 0
    if code is not None:
        raise UsageError(f"one image at a time; what is '{code}'?")
    options = Options(
        only=_parse_phases(only), path=_parse_path(path), backup_block=_not_below(backup, 0, "-b"), threads=_thread_count(threads)
    )
    wish = _only_one({"-n": look_only, "-p": preen, "-y": everything, "-i": ask})
    screen = Screen(image, quiet=quiet or as_json, verbose=verbose, progress_fd=progress_fd)
    if wish in ("", "-n"):
        with open_image(image, writable=False) as device:
            report = screen.follow(check(device, options))
    else:
        report = _repair(image, Wishes(options, _chooser(wish)), undo_file, screen)
    if as_json:
        render.document(report.as_json())
    elif wish in ("", "-n"):
        screen.end(report)
    return report.exit_code


def _repair(image: str, wishes: Wishes, undo_file: str | None, screen: Screen) -> Report:
    """Repair *image* as far as *wishes* go; return what was found and what is left."""
    with open_image(image, writable=True) as device:
        done = screen.follow(repair(device, wishes))
        undo_path = ""
        if done.changes:
            undo_path = write_out(done.overlay, device, undo_file or image + UNDO).undo_path
        report = done.report()
        screen.end_repair(done, report, undo_path)
        return report


def _chooser(wish: str) -> Choose:
    """Return what decides whether a finding is repaired."""
    if wish == "-p":
        return lambda finding: PROBLEMS[finding.code].repair.safe
    if wish == "-i":
        return _asked
    return lambda finding: True


def _asked(finding: Finding) -> bool:
    """Ask the operator."""
    return bool(typer.confirm(f"{finding.code}: {finding.message}. Repair: {finding.repair}?", err=True))


def _only_one(wishes: dict[str, bool]) -> str:
    """Return the option among *wishes* that was given, or an empty string. Raises UsageError for two of them."""
    given = [option for option, is_given in wishes.items() if is_given]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} do not go together")
    return given[0] if given else ""


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
