"""razorfs-debug: look into an image and operate on it without mounting it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from razortools.cli import app as cli
from razortools.cli import render
from razortools.cli.app import DebugFlag, ImageArg, JsonFlag, VersionFlag
from razortools.debug.answers import Answer, Lines, Pairs, Several, Stream, Table
from razortools.debug.commands import COMMANDS
from razortools.debug.session import Session, run_line
from razortools.errors import RazorError

NAME = "razorfs-debug"
PROMPT = "razorfs> "

app = cli.new_app()


@app.command(help="Look into a RAZORFS image, or with -w change it, without mounting it. Without -R or -f: a prompt.")
def debugfs(
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
    lines = list(run or [])
    if script is not None:
        lines += _read_script(script)
    with cli.open_volume(image, writable=write, in_use=not write) as volume:
        session = Session(volume, write)
        if run is None and script is None:
            return _prompt(session)
        if as_json:
            _run_as_document(session, lines, alone=len(lines) == 1 and script is None)
        else:
            for line in lines:
                show(run_line(session, COMMANDS, line))
    return 0


def _read_script(path: str) -> list[str]:
    """Return the lines of a script."""
    if path == "-":
        return sys.stdin.read().splitlines()
    return Path(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines()


def _run_as_document(session: Session, lines: list[str], *, alone: bool) -> None:
    """Print one document: the answer of the only command, or a list of {"command", "result"}."""
    results = []
    for line in lines:
        answer = run_line(session, COMMANDS, line)
        if answer is not None:
            results.append({"command": line, "result": data_of(answer)})
    render.document(results[0]["result"] if alone and results else results)


def data_of(answer: Answer) -> Any:
    """Return what an answer is in JSON."""
    return b"".join(answer.pieces) if isinstance(answer, Stream) else answer.data


def show(answer: Answer | None) -> None:
    """Show an answer as text on stdout."""
    if isinstance(answer, Several):
        for part in answer.parts:
            show(part)
    elif isinstance(answer, Stream):
        for piece in answer.pieces:
            render.out_bytes(piece)
    elif isinstance(answer, Table):
        render.table(answer.columns, answer.rows, right=answer.right, title=answer.title)
    elif isinstance(answer, Pairs):
        render.pairs(answer.entries, title=answer.title)
    elif isinstance(answer, Lines):
        for line in answer.lines:
            render.out(line)


def _prompt(session: Session) -> int:
    """Ask for commands until the end of the input. On a terminal an error does not end the session."""
    interactive = sys.stdin.isatty()
    for line in _lines_typed(interactive):
        if line.strip() in ("quit", "exit", "q"):
            break
        try:
            show(run_line(session, COMMANDS, line))
        except (RazorError, OSError) as failure:
            if not interactive:
                raise
            render.error(cli.sentence(failure))
        except KeyboardInterrupt:
            render.message("")
    return 0


def _lines_typed(interactive: bool) -> Iterator[str]:
    """Yield the lines of stdin, with a prompt and line editing on a terminal."""
    if not interactive:
        yield from sys.stdin
        return
    import readline  # noqa: F401  (input() edits lines once this is imported)

    render.message("'help' lists the commands, 'quit' leaves.")
    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            render.message("")
            return
        except KeyboardInterrupt:
            render.message("")


def main() -> NoReturn:
    """Run the command; `razorfs-debug crashtest` is one of its own, which needs no image (one called that: ./crashtest)."""
    if sys.argv[1:2] == ["crashtest"]:
        from razortools import crashtest  # the check and the explorer load slowly, and nothing else here needs them

        crashtest.main(sys.argv[2:])
    cli.run(app, NAME, cli.DEBUG_CODES)


if __name__ == "__main__":
    main()
