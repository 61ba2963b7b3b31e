"""One row on one peer: a client in a process of its own, so that whatever happens to it, nothing of it keeps the mount busy."""

import gc
import json
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from bench.mounts.place import Place, Row, Taken, WrongResult, processor_s

LIMIT_S = 900  # only what hangs takes so long
ENDING_S = 5


class RowFailed(Exception):
    """A row that has no time, and why."""


def work(row: Row, place: Place) -> Taken:
    """Do *row* in this process. Raises WrongResult or OSError."""
    steps = row(place)
    next(steps)
    gc.disable()
    before_s = processor_s(place.daemon) if place.daemon else None
    started = time.perf_counter()
    done = next(steps)
    wall_s = time.perf_counter() - started
    daemon_s = processor_s(place.daemon) - before_s if place.daemon and before_s is not None else None
    gc.enable()
    for _ in steps:
        raise AssertionError("a row yields twice")
    return done if isinstance(done, Taken) else Taken(done, wall_s, daemon_s)


def measure(row: Row, place: Place, limit_s: float = LIMIT_S, doing: Callable[[Row, Place], Taken] = work) -> Taken:
    """Do *row* in a client's process. Raises RowFailed with the reason, also when it takes more than *limit_s*."""
    reader, writer = os.pipe()
    client = os.fork()
    if client == 0:
        os.close(reader)
        _report(writer, row, place, doing)
    os.close(writer)
    with suppress(OSError):  # here, too: it may have to be taken away before it has come to that
        os.setpgid(client, client)
    try:
        answer = json.loads(_all_of(reader, limit_s) or '"the client died"')
    finally:
        os.close(reader)
        _end(client)
    if isinstance(answer, str):
        raise RowFailed(answer)
    return Taken(*answer)


def _report(writer: int, row: Row, place: Place, doing: Callable[[Row, Place], Taken]) -> None:
    """Work, write what came of it, and leave. Never returns."""
    answer: object = "the client died"
    try:
        os.setpgid(0, 0)  # children of its own end with it
        taken = doing(row, place)
        answer = [taken.count, taken.wall_s, taken.daemon_s]
    except (WrongResult, OSError) as error:
        answer = str(error)
    except Exception as error:
        answer = repr(error)
    finally:
        try:
            os.write(writer, json.dumps(answer).encode())
        finally:  # also when nobody reads it any more: this process is a copy of its parent, and must not go on as that
            os._exit(0)


def _all_of(reader: int, limit_s: float) -> bytes:
    """Return what comes through a pipe until it is closed. Raises RowFailed if that takes too long."""
    found, deadline = b"", time.monotonic() + limit_s
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise RowFailed(f"not done after {limit_s:g} s")
        piece = os.read(reader, 64 * 1024)
        if not piece:
            return found
        found += piece


def _end(client: int) -> None:
    """Take the client and its children away, if they are still there.

    One that waits for a daemon that does not answer cannot be killed. It ends when the mount is taken away; nobody waits for it.
    """
    descriptor = os.pidfd_open(client)
    try:
        os.killpg(client, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # it has ended
        pass
    if select.select([descriptor], [], [], ENDING_S)[0]:
        os.waitpid(client, 0)
    os.close(descriptor)
