"""Held: the daemon that has an image mounted is the witness of a look at it. The client's half; see service/holding.py."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from razortools.check.witness import Slots, Witness
from razortools.engine.store.device import Device
from razortools.service.control import Greeting, Waiter, waiter_for

LISTEN_S = 5.0  # for a daemon to say who it is: it does so between two requests
SPEAK_S = 5.0  # the daemon gives up who says nothing for a minute
PATIENCE_S = 60.0  # with a daemon that makes a checkpoint on a slow disk


class Held(Witness):
    """The client's half: the daemon holds what its newest checkpoint names."""

    knows_all_writes = True

    def __init__(self, waiter: Waiter, clock: Callable[[], float] = time.monotonic) -> None:
        """Talk to the daemon behind *waiter*, which this closes."""
        self._waiter = waiter
        self._clock = clock
        self._begun: object = None
        self._spoke_at = clock()
        self.refusal = ""  # why it does not hold anything

    def settle(self) -> bool:
        """See Witness: it makes a checkpoint first, if there is anything to write."""
        answer = self._ask(hold=True)
        self._begun = answer.get("begun")
        return bool(answer.get("held"))

    def has_written(self) -> bool:
        """See Witness."""
        return self._begun is None or self._ask().get("begun") != self._begun

    def has_moved(self) -> bool:
        """See Witness."""
        return not self._ask().get("held")

    def keep(self) -> None:
        """See Witness: the daemon gives up who is silent."""
        if self._clock() - self._spoke_at >= SPEAK_S:
            self._ask()

    def close(self) -> None:
        """See Witness."""
        self._waiter.close()

    def _ask(self, *, hold: bool = False) -> dict[str, object]:
        """Return what the daemon says; nothing if it is gone, or wants nothing to do with us."""
        self._spoke_at = self._clock()
        answer = self._waiter.converse({"hold": hold}, PATIENCE_S)
        self.refusal = str(answer.get("refusal", "it has ended, or does not answer"))
        return {} if self.refusal else answer


@contextmanager
def holding(image: str) -> Iterator[bool]:
    """Have the daemon that has *image* mounted keep what its newest checkpoint names until this ends; yields whether it does."""
    waiter = waiter_for(os.path.realpath(image), LISTEN_S)
    held = None if waiter is None else Held(waiter)
    try:
        if held is None or not held.settle():
            yield False
            return
        with _kept(held):
            yield True
    finally:
        if held is not None:
            held.close()


@contextmanager
def _kept(held: Held) -> Iterator[None]:
    """Let the daemon hear of *held* from time to time, whatever takes long meanwhile. Nobody else may talk to it."""
    is_over = threading.Event()

    def speak() -> None:
        while not is_over.wait(SPEAK_S):
            held.keep()

    speaker = threading.Thread(target=speak, name="hold", daemon=True)
    speaker.start()
    try:
        yield
    finally:
        is_over.set()
        speaker.join()


def mount_of(image: str) -> Greeting | None:
    """Return what the daemon says that has *image* mounted; None if no mount in this namespace does, or it does not answer."""
    waiter = waiter_for(os.path.realpath(image), LISTEN_S)
    if waiter is None:
        return None
    waiter.close()
    return waiter.greeting


def witness_for(device: Device, mount: Greeting) -> Witness:
    """Return who knows whether the image on *device* has moved on: the daemon of *mount*, or its superblocks if it will not."""
    waiter = waiter_for(mount.image, LISTEN_S)
    if waiter is None:
        return Slots(device, "its mount does not answer")
    held = Held(waiter)
    if held.settle():
        return held
    held.close()
    return Slots(device, held.refusal or "it needs the space")
