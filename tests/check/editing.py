"""Editing images below the engine: change one thing and make every checksum up to the superblock right again."""

import struct
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import crc32c

from razortools.check.facts import InodeFacts, SuperblockFacts
from razortools.check.image import Image
from razortools.check.journal_rules import Entry, Ring, read_entries
from razortools.check.selection import find_path
from razortools.check.steps import finished
from razortools.check.superblock_pass import check as check_superblock
from razortools.check.tree import TreeIndex, walk
from razortools.engine.store.device import Device
from razortools.engine.store.journal_reader import journal_seed
from razortools.engine.store.recovery import open_store
from razortools.engine.store.store import Store
from razortools.format.items import decode_item
from razortools.format.journal import JOURNAL_MAGIC, JournalEntry
from razortools.format.keys import Kind, inode_key, kind_range
from razortools.format.node import CHILD_BYTES, NODE_HEADER_BYTES, ChildPointer, decode_header, decode_items, node_checksum
from razortools.format.superblock import SUPERBLOCK_BYTES, Superblock
from razortools.units import InodeNo

Edit = Callable[[bytearray], None]


def facts_of(device: Device) -> SuperblockFacts:
    """Return what the superblock phase finds."""
    found = finished(check_superblock(device))
    assert found is not None
    return found


def image_of(device: Device) -> Image:
    """Return the image as its newest superblock describes it."""
    return facts_of(device).image


def flip(device: Device, offset: int, bit: int = 0) -> None:
    """Flip one bit."""
    device.write(offset, bytes([device.read(offset, 1)[0] ^ 1 << bit]))


def write_superblocks(device: Device, *, slots: bool = True, backups: bool = False, **changes: Any) -> None:
    """Change fields in the copies of the superblock, each of which keeps what else it holds."""
    image = image_of(device)
    places = [0, 1] if slots else []
    places += list(image.geometry.backups) if backups else []
    for place in places:
        rewrite_superblock(device, place, image.block_bytes, **changes)


def rewrite_superblock(device: Device, place: int, block_bytes: int, **changes: Any) -> None:
    """Change fields of the copy in block *place*."""
    found = Superblock.decode(device.read(place * block_bytes, SUPERBLOCK_BYTES))
    device.write(place * block_bytes, replace(found, **changes).encode())


@contextmanager
def editing(device: Device) -> Iterator[Store]:
    """Open the tree for raw edits (store.tree.put, .delete), then write a checkpoint. Blocks and counters stay as they are."""
    store, _ = open_store(device)
    yield store
    store.checkpoint(store.superblock.written_at_ns)


def edit_item(device: Device, key: bytes, **changes: Any) -> None:
    """Change fields of the item *key*."""
    with editing(device) as store:
        value = store.tree.get(key)
        assert value is not None
        record = decode_item(key, value)
        values = {field.name: getattr(record, field.name) for field in type(record).FIELDS}
        store.tree.put(key, type(record)(**(values | changes)).encode())


def edit_inode(device: Device, ino: InodeNo, **changes: Any) -> None:
    """Change fields of an inode."""
    edit_item(device, inode_key(ino), **changes)


def first_item(device: Device, ino: InodeNo, kind: Kind) -> tuple[bytes, bytes]:
    """Return the first item of a kind of an inode."""
    return next(iter(all_items(device, ino, kind)))


def all_items(device: Device, ino: InodeNo, kind: Kind) -> list[tuple[bytes, bytes]]:
    """Return the items of a kind of an inode."""
    index = indexed(device)
    return list(index.range_items(*kind_range(ino, kind)))


def indexed(device: Device) -> TreeIndex:
    """Return the tree's index."""
    image = image_of(device)
    index = TreeIndex(image)
    for _ in walk(image, index):
        pass
    return index


def find_inode(device: Device, path: str) -> InodeNo:
    """Return the inode of *path*."""
    nothing = array("Q")
    facts = InodeFacts(indexed(device), nothing, nothing, nothing, nothing, {}, None)
    found = find_path(facts, path)
    assert found is not None, path
    return found


def rewrite_node(device: Device, wanted: Callable[[int, bytes], bool], edit: Edit) -> int:
    """Edit the first node for which wanted(level, raw) holds, in all copies, with right checksums up to the superblocks.

    Returns its first block.
    """
    image = image_of(device)
    pointer, address = _rewrite(image, image.superblock.root, image.superblock.root_level, wanted, edit)
    assert address, "no such node"
    slot = image.superblock.slot
    rewrite_superblock(device, slot, image.block_bytes, root=pointer)
    return address


def _rewrite(
    image: Image, pointer: ChildPointer, level: int, wanted: Callable[[int, bytes], bool], edit: Edit
) -> tuple[ChildPointer, int]:
    raw = bytearray(image.read_blocks(pointer.address, image.geometry.node_blocks))
    touched = 0
    if wanted(level, bytes(raw)):
        edit(raw)
        touched = pointer.address
    elif level:
        header = decode_header(bytes(raw))
        _, values = decode_items(bytes(raw), header)
        start = NODE_HEADER_BYTES + header.item_count * (CHILD_BYTES - ChildPointer.FIXED_BYTES)
        for number, value in enumerate(values):
            child, touched = _rewrite(image, ChildPointer.decode(value), level - 1, wanted, edit)
            if touched:
                at = start + number * ChildPointer.FIXED_BYTES
                raw[at : at + ChildPointer.FIXED_BYTES] = child.encode()
                break
    if not touched:
        return pointer, 0
    checksum = node_checksum(bytes(raw))
    raw[4:8] = checksum.to_bytes(4, "little")
    for place in filter(None, (pointer.address, pointer.mirror)):
        image.device.write(place * image.block_bytes, bytes(raw))
    return replace(pointer, crc32c=checksum), touched


def rewrite_entry(device: Device, number: int, *, redo: bytes | None = None, **changes: Any) -> None:
    """Change fields of entry *number* of the waiting journal (-1: its last commit entry), with a right checksum."""
    image = image_of(device)
    entry = journal_entries(image)[number]
    head = replace(entry.head, **changes)
    body = JournalEntry.STRUCT.pack(*JournalEntry._FLATTEN(head)) + entry.undo + (entry.redo if redo is None else redo)
    sealed = JOURNAL_MAGIC + struct.pack("<L", crc32c.crc32c(body, journal_seed(image.superblock.uuid))) + body
    write_journal(image, entry.position, sealed)


def write_journal(image: Image, position: int, data: bytes) -> None:
    """Write into the ring; *data* must not reach over its end."""
    offset = position % image.geometry.journal_bytes
    assert offset + len(data) <= image.geometry.journal_bytes
    image.device.write(image.geometry.journal_start * image.block_bytes + offset, data)


def journal_entries(image: Image) -> list[Entry]:
    """Return all entries that wait in the journal."""
    ring = Ring(image)
    position, sequence = image.superblock.journal_tail, image.superblock.journal_sequence
    entries: list[Entry] = []
    while True:
        found, reason = read_entries(ring, position, sequence)
        if not found or reason:
            return entries
        entries += found
        sequence = found[-1].head.sequence + 1
        position = ring.block_after(found[-1])
