"""The kernel forgets tens of thousands of inodes in one message; others must not wait until all of them are gone."""

import trio

from razortools.engine import namespace
from razortools.format.inode import ROOT_INODE
from razortools.service.committer import Committer
from razortools.service.operations import Operations
from razortools.service.options import MountOptions
from razortools.units import InodeNo
from tests.engine.volumes import new_volume

FORGOTTEN = 4000
AT_ONCE_MAX = 500  # some milliseconds


def test_other_requests_have_their_turns_while_many_inodes_are_forgotten() -> None:
    volume = new_volume(32 << 20)
    inodes = [namespace.create(volume, ROOT_INODE, b"%d" % number, 0o644, 0, 0) for number in range(FORGOTTEN)]
    for ino in inodes:
        volume.inodes.hold(ino)
    options = MountOptions()
    operations = Operations(volume, Committer(volume, options), options, lambda: None)
    held_at_turns: list[int] = []

    async def others() -> None:
        while volume.inodes.held_count:
            held_at_turns.append(volume.inodes.held_count)
            await trio.lowlevel.checkpoint()

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            nursery.start_soon(operations.forget, [(InodeNo(ino), 1) for ino in inodes])

    trio.run(serve)
    steps = [before - after for before, after in zip(held_at_turns, [*held_at_turns[1:], 0], strict=True)]
    assert max(steps) <= AT_ONCE_MAX
