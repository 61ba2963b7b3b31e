"""Opening what the operator wants to put in: a directory, a tarball, or a tar on a stream."""

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import IO

from razortools.engine.populate.directory import DirectorySource
from razortools.engine.populate.entry import Source, SourceFailed
from razortools.engine.populate.tar import TarSource
from razortools.errors import UsageError

STREAM = "-"


def open_source(
    text: str, stdin: IO[bytes], held: ExitStack, *, image: Callable[[], tuple[int, int] | None], twice: bool
) -> Source:
    """Return the source that *text* names; what it needs open is closed with *held*.

    What *image* tells (device, inode) of, each time when reading begins, is left out of a directory: an image does not hold
    itself. With *twice* the entries can be asked for twice: a stream is copied to a temporary file. Raises SourceFailed, or
    UsageError for a terminal.
    """
    if text != STREAM and os.path.isdir(text):
        return DirectorySource(text, skipped=image)
    file, name = _open_file(text, stdin, held)
    if twice and not file.seekable():
        file = _spooled(file, name, held)
    return TarSource(file, name)


def _open_file(text: str, stdin: IO[bytes], held: ExitStack) -> tuple[IO[bytes], str]:
    if text == STREAM:
        if stdin.isatty():
            raise UsageError("standard input is a terminal; pipe a tar archive in, or name a directory or tarball")
        return stdin, "standard input"
    try:
        return held.enter_context(open(text, "rb")), text
    except OSError as error:
        raise SourceFailed(f"{text}: cannot be read: {error.strerror}; name a directory, a tarball, or - for stdin") from error


def _spooled(stream: IO[bytes], name: str, held: ExitStack) -> IO[bytes]:
    """Return a temporary file with everything that *stream* still gives."""
    try:
        spool = held.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (held closes it)
        shutil.copyfileobj(stream, spool, 1 << 20)
        spool.seek(0)
    except OSError as error:
        where = tempfile.gettempdir()
        raise SourceFailed(f"{name}: cannot be kept in {where} while it is read twice: {error.strerror}") from error
    return spool
