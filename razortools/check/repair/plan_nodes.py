"""Nodes of the tree: a bad copy is written anew from the good one, a flipped bit turned back, what is lost rebuilt."""

from razortools.check.bitflip import find_flipped_bit, turned
from razortools.check.findings import Finding
from razortools.check.image import BLOCK_MASK, Image
from razortools.check.repair.draft import Draft
from razortools.check.repair.edits import Verb
from razortools.check.repair.node_shape import shaped
from razortools.check.tree import NodeRead, Place, judge_node, read_node
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.node import NODE_MAGIC, ChildPointer, decode_header, node_checksum

_CHECKED_FROM = 8  # magic and checksum stand before what the checksum covers


def copy(draft: Draft, finding: Finding) -> None:
    """One of two copies is bad."""
    bad = int(finding.block or 0)
    pointer = draft.pointers.get(bad)
    if pointer is None:
        return
    good = pointer.mirror & BLOCK_MASK if pointer.address & BLOCK_MASK == bad else pointer.address & BLOCK_MASK
    if good and draft.image.holds(bad, draft.image.geometry.node_blocks) and _is_meant(draft, good, pointer):
        draft.other(Verb.COPY, f"write the good copy at block {good} over the bad one at block {bad}", block=bad, source=good)


def lost(draft: Draft, finding: Finding) -> None:
    """No copy is good."""
    place = next((place for place in draft.tree.lost if place.pointer.address == finding.block), None)
    if place is not None and (_turn_back(draft, place) or _adopt(draft, place)):
        return
    rebuild(draft, finding)


def _turn_back(draft: Draft, place: Place) -> bool:
    """Plan to turn one bit of one copy, if that makes it the node that its parent means."""
    pointer = place.pointer
    for address in filter(None, (pointer.address & BLOCK_MASK, pointer.mirror & BLOCK_MASK)):
        try:
            raw = draft.on_device.read_blocks(address, draft.image.geometry.node_blocks)
        except (CorruptImage, DeviceFailed):
            continue
        number = _wrong_bit(raw, pointer)
        if number is not None and _is_sound(draft.on_device, place, turned(raw, number)):
            draft.other(
                Verb.FLIP, f"turn bit {number} of the node at block {address}, the only wrong one", block=address, value=number
            )
            return True
    return False


def _wrong_bit(raw: bytes, pointer: ChildPointer) -> int | None:
    """Return which bit of a copy must be turned so that it verifies; None: no single one."""
    head = NODE_MAGIC + pointer.crc32c.to_bytes(4, "little")
    wrong = int.from_bytes(raw[:_CHECKED_FROM], "little") ^ int.from_bytes(head, "little")
    if node_checksum(raw) == pointer.crc32c:
        return wrong.bit_length() - 1 if wrong.bit_count() == 1 else None
    bit = find_flipped_bit(memoryview(raw)[_CHECKED_FROM:], pointer.crc32c) if not wrong else None
    return None if bit is None else bit + 8 * _CHECKED_FROM


def _is_sound(image: Image, place: Place, raw: bytes) -> bool:
    """Return whether a node makes sense in its place: other damage than one flipped bit, if it looks like one, rarely does."""
    visit = judge_node(image, place, NodeRead(raw, place.pointer.address & BLOCK_MASK, ()))
    return visit.header is not None and not visit.wrong and not visit.disorder


def _adopt(draft: Draft, place: Place) -> bool:
    """Plan to write a leaf anew that verifies, but whose header counts wrongly."""
    raw = verified_leaf(draft.on_device, place)
    if raw is None or shaped(raw, place) is None:
        return False
    block = place.pointer.address & BLOCK_MASK
    draft.other(Verb.ADOPT, f"write the leaf at block {block} anew, with the right number of items", block=block)
    return True


def verified_leaf(image: Image, place: Place) -> bytes | None:
    """Return the bytes of a leaf of which a copy is what the parent's checksum says, or None."""
    read = read_node(image, place.pointer) if place.level == 0 else None
    return read.raw if read is not None else None


def rebuild(draft: Draft, finding: Finding) -> None:
    """Plan a new tree; once is enough."""
    if not any(edit.verb is Verb.REBUILD for edit in draft.edits):
        draft.other(Verb.REBUILD, "rebuild the tree from everything that can be read")


def _is_meant(draft: Draft, block: int, pointer: ChildPointer) -> bool:
    """Return whether the node at *block* verifies and says itself that its copies lie where *pointer* says."""
    try:
        raw = draft.on_device.read_blocks(block, draft.image.geometry.node_blocks)
        header = decode_header(raw)
    except (CorruptImage, DeviceFailed):
        return False
    places = header.address, header.mirror
    return node_checksum(raw) == pointer.crc32c and places == (pointer.address, pointer.mirror)
