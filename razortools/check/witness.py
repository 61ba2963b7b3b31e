"""Witnesses: who knows whether an image that somebody else writes to has moved on while it was looked at.

What a checkpoint names is not written over before the next but one is on its way. So whatever was read before a moment at which
the checkpoint still stood was what it named; what does not verify then is damage. What was read later may be anything.
"""

from abc import ABC, abstractmethod

from razortools.check.superblock_pass import all_copies
from razortools.engine.store.device import Device


class Witness(ABC):
    """Knows whether the image has moved on since settle()."""

    knows_all_writes: bool  # whether has_written() tells of a checkpoint before its first byte is written
    refusal = ""  # why the mount does not hold still for the look; empty: it does

    @abstractmethod
    def settle(self) -> bool:
        """Take the newest checkpoint for the truth from now on. False: there is none that one can go by."""

    @abstractmethod
    def has_written(self) -> bool:
        """Whether a newer checkpoint was written, or begun if *knows_all_writes*."""

    @abstractmethod
    def has_moved(self) -> bool:
        """Whether what the checkpoint names may have been written over."""

    def keep(self) -> None:  # noqa: B027  (only a daemon wants to hear from us)
        """The look goes on. Called often."""

    def close(self) -> None:  # noqa: B027
        """The look is over."""


class Slots(Witness):
    """Goes by the superblocks on the device: the newest one that verifies tells which checkpoint is the truth.

    A superblock is written after what it names, and nothing is written over before its successor is. So this needs nobody's
    help, but a checkpoint ends the look; and a copy that does not verify may just be on its way.
    """

    knows_all_writes = False

    def __init__(self, device: Device, refusal: str) -> None:
        """Look at the superblocks on *device*, which shows what the others write."""
        self._device = device
        self._generation = -1
        self.refusal = refusal

    def settle(self) -> bool:
        """See Witness."""
        self._generation = self._newest()
        return self._generation >= 0

    def has_written(self) -> bool:
        """See Witness."""
        return self._newest() != self._generation

    def has_moved(self) -> bool:
        """See Witness."""
        return self.has_written()

    def _newest(self) -> int:
        return max((copy.superblock.generation for copy in all_copies(self._device) if copy.superblock), default=-1)
