"""The eight verbs: the ways in which a field is changed, and the changes of one structure that follow from its declaration."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from razortools.format.record import Record

VERBS = ("zeros", "ones", "first bit", "middle bit", "last bit", "+1", "-1", "random")


@dataclass(frozen=True, slots=True)
class Change:
    """One field of a structure, changed by one verb."""

    field: str
    verb: str
    offset: int  # of the field in the structure
    data: bytes  # of the field, after


def changed(raw: bytes, verb: str, chance: random.Random, order: Literal["little", "big"] = "little") -> bytes:
    """Return the bytes of a field after *verb*; the same bytes if it changes nothing."""
    bits = 8 * len(raw)
    number = int.from_bytes(raw, order)
    if verb == "zeros":
        return bytes(len(raw))
    if verb == "ones":
        return b"\xff" * len(raw)
    if verb == "random":
        return chance.randbytes(len(raw))
    flips = {"first bit": 1, "middle bit": 1 << bits // 2, "last bit": 1 << bits - 1}
    if verb in flips:
        number ^= flips[verb]
    else:
        number += 1 if verb == "+1" else -1
    return (number % (1 << bits)).to_bytes(len(raw), order)


def changes(structure: type[Record], raw: bytes, chance: random.Random) -> Iterator[Change]:
    """Yield every field of *structure* changed by every verb, as far as that makes a difference."""
    for field in structure.FIELDS:
        size = field.size_bytes or len(raw) - field.offset
        if not size:
            continue
        before = raw[field.offset : field.offset + size]
        for verb in VERBS:
            after = changed(before, verb, chance, "big" if field.type_name.endswith("be") else "little")
            if after != before:
                yield Change(field.name, verb, field.offset, after)
