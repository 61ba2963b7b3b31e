"""Completion: what may stand where the cursor is, from the declarations of the commands and from the image itself.

Invariant: nothing is raised and nothing changes, whatever has been typed so far; a damaged directory has no candidates.
"""

import argparse
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from razortools.debug.fields import field_names
from razortools.debug.session import Command, Session, split_pipe
from razortools.engine import directories
from razortools.errors import RazorError
from razortools.format.inode import FileType

CANDIDATES_MAX = 500  # more are no help, and a directory can have millions


@dataclass(frozen=True, slots=True)
class Candidate:
    """A word that fits. *text* takes the place of the last *replaced* characters; *shown* stands in the menu."""

    text: str
    replaced: int
    shown: str


def candidates(session: Session, commands: Mapping[str, Command], typed: str) -> list[Candidate]:
    """Return what may stand at the end of *typed*, which may be cut off within a word."""
    if split_pipe(typed)[0] != typed:
        return []  # a command of the host
    *before, (word, start) = _words(typed)
    found = _fitting(session, commands, [text for text, _ in before], word)
    replaced = len(typed) - start
    kept = (text for text in found if text.startswith(word) and text.rstrip(" ").isprintable())
    return [Candidate(_quoted(text), replaced, text.rstrip(" ")) for text in islice(kept, CANDIDATES_MAX)]


def _fitting(session: Session, commands: Mapping[str, Command], before: list[str], word: str) -> Iterable[str]:
    if not before:
        return [f"{name} " for name in commands]
    command = commands.get(before[0])
    if command is None:
        return []
    if word.startswith("-"):
        return [f"{name} " for action in command.words.parameters() for name in action.option_strings]
    action = _action_at(command, before[1:])
    if action is None:
        return []
    if action.choices is not None:
        return [f"{choice} " for choice in action.choices]
    source = _SOURCES.get(str(action.metavar))
    if source is not None:
        return source(session, word)
    return [f"{name} " for name in commands] if action.metavar == "COMMAND" else []


def _action_at(command: Command, before: list[str]) -> argparse.Action | None:
    """Return what the word behind *before* is for."""
    options = {name: action for action in command.words.parameters() for name in action.option_strings}
    waiting = [action for action in command.words.parameters() if not action.option_strings]
    awaited: argparse.Action | None = None
    for word in before:
        if awaited is not None:
            awaited = None
        elif word in options:
            awaited = options[word] if options[word].nargs != 0 else None
        elif len(waiting) > 1 or (waiting and waiting[0].nargs not in ("+", "*")):
            del waiting[0]
    return awaited or (waiting[0] if waiting else None)


def _image_paths(session: Session, word: str) -> Iterator[str]:
    """Yield the paths in the image that begin with *word*."""
    head, _, last = word.rpartition("/")
    shown = f"{head}/" if "/" in word else ""
    try:
        directory = session.find(shown or ".")
        for _, raw, entry in directories.entries(session.volume, directory):
            name = os.fsdecode(raw)
            if name.startswith(last):
                yield shown + name + ("/" if entry.file_type == FileType.DIRECTORY else " ")
    except RazorError:
        return


def _host_paths(session: Session, word: str) -> Iterator[str]:
    """Yield the paths of the host that begin with *word*."""
    head, _, last = word.rpartition("/")
    shown = f"{head}/" if "/" in word else ""
    try:
        with os.scandir(shown or ".") as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                if entry.name.startswith(last):
                    yield shown + entry.name + ("/" if entry.is_dir() else " ")
    except OSError:
        return


def _fields(session: Session, word: str) -> Iterable[str]:
    return [f"{name} " for name in field_names()]


_SOURCES: dict[str, Callable[[Session, str], Iterable[str]]] = {
    "PATH": _image_paths,
    "HOST_PATH": _host_paths,
    "STRUCT.FIELD": _fields,
}


def _words(typed: str) -> list[tuple[str, int]]:
    """Return (word without quotes, where it starts) of what was typed; the last one is what the cursor stands in."""
    found: list[tuple[str, int]] = []
    word, start, quote, escaped = "", -1, "", False
    for at, char in enumerate(typed):
        if char.isspace() and not quote and not escaped:
            if start >= 0:
                found.append((word, start))
            word, start = "", -1
            continue
        start = at if start < 0 else start
        if escaped:
            word, escaped = word + char, False
        elif char == "\\" and quote != "'":
            escaped = True
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            word += char
    return [*found, (word, start if start >= 0 else len(typed))]


def _quoted(text: str) -> str:
    """Return *text* as it must be typed; what goes on behind it stays outside of the quotes."""
    end = text[-1:] if text.endswith(("/", " ")) else ""
    body = text[: len(text) - len(end)]
    return (shlex.quote(body) if body else "") + end
