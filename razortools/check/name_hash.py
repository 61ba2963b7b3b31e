"""What the key of a directory entry tells of its name: it is filed under the name's hash, or a little behind."""

from razortools.check.bitflip import turned
from razortools.format.directory import NAME_BYTES_MAX, is_possible_name
from razortools.format.keys import PROBE_WINDOW, offset_of
from razortools.format.name import hash_name


def may_stand_under(key: bytes, text: bytes, hash_seed: bytes) -> bool:
    """Return whether an entry for *text* may have *key*."""
    low = hash_name(text, hash_seed)
    return low <= offset_of(key) < low + PROBE_WINDOW


def unflipped(key: bytes, text: bytes, hash_seed: bytes) -> bytes | None:
    """Return what *text* was before one bit of it flipped, if an entry for just one such name may have *key*.

    The hash has 63 bits, so no other damage looks like that.
    """
    if len(text) > NAME_BYTES_MAX:
        return None
    near = (turned(text, bit) for bit in range(8 * len(text)))
    found = [name for name in near if may_stand_under(key, name, hash_seed)]
    return found[0] if len(found) == 1 and is_possible_name(found[0]) else None
