"""Answers of razorfs-debug on screen: as text, through a pager, or into a program of the host."""

import io
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from typing import Any

from razortools.cli import render
from razortools.debug.answers import Answer, Lines, Pairs, Several, Stream, Table
from razortools.errors import RazorError


class PipeFailed(RazorError):
    """The program behind a | did not end well."""

    exit_code = 1


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


def data_of(answer: Answer) -> Any:
    """Return what an answer is in JSON."""
    return b"".join(answer.pieces) if isinstance(answer, Stream) else answer.data


def show_into(answer: Answer | None, command: str) -> None:
    """Give an answer as text to *command*, which a shell of the host runs. Raises PipeFailed if it does not end with 0."""
    sys.stdout.flush()
    with subprocess.Popen(command, shell=True, stdin=subprocess.PIPE) as program:
        assert program.stdin is not None
        try:
            with io.TextIOWrapper(program.stdin, "utf-8", "surrogateescape") as text, redirect_stdout(text):
                show(answer)
        except BrokenPipeError:
            pass  # `head` has seen enough
    if program.returncode:
        raise PipeFailed(f"{command}: ended with exit code {program.returncode}")


def show_paged(answer: Answer | None) -> None:
    """Show an answer on the terminal; what is longer than the screen through a pager, if there is one."""
    pager = shlex.split(os.environ.get("PAGER", "less"))
    if isinstance(answer, Stream) or not pager or shutil.which(pager[0]) is None:
        show(answer)
        return
    held = io.BytesIO()
    text = io.TextIOWrapper(held, "utf-8", "surrogateescape", write_through=True)
    with redirect_stdout(text):
        show(answer)
    shown = held.getvalue()
    if shown.count(b"\n") < shutil.get_terminal_size().lines:
        render.out_bytes(shown)
        return
    environment = {"LESS": "FRX", **os.environ}
    with subprocess.Popen(pager, stdin=subprocess.PIPE, env=environment) as program:
        assert program.stdin is not None
        try:
            program.stdin.write(shown)
            program.stdin.close()
        except BrokenPipeError:
            pass  # left before the end
