"""The control socket, without a mount."""

import errno
import os
import select
import threading

import pytest
import trio
import trio.testing

from razortools.service.control import ADDRESS_GRACE_S, Control, Farewell, Greeting, Waiter, listen

DEVICE = (0, 1 << 20 | os.getpid())  # no mount has such a number


def greeting() -> Greeting:
    return Greeting(1, "image", "place")


def test_a_mount_waits_for_the_address_of_the_one_before_it() -> None:
    """Device numbers are used again at once: a mount right after an umount(8) stayed without a control socket."""
    earlier = Control(DEVICE, greeting)

    async def later() -> Control:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_the_earlier)
            return await listen(DEVICE, greeting)
        raise AssertionError

    async def end_the_earlier() -> None:
        await trio.sleep(ADDRESS_GRACE_S / 2)
        earlier.finish(Farewell())

    made = trio.run(later, clock=trio.testing.MockClock(autojump_threshold=0))
    made.finish(Farewell())


def test_the_address_is_free_as_soon_as_the_mount_is_gone() -> None:
    """A daemon may take long to close its image, or hang in it. Clients that came in time are told how it ends all the same."""
    earlier = Control(DEVICE, greeting)
    waiter = Waiter.__new__(Waiter)
    client = threading.Thread(target=waiter.__init__, args=(DEVICE,))  # type: ignore[misc]
    client.start()
    while not select.select([earlier._listener], [], [], 60)[0]:
        pass
    earlier.stop_listening()
    client.join()
    later = Control(DEVICE, greeting)
    earlier.finish(Farewell("slowly"))
    assert waiter.wait() == Farewell("slowly")
    waiter.close()
    later.finish(Farewell())


def test_it_does_not_wait_for_ever() -> None:
    other = Control(DEVICE, greeting)
    try:
        with pytest.raises(OSError, check=lambda taken: taken.errno == errno.EADDRINUSE):
            trio.run(listen, DEVICE, greeting, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        other.finish(Farewell())


def test_each_client_is_told_how_things_are_when_it_asks() -> None:
    failure = ""
    made = Control(DEVICE, lambda: Greeting(1, "image", "place", read_only=bool(failure), failure=failure))
    told = []

    async def ask() -> None:
        nonlocal failure
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.serve)
            for reason in ("", "the disk is gone"):
                failure = reason
                waiter = await trio.to_thread.run_sync(Waiter, DEVICE)
                told.append((waiter.greeting.read_only, waiter.greeting.failure))
                waiter.close()
            nursery.cancel_scope.cancel()

    trio.run(ask)
    made.finish(Farewell())
    assert told == [(False, ""), (True, "the disk is gone")]
