"""Descriptors on which the kernel tells of changes by an urgent condition: its mount table, its triggers for memory pressure.

Such a condition counts as told by the first poll(2) that asks. An epoll inside of trio's asks more often than it answers, and so
would lose some: a thread waits instead, and costs nothing meanwhile.
"""

import os
import select
from collections.abc import AsyncIterator

import trio


async def conditions(*descriptors: int) -> AsyncIterator[None]:
    """Yield after each urgent condition on *descriptors*, which are closed in the end, until cancelled. Several may be one."""
    ended, end = os.pipe()
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLPRI)
    poller.register(ended, select.POLLIN)

    def wait() -> bool:
        """Return whether it goes on. In a thread, which is the last to use the descriptors."""
        goes_on = ended not in (descriptor for descriptor, _ in poller.poll())
        if not goes_on:
            for descriptor in (*descriptors, ended):
                os.close(descriptor)
        return goes_on

    try:
        while await trio.to_thread.run_sync(wait, abandon_on_cancel=True):
            yield
    finally:
        os.close(end)
