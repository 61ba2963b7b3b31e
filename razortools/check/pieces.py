"""Pieces: the contents of a file as stretches of bytes, each of which can be read or not, to be compared with another file's.

Invariants: pieces come in rising order; what no stored piece covers, up to the size, reads as zeros; patches lie over what can be
read, as a mount lays them; no more of a file is in memory than the pieces at hand.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from razortools.check.inventory import Inventory, identity_of, patch_identity, unpack_inline
from razortools.errors import RazorError
from razortools.format.data import RECORD_BYTES_MAX, DataRecord, Patch
from razortools.format.inode import Inode
from razortools.format.keys import KIND_AT, Kind, Table, inline_key, inode_key, kind_range, object_range, offset_of, record_key
from razortools.format.node import patch_bytes
from razortools.format.unpacking import unpack_record
from razortools.units import InodeNo, RecordNo

FAR = 1 << 64  # behind every file
_ZEROS = b""  # identity of what no piece covers


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes *first* to *behind* of a file. *identity* None: they cannot be read; empty: zeros that are stored nowhere."""

    first: int
    behind: int
    identity: bytes | None
    key: bytes = b""
    start: int = 0  # where the bytes of the item *key* begin in the file

    @property
    def is_patch(self) -> bool:
        """Whether a patch holds these bytes."""
        return self.key[KIND_AT : KIND_AT + 1] == bytes([Kind.PATCH])


@dataclass(frozen=True, slots=True)
class Difference:
    """Bytes that are not any more what they were. *was_readable*: something that was stored there could be read before.

    *is_gain*: nothing was stored there before, or it was older; it was found elsewhere.
    """

    first: int
    behind: int
    was_readable: bool
    is_gain: bool = False


def inode_of(inventory: Inventory, number: int) -> Inode | None:
    """Return the inode, or None."""
    assert inventory.facts is not None
    value = inventory.facts.tree.get(inode_key(InodeNo(number)))
    return Inode.decode(value) if value is not None and len(value) == Inode.FIXED_BYTES else None


def pieces(inventory: Inventory, number: int) -> Iterator[Piece]:
    """Yield the pieces of a file or symbolic link, holes included, from byte 0 to FAR."""
    inode = inode_of(inventory, number)
    if inode is None or not (inode.is_regular or inode.is_symlink) or inode.record_bytes > RECORD_BYTES_MAX:
        yield Piece(0, FAR, None)
        return
    yield from _patched(_recorded(inventory, number, inode), _patches(inventory, number))


def _recorded(inventory: Inventory, number: int, inode: Inode) -> Iterator[Piece]:
    """Yield what lies under the patches, holes included, from byte 0 to FAR."""
    at = 0
    for piece in _stored(inventory, number, inode):
        if piece.behind <= at:
            continue
        if piece.first > at:
            yield Piece(at, piece.first, _ZEROS)
        at = piece.behind
        yield piece
    yield Piece(at, FAR, _ZEROS)


def _stored(inventory: Inventory, number: int, inode: Inode) -> Iterator[Piece]:
    """Yield the pieces that are stored, and those that may have been in a lost node."""
    facts = inventory.facts
    assert facts is not None
    inline = facts.tree.get(inline_key(InodeNo(number)))
    # Of bytes that are kept twice those in blocks count: so they do for who repairs it.
    if inline is not None and facts.tree.get(record_key(InodeNo(number), RecordNo(0))) is None:
        key = inline_key(InodeNo(number))
        identity = identity_of(facts, inventory.broken, key, inline)
        try:
            length = len(unpack_inline(inline))
        except (RazorError, IndexError):
            length = inode.record_bytes
        yield Piece(0, length, identity, key)
    lost = [*_lost(inventory, number, inode)]
    for key, value in facts.tree.range_items(*kind_range(InodeNo(number), Kind.DATA_RECORD)):
        first = offset_of(key) * inode.record_bytes
        while lost and lost[0].first <= first:
            yield lost.pop(0)
        identity = identity_of(facts, inventory.broken, key, value)
        # What cannot be read hurts all that the record may have held.
        length = DataRecord.decode(value).raw_bytes if identity is not None else inode.record_bytes
        yield Piece(first, first + length, identity, key, first)
    yield from lost


def _patches(inventory: Inventory, number: int) -> Iterator[Piece]:
    """Yield the patches of a file, each as far as the next one does not lie over it."""
    facts = inventory.facts
    assert facts is not None
    step = patch_bytes(facts.tree.image.geometry.node_bytes)
    last: Piece | None = None
    for key, value in facts.tree.range_items(*object_range(Table.PATCHES, number)):
        first = offset_of(key)
        identity = patch_identity(value)
        if last is not None:
            yield replace(last, behind=min(last.behind, first))
        last = Piece(first, first + (step if identity is None else len(identity)), identity, key, first)
    if last is not None:
        yield last


def _patched(below: Iterator[Piece], patches: Iterator[Piece]) -> Iterator[Piece]:
    """Yield the pieces *below* with *patches* laid over those that can be read: the others nobody can read, patched or not."""
    patch = next(patches, None)
    for piece in below:
        at = piece.first
        while patch is not None and patch.first < piece.behind and piece.identity is not None:
            first, behind = max(at, patch.first), min(patch.behind, piece.behind)
            if first > at:
                yield replace(piece, first=at, behind=first)
            if first < behind:
                yield replace(patch, first=first, behind=behind)
            at = max(first, behind)
            if patch.behind > piece.behind:
                break  # the rest of it lies over what follows
            patch = next(patches, None)
        if at < piece.behind:
            yield replace(piece, first=at)


def _lost(inventory: Inventory, number: int, inode: Inode) -> Iterator[Piece]:
    """Yield the bytes whose records may have been in a lost node, or the whole file if its inline data may have been."""
    assert inventory.facts is not None
    low, high = kind_range(InodeNo(number), Kind.DATA_RECORD)
    inline = inline_key(InodeNo(number))
    for place in inventory.lost_within(min(inline, low), max(inline, high)):
        if place.low <= inline < place.high:
            yield Piece(0, FAR, None)
            return
        if place.low > high or place.high <= low:
            continue
        first = offset_of(place.low) if place.low > low else 0
        behind = offset_of(place.high) * inode.record_bytes if place.high <= high else FAR
        yield Piece(first * inode.record_bytes, behind, None)


def differences(before: Inventory, after: Inventory, number: int, number_after: int) -> Iterator[Difference]:
    """Yield what of a file in *before* does not read the same in *after*, in rising order.

    What could not be read before and can be read now is no difference: it was mended. If zeros stand now where nothing could be
    read before, it is one: nobody can tell them from data. So it is if a patch that cannot be read is gone: older bytes show now.
    """
    old, new = inode_of(before, number), inode_of(after, number_after)
    if old is None:
        return
    size_after = new.size if new is not None else 0
    for first, behind, one, other in _side_by_side(before, after, number, number_after):
        kept = min(behind, old.size, size_after)
        if first < kept:
            yield from _difference(before, after, one, other, first, kept)
        cut = min(behind, old.size)
        if max(first, kept) < cut:  # the file ends earlier than it did
            yield Difference(max(first, kept), cut, was_readable=bool(one.identity))
        if behind >= old.size:
            return


def _difference(before: Inventory, after: Inventory, one: Piece, other: Piece, first: int, behind: int) -> Iterator[Difference]:
    """Judge a stretch that both files have."""
    if other.identity is None:
        yield Difference(first, behind, was_readable=one.identity is not None)
    elif one.identity is None:
        if other.identity == _ZEROS or (one.is_patch and not other.is_patch):
            yield Difference(first, behind, was_readable=False)
    elif not _is_same(before, after, one, other, first, behind):
        is_gain = one.identity == _ZEROS or (other.is_patch and not one.is_patch)
        yield Difference(first, behind, was_readable=not is_gain, is_gain=is_gain)


def _side_by_side(before: Inventory, after: Inventory, number: int, number_after: int) -> Iterator[tuple[int, int, Piece, Piece]]:
    """Yield (first byte, first behind, piece before, piece after) for stretches that lie in one piece on both sides."""
    left, right = pieces(before, number), pieces(after, number_after)
    one, other = next(left), next(right)
    at = 0
    while at < FAR:
        behind = min(one.behind, other.behind)
        yield at, behind, one, other
        at = behind
        if at < FAR and one.behind == at:
            one = next(left)
        if at < FAR and other.behind == at:
            other = next(right)


def _is_same(before: Inventory, after: Inventory, one: Piece, other: Piece, first: int, behind: int) -> bool:
    """Return whether a stretch, readable on both sides, holds the same bytes."""
    if (one.start, one.identity, one.is_patch) == (other.start, other.identity, other.is_patch):
        return True
    return _bytes(before, one, first, behind) == _bytes(after, other, first, behind)


def _bytes(inventory: Inventory, piece: Piece, first: int, behind: int) -> bytes | None:
    """Return bytes *first* to *behind*, which lie in *piece*; zeros without end are an empty string."""
    if not piece.identity:
        return b""
    facts = inventory.facts
    assert facts is not None
    value = facts.tree.get(piece.key)
    try:
        raw = _unpacked(inventory, piece.key, value or b"")
    except (RazorError, IndexError):
        return None
    return raw[first - piece.start : behind - piece.start].rstrip(b"\0")


def _unpacked(inventory: Inventory, key: bytes, value: bytes) -> bytes:
    if key[9] == Kind.INLINE_DATA:
        return unpack_inline(value)
    if key[9] == Kind.PATCH:
        return Patch.decode(value).data
    assert inventory.facts is not None
    image = inventory.facts.tree.image
    record = DataRecord.decode(value)
    stored = image.read_runs(record.runs(image.block_bytes))
    return unpack_record(record, stored)


def is_partly_readable(inventory: Inventory, number: int) -> bool:
    """Return whether anything of a file can be read, or there is nothing in it that could be lost."""
    inode = inode_of(inventory, number)
    if inode is None:
        return False
    if not (inode.is_regular or inode.is_symlink) or inode.size == 0:
        return True
    seen = [piece.identity for piece in pieces(inventory, number) if piece.first < inode.size]
    return any(seen) or (inode.is_regular and None not in seen)  # a file of holes can be read; a link without a target cannot
