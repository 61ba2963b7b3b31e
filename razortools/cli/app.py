"""The frame of every command: shared options, exit codes. The only shared door to typer.

A front end declares one typer command and hands it to `run`::

    app = cli.new_app()

    @app.command(help="Check a RAZORFS image.")
    def fsck(image: ImageArg, as_json: JsonFlag = False, version: VersionFlag = False, debug: DebugFlag = False) -> int:
        with open_image(image, writable=False) as device: ...
        return 0

    def main() -> NoReturn:
        cli.run(app, "razorfsck", cli.FSCK_CODES)

Invariants: a command returns its exit code (None is 0) or raises; whatever it raises leaves as one sentence on stderr and the
exit code that the command's contract names, with --json as a document, too; a traceback is shown only with --debug.
"""

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import typer

import razortools
from razortools import standard_streams
from razortools.cli import render
from razortools.cli.documents import OneDocument
from razortools.errors import CorruptImage, RazorError, UsageError, sentence
from razortools.units import parse_size

_INTERRUPTED_BY_TYPER = 130  # typer turns KeyboardInterrupt into this exit code by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitCodes:
    """The exit codes that a command's contract names."""

    usage: int  # the command line makes no sense
    failed: int  # refused or failed: no image, busy, the host, its disk
    corrupt: int  # the image is damaged
    interrupted: int  # Ctrl-C
    bug: int  # an exception that should not exist


MKFS_CODES = ExitCodes(usage=2, failed=1, corrupt=1, interrupted=1, bug=1)
FSCK_CODES = ExitCodes(usage=16, failed=8, corrupt=4, interrupted=32, bug=8)  # fsck(8)
MOUNT_CODES = ExitCodes(usage=1, failed=32, corrupt=32, interrupted=8, bug=4)  # mount(8)
DEBUG_CODES = ExitCodes(usage=2, failed=1, corrupt=1, interrupted=1, bug=1)
CRASHTEST_CODES = ExitCodes(usage=2, failed=1, corrupt=4, interrupted=1, bug=1)
HEALTH_CODES = ExitCodes(usage=3, failed=3, corrupt=2, interrupted=3, bug=3)  # monitoring plugins: 2 critical, 3 unknown


def _show_version(wanted: bool) -> None:
    """Print the version and leave, if *wanted*."""
    if wanted:
        render.out(f"razortools {razortools.__version__}")
        raise typer.Exit(0)


ImageArg = Annotated[str, typer.Argument(metavar="IMAGE", help="Image file or block device.", show_default=False)]
DirArg = Annotated[str, typer.Argument(metavar="DIR", help="Mount point.", show_default=False)]
NamespaceOption = Annotated[str | None, typer.Option("-N", "--namespace", metavar="NS", help="Mount namespace, a pid or a path.")]
TypeOption = Annotated[str | None, typer.Option("-t", "--types", metavar="TYPE", help="Ignored; mount(8) passes it.")]
NoMtabFlag = Annotated[bool, typer.Option("-n", "--no-mtab", help="Ignored: there is no mtab to write.")]
MountVerboseFlag = Annotated[bool, typer.Option("-v", "--verbose", help="Tell what is done.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
QuietFlag = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")]
VerboseFlag = Annotated[bool, typer.Option("-v", "--verbose", help="Tell more.")]
ForceFlag = Annotated[bool, typer.Option("-f", "--force", help="Do it although something speaks against it.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]  # read by `run` from the arguments
VersionFlag = Annotated[
    bool, typer.Option("-V", "--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
]


def parsed_option(*names: str, parser: Callable[[str], Any], metavar: str, help: str) -> Any:
    """Return a typer option whose text goes through *parser*, which raises ValueError or UsageError for a text it refuses.

    The default may be a value already; it is taken as it is.
    """

    def parse(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parser(value)
        except (ValueError, UsageError) as refused:
            raise typer.BadParameter(str(refused)) from None

    return typer.Option(*names, help=help, metavar=metavar, parser=parse, show_default=False)


def size_option(*names: str, help: str) -> Any:
    """Return a typer option that takes a size as people write it, 64K or 2G; the command gets bytes."""
    return parsed_option(*names, parser=parse_size, metavar="SIZE", help=help)


def new_app() -> typer.Typer:
    """Return an empty typer app in our manner: -h, plain help text, no installed completion, no decorated tracebacks."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run(app: typer.Typer, name: str, codes: ExitCodes, arguments: Sequence[str] | None = None) -> NoReturn:
    """End the process with the exit code of *app*, run as the command *name*. Arguments as for `invoke`."""
    standard_streams.secure()  # again, for who comes without the doorstep: python -m
    sys.exit(invoke(app, name, codes, arguments))


def invoke(app: typer.Typer, name: str, codes: ExitCodes, arguments: Sequence[str] | None = None) -> int:
    """Return the exit code of *app* run as *name* with *arguments* (default: the process's). Errors go to stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    document = OneDocument(name, words, render.document)
    return guard(lambda: _call(app, name, words, document), name, codes, debug="--debug" in words, document=document)


def guard(
    action: Callable[[], int | None],
    name: str,
    codes: ExitCodes,
    *,
    debug: bool = False,
    document: OneDocument | None = None,
) -> int:
    """Return the exit code of *action*; what it raises becomes one sentence on stderr and the code that *codes* names.

    For what runs outside typer's parsing, such as a daemon's first half. *document*: what is raised becomes one too, if one was
    asked for.
    """
    try:
        code = action() or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        told, code = "interrupted", codes.interrupted
    except BrokenPipeError:
        return _nobody_listens(codes)
    except Exception as failure:
        if debug:
            traceback.print_exc()
        told, code = sentence(failure), exit_code_of(failure, codes)
    render.error(f"{name}: {told}")
    try:
        if document is not None:
            document.print_failure(code, told)
        sys.stdout.flush()  # what was half said: the interpreter would end with a code of its own if it failed there
    except OSError:
        return _nobody_listens(codes)
    return code


def _nobody_listens(codes: ExitCodes) -> int:
    """Return the exit code when stdout cannot be written: its reader has gone away, or its disk is full."""
    standard_streams.drop(1)
    return codes.failed


def _call(app: typer.Typer, name: str, words: list[str], document: OneDocument) -> int:
    """Return the exit code of the typer app, whose command finds *document* in its context.

    Raises UsageError for a command line that typer refuses.
    """
    streams = sys.stdout, sys.stderr
    try:
        result = typer.main.get_command(app).main(args=words, prog_name=name, standalone_mode=False, obj=document)
    except SystemExit as ended:  # typer's own answer to a reader that has gone away, and 1 is not what every contract says
        sys.stdout, sys.stderr = streams
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None
        raise
    except typer.TyperException as refused:
        raise UsageError(f"{refused.format_message().rstrip('.')}. Try: {name} --help") from None
    except typer.Abort:
        raise KeyboardInterrupt from None
    if result == _INTERRUPTED_BY_TYPER:
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


def exit_code_of(failure: Exception, codes: ExitCodes) -> int:
    """Return the exit code for *failure*."""
    if isinstance(failure, UsageError):
        return codes.usage
    if isinstance(failure, CorruptImage):
        return codes.corrupt
    if isinstance(failure, RazorError | OSError | MemoryError):
        return codes.failed
    return codes.bug
