"""razorfs-debug: look into an image and operate on it without mounting it."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from razortools.cli import app as cli
from razortools.cli import debug_screen, render
from razortools.cli.app import DebugFlag, ImageArg, JsonFlag, VersionFlag
from razortools.cli.documents import OneDocument
from razortools.debug.commands import COMMANDS
from razortools.debug.opening import open_session
from razortools.debug.session import Session, run_line, split_pipe
from razortools.errors import RazorError, UsageError, sentence

NAME = "razorfs-debug"

app = cli.new_app()


@app.command(help="Look into a RAZORFS image, or with -w change it, without mounting it. Without -R or -f: a prompt.")
def debugfs(
    context: typer.Context,
    image: ImageArg,
    write: Annotated[bool, typer.Option("-w", "--write", help="Allow commands that change the image.")] = False,
    run: Annotated[
        list[str] | None,
        typer.Option("-R", "--run", metavar="COMMAND", help="Run this command; may be given several times. 'help' lists them."),
    ] = None,
    script: Annotated[
        str | None, typer.Option("-f", "--file", metavar="SCRIPT", help="Run the commands in this file, one a line; - is stdin.")
    ] = None,
    as_json: JsonFlag = False,
    version: VersionFlag = False,
    debug: DebugFlag = False,
) -> int:
    """Run the commands in their order and stop at the first error."""
    document: OneDocument = context.obj
    document.known["image"] = image
    if as_json and run is None and script is None:
        raise UsageError("--json goes with commands, -R COMMAND or -f SCRIPT; a script may come from stdin, -f -")
    lines = [Line(text) for text in run or []]
    if script is not None:
        lines += [Line(text, f"{script}, line {number}") for number, text in enumerate(_read_script(script), 1)]
    with open_session(image, writable=write, tell=render.message, hold=partial(_holding, image)) as session:
        if run is None and script is None:
            return _prompt(session)
        if as_json:
            _run_as_document(session, document, lines, alone=len(lines) == 1 and script is None)
        else:
            for line in lines:
                with _placed(line):
                    _run(session, line.text)
    return 0


@dataclass(frozen=True, slots=True)
class Line:
    """A command, and where in a script it stands."""

    text: str
    where: str = ""


class ScriptStopped(RazorError):
    """A command of a script has failed: mend the script, or what it met."""


@contextmanager
def _placed(line: Line) -> Iterator[None]:
    """Have an error in a script say where that is. Whatever it was: the words of razorfs-debug itself were right."""
    try:
        yield
    except RazorError as failure:
        if not line.where:
            raise
        raise ScriptStopped(f"{line.where}: {failure}") from failure


def _holding(image: str) -> AbstractContextManager[bool]:
    """Return what has the mount of *image* keep what is looked at."""
    from razortools.service.held import holding  # late: only an image that is in use needs it

    return holding(image)


def _read_script(path: str) -> list[str]:
    """Return the lines of a script."""
    if path == "-":
        return sys.stdin.read().splitlines()
    return Path(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines()


def _run_as_document(session: Session, document: OneDocument, lines: list[Line], *, alone: bool) -> None:
    """Print one document: the answer of the only command, or a list of {"command", "result"}."""
    results: list[dict[str, object]] = []
    document.known["results"] = results  # each command was made durable by itself: a failure tells those before it
    for line in lines:
        document.known["command"] = line.text
        with _placed(line):
            command, program = split_pipe(line.text)
            if program:
                raise UsageError(f"{line.text}: with --json the output is one document; pipe that instead")
            answer = run_line(session, COMMANDS, command)
        if answer is not None:
            results.append({"command": line.text, "result": debug_screen.data_of(answer)})
    document.print(results[0]["result"] if alone and results else results)


def _run(session: Session, line: str, *, paged: bool = False) -> None:
    """Run one line and show its answer where it wants it."""
    command, program = split_pipe(line)
    answer = run_line(session, COMMANDS, command)
    if program:
        debug_screen.show_into(answer, program)
    elif paged:
        debug_screen.show_paged(answer)
    else:
        debug_screen.show(answer)


def _prompt(session: Session) -> int:
    """Ask for commands until the end of the input. On a terminal an error does not end the session."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive and session.fault:
        render.message(f"{session.fault}. Only what needs no tree can be looked at")
    for line in _lines_typed(session, interactive):
        if line.strip() in ("quit", "exit", "q"):
            break
        try:
            _run(session, line, paged=interactive)
        except (RazorError, OSError) as failure:
            if not interactive:
                raise
            render.error(sentence(failure))
        except KeyboardInterrupt:
            render.message("")
    return 0


def _lines_typed(session: Session, interactive: bool) -> Iterator[str]:
    """Yield the lines of stdin, on a terminal with a prompt."""
    if not interactive:
        yield from sys.stdin
        return
    from razortools.cli.debug_prompt import lines_typed  # scripts need not wait for the terminal's library

    yield from lines_typed(session, COMMANDS)


def main() -> NoReturn:
    """Run the command; `razorfs-debug crashtest` is one of its own, which needs no image (one called that: ./crashtest)."""
    if sys.argv[1:2] == ["crashtest"]:
        from razortools import crashtest  # the check and the explorer load slowly, and nothing else here needs them

        crashtest.main(sys.argv[2:])
    cli.run(app, NAME, cli.DEBUG_CODES)


if __name__ == "__main__":
    main()
