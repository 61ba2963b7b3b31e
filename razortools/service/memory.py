"""Memory: how much of the limits that the mount's options allow is in force now.

The options say how much the caches and dirty data may take on a machine that has it. Less is in force

- where control groups allow the daemon less: what is left beside the daemon itself is shared by these limits and all that is
  needed besides (the kernel's cache of the image counts in the group, too, and so may the programs that use the mount);
- while memory is short, as the kernel tells by its pressure information, for the group or the whole machine: a quarter, then a
  sixteenth. What is clean beyond that is dropped at once, what is dirty is written out, and the C library gives back what is
  free.

Invariants: no limit is ever above its option; nothing is lost or refused by less memory, it only takes longer; the owner of the
limits in force is this module alone. Limits come back in steps, each after some time without a word of shortness.
"""

from collections.abc import AsyncIterator
from dataclasses import replace

import trio

from razortools.engine.volume import Volume
from razortools.service import allocator, memory_room
from razortools.service.committer import Committer
from razortools.service.logs import log
from razortools.service.options import MountOptions
from razortools.service.remount_plan import limits_of
from razortools.service.urgent import conditions
from razortools.units import MIB, format_size

DAEMON_BYTES = 64 * MIB  # Python, its modules, and the tables of fixed size
SHARE = 2  # of what is left, for the limits: memory in use and free in the C library is more than what is counted
STEP, STEPS_MAX = 4, 2  # while memory is short: a quarter, a sixteenth
CACHE_BYTES_MIN, DIRTY_BYTES_MIN = 1 * MIB, 4 * MIB  # enough to go on: a few nodes and records, one large request
CALM_S = 10.0  # without a word of shortness, before there is more again
PAUSE_S = 2.0  # between two looks; the kernel tells no more often
DROPPED_AT_ONCE = 1000  # records; other requests are served in between


def fitted(options: MountOptions, allowed_bytes: int | None) -> MountOptions:
    """Return *options* with limits that fit into *allowed_bytes* for the whole process; None: as they are."""
    if allowed_bytes is None:
        return options
    wanted = options.record_cache_bytes + options.metadata_cache_bytes + options.dirty_bytes
    room = max((allowed_bytes - DAEMON_BYTES) // SHARE, allowed_bytes // 8)
    return options if wanted <= room else _scaled(options, room, wanted)


def squeezed(options: MountOptions, steps: int) -> MountOptions:
    """Return *options* with limits for a machine that has told *steps* times that memory is short."""
    return _scaled(options, 1, STEP**steps) if steps else options


def _scaled(options: MountOptions, numerator: int, denominator: int) -> MountOptions:
    """Return *options* with a part of each limit, but never less than what it takes to go on, or more than before."""

    def scaled(limit: int, least: int) -> int:
        return min(limit, max(limit * numerator // denominator, least))

    return replace(
        options,
        record_cache_bytes=scaled(options.record_cache_bytes, CACHE_BYTES_MIN),
        metadata_cache_bytes=scaled(options.metadata_cache_bytes, CACHE_BYTES_MIN),
        dirty_bytes=scaled(options.dirty_bytes, DIRTY_BYTES_MIN),
    )


def told(options: MountOptions) -> str:
    """Return the limits in words."""
    limits = {
        "cache": options.record_cache_bytes,
        "metadata_cache": options.metadata_cache_bytes,
        "dirty": options.dirty_bytes,
    }
    return ", ".join(f"{name} of {format_size(limit)}" for name, limit in limits.items())


class Memory:
    """Owner of the limits in force."""

    def __init__(self, volume: Volume, committer: Committer, options: MountOptions) -> None:
        """Bound what *volume* and *committer* keep by *options*, and by what there is."""
        self._volume = volume
        self._committer = committer
        self._steps = 0
        self._heard = trio.Event()
        self.signal_count = 0  # how often the kernel told that memory is short
        self.take(options)
        if self._in_force != options:
            self._tell(f"the control group leaves room for {told(self._in_force)}")

    def take(self, options: MountOptions) -> None:
        """Go by *options* from now on."""
        self._options = options
        self._enforce()

    def _enforce(self) -> None:
        """Put in force what the options, the control groups and the present shortness leave."""
        self._in_force = within = squeezed(fitted(self._options, memory_room.allowed_bytes()), self._steps)
        self._volume.set_limits(limits_of(within))
        self._committer.configure(within)
        allocator.keep_memory(within.dirty_bytes)

    async def run(self) -> None:
        """Follow what the kernel tells, until cancelled."""
        triggers = memory_room.open_triggers()
        if triggers:
            await self.follow(conditions(*triggers))

    async def follow(self, signals: AsyncIterator[None]) -> None:
        """Keep less after each of *signals*, and more again when there are none for some time."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, signals)
            while True:
                with trio.move_on_after(CALM_S if self._steps else float("inf")) as calm:
                    await self._heard.wait()
                if calm.cancelled_caught:
                    self._relax()
                else:
                    await self._relieve()
                    self._heard = trio.Event()

    async def _listen(self, signals: AsyncIterator[None]) -> None:
        """Hear what is told, but not more often than it can be acted on."""
        async for _ in signals:
            if memory_room.is_short():
                self._heard.set()
            await trio.sleep(PAUSE_S)

    async def _relieve(self) -> None:
        """Keep less: drop what is clean, write out what is dirty, give back what is free."""
        self.signal_count += 1
        self._steps = min(self._steps + 1, STEPS_MAX)
        self._enforce()
        if self._steps == 1:
            self._tell(f"memory is short, it goes on with {told(self._in_force)}")
        await self._drop()
        await self._committer.between_commits(self._volume.store.nodes.shrink)  # what was dirty is clean now
        await self._drop()
        await self._give_back()

    def _relax(self) -> None:
        """Keep more again."""
        self._steps -= 1
        self._enforce()
        if not self._steps:
            self._tell(f"memory is not short any more, it is back to {told(self._in_force)}")

    async def _drop(self) -> None:
        """Drop records beyond the limit in force, some at a time."""
        while self._volume.records.clean.shrink(DROPPED_AT_ONCE):
            await trio.lowlevel.checkpoint()

    async def _give_back(self) -> None:
        """Give the system what is free, while requests are served."""
        await trio.to_thread.run_sync(allocator.give_back)

    def _tell(self, what: str) -> None:
        log.info("%s: %s", self._volume.store.device.name, what)
