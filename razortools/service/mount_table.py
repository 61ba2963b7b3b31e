"""The kernel's mount table as something that changes.

The kernel tells of changes of /proc/self/mountinfo by an urgent condition, and takes that as told by the first poll(2) that
asks. An epoll inside of trio's asks more often than it answers, and so would lose some: a thread waits instead, and costs
nothing meanwhile.
"""

import os
import select
from collections.abc import AsyncIterator

import trio

from razortools.service import mountpoints


def is_read_only(device: tuple[int, int]) -> bool | None:
    """Whether the kernel refuses changes to the filesystem with this number wherever it is mounted; None if it is nowhere."""
    shared = [mount.shared_options for mount in mountpoints.mounts() if mount.device == device]
    return "ro" in shared[0] if shared else None


async def changes() -> AsyncIterator[None]:
    """Yield after each change of this namespace's mount table, until cancelled. Several may be told as one."""
    table = os.open(mountpoints.MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
    ended, end = os.pipe()
    poller = select.poll()
    poller.register(table, select.POLLPRI)
    poller.register(ended, select.POLLIN)

    def wait() -> bool:
        """Return whether it goes on. In a thread, which is the last to use the descriptors."""
        goes_on = ended not in (descriptor for descriptor, _ in poller.poll())
        if not goes_on:
            os.close(table)
            os.close(ended)
        return goes_on

    try:
        while await trio.to_thread.run_sync(wait, abandon_on_cancel=True):
            yield
    finally:
        os.close(end)
