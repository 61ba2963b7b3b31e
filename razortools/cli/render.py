"""Words for people: tables, progress, JSON. The only module that knows rich.

Invariants: results go to stdout, everything else to stderr; progress and colour appear only on a terminal; JSON is exactly one
document; text is never interpreted as markup.
"""

import json
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from razortools import standard_streams

_WIDTH_WHEN_PIPED = 10_000  # nobody reads a pipe through a window: never wrap or cut


def out(text: str = "") -> None:
    """Print *text* and a newline on stdout, as it is; bytes of names that are no UTF-8 come out as they went in."""
    with _naming_stdout():
        _write(sys.stdout, text + "\n")


@contextmanager
def _naming_stdout() -> Iterator[None]:
    """Have an error say where it was."""
    try:
        yield
    except OSError as refused:
        refused.filename = "standard output"
        raise


def out_bytes(data: bytes) -> None:
    """Write *data* to stdout as it is."""
    with _naming_stdout():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def message(text: str) -> None:
    """Print *text* and a newline on stderr. Where that cannot be written it is dropped: no work ends for want of company."""
    with _dropped_if_refused():
        _write(sys.stderr, text + "\n")


def error(text: str, details: Iterable[str] = ()) -> None:
    """Print an error on stderr, red on a terminal, *details* below. Where that cannot be written the exit code has to do."""
    if sys.stderr.isatty():
        with _dropped_if_refused():
            _console(stderr=True).print(Text(text, style="bold red"), soft_wrap=True)
    else:
        message(text)
    for line in details:
        message(line)


@contextmanager
def _dropped_if_refused() -> Iterator[None]:
    """Let what is written to stderr lead nowhere from the moment it cannot be written."""
    try:
        yield
    except OSError:
        standard_streams.drop(2)


def document(value: Any) -> None:
    """Print *value* as one JSON document. Dataclasses become objects, bytes become text (see `plain`)."""
    out(json.dumps(plain(value), indent=2, ensure_ascii=True))


def plain(value: Any) -> Any:
    """Return *value* as JSON can hold it.

    Bytes are read as UTF-8; a byte that is none becomes a lone surrogate, as os.fsdecode does it.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(part) for key, part in value.items()}
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "surrogateescape")
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[int] = (), title: str = "") -> None:
    """Print a table on stdout. *right* numbers the columns that are aligned to the right."""
    lines = box.SIMPLE_HEAD if sys.stdout.isatty() else None
    made = Table(box=lines, title=Text(title) if title else None, title_justify="left", pad_edge=False)
    for number, column in enumerate(columns):
        made.add_column(Text(column), justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    _print(made)


def pairs(entries: Iterable[tuple[str, object]], *, title: str = "") -> None:
    """Print names and values in two columns on stdout."""
    made = Table(box=None, title=Text(title) if title else None, title_justify="left", show_header=False, pad_edge=False)
    made.add_column(style="bold" if sys.stdout.isatty() else "")
    made.add_column(overflow="fold")
    for name, value in entries:
        made.add_row(Text(name), Text(str(value)))
    _print(made)


def styled(text: str, style: str) -> None:
    """Print a line on stdout, in a rich *style* such as ``bold red`` on a terminal and plain elsewhere."""
    if sys.stdout.isatty():
        _console().print(Text(text, style=style), soft_wrap=True)
    else:
        out(text)


@contextmanager
def progress(label: str, total: int | None, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with how much was done since the last call. Shows a bar on stderr if that is a terminal.

    *total* is None when it is not known.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda step: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda step: bar.update(task, advance=step)


@contextmanager
def working(label: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows *label* with a few words on stderr, if that is a terminal: work whose end nobody knows."""
    if quiet or not sys.stderr.isatty():
        yield lambda words: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[words]}", markup=False))
    with Progress(*columns, console=_console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, words="")
        yield lambda words: bar.update(task, words=words)


Section = tuple[str, Sequence[Sequence[str]]]  # title, rows


@contextmanager
def screen() -> Iterator[tuple[Callable[[Sequence[Section]], None], Callable[[float], bool]]]:
    """Yield a function that shows sections in place of those before, and one that waits and tells whether that was enough.

    On a terminal q ends it; Ctrl-C does everywhere, as if it were q. Elsewhere each look is printed below the one before.
    """
    with _keys() as is_enough:
        if not sys.stdout.isatty():
            yield show_sections, is_enough
            return
        with Live(console=_console(), screen=True, auto_refresh=False) as live:
            yield lambda sections: live.update(_page(sections), refresh=True), is_enough


def show_sections(sections: Sequence[Section]) -> None:
    """Print sections on stdout, one below the other."""
    for title, rows in sections:
        out(title)
        for row in rows:
            out("  " + "  ".join(row))
    out()


def _page(sections: Sequence[Section]) -> Group:
    """Return sections for a screen, one below the other."""
    parts: list[Any] = []
    for title, rows in sections:
        made = Table(box=None, show_header=False, pad_edge=False, title=Text(title, style="bold"), title_justify="left")
        for number in range(max(map(len, rows), default=0)):
            made.add_column(justify="left" if number == 0 else "right" if number > 1 else "left", overflow="fold")
        for row in rows:
            made.add_row(*(Text(cell, style=_VERDICT_STYLES.get(cell, "")) for cell in row))
        parts += [made, Text("q ends" if not parts else "", style="dim")]
    return Group(*parts)


_VERDICT_STYLES = {"OK": "green", "WARNING": "yellow", "CRITICAL": "bold red", "UNKNOWN": "magenta"}


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits so many seconds, and returns whether q or Ctrl-C came meanwhile."""
    descriptor = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty() else -1
    before = termios.tcgetattr(descriptor) if descriptor >= 0 else None

    def is_enough(seconds: float) -> bool:
        try:
            if descriptor < 0:
                time.sleep(seconds)
                return False
            end = time.monotonic() + seconds
            while select.select([descriptor], [], [], max(end - time.monotonic(), 0))[0]:
                key = os.read(descriptor, 1)
                if key in (b"q", b"Q", b""):
                    return True
        except KeyboardInterrupt:
            return True
        return False

    try:
        if before is not None:
            tty.setcbreak(descriptor)
        yield is_enough
    finally:
        if before is not None:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _print(renderable: Any) -> None:
    """Print a rich object on stdout, without the spaces that rich fills lines with when nobody watches."""
    if sys.stdout.isatty():
        _console().print(renderable)
        return
    console = Console(width=_WIDTH_WHEN_PIPED, color_system=None, markup=False, highlight=False)
    with _naming_stdout(), console.capture() as captured:  # rich writes nothing then, but does write
        console.print(renderable)
    out("\n".join(line.rstrip() for line in captured.get().strip("\n").split("\n")))


def _console(*, stderr: bool = False) -> Console:
    """Return a console on the stream that is current now: tests and daemons exchange the streams."""
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def _write(stream: Any, text: str) -> None:
    """Write *text* to *stream*; what its encoding cannot show goes out as the bytes it came from."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        stream.flush()
        stream.buffer.write(text.encode("utf-8", "surrogateescape"))
    stream.flush()
