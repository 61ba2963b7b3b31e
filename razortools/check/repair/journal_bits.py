"""A flipped bit in the journal: found by the entry's checksum, also where it is a bit of the entry's own length."""

import crc32c

from razortools.check.bitflip import find_flipped_bit
from razortools.check.image import Image
from razortools.check.journal_rules import VALUE_BYTES_MAX, Ring, read_entries
from razortools.engine.store.journal_reader import journal_seed
from razortools.errors import DeviceFailed
from razortools.format.journal import ENTRY_HEAD_BYTES, JOURNAL_MAGIC, JournalEntry, Operation
from razortools.format.keys import KEY_BYTES

_CHECKED_FROM = len(JOURNAL_MAGIC) + 4
_LENGTHS_AT = _CHECKED_FROM + JournalEntry.STRUCT.size - KEY_BYTES - 8  # of undo and redo, right before the key


def flipped_bit(image: Image) -> tuple[int, int] | None:
    """Return (block, bit in it) of the one wrong bit of the entry that ends the walk through the journal, or None."""
    ring = Ring(image)
    at, sequence = image.superblock.journal_tail, image.superblock.journal_sequence
    while True:
        found, _ = read_entries(ring, at, sequence)
        if not found:
            break
        sequence = found[-1].head.sequence + 1
        is_whole = found[-1].head.operation == Operation.COMMIT
        at = ring.block_after(found[-1]) if is_whole else found[-1].end
        if not is_whole:
            break
    bit = _wrong_bit(ring, at, sequence, journal_seed(image.superblock.uuid))
    if bit is None:
        return None
    offset = (at + bit // 8) % ring.bytes + image.geometry.journal_start * image.block_bytes
    return offset // image.block_bytes, offset % image.block_bytes * 8 + bit % 8


def _wrong_bit(ring: Ring, at: int, sequence: int, seed: int) -> int | None:
    """Return which bit of what lies at *at* must be turned so that it is the entry *sequence*; None: no single one."""
    try:
        raw = ring.read(at, ENTRY_HEAD_BYTES)
        head = JournalEntry(*JournalEntry.STRUCT.unpack_from(raw, _CHECKED_FROM))
        told = int.from_bytes(raw[4:8], "little")
        candidates: list[int | None] = []
        magic_wrong = int.from_bytes(raw[:4], "little") ^ int.from_bytes(JOURNAL_MAGIC, "little")
        if magic_wrong.bit_count() > 1:
            return None
        size = head.undo_bytes + head.redo_bytes
        if size <= 2 * VALUE_BYTES_MAX and size + ENTRY_HEAD_BYTES <= ring.bytes:
            body = ring.read(at + _CHECKED_FROM, ENTRY_HEAD_BYTES - _CHECKED_FROM + size)
            syndrome = crc32c.crc32c(body, seed) ^ told
            if magic_wrong:
                candidates.append(magic_wrong.bit_length() - 1 if not syndrome else None)
            elif syndrome.bit_count() == 1:
                candidates.append(32 + syndrome.bit_length() - 1)
            else:
                bit = find_flipped_bit(body, told, seed)
                candidates.append(None if bit is None else bit + 8 * _CHECKED_FROM)
        if not magic_wrong:  # with a wrong length, the checksum is taken over the wrong bytes
            candidates += range(8 * _LENGTHS_AT, 8 * (_LENGTHS_AT + 8))
        return next((bit for bit in candidates if bit is not None and _is_entry(ring, at, bit, sequence, seed)), None)
    except DeviceFailed:
        return None


def _is_entry(ring: Ring, at: int, bit: int, sequence: int, seed: int) -> bool:
    """Return whether the entry *sequence* lies at *at* once *bit* is turned."""
    head_raw = bytearray(ring.read(at, ENTRY_HEAD_BYTES))
    inside = bit < 8 * ENTRY_HEAD_BYTES
    if inside:
        head_raw[bit >> 3] ^= 1 << (bit & 7)
    head = JournalEntry(*JournalEntry.STRUCT.unpack_from(head_raw, _CHECKED_FROM))
    size = head.undo_bytes + head.redo_bytes
    if (
        head_raw[:4] != JOURNAL_MAGIC
        or head.sequence != sequence
        or size > 2 * VALUE_BYTES_MAX
        or size > ring.bytes - ENTRY_HEAD_BYTES
    ):
        return False
    values = bytearray(ring.read(at + ENTRY_HEAD_BYTES, size))
    if not inside:
        values[(bit >> 3) - ENTRY_HEAD_BYTES] ^= 1 << (bit & 7)
    found = crc32c.crc32c(bytes(values), crc32c.crc32c(bytes(head_raw[_CHECKED_FROM:]), seed))
    return bool(found == int.from_bytes(head_raw[4:8], "little"))
