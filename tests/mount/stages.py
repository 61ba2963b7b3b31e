"""mount.razorfs whose daemon gets a signal at a chosen stage: python -m tests.mount.stages STAGE ARGUMENTS...

A stage is "before MODULE:NAME" or "after MODULE:NAME", in words separated by commas: the daemon kills itself when it gets
there, or sends itself the signal that a third word names. If there are two stages the second counts from when the first was
reached.
"""

import functools
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from razortools import mount
from razortools.service import operations, server  # loaded late by the command, and patched here

assert operations and server
COMMAND_PID = os.getpid()


def owner_of(place: str) -> tuple[Any, str]:
    """Return (module or class, attribute) for MODULE:NAME or MODULE:CLASS.NAME."""
    module, _, name = place.partition(":")
    owner: Any = import_module(module)
    *classes, attribute = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    return owner, attribute


def at(stage: str, act: Callable[[], None]) -> None:
    """Have *act* called at *stage*, in the daemon."""
    moment, place, *_ = stage.split(",")
    owner, attribute = owner_of(place)
    original = getattr(owner, attribute)

    @functools.wraps(original)
    def patched(*args: Any, **keywords: Any) -> Any:
        if os.getpid() != COMMAND_PID and moment == "before":
            act()
        result = original(*args, **keywords)
        if os.getpid() != COMMAND_PID and moment == "after":
            act()
        return result

    setattr(owner, attribute, patched)


def signalled(stage: str) -> Callable[[], None]:
    """Return a function that sends this process the signal of *stage*: SIGKILL, which ends it at once, if it names none."""
    _, _, *named = stage.split(",")
    number = signal.Signals[named[0]] if named else signal.SIGKILL
    return lambda: os.kill(os.getpid(), number)


if __name__ == "__main__":
    first, *others = sys.argv[1].split("+")
    if others:
        at(first, lambda: at(others[0], signalled(others[0])))
    else:
        at(first, signalled(first))
    sys.argv[1:2] = []
    mount.main()
