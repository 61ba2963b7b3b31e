"""Surgery: changes of structures below the filesystem's rules, held in memory over the image until they are committed.

Invariants: not a byte of the image changes before commit(); every reading command sees what is staged; a node that was changed
carries a right checksum, and so does everything above it, up to every superblock of the newest generation.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from razortools.debug.rawtree import BLOCK_MASK
from razortools.engine.store.admin import noted_in_place
from razortools.engine.store.device import Device
from razortools.engine.store.nodes import judge_node
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.superblocks import find_copies, of_one_filesystem
from razortools.errors import CorruptImage, UsageError
from razortools.format.admin import Action, entry
from razortools.format.node import (
    ITEM_OVERHEAD_BYTES,
    NODE_HEADER_BYTES,
    ChildPointer,
    decode_header,
    decode_items,
    node_checksum,
)
from razortools.format.superblock import SLOT_COUNT, SUPERBLOCK_BYTES, Superblock
from razortools.format.undo import Stage

Edit = Callable[[bytearray], None]


class StagedDevice(OverlayDevice):
    """What the image would be. Closing it leaves the device below open: it belongs to the session."""

    def __init__(self, base: Device) -> None:
        """Lay it over *base*."""
        super().__init__(base)
        self.first_written: dict[int, int] = {}  # block of a node -> block of its copy that can be written over first

    def note_node(self, pointer: ChildPointer) -> None:
        """Note that a node is changed: of its copies the one goes first that is not needed to read it as it was."""
        first, mirror = pointer.address & BLOCK_MASK, pointer.mirror & BLOCK_MASK
        if first in self.first_written:
            return
        superblock = newest_superblock(self.base)
        raw = self.base.read(first * superblock.block_bytes, superblock.node_bytes)
        self.first_written[first] = mirror if mirror and node_checksum(raw) == pointer.crc32c else first

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
    found = of_one_filesystem([copy.superblock for copy in find_copies(device) if copy.superblock])
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


def note_commit(staged: StagedDevice, now_ns: int, change_count: int) -> None:
    """Enter the commit of *staged* in the admin history, where a write of one sector does it."""
    changes = noted_in_place(newest_superblock(staged.base), entry(Action.COMMIT, now_ns, detail=change_count))
    edit_superblocks(staged, lambda found: replace(found, **changes))


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
    if isinstance(device, StagedDevice):
        device.note_node(step.pointer)
    checksum = node_checksum(bytes(step.raw))
    step.raw[4:8] = checksum.to_bytes(4, "little")
    for place in filter(None, (step.pointer.address, step.pointer.mirror)):
        device.write((place & BLOCK_MASK) * superblock.block_bytes, bytes(step.raw))
    header = decode_header(bytes(step.raw))  # what it says of itself may be what was changed
    return replace(step.pointer, crc32c=checksum, generation=header.generation)


class CommitOrder:
    """The order in which surgery is written: at every moment one copy of each node is what the newest superblock says.

    Structures are changed where they lie. One copy of each changed node goes first (AHEAD), then the superblock slot that knows
    of it (TRUTH), then the other copies (BEHIND). All that changes of a superblock lies in its first sector, so a slot is the old
    or the new one. Where nodes have one copy, an image that was cut off in between needs its undo file, which the next mount and
    razorfsck use (check/repair/cut_off.py). See check/repair/write_order.py.
    """

    def __init__(self, staged: StagedDevice) -> None:
        """Sort what is staged. Raises CorruptImage if the image has no superblock."""
        self.superblock = newest_superblock(staged.base)
        size = self.superblock.block_bytes
        self.slots = [slot * size for slot in range(SLOT_COUNT)]
        self._truth = self.superblock.address * size
        node_bytes = self.superblock.node_bytes
        self._ahead = [range(place * size, place * size + node_bytes) for place in staged.first_written.values()]

    def stage(self, offset: int) -> Stage:
        """See Order."""
        if offset == self._truth:
            return Stage.TRUTH
        return Stage.AHEAD if any(offset in part for part in self._ahead) else Stage.BEHIND

    def mark(self, image: Device, *, is_sound: bool) -> None:
        """See Order: nothing is written that would ask for a check."""
