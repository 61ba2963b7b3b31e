"""The one document that a command prints with --json: what it found, or why there is nothing to tell.

The document of a failure has the same shape for all commands: `exit_code`, and `error`, the sentence that stderr holds as well.
With them stand the keys at which a reader of the command's other documents looks first, with what was known of them by then. No
other document has `error`, but for that of a check that could not be made. docs/schemas has it under `failure`.

Invariants: there are never two documents; nothing is imported here that takes time, for the doorstep needs it before a command is
there.
"""

from collections.abc import Callable, Mapping, Sequence

FAILURES: Mapping[str, Mapping[str, object]] = {  # command: what stands beside `error` and `exit_code` while nothing is known
    "mkfs.razorfs": {"image": None},
    "razorfsck": {"image": None, "clean": None},
    "razorfs-debug": {"image": None, "command": None, "results": []},
    "razorfs-debug crashtest": {"verdict": None},
    "razorfs-health": {"verdict": "unknown", "images": []},
}


def is_wanted(command: str, words: Sequence[str]) -> bool:
    """Whether *words* ask *command* for a document. Behind -- there are no options."""
    options = words[: words.index("--")] if "--" in words else words
    return command in FAILURES and "--json" in options


def failure(command: str, exit_code: int, error: str, known: Mapping[str, object] | None = None) -> dict[str, object]:
    """Return the document of a failure of *command*, with what is *known* by then."""
    return {**FAILURES[command], **(known or {}), "exit_code": exit_code, "error": error}


class OneDocument:
    """What a run prints with --json. The frame makes it; the command says what it knows as it comes to know it."""

    def __init__(self, command: str, words: Sequence[str], write: Callable[[object], None]) -> None:
        """Be the document of *command* as it was called; *write* puts one on stdout."""
        self._command = command
        self._write = write
        self._is_due = is_wanted(command, words)
        self.known: dict[str, object] = {}  # what a failure tells besides the error; its keys are those of FAILURES

    def print(self, value: object) -> None:
        """Print what was found. Whatever comes from now on makes no second document."""
        self._is_due = False
        self._write(value)

    def print_failure(self, exit_code: int, error: str) -> None:
        """Print why there is nothing else, if a document was asked for and there was none yet."""
        if self._is_due:
            self.print(failure(self._command, exit_code, error, self.known))
