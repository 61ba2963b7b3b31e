"""The kernel's mount table as something that changes."""

import os
from collections.abc import AsyncIterator

from razortools.engine.store.mounts import MOUNTINFO, mounts
from razortools.service.urgent import conditions


def is_read_only(device: tuple[int, int]) -> bool | None:
    """Whether the kernel refuses changes to the filesystem with this number wherever it is mounted; None if it is nowhere."""
    shared = [mount.shared_options for mount in mounts() if mount.device == device]
    return "ro" in shared[0] if shared else None


async def changes() -> AsyncIterator[None]:
    """Yield after each change of this namespace's mount table, until cancelled. Several may be told as one."""
    table = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
    async for _ in conditions(table):
        yield
