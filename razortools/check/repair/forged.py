"""Forged nodes: what looks like a node of this filesystem, but is the contents of a file.

Whoever may write to a file can put a node into it that carries the right tag and the right address; no accident does that. Such
a node would bring inodes of its maker's choice to life. It lies in blocks that a data record owns, and the record verifies:
then it is data. The witness must be above suspicion itself, for a forged node may claim blocks, too.
"""

from collections.abc import Callable, Generator, Iterator, Sequence

from razortools.check.claims import Claims
from razortools.check.findings import Progress
from razortools.check.image import Image
from razortools.check.scan import FoundNode, read_items
from razortools.errors import CorruptImage, DeviceFailed

PROGRESS_STEP = 64  # nodes

Run = tuple[int, int]
RunsOf = Callable[[Image, bytes, bytes], list[Run]]  # of an item
Verifies = Callable[[Image, bytes, bytes], bool]


def without_forged(
    image: Image, found: Sequence[FoundNode], runs_of: RunsOf, verifies: Verifies
) -> Generator[Progress, None, list[FoundNode]]:
    """Return the *found* nodes that are not part of a file."""
    claims = Claims(image.geometry.spacemap)
    for number, node in enumerate(found):
        if number % PROGRESS_STEP == 0:
            yield Progress(number, len(found))
        for _, _, runs in _owned(image, node, runs_of):
            for first, count in runs:
                claims.claim(first, count)
    suspects = {node.block for node in found if claims.holds(node.block)}
    forged: set[int] = set()
    for witness in found if suspects else ():
        if witness.block in suspects:
            continue
        for key, value, runs in _owned(image, witness, runs_of):
            inside = {block for block in suspects - forged if any(first <= block < first + count for first, count in runs)}
            if inside and verifies(image, key, value):
                forged |= inside
    return [node for node in found if node.block not in forged]


def _owned(image: Image, node: FoundNode, runs_of: RunsOf) -> Iterator[tuple[bytes, bytes, list[Run]]]:
    """Yield (key, value, blocks) of the items of a leaf that own blocks."""
    if node.level:
        return
    try:
        keys, values = read_items(image, node.block, node.pointer)
    except (CorruptImage, DeviceFailed, ValueError):
        return
    for key, value in zip(keys, values, strict=True):
        runs = runs_of(image, key, value)
        if runs:
            yield key, value, runs
