"""Write the option sections of the manual pages from the commands themselves; with --check only say whether they are up to date.

The prose is written by hand; between the comments "begin options" and "end options" stands what this tool makes.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

import razortools
from razortools.debug.commands import TOPICS
from razortools.engine.symlinks import TARGET_BYTES_MAX
from razortools.format.data import FILE_BYTES_MAX, RECORD_BYTES_MAX, RECORD_BYTES_MIN
from razortools.format.directory import NAME_BYTES_MAX
from razortools.format.document import notes_of
from razortools.format.geometry import IMAGE_BYTES_MIN, JOURNAL_BYTES_MAX, JOURNAL_BYTES_MIN
from razortools.format.inode import LINK_MAX
from razortools.format.superblock import LABEL_BYTES_MAX, Compat, Incompat
from razortools.format.xattr import XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX
from razortools.units import format_size

MAN = Path(__file__).resolve().parent.parent / "man"
PAGES = {  # page: module and name of its typer app
    "mkfs.razorfs.8": ("razortools.mkfs", "app"),
    "mount.razorfs.8": ("razortools.mount", "app"),
    "umount.razorfs.8": ("razortools.umount", "app"),
    "razorfsck.8": ("razortools.fsck", "app"),
    "razorfs-debug.8": ("razortools.debugfs", "app"),
    "razorfs-debug-crashtest.8": ("razortools.crashtest", "app"),
    "razorfs-health.1": ("razortools.health", "app"),
}


FORMAT_PAGE = "razorfs.5"


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
        usually = f" Usually {parameter.default:g}." if _tells_default(parameter) else ""
        yield from (".TP", names + value, roff((parameter.help or "") + usually))
    yield from (".TP", "\\fB\\-h\\fR, \\fB\\-\\-help\\fR", "Show the usage and leave.")


def _tells_default(parameter: Any) -> bool:
    """Whether --help shows the number that *parameter* is unless it is given."""
    is_number = isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool)
    return bool(parameter.show_default) and is_number


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


def limits() -> Iterator[str]:
    """Yield the lines that tell how much of each thing there can be."""
    for what, limit in (
        ("Size of an image", f"{format_size(IMAGE_BYTES_MIN)} at least"),
        ("Size of a file", f"{FILE_BYTES_MAX} bytes"),
        ("Length of a name", f"{NAME_BYTES_MAX} bytes, whatever they are but / and NUL"),
        ("Target of a symbolic link", f"{TARGET_BYTES_MAX} bytes"),
        ("Names of a file, subdirectories of a directory", f"{LINK_MAX}"),
        ("Name of an extended attribute", f"{XATTR_NAME_BYTES_MAX} bytes, its namespace included"),
        ("Value of an extended attribute", f"{XATTR_VALUE_BYTES_MAX} bytes"),
        ("Size of a record", f"a power of two from {format_size(RECORD_BYTES_MIN)} to {format_size(RECORD_BYTES_MAX)}"),
        ("Size of the journal", f"{format_size(JOURNAL_BYTES_MIN)} to {format_size(JOURNAL_BYTES_MAX)}"),
        ("Label", f"{LABEL_BYTES_MAX} bytes of UTF-8"),
    ):
        yield from (".TP", f"\\fB{roff(what)}\\fR", roff(f"{limit}."))


def features() -> Iterator[str]:
    """Yield the lines that tell of the feature bits, with what stands beside them where they are declared."""
    notes = dict(notes_of(inspect.getsource(Incompat) + inspect.getsource(Compat)))
    for feature in (*Incompat, *Compat):
        name = str(feature.name)
        meaning = notes.get(name, f"records may be compressed with {name.lower()}")
        yield from (".TP", f"\\fB{roff(name.lower())}\\fR", roff(f"{meaning[0].upper()}{meaning[1:]}."))


def replaced(page: str, section: str, lines: Iterator[str]) -> str:
    """Return *page* with *lines* between the marks of *section*."""
    begin, end = f'.\\" begin {section}\n', f'.\\" end {section}\n'
    head, _, rest = page.partition(begin)
    _, found, tail = rest.partition(end)
    assert found, f"no marks for {section}"
    return head + begin + "".join(f"{line}\n" for line in lines) + end + tail


def wanted(name: str, page: str) -> str:
    """Return what the page *name* should be, by its present text."""
    page = re.sub(r"razortools \d[\w.]*", f"razortools {razortools.__version__}", page)
    if name == FORMAT_PAGE:
        return replaced(replaced(page, "features", features()), "limits", limits())
    module, app = PAGES[name]
    page = replaced(page, "options", options_of(getattr(import_module(module), app)))
    return replaced(page, "commands", commands()) if name == "razorfs-debug.8" else page


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 1 if --check found a page out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    chosen = parser.parse_args(arguments)
    stale = []
    for name in (*PAGES, FORMAT_PAGE):
        before = (MAN / name).read_text(encoding="utf-8")
        after = wanted(name, before)
        if before != after:
            stale.append(name)
            if not chosen.check:
                (MAN / name).write_text(after, encoding="utf-8")
    if stale and chosen.check:
        print(f"out of date: {', '.join(stale)}; run: python tools/man_pages.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
