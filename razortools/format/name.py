"""The string table: each different name is stored once and counted."""

import hashlib
from typing import Annotated

from construct import GreedyBytes, Int32ul

from razortools.format.keys import HASH_MAX, HASH_MIN
from razortools.format.record import Record, record


@record()
class Name(Record):
    """A string and how many directory entries use it. Ids are handed out in order and never used twice."""

    reference_count: Annotated[int, Int32ul * "directory entries with this name"]
    text: Annotated[bytes, GreedyBytes * "the name: 1 to 255 bytes, no '/' and no NUL"]


def hash_name(name: bytes, seed: bytes) -> int:
    """Return the keyed 63-bit hash under which *name* is filed: BLAKE2b (RFC 7693) with the volume's secret seed.

    Keyed, so that nobody can prepare names that collide. The result leaves room for cookies below and the probe
    window above.
    """
    value = int.from_bytes(hashlib.blake2b(name, digest_size=8, key=seed).digest(), "little") >> 1
    return value if HASH_MIN <= value <= HASH_MAX else HASH_MIN + value % (HASH_MAX - HASH_MIN)
