"""Owners: who claims blocks that are claimed twice. A second round over all that names blocks, made only if it is needed."""

from collections.abc import Iterator

from razortools.check import problems
from razortools.check.claims import Claims
from razortools.check.facts import InodeFacts
from razortools.check.findings import Event, Finding, Progress
from razortools.check.image import Image
from razortools.check.keynames import item_words
from razortools.check.paths import Paths
from razortools.check.record_rules import record_fault
from razortools.check.tree import kinds_mask
from razortools.errors import CorruptImage
from razortools.format.items import owned_record
from razortools.format.keys import Kind, Table, object_of

PROGRESS_STEP = 64  # leaves, or nodes


def judge_shared(facts: InodeFacts, paths: Paths, claims: Claims) -> Iterator[Event]:
    """Yield each owner of blocks in claims.twice."""
    image = facts.tree.image
    for first, count in image.geometry.fixed_extents():
        yield from _shared(claims, first, count, "a fixed part of the filesystem")
    leaf_count = facts.tree.leaf_count
    for addresses in (facts.tree.addresses, facts.tree.mirrors):
        for number, address in enumerate(addresses):
            if number % PROGRESS_STEP == 0:
                yield Progress(leaf_count, leaf_count)
            if address and image.holds(address, image.geometry.node_blocks):
                yield from _shared(claims, address, image.geometry.node_blocks, "a tree node")
    for leaf, (keys, values) in facts.tree.leaves(kinds_mask(Kind.XATTR, Kind.DATA_RECORD)):
        if leaf % PROGRESS_STEP == 0:
            yield Progress(leaf_count, leaf_count)
        for key, value in zip(keys, values, strict=True):
            if key[0] == Table.FILES:
                yield from _of_item(image, paths, claims, key, value)


def _of_item(image: Image, paths: Paths, claims: Claims, key: bytes, value: bytes) -> Iterator[Finding]:
    try:
        record = owned_record(key, value)
    except (CorruptImage, IndexError):
        return
    if record is None or record_fault(image, record, None, is_data=key[9] == Kind.DATA_RECORD):
        return
    for first, count in record.runs(image.block_bytes):
        if claims.shared(first, count):
            inode = object_of(key)
            yield from _shared(claims, first, count, f"{item_words(key)} of inode {inode}", paths.of(inode), inode, key)


def _shared(
    claims: Claims,
    first: int,
    count: int,
    owner: str,
    path: str | None = None,
    inode: int | None = None,
    key: bytes | None = None,
) -> Iterator[Finding]:
    for start, last in claims.shared(first, count):
        yield problems.DOUBLY_CLAIMED.found(
            block=start, owner=owner, first=start, last=last, count=last - start + 1, path=path, inode=inode, key=key
        )
