"""Surgery: changes of structures below the filesystem's rules, held in memory over the image until they are committed.

Invariants: not a byte of the image changes before commit(); every reading command sees what is staged; a node that was changed
carries a right checksum, and so does everything above it, up to every superblock of the newest generation.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from razortools.debug.rawtree import BLOCK_MASK
from razortools.engine.store.device import Device
from razortools.engine.store.nodes import judge_node
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.superblocks import find_copies
from razortools.errors import CorruptImage, UsageError
from razortools.format.geometry import geometry_of
from razortools.format.node import (
    ITEM_OVERHEAD_BYTES,
    NODE_HEADER_BYTES,
    ChildPointer,
    decode_header,
    decode_items,
    node_checksum,
)
from razortools.format.superblock import SLOT_COUNT, SUPERBLOCK_BYTES, Superblock

Edit = Callable[[bytearray], None]


class StagedDevice(OverlayDevice):
    """What the image would be. Closing it leaves the device below open: it belongs to the session."""

    def close(self) -> None:
        """See Device."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change that waits for commit."""

    what: str
    before: str
    after: str


@dataclass(slots=True)
class Surgery:
    """The changes of a session that are not committed."""

    device: StagedDevice
    changes: list[Change] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Step:
    """A node on the way down. *at*: where in the node above its pointer stands."""

    pointer: ChildPointer
    raw: bytearray
    at: int


def newest_superblock(device: Device) -> Superblock:
    """Return the newest superblock that verifies. Raises CorruptImage."""
    found = [copy.superblock for copy in find_copies(device) if copy.superblock]
    if not found:
        raise CorruptImage(f"{device.name}: no copy of its superblock verifies; run razorfsck --rebuild")
    return max(found, key=lambda one: (one.generation, -one.slot))


def edit_superblocks(device: Device, edit: Callable[[Superblock], Superblock], number: int | None = None) -> None:
    """Change the copies of the newest generation, or only copy *number*. Raises CorruptImage if that one does not verify."""
    copies = find_copies(device)
    newest = newest_superblock(device).generation
    if number is not None and number >= len(copies):
        raise UsageError(f"there is no backup {number - SLOT_COUNT + 1}; 'super' lists the copies")
    for place, copy in enumerate(copies):
        chosen = place == number if number is not None else copy.superblock is not None and copy.superblock.generation == newest
        if not chosen:
            continue
        if copy.superblock is None:
            raise CorruptImage(f"the copy at byte {copy.offset} does not verify: {copy.reason}")
        raw = edit(copy.superblock).encode()
        assert len(raw) == SUPERBLOCK_BYTES
        device.write(copy.offset, raw)


def edit_item(device: Device, key: bytes, edit: Callable[[bytes], bytes]) -> None:
    """Change the value of an item to another of the same length. Raises UsageError if it is absent, CorruptImage."""

    def change(raw: bytearray) -> None:
        header = decode_header(bytes(raw))
        keys, values = decode_items(bytes(raw), header)
        if key not in keys:
            raise UsageError("there is no such item; 'item' finds items by the beginning of their keys")
        index = keys.index(key)
        new = edit(values[index])
        if len(new) != len(values[index]):
            raise UsageError(f"the value must keep its length of {len(values[index])} bytes")
        at = NODE_HEADER_BYTES + len(keys) * ITEM_OVERHEAD_BYTES + sum(map(len, values[:index]))
        raw[at : at + len(new)] = new

    _edit_node(device, key, 0, change)


def edit_node(device: Device, block: int, edit: Edit) -> None:
    """Change the node whose copy begins in *block*, both copies. Raises UsageError if the tree does not name it, CorruptImage."""
    superblock = newest_superblock(device)
    raw = device.read(block * superblock.block_bytes, superblock.node_bytes)
    header = decode_header(raw)
    _edit_node(device, header.low, header.level, edit, block)


def _edit_node(device: Device, key: bytes, level: int, edit: Edit, block: int | None = None) -> None:
    """Change the node of *level* on the way to *key*, and every checksum from there up."""
    superblock = newest_superblock(device)
    steps = _way_to(device, superblock, key, level)
    places = [place & BLOCK_MASK for place in (steps[-1].pointer.address, steps[-1].pointer.mirror) if place]
    if block is not None and block not in places:
        raise UsageError(f"the tree does not name the node in block {block}; 'node {block}' tells more")
    edit(steps[-1].raw)
    pointer = _sealed(device, superblock, steps[-1])
    for below, step in zip(reversed(steps), list(reversed(steps))[1:], strict=False):
        step.raw[below.at : below.at + ChildPointer.FIXED_BYTES] = pointer.encode()
        pointer = _sealed(device, superblock, step)
    root = pointer
    edit_superblocks(device, lambda found: replace(found, root=root) if found.root.address == root.address else found)


def _way_to(device: Device, superblock: Superblock, key: bytes, level: int) -> list[_Step]:
    """Return the nodes from the root to that of *level* which covers *key*. Raises CorruptImage if one does not verify."""
    pointer, at = superblock.root, 0
    steps: list[_Step] = []
    for depth in range(superblock.root_level, level - 1, -1):
        raw = _verified(device, superblock, pointer, depth)
        steps.append(_Step(pointer, bytearray(raw), at))
        if depth > level:
            keys, values = decode_items(raw, decode_header(raw))
            index = max(sum(low <= key for low in keys) - 1, 0)
            at = NODE_HEADER_BYTES + len(keys) * ITEM_OVERHEAD_BYTES + sum(map(len, values[:index]))
            pointer = ChildPointer.decode(values[index])
    if not steps:
        raise CorruptImage(f"the tree has no level {level}")
    return steps


def _verified(device: Device, superblock: Superblock, pointer: ChildPointer, level: int) -> bytes:
    """Return the first copy of a node that verifies."""
    tag = int.from_bytes(superblock.uuid[:8], "little")
    reasons = []
    for place in filter(None, (pointer.address, pointer.mirror)):
        raw = device.read((place & BLOCK_MASK) * superblock.block_bytes, superblock.node_bytes)
        try:
            judge_node(raw, pointer, level, tag)
        except CorruptImage as broken:
            reasons.append(str(broken))
            continue
        return raw
    raise CorruptImage(f"the node at block {pointer.address} does not verify ({'; '.join(reasons)}); run razorfsck")


def _sealed(device: Device, superblock: Superblock, step: _Step) -> ChildPointer:
    """Write a node with a right checksum to all of its places; return what the node above must say of it."""
    checksum = node_checksum(bytes(step.raw))
    step.raw[4:8] = checksum.to_bytes(4, "little")
    for place in filter(None, (step.pointer.address, step.pointer.mirror)):
        device.write((place & BLOCK_MASK) * superblock.block_bytes, bytes(step.raw))
    header = decode_header(bytes(step.raw))  # what it says of itself may be what was changed
    return replace(step.pointer, crc32c=checksum, generation=header.generation)


def write_staged(staged: StagedDevice, device: Device) -> int:
    """Write what is staged to *device*: superblocks last, with a flush before and behind. Return the bytes written.

    A power cut in between can leave a part of it: structures are changed where they lie. Raises DeviceFailed.
    """
    superblock = newest_superblock(staged)
    geometry = geometry_of(superblock)
    places = [block * superblock.block_bytes for block in (*range(SLOT_COUNT), *geometry.backups)]
    pages = list(staged.written_pages())
    last = [page for page in pages if page[0] in places]
    for stage in ([page for page in pages if page[0] not in places], last):
        for offset, data in stage:
            device.write(offset, data)
        device.flush()
    return sum(len(data) for _, data in pages)
