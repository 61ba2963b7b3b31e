"""Surveying: what a tree claims and counts, learned in one walk over it.

The space map is computed from this, never patched: whatever it said before, it is right afterwards.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from razortools.check.claims import Claims
from razortools.check.facts import SuperblockFacts
from razortools.check.image import Image
from razortools.check.journal_pass import check as journal_pass
from razortools.check.map_rules import fixed_claims, map_pages
from razortools.check.record_rules import record_fault
from razortools.check.steps import finished
from razortools.check.superblock_pass import check as superblock_pass
from razortools.check.tree import TreeIndex, kinds_mask, walk
from razortools.engine.store.device import Device
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.data import DataRecord, Run
from razortools.format.inode import FileType, Inode
from razortools.format.items import owned_record
from razortools.format.keys import COUNTERS_KEY, Kind, Table, object_of
from razortools.format.layout import COUNT_MAX
from razortools.format.volume import Counters

COUNTED_KINDS = kinds_mask(Kind.INODE, Kind.XATTR, Kind.DATA_RECORD, Kind.NAME)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Survey:
    """What one walk over the tree found."""

    image: Image
    tree: TreeIndex
    claims: Claims  # fixed parts included
    counted: Counters  # as they must be
    told: Counters | None  # as the tree says


def believed(device: Device, backup_block: int | None = None) -> SuperblockFacts | None:
    """Return the superblock that the check believes, or None."""
    return finished(superblock_pass(device, backup_block))


def recovered(superblocks: SuperblockFacts) -> Image:
    """Return the image as the check judges it: with the journal replayed, if that is possible."""
    return finished(journal_pass(superblocks)).image


def indexed(image: Image) -> TreeIndex:
    """Return the index of the tree, as far as it can be read."""
    index = TreeIndex(image)
    for _ in walk(image, index):
        pass
    return index


def survey(image: Image) -> Survey:
    """Walk over the tree of *image*."""
    tree = indexed(image)
    claims = fixed_claims(image)
    claim_runs(claims, image, ((address, image.geometry.node_blocks) for address in (*tree.addresses, *tree.mirrors) if address))
    inodes = directories = names = raw_bytes = blocks = 0
    highest_inode = highest_name = 0
    for _, (keys, values) in tree.leaves(COUNTED_KINDS):
        for key, value in zip(keys, values, strict=True):
            kind = key[9]
            if kind == Kind.INODE and key[0] == Table.FILES:
                highest_inode = max(highest_inode, _counted(object_of(key)))
                if len(value) == Inode.FIXED_BYTES:
                    inodes += 1
                    directories += int.from_bytes(value[:4], "little") >> 12 == FileType.DIRECTORY  # the mode stands first
            elif kind == Kind.NAME and key[0] == Table.NAMES:
                highest_name = max(highest_name, _counted(object_of(key)))
                names += 1
            elif key[0] == Table.FILES:
                record = owned(key, value)
                if record is None:
                    continue
                blocks += record.block_count(image.block_bytes)
                raw_bytes += record.raw_bytes if kind == Kind.DATA_RECORD else 0
                if not record_fault(image, record, None, is_data=kind == Kind.DATA_RECORD):
                    claim_runs(claims, image, record.runs(image.block_bytes))
    told = _told(tree)
    next_inode = _next(highest_inode, told.next_inode if told else 2)
    next_name = _next(highest_name, told.next_name_id if told else 1)
    counted = Counters(next_inode, next_name, inodes, directories, names, raw_bytes, blocks)
    return Survey(image, tree, claims, counted, told)


def owned(key: bytes, value: bytes) -> DataRecord | None:
    """Return the record whose blocks an item owns, or None, also if it cannot be read."""
    try:
        return owned_record(key, value)
    except (CorruptImage, IndexError):
        return None


def claim_runs(claims: Claims, image: Image, runs: Iterable[Run] | Iterable[tuple[int, int]]) -> None:
    """Claim those runs that lie in the image."""
    for first, count in runs:
        if image.holds(first, count):
            claims.claim(first, count)


def marked(image: Image) -> dict[int, bytes]:
    """Return the pages of the map that tells the truth, as far as they can be read: group -> bitmap."""
    superblock = image.superblock
    try:
        pages = list(map_pages(image, superblock.spacemap_active & 1, superblock.spacemap_top))
    except DeviceFailed:
        return {}
    return {page.index: page.raw for page in pages if page.level == 0 and page.raw is not None}


def merged(*parts: Mapping[int, bytes | bytearray]) -> dict[int, bytes]:
    """Return the bitmaps (group -> page) in which all is used that any of *parts* marks."""
    whole: dict[int, bytes] = {}
    for part in parts:
        for group, page in part.items():
            before = int.from_bytes(whole.get(group, b""), "little")
            whole[group] = (before | int.from_bytes(page, "little")).to_bytes(len(page), "little")
    return whole


def _told(tree: TreeIndex) -> Counters | None:
    try:
        return Counters.decode(tree.get(COUNTERS_KEY) or b"")
    except CorruptImage:
        return None


def _next(highest: int, told: int) -> int:
    """Return the number after *highest*, or a later one that was told: numbers are never given twice."""
    return told if highest < told <= COUNT_MAX else highest + 1


def _counted(number: int) -> int:
    """Return *number*, or 0 if no counting can have led to it."""
    return number if number < COUNT_MAX else 0
