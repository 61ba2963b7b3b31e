"""Write the option sections of the manual pages from the commands themselves; with --check only say whether they are up to date.

The prose is written by hand; between the comments "begin options" and "end options" stands what this tool makes.
"""

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

import razortools
from razortools.debug.commands import TOPICS

MAN = Path(__file__).resolve().parent.parent / "man"
PAGES = {  # page: module and name of its typer app
    "mkfs.razorfs.8": ("razortools.mkfs", "app"),
    "mount.razorfs.8": ("razortools.mount", "app"),
    "umount.razorfs.8": ("razortools.mount", "umount_app"),
    "razorfsck.8": ("razortools.fsck", "app"),
    "razorfs-debug.8": ("razortools.debugfs", "app"),
    "razorfs-debug-crashtest.8": ("razortools.crashtest", "app"),
    "razorfs-health.1": ("razortools.health", "app"),
}


def roff(text: str) -> str:
    """Return *text* with what roff would understand escaped."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def options_of(app: typer.Typer) -> Iterator[str]:
    """Yield the lines of the option section of *app*."""
    parameters: list[Any] = typer.main.get_command(app).params
    for parameter in parameters:
        if parameter.param_type_name != "option" or parameter.hidden:
            continue
        names = ", ".join(f"\\fB{roff(name)}\\fR" for name in [*parameter.opts, *parameter.secondary_opts])
        value = "" if parameter.is_flag else f" \\fI{roff(parameter.metavar or parameter.name.upper())}\\fR"
        yield from (".TP", names + value, roff(parameter.help or ""))
    yield from (".TP", "\\fB\\-h\\fR, \\fB\\-\\-help\\fR", "Show the usage and leave.")


def commands() -> Iterator[str]:
    """Yield the lines that tell of the commands of razorfs-debug, topic by topic."""
    for topic, of_topic in TOPICS.items():
        yield f".SS {topic}"
        for command in of_topic:
            usage = command.words.usage_line().removeprefix("usage: ")
            needs = " Needs \\-w." if command.writes else ""
            yield from (".TP", f"\\fB{roff(usage)}\\fR", roff(f"{command.summary[0].upper()}{command.summary[1:]}.") + needs)
            for name, meaning in command.words.told():
                yield from (".br", f"\\fB{roff(name)}\\fR: {roff(meaning)}")
            yield from (".br", f"Example: \\fB{roff(command.examples[0])}\\fR")


def replaced(page: str, section: str, lines: Iterator[str]) -> str:
    """Return *page* with *lines* between the marks of *section*."""
    begin, end = f'.\\" begin {section}\n', f'.\\" end {section}\n'
    head, _, rest = page.partition(begin)
    _, found, tail = rest.partition(end)
    assert found, f"no marks for {section}"
    return head + begin + "".join(f"{line}\n" for line in lines) + end + tail


def wanted(name: str, page: str) -> str:
    """Return what the page *name* should be, by its present text."""
    module, app = PAGES[name]
    page = re.sub(r"razortools \d[\w.]*", f"razortools {razortools.__version__}", page)
    page = replaced(page, "options", options_of(getattr(import_module(module), app)))
    return replaced(page, "commands", commands()) if name == "razorfs-debug.8" else page


def main(arguments: list[str]) -> int:
    """Return 0, or 1 if --check found a page out of date."""
    stale = []
    for name in PAGES:
        before = (MAN / name).read_text(encoding="utf-8")
        after = wanted(name, before)
        if before != after:
            stale.append(name)
            if arguments != ["--check"]:
                (MAN / name).write_text(after, encoding="utf-8")
    if stale and arguments == ["--check"]:
        print(f"out of date: {', '.join(stale)}; run: python tools/man_pages.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
