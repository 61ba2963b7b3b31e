"""Going into the background: the parent waits until the child serves, or tells why it does not.

The child opens the image, so that the lock belongs to the process that serves.
"""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass

from razortools import standard_streams
from razortools.errors import RazorError

REPORT_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the start: exit code and, unless that is 0, the sentence to show."""

    exit_code: int
    sentence: str = ""


def start(body: Callable[[Callable[[], None]], Outcome]) -> Outcome:
    """Run *body* in a new process without a terminal; return once it has called the function it is given, or has ended.

    *body* returns what is to be said should it end before that call. KeyboardInterrupt here ends the child, politely.
    """
    standard_streams.secure()  # the child lets them lead nowhere, and what it opens must not be one of them
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _be_the_child(body, writer)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            report = pipe.read(REPORT_BYTES_MAX)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    if report:
        return Outcome(**json.loads(report))
    _, status = os.waitpid(pid, 0)
    raise DaemonDied(f"the process that was to serve the mount died: {_cause(status)}; see the system's log")


class DaemonDied(RazorError):
    """The child ended without a word: a bug, or the host ended it."""


def _be_the_child(body: Callable[[Callable[[], None]], Outcome], writer: int) -> None:
    """Run *body*; never returns."""
    exit_code = 4
    try:
        os.setsid()
        os.chdir("/")
        standard_streams.drop(0)
        standard_streams.drop(1)

        def ready() -> None:
            _report(writer, Outcome(0))
            standard_streams.drop(2)

        outcome = body(ready)
        exit_code = outcome.exit_code
        _report(writer, outcome)
    finally:
        os._exit(exit_code)


def _report(writer: int, outcome: Outcome) -> None:
    """Tell the parent, if it still listens."""
    try:
        os.write(writer, json.dumps(asdict(outcome)).encode())
        os.close(writer)
    except OSError:
        pass  # told before, or the parent is gone


def _cause(status: int) -> str:
    """Return in words how a process ended."""
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.WEXITSTATUS(status)}"
