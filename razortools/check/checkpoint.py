"""The last checkpoint, where a journal waits to be replayed on it: a crash before the next one needs all of it again.

The passes judge the image as the replay leaves it. What only the checkpoint has is judged here: its nodes that the replay
replaces, and what its superblock tells of its own tree and space map.
"""

from collections.abc import Iterator

from razortools.check import problems
from razortools.check.findings import Event, Progress
from razortools.check.image import Image
from razortools.check.map_rules import free_of_map
from razortools.check.tree import TreeIndex, second_copies, walk
from razortools.errors import CorruptImage
from razortools.format.keys import COUNTERS_KEY
from razortools.format.volume import Counters

PROGRESS_STEP = 64  # nodes


def judge_checkpoint(image: Image) -> Iterator[Event]:
    """Verify what *image*, as it lies on the device, has before the replay."""
    tree = TreeIndex(image)
    yield from _judge_nodes(tree)
    for field, value, counted in _counts(tree):
        if value != counted:
            yield problems.CHECKPOINT_COUNT.found(where="superblock", field=field, value=value, counted=counted)


def _judge_nodes(tree: TreeIndex) -> Iterator[Event]:
    """Walk *tree* and verify both copies of its nodes."""
    for number, visit in enumerate(walk(tree.image, tree)):
        if number % PROGRESS_STEP == 0:
            yield Progress(number, tree.image.superblock.node_count)
        for fault in visit.read.faults:
            yield problems.CHECKPOINT_COPY.found(block=fault.address, reason=fault.reason)
    for number, block, reason in second_copies(tree):
        if number % PROGRESS_STEP == 0:
            yield Progress(number, len(tree.unread_mirrors))
        if reason:
            yield problems.CHECKPOINT_COPY.found(block=block, reason=reason)


def _counts(tree: TreeIndex) -> Iterator[tuple[str, int, int]]:
    """Yield (field, what the superblock tells, what its tree or space map tells), as far as these can be read."""
    superblock = tree.image.superblock
    free = free_of_map(tree.image)
    if free is not None:
        yield "free blocks", superblock.free_blocks, free
    try:
        counters = Counters.decode(tree.get(COUNTERS_KEY) or b"")
    except CorruptImage:
        return
    yield "inode count", superblock.inode_count, counters.inode_count
    yield "directory count", superblock.directory_count, counters.directory_count
