"""The prompt of razorfs-debug: line editing, history, completion. The only module that knows prompt_toolkit."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from razortools.cli import render
from razortools.debug.completion import candidates
from razortools.debug.session import Command, Session
from razortools.printable import printable_name


class _Completer(Completer):
    """What the shell's own completion knows, as prompt_toolkit wants it."""

    def __init__(self, session: Session, commands: Mapping[str, Command]) -> None:
        self._session = session
        self._commands = commands

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """See Completer."""
        for found in candidates(self._session, self._commands, document.text_before_cursor):
            yield Completion(found.text, start_position=-found.replaced, display=found.shown)


def lines_typed(session: Session, commands: Mapping[str, Command]) -> Iterator[str]:
    """Yield the lines that are typed on the terminal, until the end of the input. Ctrl-C drops a line."""
    render.message("'help' lists the commands, Tab completes, 'quit' leaves.")
    prompt: PromptSession[str] = PromptSession(
        history=_history(), completer=_Completer(session, commands), complete_while_typing=False, enable_open_in_editor=False
    )
    while True:
        try:
            yield prompt.prompt(f"razorfs:{printable_name(session.directory)}{'#' if session.writable else '>'} ")
        except EOFError:
            return
        except KeyboardInterrupt:
            continue


def _history() -> History:
    """Return the history of earlier sessions; where the host keeps none, that of this one."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    place = Path(base) / "razorfs" / "debug_history"
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(place))
